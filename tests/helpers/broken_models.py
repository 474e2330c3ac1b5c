"""Models that are wrong on purpose, each in one way that one check is there to see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignrec_recbole.dataset import MultimodalDataset
from alignrec_recbole.encoders.cache import find_or_encode
from alignrec_recbole.evaluation.ranking import EvalTask
from alignrec_recbole.graphs.item_item import item_graph
from alignrec_recbole.models.alignrec import AlignRec
from alignrec_recbole.models.bpr import BPR
from alignrec_recbole.models.lightgcn import LightGCN
from alignrec_recbole.models.pop import Pop
from alignrec_recbole.models.positional_canary import PositionalCanary
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.testing.testbed import ModelUnderTest, model_under_test
from alignrec_recbole.training.trainer import MultimodalTrainer


@dataclass(frozen=True)
class BrokenModel:
    """A model, the check that must fail, what it must say, and checks that also fail."""

    under_test: ModelUnderTest
    check: str
    says: str
    also: frozenset[str] = frozenset()


def broken(model: Any, check: str, says: str, also: str = "", **parts: Any) -> BrokenModel:
    """Break a registered model: its class, or with `parts` what it is run with."""
    base = {AlignRec: "AlignRec", BPR: "BPR", LightGCN: "LightGCN", Pop: "Pop"}
    name = next(base[kind] for kind in model.__mro__ if kind in base)
    label = next(iter(parts.values())).__name__ if parts else model.__name__
    under_test = replace(model_under_test(name), name=label, model_class=model, **parts)
    return BrokenModel(under_test, check, says, frozenset(also.split()))


# The answer -------------------------------------------------------------------------------------


class WrongSign(BPR):
    """Ranks the worst first."""

    def full_sort_predict(self, interaction: Any) -> Any:
        return -super().full_sort_predict(interaction)

    def predict(self, interaction: Any) -> Any:
        return -super().predict(interaction)


def changed(features: Any, change: Any) -> Any:
    """Feature sets with other rows for the items; PAD keeps its own."""
    out = {}
    for name, table in features.items():
        rows = np.concatenate([table.values[:1], change(table.values[1:])])
        out[name] = replace(table, values=rows.astype(np.float32))
    return out


class ShiftedRows(MultimodalDataset):
    """Gives each item the next item's features."""

    @property
    def features(self) -> Any:
        return changed(super().features, lambda rows: np.roll(rows, 1, axis=0))


class RowsByPosition(MultimodalDataset):
    """Takes row n of the file for internal id n + 1, as code without tokens does."""

    @property
    def features(self) -> Any:
        out = {}
        for name, right in super().features.items():
            table = find_or_encode(
                name, dataset_dir=Path(self.dataset_path), dataset=self.dataset_name
            )
            out |= changed({name: right}, lambda _, table=table: table.matrix)
        return out


class FeatureLeak(BPR):
    """Claims to use interactions only, and starts from the features."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        with torch.no_grad():
            first = next(iter(dataset.features.values()))
            self.nodes.items[:, 0] += torch.from_numpy(first.values[:, 0])


class UnguardedCosine(MultimodalDataset):
    """Divides by the norm of rows that may be zero."""

    @property
    def features(self) -> Any:
        with np.errstate(invalid="ignore"):
            return changed(
                super().features, lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
            )


# Ranking ----------------------------------------------------------------------------------------


class PadUnmasked(MultimodalTrainer):
    """Ranks column 0 like any item."""

    def rank(self, task: EvalTask, k: int) -> Any:
        ranking = super().rank(task, k)
        self.model.eval()
        scores = self.model.full_sort_predict(
            {self.config["USER_ID_FIELD"]: torch.from_numpy(ranking.users)}
        ).view(len(ranking.users), -1)
        pad_first = (scores[:, 0] > scores[:, 1:].amax(1)).cpu().numpy()
        ranking.items[pad_first, 0] = 0
        return ranking


class MaskOfTheNextUser(MultimodalTrainer):
    """Hides another user's items."""

    def rank(self, task: EvalTask, k: int) -> Any:
        order = np.roll(np.arange(len(task.users)), 1)
        return super().rank(replace(task, masked=task.masked[order]), k)


