"""Figures and verdicts of checks on a few rows, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alignrec_recbole.audit import numbering
from alignrec_recbole.audit.numbering import compare, either_end
from alignrec_recbole.audit.ranking import Numbered, recall_and_ndcg
from alignrec_recbole.audit.registry import CHECKS, audit
from alignrec_recbole.audit.report import Check
from alignrec_recbole.audit.rows import TEST, VALID, Rows
from alignrec_recbole.audit.subject import Subject, open_subject
from alignrec_recbole.runs.spec import DataSpec


def subject_of(*rows: tuple, times: bool = False) -> Subject:
    """From rows of user, item, label and, if there are times, time."""
    columns = list(zip(*rows, strict=True))
    return Subject(
        DataSpec("few"), Rows.of(*columns[:3], columns[3] if times else None), seeds=(0, 1)
    )


def found(subject: Subject, name: str) -> Check:
    (check,) = audit(subject, [check for check in CHECKS if check.name == name]).checks
    return check


def test_a_target_that_is_a_training_row_too_is_not_ranked() -> None:
    split = Numbered(
        (np.array([0, 0]), np.array([1, 2])), (np.array([0, 0]), np.array([2, 3])), 2, 5
    )
    assert split.target_counts.tolist() == [1]
    lists = np.full((1, 20), -1)
    lists[0, :2] = 2, 3
    recalls, gains = recall_and_ndcg(split, lists)
    assert recalls.tolist() == [1]
    assert gains.tolist() == pytest.approx([1 / np.log2(3)])


def test_users_without_a_training_row_are_not_ranked() -> None:
    split = Numbered((np.array([2]), np.array([1])), (np.array([0, 2]), np.array([3, 4])), 3, 5)
    assert split.ranked.tolist() == [2]
    assert split.target_counts.tolist() == [1]
    assert split.chance(2) == 2 / 4


def test_a_training_row_of_the_time_of_the_first_test_row_is_not_from_the_future() -> None:
    """And validation rows are no test rows."""
    rows = [("a", 1, 0, 10), ("a", 2, 1, 20), ("a", 3, 0, 30), ("a", 4, 2, 30),
            ("b", 1, 0, 25), ("b", 2, 1, 17), ("b", 3, 2, 45)]  # fmt: skip
    subject = subject_of(*rows, times=True)
    for name in ("split-time-user", "split-time-all"):
        assert found(subject, name).value == 0
        assert found(subject, name).verdict == "clean"
    later = subject_of(*rows, ("b", 4, 0, 31), times=True)
    assert found(later, "split-time-user").value == 0
    assert found(later, "split-time-all").value == 1 / 4


def test_test_rows_of_new_users_and_of_new_items_are_cold() -> None:
    rows = [("a", 1, 0), ("a", 2, 2), ("b", 1, 2), ("b", 3, 2), ("c", 1, 0), ("c", 4, 1)]
    check = found(subject_of(*rows), "split-cold")
    assert check.value == 1
    assert check.details == {
        "users without training rows": 1, "items without training rows": 3,
        "test rows of such users": 2, "test rows of such items": 2,
    }  # fmt: skip
    known = found(subject_of(*rows, ("b", 5, 0), ("c", 2, 0), ("a", 3, 0)), "split-cold")
    assert known.value == 0


def test_a_validation_pair_in_training_is_an_overlap() -> None:
    rows = [("a", 1, 0), ("a", 1, 1), ("a", 2, 2)]
    check = found(subject_of(*rows), "split-overlap")
    assert (check.value, check.verdict) == (0, "suspicious")
    assert check.details["validation pairs in training"] == 1


def test_first_and_last_items_are_told_apart() -> None:
    rows = [
        (user, item, 2 * (item == 1), 100 * user + item) for user in (1, 2) for item in (1, 2, 3)
    ]
    rows += [(3, 1, 0, 700), (3, 2, 0, 801)]
    check = found(subject_of(*rows, times=True), "split-ends")
    assert check.details["first item in test"] == 1
    assert check.details["last item in test"] == 0
    assert check.chance == pytest.approx(1 / 3)


def test_a_split_by_time_is_clean_where_times_are_tied() -> None:
    """The last of ten rows is in test; three others have its time.

    Training rows come first in the file, as in files that are written here.
    """
    days = [0, 1, 2, 3, 4, 5, 6, 6, 6, 6]
    rows = [
        (user, 10 * user + item, 2 * (item == 9), day)
        for user in range(400)
        for item, day in enumerate(days)
    ]
    check = found(subject_of(*rows, times=True), "split-ends")
    assert check.details["first item in test"] == 0
    assert check.value == pytest.approx(1 / 4, abs=0.07)
    assert check.verdict == "clean"
    one_later = [(user, 10 * user, 0, 7) for user in range(5)]  # of 1.25 % of the users
    assert found(subject_of(*rows, *one_later, times=True), "split-ends").verdict == "suspicious"


def test_ties_in_time_are_not_broken_by_the_order_of_the_file() -> None:
    """Every row of a user has one time, so neither the first nor the last tells the test row."""
    rows = [(user, item, 2 * (item == 0), user) for user in range(500) for item in range(10)]
    check = found(subject_of(*rows, times=True), "split-ends")
    assert check.value == pytest.approx(0.1, abs=0.05)
    assert check.verdict == "clean"


def test_where_popularity_is_below_chance_chance_takes_its_place() -> None:
    """Popular items are in nobody's test rows; a ranker finds 0.35 where chance is 0.21."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(200):
        rows += [(f"u{user}", f"i{item}", 0) for item in rng.permutation(30)[:5]]
        item = rng.integers(30, 50) if user < 70 else rng.integers(50, 100)
        rows += [(f"u{user}", f"i{item}", 2), (f"u{user}", f"i{rng.integers(30, 100)}", 1)]
    rows += [(f"v{item}", f"i{item}", 0) for item in range(100)]
    subject = subject_of(*rows)
    items = np.array([int(token[1:]) for token in subject.rows.item_tokens])
    listed = np.flatnonzero((items >= 30) & (items < 50))
    finding = compare(
        subject, lambda split: np.tile(listed, (len(split.ranked), 1)), "appearance", (False, True)
    )
    assert finding.value == 0.35
    assert finding.chance == pytest.approx(20 / 95, abs=1e-3)
    assert finding.details["popularity Recall@20"] == 0
    assert finding.verdict == "suspicious", "above half of chance, below chance"


