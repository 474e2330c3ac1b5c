"""The audit of a data set: its report, its files and its verb."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from alignrec_recbole.audit.numbering import bound_of_users
from alignrec_recbole.audit.ranking import Numbered, near_own, recall_and_ndcg
from alignrec_recbole.audit.registry import CHECKS, audit
from alignrec_recbole.audit.report import VERDICTS, read_audit, write_audit
from alignrec_recbole.audit.rows import Rows
from alignrec_recbole.audit.subject import Subject, open_subject
from alignrec_recbole.audit.times import placeholder
from alignrec_recbole.cli.main import main
from alignrec_recbole.data.made_dataset import write_dataset
from alignrec_recbole.data.split_names import parse_split
from alignrec_recbole.errors import DataError, RecordError
from alignrec_recbole.runs.spec import DataSpec

KEYS = {"name", "metric", "value", "control", "chance", "verdict"}


def small() -> Subject:
    """Interactions drawn at random: nothing to find."""
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(120), 8)
    items = np.concatenate([generator.permutation(200)[:8] for _ in range(120)])
    labels = np.tile([0, 0, 0, 0, 0, 0, 1, 2], 120)
    order = generator.permutation(len(users))
    rows = Rows.of(users[order], items[order], labels[order])
    return Subject(DataSpec("small"), rows, seeds=(0, 1, 2))


def test_names_are_unique() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names))


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = audit(small())
    assert report.verdict == "clean"
    write_audit(tmp_path / "small.json", report)
    assert read_audit(tmp_path / "small.json") == report
    (tmp_path / "small.json").write_text("{}")
    with pytest.raises(RecordError, match="not the report of an audit"):
        read_audit(tmp_path / "small.json")


def test_the_contract_of_the_json_file(tmp_path: Path, capsys) -> None:
    command = ["audit", "--dataset", "ml-100k", "--controls", "3", "--no-progress"]
    output, path = tmp_path / "out", tmp_path / "x.json"
    assert main([*command, "--output", str(output), "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["dataset"] == "ml-100k"
    for check in found["checks"]:
        assert check.keys() >= KEYS
        assert check["verdict"] in VERDICTS
    (users,) = [check for check in found["checks"] if check["name"] == "numbering-users"]
    assert users["metric"] == "Recall@20"
    (stored,) = (output / "audit").glob("ml-100k-*.json")
    assert stored.read_bytes() == path.read_bytes()
    assert stored.with_suffix(".md").read_text().startswith("# Audit of ml-100k: ")
    shown = capsys.readouterr().out
    assert "numbering-users" in shown
    assert max(len(line) for line in shown.splitlines() if str(tmp_path) not in line) <= 100


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "users", "positions"),
    [("baby", (0.1496, 0.1354, 0.0039), (0.1120, 0.0017)),
     ("sports", (0.1521, 0.1342, 0.0013), (0.1154, 0.0005))],
)  # fmt: skip
def test_the_numbers_of_the_released_splits(
    name: str, users: tuple, positions: tuple, shared_data: Path
) -> None:
    """Figures of two independent implementations."""
    subject = open_subject(DataSpec(name, data_path=shared_data), seeds=tuple(range(10)))
    wanted = [c for c in CHECKS if c.name in ("numbering-users", "numbering-positions")]
    first, second = audit(subject, wanted).checks
    assert (first.value, first.details["NDCG@20"]) == pytest.approx(users[:2], abs=1e-3)
    assert (second.value, second.control) == pytest.approx(positions, abs=1e-3)
    assert first.control == pytest.approx(users[2], abs=1e-3)
    assert (first.verdict, second.verdict) == ("leak", "leak")


@pytest.mark.data
def test_a_clean_split_of_real_data(shared_data: Path) -> None:
    report = audit(open_subject(DataSpec("lfm2k", data_path=shared_data), seeds=(0, 1, 2)))
    assert report.not_clean() == []


# Rows and times -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "found"),
    [
        ([5, 5, 5, 5], "holds 5 in every row"),
        ([10, 11, 12, 13], "holds the number of the row in the file"),
        ([1, 0, 0, 1], "holds the position of a row among its user's"),
        ([2, 1, 1, 2], "holds the position of a row among its user's"),
        ([900, 100, 100, 800], ""),
    ],
)
def test_placeholders_in_the_place_of_times(times: list[int], found: str) -> None:
    rows = Rows.of(["a", "a", "b", "b"], [1, 2, 3, 4], [0, 2, 0, 1], times)
    assert placeholder(rows) == found


def test_rows_are_read_as_they_are(tmp_path: Path) -> None:
    """Repeated pairs and pairs in two splits are no error here."""
    folder = tmp_path / "odd"
    folder.mkdir()
    lines = ["userID\titemID\ttimestamp\tx_label", "b\t2\t7\t0", "a\t1\t8\t0", "b\t2\t9\t2"]
    (folder / "odd.inter").write_text("\n".join([*lines, "a\t2\t9\t1", "a\t1\t9\t0"]) + "\n")
    subject = open_subject(DataSpec("odd", data_path=tmp_path), seeds=(0, 1, 2))
    rows = subject.rows
    assert rows.user_tokens.tolist() == ["b", "a"]
    assert rows.users.tolist() == [0, 1, 0, 1, 1]
    assert rows.items.tolist() == [0, 1, 0, 0, 1]
    assert (rows.labels.tolist(), rows.times.tolist()) == ([0, 0, 2, 1, 0], [7, 8, 9, 9, 9])
    report = audit(subject)
    assert {check.name for check in report.not_clean()} == {"split-overlap", "split-repeats"}
    skipped = {entry.name: entry.reason for entry in report.skipped}
    assert skipped["split-same-text"] == "the data set has no item table"


def test_interactions_that_their_manifest_does_not_describe_are_refused(tmp_path: Path) -> None:
    """As runs refuse them: the audit would name a split and a seed that the file does not have."""
    path = tmp_path / "made" / "made.inter"
    pairs = [(f"u{user}", f"i{item}") for user in range(4) for item in range(10)]
    frame = pd.DataFrame(pairs, columns=["user", "item"])
    write_dataset(frame, path, parse_split("user-random", 3), numbering="none", source={})
    spec = DataSpec("made", data_path=tmp_path)
    split = open_subject(spec, seeds=(0,)).data["split"]
    assert (split["kind"], split["seed"]) == ("drawn", 3)
    path.write_text(path.read_text() + "u1\ti999\t2\n")
    with pytest.raises(DataError, match=r"made\.inter is not the file that made\.split\.json"):
        open_subject(spec, seeds=(0,))
    (path.parent / "made.split.json").unlink()
    assert open_subject(spec, seeds=(0,)).data["split"]["kind"] == "released"


def test_labels_of_a_typed_column_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    lines = ["user_id:token\titem_id:token\tx_label:float", "a\t1\t0.0", "a\t2\t1.0", "a\t3\t2"]
    (tmp_path / "t" / "t.inter").write_text("\n".join(lines) + "\n")
    subject = open_subject(DataSpec("t", data_path=tmp_path), seeds=(0,), progress=False)
    assert subject.labels.tolist() == [0, 1, 2]


def test_parts_in_files_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for part, row in (("train", "a\t1"), ("valid", "a\t2"), ("test", "a\t3")):
        (folder / f"parts.{part}.inter").write_text(f"user_id:token\titem_id:token\n{row}\n")
    overrides = {"benchmark_filename": ["train", "valid", "test"]}
    subject = open_subject(DataSpec("parts", data_path=tmp_path, overrides=overrides), seeds=(0,))
    assert subject.labels.tolist() == [0, 1, 2]
    assert len(subject.data["files"]) == 3


# Rankers against a dense implementation -----------------------------------------------------------


def dense(split: Numbered, far: np.ndarray) -> np.ndarray:
    """The nearest items by a matrix users × items, training items left out."""
    far = far.astype(np.float64).copy()
    far[split.train] = np.inf
    order = np.lexsort((np.broadcast_to(split.tie, far.shape), far), axis=-1)[:, :20]
    lists = np.where(np.isfinite(np.take_along_axis(far, order, 1)), order, -1)
    return lists[split.ranked]


@pytest.mark.parametrize("seed", range(5))
def test_rankers_list_what_a_dense_matrix_lists(seed: int) -> None:
    generator = np.random.default_rng(seed)
    users, items = 60, (30, 70, 200)[seed % 3]
    taken = generator.random((users, items)) < 0.15
    test = ~taken & (generator.random((users, items)) < 0.05)
    split = Numbered(np.nonzero(taken), np.nonzero(test), users, items)
    smallest = np.where(taken.any(1), taken.argmax(1), items)
    bound = np.array([smallest[user:].min() for user in range(users)])
    far = np.abs(np.arange(items) - (bound[:, None] - 0.25))
    assert (bound_of_users(split) == dense(split, far)).all()
    own = [np.abs(np.arange(items)[:, None] - np.flatnonzero(row)) for row in taken]
    near = np.array([row.min(1) if row.size else np.zeros(items) for row in own])
    assert (near_own(split) == dense(split, near)).all()


def test_chance_is_the_mean_of_random_lists() -> None:
    generator = np.random.default_rng(0)
    taken = generator.random((400, 100)) < 0.1
    test = ~taken & (generator.random((400, 100)) < 0.05)
    split = Numbered(np.nonzero(taken), np.nonzero(test), 400, 100)
    found = []
    for _ in range(20):
        lists = dense(split, generator.random((400, 100)))
        found.append(recall_and_ndcg(split, lists)[0].mean())
    assert split.chance() == pytest.approx(np.mean(found), abs=0.01)