class TwoCodePaths(BPR):
    """Forgets in `predict` what `full_sort_predict` does."""

    def predict(self, interaction: Any) -> Any:
        return super().predict(interaction) + 0.01


class DropoutInEval(BPR):
    """Drops out while scoring."""

    def full_sort_predict(self, interaction: Any) -> Any:
        scores = super().full_sort_predict(interaction)
        return torch.nn.functional.dropout(scores, 0.001, training=True)


# State and chance -------------------------------------------------------------------------------


class StateOutside(BPR):
    """Keeps something random outside its state."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.shift = 1e-3 * torch.rand(self.n_items)

    def full_sort_predict(self, interaction: Any) -> Any:
        return super().full_sort_predict(interaction) + self.shift

    def predict(self, interaction: Any) -> Any:
        return super().predict(interaction) + self.shift[interaction[self.ITEM_ID]]


class StaleCache(LightGCN):
    """Goes on scoring with the vectors it had before weights were loaded."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self._load_state_dict_post_hooks.clear()

    def train(self, mode: bool = True) -> Any:
        if mode:
            self._clear_cache()
        return torch.nn.Module.train(self, mode)


class HiddenChance(BPR):
    """Draws from a generator that no seed reaches."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        with torch.no_grad():
            noise = np.random.default_rng().standard_normal(self.nodes.weight.shape)
            self.nodes.weight += 1e-3 * torch.from_numpy(noise).float()


class IgnoresTheSeed(BPR):
    """Seeds itself."""

    def __init__(self, config: Any, dataset: Any) -> None:
        torch.manual_seed(0)
        super().__init__(config, dataset)


# Training ---------------------------------------------------------------------------------------


class DeadOptimiser(MultimodalTrainer):
    """Never takes a step."""

    def _set_learning_rate(self, epoch: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0


class HidesNaN(BPR):
    """Turns a NaN loss into a harmless zero."""

    def calculate_loss(self, interaction: Any) -> Any:
        return tuple(part.nan_to_num() for part in super().calculate_loss(interaction))


class DeadLayer(BPR):
    """Has a layer that nothing uses."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.gate = torch.nn.Linear(2, 2)


class ReadsItsLoss(BPR):
    """Looks at a loss term on the host before it returns it."""

    def calculate_loss(self, interaction: Any) -> Any:
        bpr, norms = super().calculate_loss(interaction)
        return (bpr, norms) if bpr > 0 else (bpr,)


class CopiesInEachStep(BPR):
    """Multiplies its loss by a tensor that stays on the host."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.on_host = torch.ones(1)

    def calculate_loss(self, interaction: Any) -> Any:
        bpr, norms = super().calculate_loss(interaction)
        return bpr * self.on_host.to(bpr.device), norms


class RefusesForNothing(BPR):
    """Says that its steps cannot be captured; they can."""

    capture_refused = "it counts its rows"


class ThawedBuffer(BPR):
    """Changes what it says is constant."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.register_buffer("constant", torch.zeros(1), persistent=False)

    def calculate_loss(self, interaction: Any) -> Any:
        self.constant += 1
        return super().calculate_loss(interaction)


# Data -------------------------------------------------------------------------------------------


class SortsTokens(BPR):
    """Starts its item vectors from the alphabetic rank of the tokens."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        tokens = dataset.field2id_token[dataset.iid_field].astype(str)
        rank = np.argsort(np.argsort(tokens)) / len(tokens)
        with torch.no_grad():
            self.nodes.items[1:, 0] += torch.from_numpy(rank[1:]).float()


class LastRowsCountMore(Pop):
    """Popularity that depends on where in the file a row stands."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        items = dataset.pairs()[1]
        weight = np.bincount(items, np.linspace(0, 1, len(items)), minlength=self.n_items)
        self.item_cnt = torch.from_numpy(weight)[:, None]
        self.max_cnt = self.item_cnt.max(dim=0)[0]


