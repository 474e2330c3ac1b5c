"""Generated trials: records from anyone are read whole, as the run that their path names, or not.

Every refusal is one printable error of bounded length that names the file.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hostile_records import DAMAGED, as_json, hostile, records
from hypothesis import given, settings
from records import record, store
from trials import trial

from alignrec_recbole.errors import RecordError, printable
from alignrec_recbole.runs.config_hash import config_hashes
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


# By hand ------------------------------------------------------------------------------------------


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


def features_with(settings: Any) -> dict[str, Any]:
    file = {"sha256": "0" * 64, "modality": "text", "settings": settings}
    return {"features": "lsa", "feature_files": {"lsa": file}}


@pytest.mark.parametrize(
    "fields",
    [
        {"config": {"seed": 999, "epochs": "5"}},
        {"config": {"seed": 999, "epochs": True}},
        {"config": {"seed": 999, "stopping_step": None}},
        {"config": {"epochs": 5}},
        {"config": {"seed": 1000}},
        features_with(3),
        features_with({"published": ["x"]}),
    ],
)
def test_a_field_that_a_report_reads_is_checked_under_its_own_hash(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    values = {**record("BPR").__dict__, **fields}
    identity = ("model", "dataset", "protocol", "config", "data", "feature_files")
    digest, *_ = config_hashes(**{key: values[key] for key in identity})
    made = record("BPR").model_copy(update={**fields, "config_sha256": digest})
    path = store(tmp_path, made)
    with pytest.raises(RecordError, match="is not a run record") as caught:
        read_record(path)
    check_error(caught.value, path)
