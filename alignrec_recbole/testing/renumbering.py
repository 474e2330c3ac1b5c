"""Whether a model's results depend on the numbers of users, items and rows.

One world is written twice, with its rows in two orders, so that every user and item has another
internal id. A model that is trained gets the same first values and the same batches in both: what
is drawn when it is built is moved to the rows of the other numbering, and so are the ids of a
batch. What it draws afterwards is replaced by constants that know no number: dropout drops nothing,
sampled edges are all edges, noise has its middle value. Then losses and scores agree up to
rounding. Of a model that draws in another way, first scores are compared so, and it is trained
under several seeds with either numbering, whose figures a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from alignrec_recbole.testing.synthetic import BlockWorld, make_blocks
from alignrec_recbole.testing.testbed import SMOKE_EPOCHS, FittedModel, Testbed
from alignrec_recbole.training.trainer import losses_by_name

STEPS = 3
LEARNING_RATE = 1e-3
TOLERANCE = 1e-3  # of losses relative to their size, of scores to their spread; rounding is 1e-5
SEEDS = (1, 2, 3, 4, 5)  # of a model whose draws cannot be held fixed
LISTED = 20
SURE = 1e-3  # level of Welch's test between the figures under two numberings


def sparse_world() -> BlockWorld:
    """Users with few items of their block, and equal features in a block.

    So counts of common items have ties, and items have equally near ones.
    """
    return make_blocks(users=50, likes=7).with_equal_features()


class ConstantDraws(TorchDispatchMode):
    """Replaces what is drawn by constants; `unknown` names operations that it cannot replace."""

    _FILLED: ClassVar = {
        "bernoulli_": 1.0, "exponential_": 1.0, "uniform_": 0.5, "normal_": 0.0,
        "random_": 0,  # keeps everything in ops.entry_attention
    }  # fmt: skip
    _LIKE: ClassVar = {"rand_like": 0.5, "randn_like": 0.0}
    _MADE: ClassVar = {"rand": 0.5, "randn": 0.0}

    def __init__(self) -> None:
        super().__init__()
        self.unknown: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if name in self._FILLED:
            return args[0].fill_(self._FILLED[name])
        if name in self._LIKE:
            return torch.full_like(args[0], self._LIKE[name])
        if name in self._MADE:
            placed = {key: kwargs[key] for key in ("dtype", "device") if key in kwargs}
            return torch.full(args[0], self._MADE[name], **placed)
        if name == "bernoulli":
            return torch.ones_like(args[0])
        if name == "native_dropout":
            return args[0] / (1 - args[1]), torch.ones_like(args[0], dtype=torch.bool)
        if name == "multinomial" and args[0].ndim == 1:
            return torch.arange(len(args[0]), device=args[0].device)
        if name == "multinomial":  # of each row, the first that have a weight
            return (args[0] <= 0).int().argsort(dim=1, stable=True)[:, : args[1]]
        if name == "_sample_dirichlet":
            return torch.full_like(args[0], 1 / args[0].shape[-1])
        self.unknown.add(name)
        return func(*args, **kwargs)


@dataclass(frozen=True)
class Outcome:
    """What a model gave under one numbering.

    Attributes:
        losses: of each step; empty for a model that is not trained.
        before, after: scores [users, items] by the world's positions before and after the steps.
        unknown: operations that drew something else.
    """

    losses: list[float]
    before: Tensor
    after: Tensor
    unknown: frozenset[str]


def both_outcomes(testbed: Testbed, *, renumber: bool = True) -> tuple[Outcome, Outcome]:
    """The same training under two numberings, or under one twice."""
    world = sparse_world()
    other_world = world.with_other_numbers() if renumber else world
    settings: dict[str, Any] = {"learning_rate": LEARNING_RATE, "epochs": STEPS}
    if not testbed.under_test.learns:
        fits = [testbed.fresh_fit(one, **settings) for one in (world, other_world)]
        scores = [fit.scores_by_position() for fit in fits]
        one, other = (Outcome([], table, table, frozenset()) for table in scores)
        return one, other
    first, again, second = (
        testbed.build(one, seed=seed, **settings)
        for one, seed in ((world, 1), (world, 2), (other_world, 1))
    )
    batches = [first.batch().cpu() for _ in range(STEPS)]
    moved = Numbers.of(first, second)
    moved.carry_over_drawn(first.model, again.model, second.model)
    return _train(first, batches), _train(second, [moved.batch(batch) for batch in batches])


@dataclass(frozen=True)
class Numbers:
    """Internal ids of one numbering → those of another, PAD at 0."""

    users: np.ndarray
    items: np.ndarray
    fields: tuple[str, str]

    @classmethod
    def of(cls, first: FittedModel, second: FittedModel) -> Numbers:
        """From two fits of worlds with the same positions."""
        maps = []
        for name, size in (("user_ids", "user_num"), ("item_ids", "item_num")):
            ids = np.zeros(getattr(first.splits[0], size), dtype=np.int64)
            ids[getattr(first, name)] = getattr(second, name)
            maps.append(ids)
        return cls(maps[0], maps[1], (first.splits[0].uid_field, first.splits[0].iid_field))

    def batch(self, batch: Any) -> Any:
        """A batch [b] with the other ids."""
        out = type(batch)(dict(batch.interaction))
        for name, values in batch.interaction.items():
            if name == self.fields[0]:
                out.interaction[name] = torch.from_numpy(self.users)[values]
            elif name.endswith(self.fields[1]):  # neg_item_id, too
                out.interaction[name] = torch.from_numpy(self.items)[values]
        return out

    def rows(self, tensor: Tensor) -> Tensor:
        """A tensor whose user or item rows (or columns) are at their other numbers."""
        both = np.concatenate([self.users, len(self.users) + self.items])
        for dim, size in enumerate(tensor.shape):
            for ids in (self.users, self.items, both):
                if size == len(ids):
                    place = torch.from_numpy(np.argsort(ids)).to(tensor.device)
                    tensor = tensor.index_select(dim, place)
        return tensor

    @torch.no_grad()
    def carry_over_drawn(self, model: Any, other_seed: Any, target: Any) -> None:
        """Give `target` the values that `model` drew: those that differ under another seed."""
        drawn = dict(tensors(other_seed))
        here = dict(tensors(target))
        for name, value in tensors(model):
            if value.is_floating_point() and not torch.equal(value, drawn[name]):
                here[name].copy_(self.rows(value))


def tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Parameters, buffers and other tensors of a model by name."""
    yield from model.state_dict(keep_vars=True).items()
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                yield f"{path}.{name}".lstrip("."), value


