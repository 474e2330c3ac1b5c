"""Generated trials: records from anyone are read whole, as the run that their path names, or not.

Every refusal is one printable error of bounded length that names the file.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_records import as_json, hostile, records
from hypothesis import given, settings
from records import record, store
from trials import trial

from alignrec_recbole.errors import RecordError, printable
from alignrec_recbole.runs.record import (
    MAX_RECORD_BYTES,
    RunRecord,
    read_record,
    read_runs,
    skip_note,
)

ALL = records()


def check_error(error: RecordError, path: Path) -> None:
    """An error that can be read."""
    text = str(error)
    assert path.name in error.problem
    assert len(text) < 4000
    assert all(printable(line, len(line)) == line for line in text.split("\n"))
    assert "\n" not in skip_note(path, error)


def numbers(value: Any) -> list[float]:
    """All numbers inside a value."""
    if isinstance(value, (dict, list)):
        parts = value.values() if isinstance(value, dict) else value
        return [number for part in parts for number in numbers(part)]
    return [value] if isinstance(value, (int, float)) else []


@settings(deadline=None, max_examples=400)
@given(hostile())
def test_a_changed_record_is_read_or_refused(case: tuple[RunRecord, dict[str, Any]]) -> None:
    made, values = case
    with trial("records"), tempfile.TemporaryDirectory() as folder:
        path = store(Path(folder), made)
        path.write_text(json.dumps(values))
        try:
            found = read_record(path)
        except RecordError as error:
            check_error(error, path)
            return
        for field in ("model", "dataset", "protocol", "setting", "seed", "features", "config"):
            assert getattr(found, field) == getattr(made, field)
        assert all(math.isfinite(number) for number in numbers(as_json(found)))


# By hand -----------------------------------------------------------------------------------------


def replaced(**changes: Any) -> Callable[[Path], None]:
    """Fields of the file have other values, the path is as before."""

    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def other(made: RunRecord) -> Callable[[Path], None]:
    """A valid record of another run in the place of this one."""
    return lambda path: path.write_text(made.model_dump_json()) and None


def written(content: bytes) -> Callable[[Path], None]:
    """Other content."""
    return lambda path: path.write_bytes(content) and None


def special(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Something else in the place of the file."""

    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def sparse(path: Path) -> None:
    """A file of 200 MB."""
    with path.open("wb") as handle:
        handle.truncate(200 << 20)


