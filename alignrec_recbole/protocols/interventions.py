"""Interventions on a trained model: one modality's features are replaced, and all users ranked."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.utils import ModelType
from torch import Tensor

from alignrec_recbole.evaluation.list_agreement import overlap, rank_biased_overlap
from alignrec_recbole.evaluation.ranking import Ranking
from alignrec_recbole.features.item_order import canonical_order, seeded_order
from alignrec_recbole.features.table import ItemFeatures
from alignrec_recbole.models._content import ModalityFeatures
from alignrec_recbole.runs.lists import LIST_LENGTH
from alignrec_recbole.runs.prepared import PreparedRun
from alignrec_recbole.runs.tasks import graph_searches, test_task
from alignrec_recbole.runtime import random_state
from alignrec_recbole.runtime.progress import announce
from alignrec_recbole.training.trainer import MultimodalTrainer

DEPTH = 20  # of the lists that are compared
TABLES, GRAPHS = "features", "features and item graphs"  # what is replaced

Change = Callable[[Tensor, np.ndarray], Tensor]  # rows [item_num, f], who has them → new rows


class Intervention(NamedTuple):
    """What is done to which feature sets.

    Attributes:
        name: as in records.
        sets: places of the feature sets in the data set's order.
        change: what becomes of their rows.
    """

    name: str
    sets: tuple[int, ...]
    change: Change


def interventions(names: Sequence[str], tokens: Sequence[str], draws: int) -> list[Intervention]:
    """Zero, mean and permutations of every feature set, and of all together if there are several.

    Args:
        names: of the feature sets.
        tokens: item token by internal id.
        draws: number of permutations; each is the same for all sets.
    """
    changes: dict[str, Change] = {"zero": _zero, "mean": _mean}
    for draw in range(draws):
        order = canonical_order(tokens), seeded_order(tokens, draw)
        changes[f"permutation {draw}"] = partial(_permuted, *order)
    which: dict[str, tuple[int, ...]] = {name: (place,) for place, name in enumerate(names)}
    if len(names) > 1:
        which["all"] = tuple(range(len(names)))
    return [
        Intervention(f"{name}: {kind}", sets, change)
        for (name, sets), (kind, change) in itertools.product(which.items(), changes.items())
    ]


def _zero(rows: Tensor, has: np.ndarray) -> Tensor:
    return torch.zeros_like(rows)


def _mean(rows: Tensor, has: np.ndarray) -> Tensor:
    out, there = torch.zeros_like(rows), torch.from_numpy(has).to(rows.device)
    if has.any():
        out[there] = rows[there].double().mean(0).to(rows.dtype)
    return out


def _permuted(items: np.ndarray, drawn: np.ndarray, rows: Tensor, has: np.ndarray) -> Tensor:
    out = torch.zeros_like(rows)
    into, taken = (torch.from_numpy(each[has[each]]).to(rows.device) for each in (items, drawn))
    out[into] = rows[taken]
    return out


def examine(
    prepared: PreparedRun, trainer: MultimodalTrainer, ranking: Ranking, *, draws: int
) -> dict[str, Any]:
    """Rank the test split once per intervention; `groups` and `notes` of the record.

    Args:
        ranking: the test ranking without an intervention.
        draws: permutations of each feature set.
    """
    model, dataset = trainer.model, prepared.splits[0]
    if type(model).type == ModelType.TRADITIONAL:
        return {"notes": ["no interventions: the model is not trained in steps"]}
    names = list(prepared.feature_files)
    planned = interventions(names, dataset.field2id_token[dataset.iid_field], draws)
    groups: dict[str, dict[str, dict[str, float]]] = {}
    task, length = test_task(prepared), max(LIST_LENGTH, *trainer.cutoffs)
    for place, each in enumerate(planned):
        announce(f"intervention {place + 1} of {len(planned)}: {each.name}")
        if _tables(model):
            with replaced(model, each):
                changed = trainer.rank(task, length)
            groups.setdefault(TABLES, {})[each.name] = _compared(ranking, changed)
        trainer.model = rebuilt(prepared, model, each)
        try:
            with replaced(trainer.model, each):
                changed = trainer.rank(task, length)
        finally:
            trainer.model = model
        groups.setdefault(GRAPHS, {})[each.name] = _compared(ranking, changed)
    dataset.release_features()
    times = 1 + sum(map(len, groups.values()))
    return {"groups": groups, "notes": [f"the test split was ranked {times} times"]}


def _compared(ranking: Ranking, changed: Ranking) -> dict[str, float]:
    one, other = ranking.items[:, :DEPTH], changed.items[:, :DEPTH]
    return {
        **changed.means(["Recall", "NDCG"], [DEPTH]),
        f"overlap@{DEPTH}": float(overlap(one, other).mean()),
        f"RBO@{DEPTH}": float(rank_biased_overlap(one, other).mean()),
        "same list": float((one == other).all(1).mean()),
    }


def _tables(model: Any) -> list[ModalityFeatures]:
    return [part for part in model.modules() if isinstance(part, ModalityFeatures)]


@contextlib.contextmanager
def replaced(model: Any, intervention: Intervention) -> Iterator[None]:
    """The model with feature tables as the intervention leaves them: learnt ones if it learns any.

    What the model knows of missing items does not change.
    """
    before = [(part, number, part[number].detach()) for part in _tables(model)
              for number in range(len(part))]  # fmt: skip
    try:
        for part in _tables(model):
            blocks = part.blocks()
            for place in intervention.sets:
                number, columns, has = blocks[place]
                values = part[number].detach().clone()
                values[:, columns] = intervention.change(values[:, columns], has.cpu().numpy())
                part.replace(number, values)
        yield
    finally:
        for part, number, values in before:
            part.replace(number, values)


def rebuilt(prepared: PreparedRun, model: Any, intervention: Intervention) -> Any:
    """The model built again on changed features, with its trained weights and feature tables.

    So its item graphs, which follow the features, are others.
    """
    dataset = copy.copy(prepared.splits[0])
    given = list(prepared.splits[0].features.items())
    dataset._features = {
        name: _changed(table, intervention.change) if place in intervention.sets else table
        for place, (name, table) in enumerate(given)
    }
    with random_state.kept(), graph_searches(prepared):
        other = prepared.components.model_class(prepared.config, dataset)
    other = other.to(prepared.config["device"])
    other.load_state_dict(model.state_dict())
    for own, trained in zip(_tables(other), _tables(model), strict=True):
        for number in range(len(own)):
            own.replace(number, trained[number].detach())
    return other


def _changed(table: ItemFeatures, change: Change) -> ItemFeatures:
    values = change(torch.from_numpy(table.values), table.present).numpy()
    return ItemFeatures(values, table.present, table.manifest)