def _train(fit: FittedModel, batches: list[Any]) -> Outcome:
    model, optimizer = fit.model, fit.trainer.optimizer
    before, losses = fit.scores_by_position(), []
    state = _numpy_state()
    with ConstantDraws() as draws:
        for step, batch in enumerate(batches):
            model.train()
            if hasattr(model, "begin_epoch"):
                model.begin_epoch(torch.Generator().manual_seed(step))
            parts = losses_by_name(model.calculate_loss(batch.to(fit.config["device"])))
            loss = torch.stack([part.reshape(()) for part in parts.values()]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if hasattr(model, "after_step"):
                model.after_step()
            losses.append(float(loss.detach()))
    if _numpy_state() != state:
        draws.unknown.add("numpy.random")
    return Outcome(losses, before, fit.scores_by_position(), frozenset(draws.unknown))


def _numpy_state() -> str:
    return repr(np.random.get_state(legacy=False)["state"])  # noqa: NPY002 (RecBole draws from it)


def figures_by_seed(testbed: Testbed) -> np.ndarray:
    """Mean share of other items below a user's test item [2, seeds], under two numberings.

    Users of the first one are numbered by the first of their items in any split, those of the other
    at random.
    """
    world, found = sparse_world(), []
    for one in (world.with_telling_numbers(), world.with_other_numbers()):
        users, items = one.rows["test"].T
        for seed in SEEDS:
            scores = testbed.fresh_fit(one, seed=seed, epochs=SMOKE_EPOCHS).scores_by_position()
            found.append(float((scores[users] < scores[users, items][:, None]).double().mean()))
    return np.array(found).reshape(2, -1)


def p_value(figures: np.ndarray) -> float:
    """Of Welch's t-test between two rows of figures; 1 where all are equal."""
    from scipy import stats

    if np.ptp(figures) == 0:
        return 1.0
    return float(stats.ttest_ind(*figures, equal_var=False).pvalue)


def differences(one: Outcome, other: Outcome) -> dict[str, float]:
    """Largest difference of losses, of first scores and of last ones, relative to their size.

    Of first scores alone, where draws of the training could not be replaced.
    """
    out = {}
    if one.losses:
        out["scores before training"] = _relative(one.before, other.before)
        if one.unknown | other.unknown:
            return out
        losses = np.array([one.losses, other.losses])
        out["losses"] = float((np.ptp(losses, axis=0) / np.abs(losses).max(0)).max())
    out["scores"] = _relative(one.after, other.after)
    return out


def _relative(one: Tensor, other: Tensor) -> float:
    spread = float(one.double().std()) or 1.0
    return float((one.double() - other.double()).abs().max()) / spread


# Ties and batches --------------------------------------------------------------------------------


def lists_that_follow_numbers(testbed: Testbed, *, renumber: bool = True) -> float:
    """Share of users whose list of equal scores changes with the numbers of the items.

    Every third item has the same score, whatever the model; the ranking is the trainer's.
    """
    world = sparse_world()
    other_world = world.with_other_numbers() if renumber else world
    one, other = (_lists_of_equals(testbed.smoke_fit(each)) for each in (world, other_world))
    return float(np.mean([one[user] != other[user] for user in one]))


def _lists_of_equals(fit: FittedModel) -> dict[int, list[int]]:
    """Lists of item positions by user position."""
    count, n_items = len(fit.item_ids), fit.splits[0].item_num
    row = torch.zeros(n_items)
    row[torch.from_numpy(fit.item_ids)] = torch.arange(count).float() % 3

    def scores(batch: Any) -> Tensor:
        return row.repeat(len(batch[fit.model.USER_ID]), 1).view(-1)

    with mock.patch.object(fit.model, "full_sort_predict", scores):
        ranking = fit.trainer.rank(fit.task("test", ["train"]), LISTED)
    position = np.full(n_items + 1, -1)  # the last one: a list has ended
    position[fit.item_ids] = np.arange(count)
    user = {number: place for place, number in enumerate(fit.user_ids)}
    rows = zip(ranking.users, position[ranking.items].tolist(), strict=True)
    return {user[number]: listed for number, listed in rows}


def share_by_number(testbed: Testbed) -> float:
    """Among unequal scores of items with the same rows and features: how often the larger number
    has the larger score.

    One half where fewer than a hundredth of the scores are unequal: that is rounding.
    """
    fit = testbed.smoke_fit(sparse_world().with_twins())
    count = len(fit.item_ids) // 2
    scores, ids = fit.scores_by_position().double().numpy(), fit.item_ids
    sign = np.sign(scores[:, count:] - scores[:, :count]) * np.sign(ids[count:] - ids[:count])
    unequal = sign != 0
    return float((sign > 0).sum() / unequal.sum()) if unequal.mean() > 0.01 else 0.5


def difference_by_batch(fit: FittedModel) -> float:
    """Largest difference of a user's scores in batches of other users, relative to their spread."""
    whole, found = fit.scores(), 0.0
    order = np.random.default_rng(0).permutation(len(fit.user_ids))
    for size in (len(order), 7):
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        scores = torch.cat([fit.scores(fit.user_ids[part]) for part in parts])
        found = max(found, _relative(whole[torch.from_numpy(order), 1:], scores[:, 1:]))
    return found


def difference_by_held_out_rows(testbed: Testbed, *, other: bool = True) -> float:
    """Largest difference of losses and scores after training beside other held-out rows.

    Args:
        other: rows of items of other blocks; else the same rows, trained again.
    """
    world = testbed.world.with_other_held_out_rows() if other else testbed.world
    one, changed = testbed.smoke_fit(), testbed.fresh_fit(world, epochs=SMOKE_EPOCHS)
    losses = float(np.abs(np.subtract(one.losses, changed.losses)).max(initial=0))
    return max(losses, _relative(one.scores_by_position(), changed.scores_by_position()))