class ReadsTheTestRows(Pop):
    """Popularity over the whole interaction file."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        place = dataset.field2token_id[dataset.iid_field]
        for _, item, _ in _rows(Path(dataset.dataset_path) / f"{dataset.dataset_name}.inter"):
            self.item_cnt[place[item]] += 1
        self.max_cnt = self.item_cnt.max(dim=0)[0]


def _rows(path: Path) -> Iterator[list[str]]:
    for line in path.read_text().splitlines()[1:]:
        yield line.split("\t")


class TiesByNumber(Pop):
    """Prefers later items among equal ones, by a bonus too small to see."""

    def full_sort_predict(self, interaction: Any) -> Any:
        scores = super().full_sort_predict(interaction).view(len(interaction), -1)
        return (scores + 1e-5 * torch.arange(self.n_items) / self.n_items).view(-1)

    def predict(self, interaction: Any) -> Any:
        bonus = 1e-5 * interaction[self.ITEM_ID] / self.n_items
        return super().predict(interaction) + bonus


class NearestByNumber(AlignRec):
    """Its graph takes equally near items by their numbers."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        rows, keys, order = self.tables[0].detach(), self.settings, np.arange(self.n_items)
        memory = keys.knn_memory_mb << 20
        self.item_item = SparseOperator(
            item_graph(rows, keys.knn_k, memory_bytes=memory, place=order)
        )


class RanksByNumber(MultimodalTrainer):
    """Sorts with the items' numbers among equal scores."""

    def rank(self, task: EvalTask, k: int) -> Any:
        order = np.arange(task.masked.shape[1])
        return super().rank(replace(task, tie_rank=order), k)


class CentresTheBatch(BPR):
    """Subtracts the mean score of the users that are scored together."""

    def full_sort_predict(self, interaction: Any) -> Any:
        scores = super().full_sort_predict(interaction)
        return scores - 1e-2 * scores.mean(0)


class DividesByDegree(Pop):
    """Infinite where an item has exactly one user."""

    def full_sort_predict(self, interaction: Any) -> Any:
        scores = super().full_sort_predict(interaction).view(len(interaction), -1)
        return (scores + 1e-9 / (self.item_cnt.ravel() - 1)).view(-1)


# Resources and manners --------------------------------------------------------------------------


class DenseItems(AlignRec):
    """Builds all item-item similarities at once."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        features = self.tables[0].detach()
        self.widest = float((features @ features.T).amax())


class NamesADevice(BPR):
    """Moves itself to one device."""

    def predict(self, interaction: Any) -> Any:
        if torch.cuda.device_count() > 7:
            return super().predict(interaction).to("cuda:7")
        return super().predict(interaction)


class LeavesATensorBehind(BPR):
    """Holds a tensor on another device."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.elsewhere = torch.zeros(1, device="meta")


class WritesToItsConfig(BPR):
    """Changes what the record will say it was run with."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        config["reg_weight"] = 0.5


class FillsAbsentKeys(BPR):
    """Runs with a value that stands nowhere."""

    def __init__(self, config: Any, dataset: Any) -> None:
        if "reg_weight" not in config:
            config["reg_weight"] = 0.1
        super().__init__(config, dataset)


class Prints(BPR):
    """Talks."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        print("ready")  # noqa: T201


