"""Ranking and metrics against RecBole's evaluator and a slow twin."""

import numpy as np
import pytest
import torch

from alignrec_recbole.evaluation import ranking as ranking_module
from alignrec_recbole.evaluation.ranking import EvalTask, find_hits, rank
from alignrec_recbole.ops.topk import top_k

METRICS = ["Recall", "NDCG", "Precision", "MAP", "Hit", "MRR"]


def task_of(n_users, n_items, rng, masked=0.1, targets=0.05):
    draws = rng.random((n_users, n_items))
    draws[0] = draws[:, 0] = 1  # PAD
    target = draws < targets
    hidden = (draws > 1 - masked) & (draws < 1)
    return (
        EvalTask.from_pairs(np.nonzero(target), [np.nonzero(hidden)], (n_users, n_items)),
        target,
        hidden,
    )


@pytest.mark.parametrize("kind", ["random", "negative", "ties", "block by block"])
def test_metrics_equal_recbole(kind, monkeypatch):
    from recbole.evaluator import metrics_dict
    from recbole.evaluator.collector import DataStruct

    rng = np.random.default_rng(3)
    task, target, hidden = task_of(60, 300, rng)
    scores = rng.normal(size=(60, 300)).astype(np.float32)
    if kind == "negative":
        scores -= 100
    if kind == "ties":
        scores = np.round(scores)
    if kind == "block by block":
        monkeypatch.setattr(ranking_module, "BLOCK_BYTES", 7 * 4 * 300)
        monkeypatch.setattr(ranking_module, "HIT_BLOCK_ROWS", 11)
    table = torch.from_numpy(scores)
    ranking = rank(lambda users: table[users].clone(), task, 20, "cpu")

    struct = DataStruct()
    users = ranking.users
    rows = np.concatenate(
        [target[users[:, None], ranking.items], target[users].sum(1, keepdims=True)], axis=1
    )
    struct.set("rec.topk", torch.from_numpy(rows.astype(np.int64)))
    config = {"metric_decimal_place": 15, "topk": [5, 20]}
    for name in METRICS:
        theirs = metrics_dict[name.lower()](config).calculate_metric(struct)
        ours = ranking.means([name], [5, 20])
        for k in (5, 20):
            assert ours[f"{name}@{k}"] == pytest.approx(theirs[f"{name.lower()}@{k}"], abs=1e-12)
    # and the lists themselves hold the best scores, whatever the order of equal ones
    open_scores = np.where(hidden, -np.inf, scores)
    open_scores[:, 0] = -np.inf
    for user, items in zip(users, ranking.items, strict=True):
        best = np.sort(open_scores[user])[::-1][:20]
        np.testing.assert_array_equal(open_scores[user][items], best)


def test_pad_and_masked_items_never_appear_and_short_lists_end_in_minus_one():
    rng = np.random.default_rng(0)
    task, _, hidden = task_of(20, 12, rng, masked=0.5)
    ranking = rank(lambda users: torch.ones(len(users), 12), task, 11, "cpu")
    for user, items in zip(ranking.users, ranking.items, strict=True):
        shown = items[items >= 0]
        assert 0 not in shown
        assert not hidden[user][shown].any()
        assert len(shown) == 11 - hidden[user].sum()
        assert (items[len(shown) :] == -1).all()


def test_users_without_targets_are_not_ranked():
    task = EvalTask.from_pairs(
        (np.array([2]), np.array([1])), [(np.array([1]), np.array([1]))], (4, 3)
    )
    assert task.users.tolist() == [2]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_highest_score_that_is_no_number_is_an_error(value):
    """Of one user and one item among finite ones."""
    task, _, _ = task_of(5, 30, np.random.default_rng(0), masked=0, targets=0.3)
    scores = torch.zeros(5, 30)
    scores[task.users[-1], 3] = value
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        rank(lambda users: scores[users], task, 5, "cpu")


def test_the_end_of_a_list_is_no_hit():
    """Not even where the target of the user before is the last item: −1 is a place before 0."""
    users, items = np.array([1, 2]), np.array([3, 1])
    task = EvalTask.from_pairs((users, items), [], (3, 4))
    hits, targets = find_hits(np.array([[3, -1], [2, -1]]), task.targets)
    assert hits.tolist() == [[True, False], [False, False]]
    assert targets.tolist() == [1, 1]


@pytest.mark.parametrize("width", [5, 1000, 5000, 5123])
@pytest.mark.parametrize("k", [1, 3, 50, 130])
@pytest.mark.parametrize("lies", ["in rows", "across", "across, cut out"])
def test_top_k_has_the_values_of_torch(width, k, lies):
    k = min(k, width)
    table = torch.randn(7, width).round(decimals=1)
    if lies != "in rows":
        table = table.T.contiguous().T
    if lies == "across, cut out":
        table = table[2:6]
    best, where = top_k(table, k)
    torch.testing.assert_close(best, table.topk(k).values)
    torch.testing.assert_close(table.gather(1, where), best)
    assert all(len(set(row)) == k for row in where.tolist())


def test_top_k_of_nothing_is_empty():
    best, where = top_k(torch.randn(3, 400), 0)
    assert best.shape == where.shape == (3, 0)
