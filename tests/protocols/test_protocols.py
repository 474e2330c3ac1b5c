"""Protocols against hand-worked examples, slow twins and what must hold for any features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy import stats

from alignrec_recbole.errors import FeatureError, RecordError, SettingError, UnknownNameError
from alignrec_recbole.evaluation.ranking import EvalTask
from alignrec_recbole.features.controls import control_features
from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.features.masking import FeatureMask, mask_features, masked_items
from alignrec_recbole.features.table import FeatureManifest, ItemFeatures
from alignrec_recbole.protocols import cold_start, diagnostics, item_cf, long_tail, zero_shot
from alignrec_recbole.protocols.content import (
    STEP,
    Content,
    chance,
    rank_content,
    unit_vectors,
)
from alignrec_recbole.protocols.robustness import robustness

# Five users, six items "0" … "5" (internal ids one higher), rows on the unit circle; 5 has none.
# PCG64(20240319).permutation(6) puts equals in the order 1, 2, 0, 4, 5, 3.
TOKENS = ["[PAD]", "0", "1", "2", "3", "4", "5"]
ROWS = np.array([[0, 0], [1, 0], [0, 1], [3, 4], [4, 3], [-1, 0], [0, 0]], dtype=np.float32)
TRAIN = (np.array([1, 2, 2, 3, 4, 5]), np.array([0, 0, 1, 2, 4, 5]) + 1)
TEST = (np.array([1, 2, 3, 3, 4, 5]), np.array([3, 3, 0, 1, 1, 3]) + 1)
SHAPE = (6, 7)
HALF = 1 / math.log2(3)  # gain at rank 2

ZERO_SHOT = [[3, 2, 1, 5, 4], [2, 3, 5, 4], [3, 1, 0, 5, 4], [1, 5, 2, 3, 0], [1, 2, 0, 4, 3]]
ITEM_CF_2 = [[3, 2, 1, 4, 5], [2, 3, 4, 5], [3, 1, 0, 4, 5], [1, 2, 0, 5, 3], [1, 2, 0, 4, 3]]
ITEM_CF_1 = [[3, 1, 2, 4, 5], [2, 3, 4, 5], [3, 1, 0, 4, 5], [1, 2, 0, 5, 3], [1, 2, 0, 4, 3]]


def content_of(rows=ROWS, train=TRAIN, tokens=TOKENS, user_num=6):
    return Content.of(train, rows if isinstance(rows, list) else [rows], tokens, user_num)


def task_of(test=TEST, train=TRAIN, shape=SHAPE):
    return EvalTask.from_pairs(test, [train], shape)


def zero_shot_lists(content, task, k=50):
    scores = zero_shot.scorer(content, zero_shot.ZeroShotSettings())
    return rank_content(scores, content, task, k)


def item_cf_lists(content, task, neighbours=20, k=50):
    scores = item_cf.scorer(content, item_cf.ItemCFSettings(k=neighbours))
    return rank_content(scores, content, task, k)


def names(ranking):
    """Lists of item tokens as numbers, without the filling."""
    return [[int(i) - 1 for i in row if i >= 0] for row in ranking.items]


def table(rows, modality="text", present=None, name="mine"):
    rows = np.asarray(rows, dtype=np.float32)
    present = rows.any(1) if present is None else present
    manifest = FeatureManifest(
        name=name, modality=modality, encoder="hand", source="hand", items=None,
        shape=(len(rows) - 1, rows.shape[1]), dtype="float32", sha256=f"{name} {modality}",
    )  # fmt: skip
    return ItemFeatures(rows, present, manifest)


# --- by hand ---------------------------------------------------------------------------------


def test_zero_shot_by_hand():
    ranking = zero_shot_lists(content_of(), task_of())
    assert names(ranking) == ZERO_SHOT
    means = ranking.means(["Recall", "NDCG"], [1, 2])
    assert means["Recall@1"] == pytest.approx(2 / 5)
    assert means["Recall@2"] == pytest.approx((1 + 1 + 1 / 2 + 1 + 0) / 5)
    assert means["NDCG@2"] == pytest.approx((1 + HALF + HALF / (1 + HALF) + 1 + 0) / 5)


@pytest.mark.parametrize(("k", "expected"), [(2, ITEM_CF_2), (1, ITEM_CF_1)])
def test_item_cf_by_hand(k, expected):
    assert names(item_cf_lists(content_of(), task_of(), k)) == expected


def test_item_cf_scores_are_sums_of_neighbours_cosines():
    content = content_of()
    scores = item_cf.scorer(content, item_cf.ItemCFSettings(k=2))(torch.tensor([2]))
    assert scores[0].tolist() == pytest.approx([0, 0, 0, 0.6 + 0.8, 0.8 + 0.6, 0, 0])


def test_mask_modality_by_hand():
    # PCG64(1000).permutation(6) starts 3, 2, 1: half of the items are these.
    mask = FeatureMask(modality="text", ratio=0.5, seed=0)
    sets = mask_features({"mine": table(ROWS)}, mask, TOKENS, open_features=None)
    assert sets["mine"].values.tolist() == [[0, 0], [1, 0], *[[0, 0]] * 3, [-1, 0], [0, 0]]
    assert sets["mine"].present.tolist() == [False, True, False, False, False, True, False]
    lists = names(zero_shot_lists(content_of(sets["mine"].values), task_of()))
    assert lists[0] == [1, 2, 5, 3, 4]  # equals but for the opposite item
    mean = mask.model_copy(update={"fill": "mean"})
    filled = mask_features({"mine": table(ROWS)}, mean, TOKENS, open_features=None)["mine"]
    assert filled.values[2:5].tolist() == np.float32([[1.4, 1.6]] * 3).tolist()
    assert filled.present.tolist() == table(ROWS).present.tolist()


def test_robustness_by_hand():
    curve = robustness([(0, 0.5), (0, 0.5), (0.5, 0.2), (0.5, 0.3), (1, 0.1), (1, 0.1)])
    assert curve.mean.tolist() == [0.5, 0.25, 0.1]
    assert curve.retention.tolist() == [1, 0.5, 0.2]
    assert curve.area == pytest.approx(0.5 * (1 + 0.5) / 2 + 0.5 * (0.5 + 0.2) / 2)
    low, high = stats.t.interval(0.95, 1, loc=0.25, scale=stats.sem([0.2, 0.3]))
    assert [curve.low[1], curve.high[1]] == pytest.approx([low, high])
    assert (curve.low[0], curve.high[2]) == (0.5, 0.1)
    for points in ([(0, 0.0), (1, 0.1)], [(0.5, 0.2), (1, 0.1)], [(0, 0.2)]):
        with pytest.raises(RecordError, match="no robustness curve"):
            robustness(points)


def test_long_tail_by_hand():
    task = task_of()
    ranking = zero_shot_lists(content_of(), task)
    values = ranking.per_user(["Recall"], [2])
    history = np.bincount(TRAIN[0], minlength=6)
    users = long_tail.by_user(values, ranking.users, history)
    assert users["<=3"] == {"users": 5, "Recall@2": pytest.approx(3.5 / 5)}
    assert users["4-7"] == {"users": 0}
    items = long_tail.by_item(ranking, task, np.bincount(TRAIN[1], minlength=7), [2])
    assert list(items) == ["0", "1-3", "4-7", "8-15", "16-31", ">=32"]
    assert items["0"] == {  # item 3, the target of users 1, 2 and 5
        "items": 1, "users": 3, "targets": 3, "exposure@2": pytest.approx(0.3),
        "Recall@2": pytest.approx(2 / 3), "NDCG@2": pytest.approx((1 + HALF) / 3),
    }  # fmt: skip
    assert items["1-3"] == {
        "items": 5, "users": 2, "targets": 3, "exposure@2": pytest.approx(0.7),
        "Recall@2": pytest.approx((1 / 2 + 1) / 2),
        "NDCG@2": pytest.approx((HALF / (1 + HALF) + 1) / 2),
    }  # fmt: skip
    assert items["4-7"] == {"items": 0, "users": 0, "targets": 0}


def test_cold_start_by_hand():
    # PCG64(2001).permutation(6) starts 1, 0: users 1 and 2 have taken nothing else and leave.
    world = cold_start.simulate([TRAIN, TEST], TOKENS, 6, 1 / 3, seed=1)
    assert world.cold.tolist() == [1, 2]
    assert [a.tolist() for a in world.history] == [[3, 4, 5], [3, 5, 6]]
    assert world.task.users.tolist() == [3, 4]
    assert world.task.targets.toarray().tolist() == [[0, 1, 1], [0, 0, 1]]
    content = content_of(train=world.history).restricted(world.cold)
    assert content.columns.tolist() == [0, 1, 2]
    assert zero_shot_lists(content, world.task, 2).items.tolist() == [[2, 1], [2, 1]]
    assert item_cf_lists(content, world.task, 1, 2).items.tolist() == [[2, 1], [2, 1]]
    votes = item_cf.scorer(content, item_cf.ItemCFSettings(k=1))(torch.tensor([3]))
    assert votes[0].tolist() == pytest.approx([0, 0, 0.8])
    assert chance(world.task, [1])["Recall@1"] == 1 / 2


def test_without_a_cold_item_there_is_nothing_to_rank():
    with pytest.raises(SettingError, match="selects no items"):
        cold_start.simulate([TRAIN, TEST], TOKENS, 6, 0.1, seed=1)
    taken = np.array([1]), np.array([2])  # by one user, who is left with nothing when 2 is cold
    with pytest.raises(SettingError, match="leaves no user"):
        cold_start.simulate([taken, taken], ["[PAD]", "0", "1"], 2, 0.5, seed=0)


def test_diagnostics_by_hand():
    found = diagnostics.describe(content_of(), ROWS)
    assert found["items covered"] == pytest.approx(5 / 6)
    assert found["interactions covered"] == pytest.approx(5 / 6)
    assert found["duplicates"] == 0
    assert found["alignment"] == pytest.approx(2)  # user 2's pair stands at a right angle
    sigma = np.linalg.svd(unit_vectors([ROWS[1:6]]).astype(float), compute_uv=False)
    share = sigma / sigma.sum()
    assert found["effective rank"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    pairs = [1, 1 - 0.6, 1 - 0.8, 2, 1 - 0.8, 1 - 0.6, 1, 1 - 0.96, 1.6, 1.8]  # 1 − cosine
    expected = np.log(np.mean(np.exp(-4 * np.array(pairs))))
    assert found["uniformity"] == pytest.approx(expected, rel=1e-5)
    assert "neighbours@20" not in found
    assert diagnostics.neighbour_agreement(content_of(), 1) == 0  # 0 → 3 and 1 → 2, taste 0 ↔ 1
    twins = ROWS.copy()
    twins[2] = twins[1]
    assert diagnostics.neighbour_agreement(content_of(twins), 1) == 1
    assert diagnostics.duplicates(twins[1:6]) == pytest.approx(2 / 5)


def test_modality_gap_by_hand():
    one = table([[0, 0], [2, 0], [0, 3], [4, 4], [0, 0]])
    two = table([[0, 0], [1, 0], [5, 0], [0, 0], [7, 7]], "image")  # two items have both
    gaps = diagnostics.modality_gaps({"a": one, "b": two, "wide": table(np.ones((5, 3)))})
    assert gaps == {"a | b": {"modality gap": pytest.approx(math.sqrt(0.5)), "pair distance": 1.0}}


def test_chance_by_hand():
    # one user with 4 candidates and 2 targets, one with 2 candidates and 1 target
    task = EvalTask.from_pairs(
        (np.array([1, 1, 2]), np.array([1, 2, 1])),
        [(np.array([2, 2]), np.array([3, 4]))],
        (3, 5),
    )
    found = chance(task, [1, 3])
    assert found["Recall@1"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert found["Recall@3"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["Precision@3"] == pytest.approx((2 / 4 + 1 / 3) / 2)
    first = 2 / 4 * (1 + HALF + 0.5) / (1 + HALF)
    assert found["NDCG@3"] == pytest.approx((first + 1 / 2 * (1 + HALF)) / 2)


# --- slow twins ------------------------------------------------------------------------------


class World:
    """Random interactions; two feature sets with equal rows, items without one and without both."""

    def __init__(self, seed, users=40, items=70):
        rng = np.random.default_rng(seed)
        self.users, self.items = users, items
        self.tokens = ["[PAD]", *rng.permutation(items).astype(str)]
        parts = {0: [], 1: []}
        for user in range(1, users + 1):
            taken = 1 + rng.permutation(items)[: rng.integers(2, 40)]
            cut = rng.integers(1, len(taken))
            parts[0] += [(user, int(i)) for i in taken[:cut]]
            parts[1] += [(user, int(i)) for i in taken[cut:]]
        self.train, self.test = (tuple(np.array(parts[part]).T) for part in (0, 1))
        self.sets = [rng.normal(size=(items + 1, width)).astype(np.float32) for width in (8, 5)]
        equal, gone, none = 1 + rng.permutation(items)[:36].reshape(3, 12)
        for rows in self.sets:
            rows[equal[:6]] = rows[equal[0]]
            rows[equal[6:]] = 2 * rows[equal[6]]
            rows[none] = 0
            rows[0] = 0
        self.sets[1][gone] = 0
        self.shape = users + 1, items + 1
        self.task = EvalTask.from_pairs(self.test, [self.train], self.shape)
        self.history = {u: [i for w, i in parts[0] if w == u] for u in range(1, users + 1)}
        self.targets = {u: {i for w, i in parts[1] if w == u} for u in range(1, users + 1)}

    def content(self, train=None):
        return Content.of(train or self.train, self.sets, self.tokens, self.users + 1)


def slow_unit(row):
    length = math.sqrt(sum(float(x) ** 2 for x in row))
    return [float(x) / length if length else 0.0 for x in row]


def slow_vectors(sets):
    return [
        slow_unit([x for rows in sets for x in slow_unit(rows[i])]) for i in range(len(sets[0]))
    ]


def dot(left, right):
    return sum(a * b for a, b in zip(left, right, strict=True))


def slow_list(scores, place, candidates):
    return sorted(candidates, key=lambda i: (-round(scores[i] / STEP), place[i]))


def slow_zero_shot(vectors, history, candidates):
    profile = slow_unit([sum(vectors[i][d] for i in history) for d in range(len(vectors[0]))])
    return {j: dot(profile, vectors[j]) for j in candidates}


def slow_item_cf(vectors, history, candidates, place, k):
    scores = dict.fromkeys(candidates, 0.0)
    for i in history:
        if not any(vectors[i]):
            continue
        cosine = {j: dot(vectors[i], vectors[j]) for j in candidates if j != i and any(vectors[j])}
        for j in slow_list(cosine, place, cosine)[:k]:
            scores[j] += max(cosine[j], 0)
    return scores


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [3, 20])
def test_rankers_equal_their_slow_twins(seed, k):
    world = World(seed)
    vectors, place = slow_vectors(world.sets), tie_ranks(world.tokens)
    content = world.content()
    whole = range(1, world.items + 1)
    fast = zero_shot_lists(content, world.task), item_cf_lists(content, world.task, k)
    for row, user in enumerate(world.task.users):
        history = world.history[user]
        left = [i for i in whole if i not in history]
        slow = (
            slow_zero_shot(vectors, history, whole),
            slow_item_cf(vectors, history, whole, place, k),
        )
        for ranking, scores in zip(fast, slow, strict=True):
            expected = slow_list(scores, place, left)[:50]
            found = [i for i in ranking.items[row].tolist() if i >= 0]
            assert found == expected
            assert ranking.hits[row][: len(found)].tolist() == [
                i in world.targets[user] for i in found
            ]


@pytest.mark.parametrize("seed", range(3))
def test_cold_start_equals_its_slow_twin(seed):
    world = World(seed)
    cold = cold_start.simulate([world.train, world.test], world.tokens, world.users + 1, 0.2, seed)
    content = world.content(cold.history).restricted(cold.cold)
    vectors, place = slow_vectors(world.sets), tie_ranks(world.tokens)
    fast = zero_shot_lists(content, cold.task), item_cf_lists(content, cold.task, 4)
    chosen = set(cold.cold.tolist())
    users = []
    for user in range(1, world.users + 1):
        history = [i for i in world.history[user] if i not in chosen]
        wanted = (set(world.history[user]) | world.targets[user]) & chosen
        if not history or not wanted:
            continue
        row = len(users)
        users.append(user)
        slow = (
            slow_zero_shot(vectors, history, sorted(chosen)),
            slow_item_cf(vectors, history, sorted(chosen), place, 4),
        )
        for ranking, scores in zip(fast, slow, strict=True):
            found = [int(content.columns[i]) for i in ranking.items[row] if i >= 0]
            assert found == slow_list(scores, place, sorted(chosen))  # all candidates, no other
            assert {i for i, hit in zip(found, ranking.hits[row], strict=False) if hit} == wanted
    assert cold.task.users.tolist() == users


@pytest.mark.parametrize("seed", range(3))
def test_long_tail_equals_its_slow_twin(seed):
    world = World(seed, users=60)
    ranking = zero_shot_lists(world.content(), world.task, 10)
    values = ranking.per_user(["Recall", "NDCG"], [5, 10])
    degree = {i: sum(i in taken for taken in world.history.values()) for i in range(1, 71)}
    history = np.array([0, *(len(world.history[u]) for u in range(1, 61))])
    users = long_tail.by_user(values, ranking.users, history)
    for low, high, label in ((0, 3, "<=3"), (4, 7, "4-7"), (8, 15, "8-15"), (16, 31, "16-31")):
        rows = [r for r, u in enumerate(ranking.users) if low <= history[u] <= high]
        assert users[label]["users"] == len(rows)
        assert users[label]["NDCG@5"] == pytest.approx(np.mean([values["NDCG@5"][r] for r in rows]))
    items = long_tail.by_item(ranking, world.task, np.array([0, *degree.values()]), [5, 10])
    for low, high, label in ((1, 3, "1-3"), (4, 7, "4-7"), (8, 15, "8-15"), (16, 31, "16-31")):
        group = {i for i, d in degree.items() if low <= d <= high}
        recalls, gains, shown = [], [], 0
        for row, user in enumerate(ranking.users):
            listed = ranking.items[row, :5].tolist()
            shown += len(group & set(listed))
            wanted = world.targets[user] & group
            if wanted:
                recalls.append(len(wanted & set(listed)) / len(wanted))
                ideal = sum(1 / math.log2(j + 2) for j in range(min(5, len(wanted))))
                found = sum(1 / math.log2(j + 2) for j, i in enumerate(listed) if i in wanted)
                gains.append(found / ideal)
        assert items[label]["users"] == len(recalls)
        if recalls:
            assert items[label]["Recall@5"] == pytest.approx(np.mean(recalls))
            assert items[label]["NDCG@5"] == pytest.approx(np.mean(gains))
        assert items[label].get("exposure@5", 0) == pytest.approx(shown / (5 * len(ranking.users)))


@pytest.mark.parametrize("seed", range(3))
def test_diagnostics_equal_their_slow_twins(seed):
    world = World(seed)
    content, vectors, place = world.content(), slow_vectors(world.sets), tie_ranks(world.tokens)
    alive = [i for i in range(1, 71) if any(vectors[i])]
    distance = {(i, j): sum((a - b) ** 2 for a, b in zip(vectors[i], vectors[j], strict=True))
                for i in alive for j in alive if i != j}  # fmt: skip
    unit = content.vectors.numpy()[alive]
    slow = math.log(np.mean([math.exp(-2 * d) for d in distance.values()]))
    assert diagnostics.uniformity(unit) == pytest.approx(slow, rel=1e-5)
    pairs = [distance[i, j] for taken in world.history.values() for i in taken for j in taken
             if i != j and i in alive and j in alive]  # fmt: skip
    found = diagnostics.alignment(content.history, content.vectors.numpy())
    assert found == pytest.approx(np.mean(pairs), rel=1e-5)
    takers = {i: {u for u, taken in world.history.items() if i in taken} for i in range(1, 71)}
    shares = []
    for i in range(1, 71):
        taste = {j: len(takers[i] & takers[j]) / math.sqrt(len(takers[i]) * len(takers[j]))
                 for j in range(1, 71) if j != i and takers[i] & takers[j]}  # fmt: skip
        cosine = {j: 1 - distance[i, j] / 2 for j in alive if i in alive and j != i}
        near = slow_list(cosine, place, cosine)[:5]
        if len(taste) >= 5 and len(near) == 5 and all(cosine[j] > 0 for j in near):
            shares.append(len(set(near) & set(slow_list(taste, place, taste)[:5])) / 5)
    assert diagnostics.neighbour_agreement(content, 5) == pytest.approx(np.mean(shares))


def test_the_masked_set_equals_its_slow_twin():
    tokens = ["[PAD]", "11", "3", "x", "2"]
    order = [4, 2, 3, 1]  # by length, then spelling: 2, 3, x, 11
    drawn = np.random.Generator(np.random.PCG64(1002)).permutation(4)
    for ratio, count in ((0, 0), (0.3, 1), (0.5, 2), (0.99, 3), (1, 4)):
        expected = {order[place] for place in drawn[:count]}
        assert set(np.flatnonzero(masked_items(tokens, ratio, 2))) == expected


# --- what must hold for any features ---------------------------------------------------------


@pytest.mark.parametrize("lists", [zero_shot_lists, item_cf_lists])
def test_scale_and_rotation_change_no_order(lists):
    world = World(7)
    rng = np.random.default_rng(7)
    before = lists(world.content(), world.task).items
    turn = [np.linalg.qr(rng.normal(size=(w, w)))[0] for w in (8, 5)]
    scale = rng.uniform(0.1, 10, size=(71, 1))
    world.sets = [scale * rows @ matrix for rows, matrix in zip(world.sets, turn, strict=True)]
    # equal scores stay equal to 2⁻²⁰ only up to rounding at the edge of a step
    assert (lists(world.content(), world.task).items == before).mean() > 0.999


@pytest.mark.parametrize("lists", [zero_shot_lists, item_cf_lists])
def test_names_of_internal_ids_change_nothing(lists):
    """Renumbered users and items: the same lists of tokens."""
    world = World(8)
    tokens = np.array(world.tokens)
    before = lists(world.content(), world.task)
    rng = np.random.default_rng(8)
    user = np.array([0, *(1 + rng.permutation(world.users))])
    item = np.array([0, *(1 + rng.permutation(world.items))])
    train, test = ((user[u], item[i]) for u, i in (world.train, world.test))
    renamed, sets = tokens.copy(), []
    renamed[item] = tokens
    for rows in world.sets:
        moved = np.zeros_like(rows)
        moved[item] = rows
        sets.append(moved)
    content = Content.of(train, sets, renamed, world.users + 1)
    after = lists(content, EvalTask.from_pairs(test, [train], world.shape))
    rows = np.searchsorted(after.users, user[before.users])
    expected = np.where(before.items >= 0, tokens[before.items], "")
    found = np.where(after.items >= 0, renamed[after.items], "")[rows]
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("lists", [zero_shot_lists, item_cf_lists])
def test_nothing_looks_at_held_out_items(lists):
    """Lists hold no training item, all other items, and do not depend on who is asked for what."""
    world = World(9)
    ranking = lists(world.content(), world.task, k=world.items)
    for row, user in enumerate(ranking.users):
        found = [i for i in ranking.items[row] if i >= 0]
        assert sorted(found) == sorted(set(range(1, 71)) - set(world.history[user]))
    other = EvalTask.from_pairs(
        (world.test[0], np.roll(world.test[1], 3)), [world.train], world.shape
    )
    again = lists(world.content(), other, k=world.items)
    assert np.array_equal(again.items, ranking.items)
    assert not np.array_equal(again.hits, ranking.hits)


@pytest.mark.parametrize("lists", [zero_shot_lists, item_cf_lists])
def test_without_features_the_fixed_order_is_left(lists):
    world = World(10)
    world.sets = [np.zeros((71, 3), dtype=np.float32)]
    order = np.argsort(tie_ranks(world.tokens))
    ranking = lists(world.content(), world.task)
    for row, user in enumerate(ranking.users):
        expected = [i for i in order if i not in (0, *world.history[user])][:50]
        assert [i for i in ranking.items[row] if i >= 0] == expected


@pytest.mark.parametrize("lists", [zero_shot_lists, item_cf_lists])
def test_a_set_of_zeros_adds_nothing(lists):
    world = World(11)
    before = lists(world.content(), world.task).items
    world.sets.append(np.zeros((71, 4), dtype=np.float32))
    assert np.array_equal(lists(world.content(), world.task).items, before)


def test_masking_at_the_ends_of_the_grid():
    world = World(12)
    sets = {"t": table(world.sets[0], "text"), "i": table(world.sets[1], "image")}

    def masked(tables, modality, ratio):
        mask = FeatureMask(modality=modality, ratio=ratio, seed=3)
        return mask_features(tables, mask, world.tokens, open_features=None)

    def lists(tables):
        values = [one.values for one in tables.values()]
        content = Content.of(world.train, values, world.tokens, world.users + 1)
        return zero_shot_lists(content, world.task).items

    assert masked(sets, "image", 0) is sets
    text_only = lists({"t": sets["t"]})
    assert np.array_equal(lists(masked(sets, "image", 1)), text_only)
    nothing = masked(masked(sets, "image", 1), "text", 1)
    assert not any(one.values.any() or one.present.any() for one in nothing.values())
    with pytest.raises(FeatureError, match="has the modality 'audio'"):
        masked(sets, "audio", 0.5)


def test_masks_nest_and_do_not_depend_on_the_features():
    world = World(13)
    previous = np.zeros(71, dtype=bool)
    for ratio in (0.1, 0.3, 0.5, 1.0):
        now = masked_items(world.tokens, ratio, seed=1)
        assert now.sum() == int(ratio * 70 + 1e-9)
        assert not (previous & ~now).any()
        previous = now
        mask = FeatureMask(modality="text", ratio=ratio, seed=1)
        for name in "ab":
            full = table(np.random.default_rng(ord(name)).normal(size=(71, 2)))
            full.values[0] = 0
            gone = mask_features({name: full}, mask, world.tokens, None)[name]
            assert np.array_equal(~gone.values.any(1)[1:], now[1:])


def test_fused_sets_take_rows_of_their_second_file():
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(2, 7, 3))
    rows[1, [1, 3]] = 0  # without the image there is nothing left of two items, one of them hidden
    whole, half = (
        table(r, "fused", name=n) for r, n in zip(rows, ("f", "f-no-image"), strict=True)
    )
    opened = []

    def open_features(name):
        opened.append(name)
        return half

    mask = FeatureMask(modality="image", ratio=0.5, seed=0)
    mixed = mask_features({"f": whole}, mask, TOKENS, open_features)["f"]
    assert opened == ["f-no-image"]
    hidden = masked_items(TOKENS, 0.5, 0)
    assert np.array_equal(mixed.values[hidden], half.values[hidden])
    assert np.array_equal(mixed.values[~hidden], whole.values[~hidden])
    assert np.flatnonzero(~mixed.present).tolist() == [3]
    assert mixed.manifest.sha256 != whole.manifest.sha256
    narrow = table(np.ones((7, 2)), "fused", name="narrow")
    with pytest.raises(FeatureError, match="does not match"):
        mask_features({"f": whole}, mask, TOKENS, lambda name: narrow)


def test_groups_partition_users_and_items():
    world = World(14, users=80)
    ranking = zero_shot_lists(world.content(), world.task, 20)
    values = ranking.per_user(["Recall"], [20])
    history = np.bincount(world.train[0], minlength=81)
    users = long_tail.by_user(values, ranking.users, history).values()
    assert sum(group["users"] for group in users) == len(ranking.users)
    weighted = sum(group["users"] * group.get("Recall@20", 0) for group in users)
    assert weighted / len(ranking.users) == pytest.approx(values["Recall@20"].mean())
    degree = np.bincount(world.train[1], minlength=71)
    items = long_tail.by_item(ranking, world.task, degree, [20]).values()
    assert sum(group["items"] for group in items) == 70
    assert sum(group["targets"] for group in items) == world.task.targets.nnz
    assert sum(group.get("exposure@20", 0) for group in items) == pytest.approx(1)


def test_cold_items_are_in_no_history():
    world = World(15)
    cold = cold_start.simulate([world.train, world.test], world.tokens, 41, 0.2, 0)
    assert len(cold.cold) == 14
    assert not np.isin(cold.history[1], cold.cold).any()
    assert np.isin(cold.task.users, cold.history[0]).all()
    warm = set(range(1, 71)) - set(cold.cold.tolist())
    assert {i for u, i in zip(*world.train, strict=True) if i in warm} == set(cold.history[1])


@pytest.mark.parametrize("lists", [zero_shot_lists, item_cf_lists])
@pytest.mark.parametrize("name", ["random", "shuffled:real"])
def test_controls_are_at_chance(lists, name):
    """The mean over draws lies within three standard errors of the exact chance level."""
    world = World(16, users=120, items=150)
    taste = np.random.default_rng(1).normal(size=(151, 6)).astype(np.float32)
    taste[0] = 0
    real = table(taste)
    expected = chance(world.task, [20])
    found = []
    for draw in range(24):
        values = control_features(f"{name}@{draw}", world.tokens, lambda _: real).values
        content = Content.of(world.train, [values], world.tokens, world.users + 1)
        found.append(lists(content, world.task, k=20).means(["Recall", "NDCG"], [20]))
    for metric in ("Recall@20", "NDCG@20"):
        draws = [one[metric] for one in found]
        assert abs(np.mean(draws) - expected[metric]) < 3 * stats.sem(draws)


@pytest.mark.parametrize("lists", [zero_shot_lists, item_cf_lists])
def test_features_that_tell_taste_are_far_above_chance(lists):
    rng = np.random.default_rng(2)
    block = np.arange(60) % 3
    rows = np.zeros((61, 5), dtype=np.float32)
    rows[1:] = np.eye(5)[block] + 0.1 * rng.normal(size=(60, 5))
    user = np.repeat(np.arange(1, 31), 10)
    item = np.concatenate(
        [1 + rng.permutation(np.flatnonzero(block == u % 3))[:10] for u in range(1, 31)]
    )
    test = np.tile(np.arange(10) >= 7, 30)
    train = user[~test], item[~test]
    task = EvalTask.from_pairs((user[test], item[test]), [train], (31, 61))
    content = Content.of(train, [rows], ["[PAD]", *map(str, range(60))], 31)
    assert lists(content, task, k=13).means(["Recall"], [13])["Recall@13"] == 1


def test_controls_keep_rows_and_say_what_they_are():
    real = table(ROWS)
    dealt = control_features("shuffled:mine@2", TOKENS, lambda name: {"mine": real}[name])
    assert sorted(map(tuple, dealt.values)) == sorted(map(tuple, ROWS))
    assert np.array_equal(dealt.present, real.present)
    assert not np.array_equal(dealt.values, real.values)
    assert dealt.manifest.encoder == "control: rows of mine dealt to random items"
    one, same, other = (
        control_features(n, TOKENS, None) for n in ("random", "random@0", "random@1")
    )
    assert np.array_equal(one.values, same.values)
    assert one.manifest.sha256 == same.manifest.sha256 != other.manifest.sha256
    moved = ["[PAD]", "5", "4", "3", "2", "1", "0"]  # rows follow the tokens
    assert np.array_equal(control_features("random", moved, None).values[:0:-1], one.values[1:])
    for wrong in ("random@x", "shuffled:", "shuffled:@1"):
        with pytest.raises(UnknownNameError, match="Unknown control features"):
            control_features(wrong, TOKENS, None)


def test_kept_neighbours_are_sparse():
    """Never items × items: what the ranker keeps grows with k, not with the items."""
    rows = np.random.default_rng(3).normal(size=(2001, 4)).astype(np.float32)
    rows[0] = 0
    content = Content.of((np.array([1]), np.array([1])), [rows], ["", *map(str, range(2000))], 2)
    votes = item_cf.neighbours(content, 20)
    assert sp.issparse(votes)
    assert votes.nnz == 20 * 2000
    assert votes.min() >= 0
    assert np.diff(votes.indptr)[0] == 0