class CachesBesideTheData(BPR):
    """Leaves a file in the data folder."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        (Path(dataset.dataset_path) / f"graph{id(self)}.pt").write_bytes(b"")


# What chance breaks besides its own check: two fits can't be compared any more.
BIT_BY_BIT = (
    "check_same_seed_equal check_save_load_equal check_features_matter check_eval_is_pure "
    "check_renaming_items_is_harmless check_renumbering_is_harmless check_held_out_rows_unused"
)

BROKEN = [
    broken(WrongSign, "check_right_top_item", "first for 0.0%", "check_row_order_is_harmless"),
    broken(
        AlignRec,
        "check_features_matter",
        "cold AUC .* right features",
        "check_renumbering_is_harmless",  # the next item is another one under other numbers
        dataset_class=ShiftedRows,
    ),
    broken(
        AlignRec,
        "check_feature_rows_by_token",
        "feature rows in another order",
        "check_features_matter check_renumbering_is_harmless",
        dataset_class=RowsByPosition,
    ),
    broken(FeatureLeak, "check_features_matter", "features: losses"),
    broken(AlignRec, "check_missing_modality", "not finite", dataset_class=UnguardedCosine),
    broken(BPR, "check_pad_never_recommended", "PAD in", trainer_class=PadUnmasked),
    broken(
        BPR,
        "check_seen_items_masked",
        "masked items",
        "check_ties_do_not_follow_numbers",  # the users' numbers decide who is next
        trainer_class=MaskOfTheNextUser,
    ),
    broken(TwoCodePaths, "check_scores_agree", "predict and full_sort_predict differ"),
    broken(
        DropoutInEval,
        "check_eval_is_pure",
        "two answers",
        f"{BIT_BY_BIT} check_scores_agree check_other_users_of_a_batch_are_harmless",
    ),
    broken(StateOutside, "check_save_load_equal", "other scores"),
    broken(StaleCache, "check_save_load_equal", "other scores"),
    broken(HiddenChance, "check_same_seed_equal", "a second fit", BIT_BY_BIT),
    broken(
        IgnoresTheSeed,
        "check_other_seed_differs",
        "same first weights",
        "check_renumbering_is_harmless",  # whose draws are renumbered, too
    ),
    broken(
        BPR,
        "check_loss_falls",
        "the loss went from",
        "check_right_top_item check_row_order_is_harmless",
        trainer_class=DeadOptimiser,
    ),
    broken(HidesNaN, "check_nan_is_refused", "training went on"),
    broken(DeadLayer, "check_gradients", "gate.weight gets no gradient"),
    broken(ReadsItsLoss, "check_step_waits_for_nothing", "needs a value"),
    broken(CopiesInEachStep, "check_step_waits_for_nothing", "a tensor of the host"),
    broken(RefusesForNothing, "check_step_waits_for_nothing", "waits for nothing"),
    broken(ThawedBuffer, "check_gradients", "constant is frozen"),
    broken(SortsTokens, "check_renaming_items_is_harmless", "renamed items"),
    broken(
        LastRowsCountMore,
        "check_row_order_is_harmless",
        "order of rows",
        "check_renumbering_is_harmless check_ties_do_not_follow_numbers",
    ),
    broken(
        PositionalCanary,
        "check_renumbering_is_harmless",
        "scores before training differ by",
    ),
    broken(
        NearestByNumber,
        "check_renumbering_is_harmless",
        "scores before training differ by",
    ),
    broken(TiesByNumber, "check_ties_do_not_follow_numbers", "larger score in 100"),
    broken(BPR, "check_ties_do_not_follow_numbers", "lists of equal", trainer_class=RanksByNumber),
    broken(
        CentresTheBatch,
        "check_other_users_of_a_batch_are_harmless",
        "in batches of other users",
        "check_scores_agree",
    ),
    broken(ReadsTheTestRows, "check_held_out_rows_unused", "held-out rows"),
    broken(DividesByDegree, "check_degenerate_inputs", "not finite"),
    broken(DenseItems, "check_memory_ceiling", "makes a tensor of 4,0"),
    broken(NamesADevice, "check_device_is_followed", "cuda"),
    broken(
        LeavesATensorBehind,
        "check_device_is_followed",
        "elsewhere is on meta",
        "check_renumbering_is_harmless",  # it compares all tensors, and this one has no values
    ),
    broken(WritesToItsConfig, "check_config_is_closed", "changed its configuration"),
    broken(FillsAbsentKeys, "check_config_is_closed", "without reg_weight"),
    broken(Prints, "check_prints_and_writes_nothing", "printed 'ready"),
    broken(CachesBesideTheData, "check_prints_and_writes_nothing", "wrote"),
]
