"""The audit of a data set: its report, its files and its verb."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from alignrec_recbole.audit.registry import CHECKS, audit
from alignrec_recbole.audit.report import VERDICTS, read_audit, write_audit
from alignrec_recbole.audit.rows import Rows
from alignrec_recbole.audit.subject import Subject
from alignrec_recbole.cli.main import main
from alignrec_recbole.errors import RecordError
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
    assert max(map(len, shown.splitlines())) <= 100 or str(tmp_path) in shown
