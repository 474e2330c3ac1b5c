"""A finished run's model, stored beside its record for `load_model`, `recommend` and `export`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch

from alignrec_recbole._version import __version__
from alignrec_recbole.errors import RecordError
from alignrec_recbole.evaluation.ranking import Ranking, block_users, user_blocks
from alignrec_recbole.features.content_map import ContentMap
from alignrec_recbole.features.item_order import TIE_SEED
from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.runs.prepared import PreparedRun
from alignrec_recbole.runs.saved_model import (
    CARD_SUFFIX,
    FOLDER,
    SUFFIX,
    ContentCard,
    Kind,
    ModelCard,
    SavedModel,
    sums_of_rows,
    write_model,
)
from alignrec_recbole.runtime import random_state
from alignrec_recbole.runtime.progress import announce
from alignrec_recbole.runtime.random_state import RandomStates
from alignrec_recbole.runtime.sizes import file_size

if TYPE_CHECKING:
    from alignrec_recbole.training.trainer import MultimodalTrainer

CHECKED_USERS = 64  # whose scores by a similarity must equal the model's
_NAMED = {"vectors": "vectors", "similarity": "similarities of items", "scores": "scores"}
_SIMILARITY = ("item_similarity", "w", "neighbours")  # attributes of RecBole's models and of ours


def keep(
    prepared: PreparedRun,
    trainer: MultimodalTrainer,
    ranking: Ranking,
    metrics: dict[str, float],
    drawn: RandomStates,
) -> dict[str, Any] | None:
    """Write the model of a run whose test split was ranked.

    Args:
        drawn: the generators before the ranking; a model that draws while it scores draws the
            same once more.

    Returns:
        file name, SHA-256 and bytes, for the record; None if the model would be larger than
        `spec.save_limit`, which is announced with its size.
    """
    train, valid, _ = prepared.splits
    shape = (train.user_num, train.item_num)
    histories = _csr(train, shape)
    limit = prepared.spec.save_limit
    kind, tables, size = _tables(trainer, ranking.users, histories, limit, drawn)
    content, refused = _content(trainer.model, train, limit)
    if not tables:
        announce(
            f"the model of {prepared.spec.model} is not stored: its {_NAMED[kind]} need "
            f"{file_size(size)}, and the limit is {file_size(limit)}; `run` with --overwrite "
            f"and --save-limit {_rounded_up(size)} (in Python save_limit) stores it"
        )
        return None
    card = ModelCard(
        kind=kind,
        model=prepared.spec.model,
        dataset=prepared.spec.dataset,
        features=prepared.feature_name,
        setting=prepared.config["setting"],
        seed=prepared.spec.seed,
        users=shape[0] - 1,
        items=shape[1] - 1,
        list_length=ranking.items.shape[1],
        tie_seed=TIE_SEED,
        metrics=metrics,
        config=prepared.effective_config,
        config_sha256=prepared.config_hash,
        package_version=__version__,
        sha256="0" * 64,
        content=None
        if content is None
        else ContentCard(rule=content.rule, sets=content.sets, numbers=content.numbers),
        content_refused=refused,
    )
    path, card_path = _paths(prepared)
    model = SavedModel(
        card,
        users=train.field2id_token[train.uid_field][1:],
        items=train.field2id_token[train.iid_field][1:],
        train=histories,
        valid=_csr(valid, shape),
        ranked=ranking.users,
        tables=tables,
        content=content,
    )
    written = write_model(path, card_path, model)
    return {"file": path.name, "sha256": written.sha256, "bytes": path.stat().st_size}


def forget(prepared: PreparedRun) -> None:
    """Delete the model that an earlier run of this configuration and seed left."""
    for path in _paths(prepared):
        if is_regular_file(path):
            path.unlink(missing_ok=True)


def check_place(prepared: PreparedRun) -> None:
    """Refuse something other than a file in the place of a model, before anything is trained.

    Raises:
        RecordError: with its path; it is never replaced.
    """
    for path in _paths(prepared):
        if os.path.lexists(path) and not is_regular_file(path):
            raise RecordError(
                f"The model {path.name} cannot be written.",
                found=f"something other than a regular file at {path}",
                expected="nothing, or the model of an earlier run",
                hint="move it away, or pass --no-save or another --output",
            )


def _paths(prepared: PreparedRun) -> tuple[Path, Path]:
    return prepared.path(FOLDER, SUFFIX), prepared.path(FOLDER, CARD_SUFFIX)


def _csr(split: Any, shape: tuple[int, int]) -> sp.csr_matrix:
    users = split.inter_feat[split.uid_field].numpy()
    items = split.inter_feat[split.iid_field].numpy()
    matrix = sp.csr_matrix((np.ones(len(users), dtype=bool), (users, items)), shape=shape)
    matrix.sum_duplicates()
    matrix.sort_indices()
    return matrix


def _content(model: Any, dataset: Any, limit: int) -> tuple[ContentMap | None, str]:
    """How a model scores new items, or None and why it does not."""
    if not hasattr(model, "new_items"):
        return None, "RecBole's models and plug-ins without `new_items` do not say how"
    found = model.new_items(dataset)
    if found is None:
        return None, model.new_items_refused
    if found.nbytes > limit:
        why = f"what it needs of the features has {file_size(found.nbytes)}, above the limit of "
        why += f"{file_size(limit)} (--save-limit, in Python save_limit)"
        announce(f"new items will not be scored by this model: {why}")
        return None, why
    return found, ""


def _rounded_up(size: int) -> str:
    """A limit that is enough for so many bytes, as `bytes_of` reads it.

    >>> _rounded_up(1_348_057_796), _rounded_up(5)
    ('1349MB', '1MB')
    """
    return f"{-(-size // 10**6)}MB"


@torch.inference_mode()
def _tables(
    trainer: MultimodalTrainer,
    ranked: np.ndarray,
    histories: sp.csr_matrix,
    limit: int,
    drawn: RandomStates,
) -> tuple[Kind, dict[str, Any], int]:
    """Tables that give the model's scores exactly, and their bytes.

    Returns:
        vectors, else similarities, else scores; no tables if the smaller ones of these two have
        more bytes than `limit`.
    """
    model = trainer.model
    n_users, n_items = histories.shape
    scores = trainer.scorer(n_items)
    vectors = model.scoring_vectors() if hasattr(model, "scoring_vectors") else None
    if vectors is not None and all(part.dtype == torch.float32 for part in vectors):
        users, items = (part.detach().cpu().numpy() for part in vectors)
        return "vectors", {"users": users, "items": items}, users.nbytes + items.nbytes
    similarity = _similarity(model, scores, ranked, histories)
    sizes: dict[Kind, int] = {"scores": 4 * n_users * n_items}
    if similarity is not None:
        sizes["similarity"] = (
            similarity.nbytes if isinstance(similarity, np.ndarray) else 8 * similarity.nnz
        )
        if sizes["similarity"] <= limit:
            return "similarity", {"similarity": similarity}, sizes["similarity"]
    if sizes["scores"] > limit:
        smaller = min(sizes, key=sizes.__getitem__)
        return smaller, {}, sizes[smaller]
    table = np.zeros((n_users, n_items), dtype=np.float32)
    with random_state.kept():
        drawn.restore(trainer.device)
        for users in user_blocks(ranked, n_users, block_users(n_items, trainer.device)):
            part = scores(torch.from_numpy(users).to(trainer.device))
            table[users] = part.view(len(users), n_items).cpu().numpy()
    return "scores", {"scores": table}, table.nbytes


def _similarity(
    model: Any, scores: Any, ranked: np.ndarray, histories: sp.csr_matrix
) -> np.ndarray | sp.csr_matrix | None:
    """A model's matrix of items × items, if the sum of its rows gives the model's very scores."""
    n_items = histories.shape[1]
    for name in _SIMILARITY:
        matrix: Any = getattr(model, name, None)
        if sp.issparse(matrix):
            matrix = sp.csr_matrix(matrix)
        elif isinstance(matrix, np.ndarray):
            matrix = np.asarray(matrix)  # no np.matrix
        else:
            continue
        if matrix.shape != (n_items, n_items) or matrix.dtype != np.float32:
            continue
        users = ranked[:CHECKED_USERS]
        expected = scores(torch.from_numpy(users)).view(len(users), n_items).cpu().numpy()
        if np.array_equal(expected, sums_of_rows(histories[users], matrix)):
            return matrix
    return None