def test_ends_are_chosen_on_validation_rows() -> None:
    """There the last items are right, in the test rows the first."""
    rows = [(user, 50, 0) for user in range(60)]
    rows += [(user, 99 - user % 10, 1) for user in range(60)]
    rows += [(user, user % 10, 2) for user in range(60)]
    rows += [(100, item, 0) for item in range(100)]
    subject = subject_of(*rows)

    def first(split: Numbered) -> np.ndarray:
        return np.tile(np.arange(20), (len(split.ranked), 1))

    ranker, ends = either_end(first, subject, "number")
    assert "items from the last" in ends
    test, valid = (subject.numbered("number", label) for label in (TEST, VALID))
    assert recall_and_ndcg(test, ranker(test))[0].mean() == 0
    assert recall_and_ndcg(valid, ranker(valid))[0].mean() == 1


def test_the_ranker_by_the_order_of_rows_is_chosen_on_validation_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One lists the items of all validation rows, the other those of all test rows."""
    rows = [("first", item, 0) for item in range(100)]
    rows += [(f"u{user}", 50, 0) for user in range(60)]
    rows += [(f"u{user}", 41 + user % 8, 1) for user in range(60)]
    rows += [(f"u{user}", (user % 8) + 92 * (user % 2), 2) for user in range(60)]
    middle, ends = np.arange(40, 60), np.r_[0:10, 90:100]  # the same from the last item
    listed = {"bound_of_users": middle, "bound_of_items": ends}
    for name, items in listed.items():
        monkeypatch.setattr(
            numbering, name, lambda split, items=items: np.tile(items, (len(split.ranked), 1))
        )
    assert found(subject_of(*rows), "order-rows").value == 0


def test_a_split_that_runs_draw_is_audited_as_they_draw_it(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pairs = [(user, item) for user in range(30) for item in rng.permutation(40)[:10]]
    lines = ["userID\titemID", *(f"u{user}\ti{item}" for user, item in pairs)]
    (folder / "plain.inter").write_text("\n".join(lines) + "\n")
    subject = open_subject(DataSpec("plain", data_path=tmp_path), seeds=(0,), progress=False)
    rows = subject.rows
    assert np.bincount(subject.labels).tolist() == [240, 30, 30]
    for label, split in enumerate(subject.prepared.splits):
        users, items = split.pairs()
        drawn = zip(
            split.field2id_token[split.uid_field][users],
            split.field2id_token[split.iid_field][items],
            strict=True,
        )
        users, items = subject.pairs(label)
        assert sorted(zip(rows.user_tokens[users], rows.item_tokens[items], strict=True)) == sorted(
            (str(user), str(item)) for user, item in drawn
        )


def test_the_worst_findings_come_first() -> None:
    rows = [("a", 1, 0), ("a", 1, 0), ("a", 2, 1), ("a", 1, 2), ("a", 3, 2)]
    checks = [c for c in CHECKS if c.name in ("split-repeats", "split-overlap", "split-cold")]
    report = audit(subject_of(*rows), [checks[1], checks[2], checks[0]])
    assert report.verdict == "leak"
    assert [c.verdict for c in report.not_clean()] == ["leak", "suspicious", "suspicious"]


@pytest.mark.parametrize(("keep", "time"), [("first", 1.0), ("last", 9.0)])
def test_rows_that_the_run_removes_as_duplicates_are_not_audited(
    keep: str, time: float, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    pairs = [(f"u{user}", f"i{item}") for user in range(30) for item in rng.permutation(20)[:12]]
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    lines += [f"{user}\t{item}\t{at}" for at in (9, 1, 5) for user, item in pairs]
    (tmp_path / "dup").mkdir()
    (tmp_path / "dup" / "dup.inter").write_text("\n".join(lines) + "\n")
    overrides = {"rm_dup_inter": keep, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    spec = DataSpec("dup", data_path=tmp_path, overrides=overrides)
    subject = open_subject(spec, seeds=(0,), progress=False)
    assert len(subject.rows) == len(pairs)
    assert sum(subject.data["interactions"]) == len(pairs)
    assert subject.rows.times is not None
    assert set(subject.rows.times) == {time}
    assert found(subject, "split-repeats").value == 0