DAMAGED: dict[str, Callable[[Path], None]] = {
    "empty": written(b""),
    "cut off": lambda path: written(path.read_bytes()[:100])(path),
    "not UTF-8": written(b"\xff\xfe{}"),
    "not an object": written(b"[]"),
    "nested 100,000 deep": written(b"[" * 100_000),
    "config nested deeply": lambda path: written(
        path.read_bytes().replace(
            b'"config": {', b'"config": {"a": ' + b"[" * 99 + b"]" * 99 + b","
        )
    )(path),
    "NaN in a metric": replaced(metrics={"Recall@20": math.nan}),
    "infinity in the configuration": replaced(config={"reg_weight": math.inf}),
    "an integer of 5,000 digits": written(b'{"seed": ' + b"9" * 5000 + b"}"),
    "200 MB": special(sparse),
    "a folder": special(lambda path: path.mkdir()),
    "a FIFO": special(lambda path: os.mkfifo(path)),
    "a loop of links": special(lambda path: path.symlink_to(path.name)),
    "a link to a device": special(lambda path: path.symlink_to("/dev/zero")),
    "unreadable name in a link": special(lambda path: path.symlink_to("x" * 250 + ".json")),
    "another model's": other(record("LightGCN")),
    "another seed's": other(record("BPR", 1000)),
    "another configuration's": other(record("BPR", config={"reg_weight": 0.5})),
    "of another data set": other(record("BPR", dataset="other")),
    "of another protocol": other(record("BPR", protocol="zero-shot")),
    "of another setting": other(record("BPR", setting="recbole")),
    "another hash": replaced(config_sha256="1" * 64),
    "a hash that only begins alike": lambda path: replaced(
        config_sha256=json.loads(path.read_text())["config_sha256"][:8] + "0" * 56
    )(path),
    "another configuration under the old hash": replaced(config={"reg_weight": 0.7}),
    "other data under the old hash": replaced(data={"split": {}, "files": {"x.inter": "0" * 64}}),
    "seconds empty": replaced(seconds={}),
    "seconds of text": replaced(seconds={"train_epoch": "a", "total": 1.0}),
    "setting unknown": replaced(setting="zz"),
    "seed of 400 digits": replaced(seed=10**400),
    "seed a boolean": replaced(seed=True),
    "seed a text": replaced(seed="999"),
    "device a list": replaced(machine={"device": ["cpu"]}),
    "selection empty": replaced(selection={}),
    "history of texts": replaced(history=["a"]),
    "history with texts as scores": replaced(
        history=[{"epoch": 0, "seconds": 1.0, "loss": 1.0, "valid": "a"}]
    ),
    "history without epochs": replaced(history=[{"seconds": 1.0, "loss": 1.0}]),
    "data files a list": replaced(data={"split": {}, "files": []}),
    "memory of 400 digits": replaced(peak_rss_bytes=10**400),
    "chance garbage": replaced(chance={"Recall@20": "a"}),
    "a metric that overflows": replaced(metrics={"Recall@20": 1e300}),
    "a metric name of 100,000 letters": replaced(metrics={"x" * 100_000: 0.1}),
    "a metric name with an escape": replaced(metrics={"\x1b[31m": 0.1}),
    "a model of 100,000 letters": replaced(model="x" * 100_000),
    "an absolute data set": replaced(dataset="/tmp/x"),
    "a data set above": replaced(dataset="../x"),
    "a protocol with a slash": replaced(protocol="a/b"),
    "per-user values elsewhere": replaced(per_user={"file": "../../x.npz", "sha256": "0" * 64}),
    "per-user values absolute": replaced(per_user={"file": "/etc/passwd", "sha256": "0" * 64}),
    "an unknown field": replaced(extra=1),
    "features that no file has": replaced(features="lsa"),
    "long-tail without groups": replaced(protocol="long-tail"),
    "mask-modality without a curve": replaced(protocol="mask-modality"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_record_is_refused_and_the_others_are_read(tmp_path: Path, name: str) -> None:
    good = [store(tmp_path, record("BPR", seed)) for seed in (1, 2)]
    path = store(tmp_path, record("BPR", 999))
    with trial("records", name):
        DAMAGED[name](path)
        with pytest.raises(RecordError) as refused:
            read_record(path)
        check_error(refused.value, path)
        skipped: list[Path] = []
        found = read_runs(tmp_path / "runs", lambda each, _: skipped.append(each))
        assert [run.path for run in found] == good
        assert skipped == [path]
        with pytest.raises(RecordError, match=r"BPR|none-mmrec"):
            read_runs(tmp_path / "runs")


@pytest.mark.parametrize("kind", ALL)
def test_the_records_that_are_changed_here_are_good(tmp_path: Path, kind: str) -> None:
    with trial("records", kind):
        assert read_record(store(tmp_path, ALL[kind])) == ALL[kind]


def test_a_name_may_hold_brackets_blanks_and_unicode(tmp_path: Path) -> None:
    made = record(
        "a^2~b [x] $\\frac{".replace("\\", ""), dataset="Sports (5-core) \u4e2d", features="@SUM(x)"
    )
    assert read_record(store(tmp_path, made)) == made


def test_the_largest_record_is_far_above_those_of_long_trainings(tmp_path: Path) -> None:
    history = [
        {"epoch": epoch, "seconds": 0.123456789, "loss": 0.123456789012345, "losses": [0.1] * 4}
        for epoch in range(50_000)
    ]
    path = store(tmp_path, record(history=history))
    assert path.stat().st_size < MAX_RECORD_BYTES
    assert len(read_record(path).history) == len(history)
