"""Paired tests are scipy's, point the right way, and are corrected as Holm says."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from records import record, store
from scipy import stats

from alignrec_recbole.errors import RecordError
from alignrec_recbole.reports import significance
from alignrec_recbole.reports.comparisons import comparisons
from alignrec_recbole.reports.grouping import comparable_groups
from alignrec_recbole.reports.significance import UserMeans, compare, corrected, holm, paired_p
from alignrec_recbole.runs.lists import UserValues, read_user_values
from alignrec_recbole.runs.record import Run, read_runs

SCIPY = {"t": stats.ttest_rel, "wilcoxon": stats.wilcoxon}


def pair(shift: float, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    base = draw.random(n)
    return base + shift + draw.normal(0, 0.1, n), base


@pytest.mark.parametrize("test", ["t", "wilcoxon"])
@pytest.mark.parametrize(("side", "name"), [("two-sided", "two-sided"), ("right-sided", "greater")])
def test_equal_to_scipy(test: str, side: str, name: str) -> None:
    target, baseline = pair(0.01)
    expected = SCIPY[test](target, baseline, alternative=name).pvalue
    assert paired_p(target, baseline, side, test) == expected


@pytest.mark.parametrize("test", ["t", "wilcoxon"])
def test_right_sided_finds_a_gain_and_calls_no_loss_one(test: str) -> None:
    gain, loss = pair(0.03), pair(-0.03)
    assert paired_p(*gain, "right-sided", test) < 1e-4
    assert paired_p(*loss, "right-sided", test) > 0.999
    assert paired_p(*loss, "two-sided", test) < 1e-4  # it is there, on the other side


def test_equal_pairs_are_no_difference() -> None:
    assert paired_p([0.1, 0.2], [0.1, 0.2]) == 1.0


def test_models_without_draws_are_not_tested_over_seeds(tmp_path: Path) -> None:
    for seed in (999, 1000, 1001):
        store(tmp_path, record("AlignRec", seed, 0.3141592))
        store(tmp_path, record("BPR", seed, 0.1271828))
    (members,) = comparable_groups(read_runs(tmp_path / "runs")).values()
    over_seeds = [entry for entry in comparisons(members) if entry.over == "seeds"]
    assert [entry.metric for entry in over_seeds] == ["Recall@20", "NDCG@20"]
    for entry in over_seeds:
        assert (entry.pairs, entry.p) == (3, None)
        assert entry.why == "the same difference in all seeds"
        assert entry.difference == pytest.approx(0.1869764)


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04: times 4, 3, 2, 1 = .02 .03 .06 .04; the last is raised to .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])  # not 1.2
    assert holm([]).size == 0


def runs_of(tmp_path: Path, ours: np.ndarray, theirs: np.ndarray):
    for seed in (999, 1000, 1001):
        for model, users in (("AlignRec", ours), ("BPR", theirs), ("Pop", theirs / 2)):
            noise = {999: -1e-3, 1000: 0, 1001: 1e-3}[seed] * len(model)  # its mean is 0
            values = users + noise
            store(tmp_path, record(model, seed, float(values.mean())), values)
    return next(iter(comparable_groups(read_runs(tmp_path / "runs")).values()))


def test_over_users_and_over_seeds_from_stored_files(tmp_path: Path) -> None:
    ours, theirs = pair(0.02)
    members = {group.label: group for group in runs_of(tmp_path, ours, theirs)}
    users, seeds = compare(members["AlignRec"], members["BPR"], "Recall@20", "right-sided")
    assert (users.over, users.pairs, seeds.over, seeds.pairs) == ("users", 300, "seeds", 3)
    assert users.p == pytest.approx(stats.ttest_rel(ours, theirs, alternative="greater").pvalue)
    assert users.difference == pytest.approx((ours - theirs).mean())
    worse = compare(members["BPR"], members["AlignRec"], "Recall@20", "right-sided")[0]
    assert worse.p is not None
    assert worse.p > 0.999


def test_holm_runs_within_a_metric_and_kind_of_pair(tmp_path: Path) -> None:
    found = comparisons(runs_of(tmp_path, *pair(0.02)))
    family = [c for c in found if (c.metric, c.over) == ("Recall@20", "users")]
    assert {(c.target, c.baseline) for c in family} == {("AlignRec", "BPR"), ("AlignRec", "Pop")}
    assert [c.p_holm for c in family] == pytest.approx(holm([c.p or 0 for c in family]))


def test_without_user_files_there_is_no_p_and_the_reason_is_told(tmp_path: Path) -> None:
    for model in ("AlignRec", "BPR"):
        store(tmp_path, record(model, value=0.1 if model == "BPR" else 0.2))
    found = comparisons(next(iter(comparable_groups(read_runs(tmp_path / "runs")).values())))
    reasons = {"users": "no per-user values beside the record", "seeds": "1 common seed"}
    assert [entry.over for entry in found] == ["users", "seeds"] * 2
    for entry in found:
        assert (entry.p, entry.p_holm) == (None, None)
        assert entry.why == reasons[entry.over]


def test_a_metric_that_not_every_seed_has_has_no_means_over_users(tmp_path: Path) -> None:
    for seed, metrics in ((999, ("Recall@20", "NDCG@20")), (1000, ("Recall@20",))):
        store(tmp_path, record("BPR", seed), np.full(5, seed / 1e4), metrics=metrics)
    ((group,),) = comparable_groups(read_runs(tmp_path / "runs")).values()
    means = UserMeans()
    assert means.of(group, "NDCG@20") is None
    assert means.of(group, "Recall@20") == pytest.approx({f"u{n}": 0.09995 for n in range(5)})


def test_other_users_are_not_paired(tmp_path: Path) -> None:
    store(tmp_path, record("AlignRec"), np.linspace(0, 1, 5))
    store(tmp_path, record("BPR"), np.linspace(0, 1, 6))
    found = comparisons(next(iter(comparable_groups(read_runs(tmp_path / "runs")).values())))
    assert {c.why for c in found if c.over == "users"} == {"other users"}


def test_lists_and_other_metrics_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values of each file are read once; what a report does not test leaves the memory."""
    store(tmp_path, record("AlignRec", 999, 0.3), pair(0.0)[0])
    store(tmp_path, record("AlignRec", 1000, 0.3), pair(0.0)[1])
    read: list[list[weakref.ref[np.ndarray]]] = []

    def read_values(run: Run) -> UserValues | None:
        values = read_user_values(run)
        assert values is not None
        values = replace(values, top=np.zeros((300, 20), dtype=np.int32))
        read.append([weakref.ref(values.top), weakref.ref(values.values["NDCG@10"])])
        return values

    monkeypatch.setattr(significance, "read_user_values", read_values)
    (((group,),),) = (list(comparable_groups(read_runs(tmp_path / "runs")).values()),)
    means = UserMeans()
    one, other = means.of(group, "Recall@20"), means.of(group, "NDCG@20")
    assert one == other  # the same numbers are stored for every metric
    assert one == pytest.approx({f"u{n}": v for n, v in enumerate(sum(pair(0.0)) / 2)})
    gc.collect()
    assert all(part() is None for file in read for part in file)
    assert means.of(group, "Recall@10") == one
    assert means.of(group, "Precision@20") is None
    assert means.of(group, "Recall@20") == one
    assert len(read) == 6  # twice more, for metrics that no report tests


def test_a_changed_user_file_is_refused(tmp_path: Path) -> None:
    path = store(tmp_path, record("AlignRec"), np.linspace(0, 1, 5))
    store(tmp_path, record("BPR"), np.linspace(0, 1, 5))
    with path.with_suffix(".users.npz").open("ab") as handle:
        handle.write(b"x")
    with pytest.raises(RecordError, match="not the file that its record describes"):
        comparisons(next(iter(comparable_groups(read_runs(tmp_path / "runs")).values())))


def test_correction_leaves_out_what_was_not_tested(tmp_path: Path) -> None:
    store(tmp_path, record("AlignRec", 1, 0.2))
    store(tmp_path, record("AlignRec", 2, 0.3))
    store(tmp_path, record("BPR", 1, 0.1))
    store(tmp_path, record("BPR", 2, 0.12))
    members = {
        g.label: g for g in next(iter(comparable_groups(read_runs(tmp_path / "runs")).values()))
    }
    family = corrected(compare(members["AlignRec"], members["BPR"], "Recall@20"))
    assert [c.p_holm for c in family] == [None, family[1].p]
