"""Generated trials of the audit: odd interactions, item tables and damaged reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trials import trial

from alignrec_recbole.audit.registry import CHECKS, audit
from alignrec_recbole.audit.report import OF_DATA, read_audit, write_audit
from alignrec_recbole.audit.subject import open_subject
from alignrec_recbole.errors import DataError, RecordError
from alignrec_recbole.reports.audit_tables import as_markdown, as_terminal
from alignrec_recbole.runs.spec import DataSpec

OF_THE_DATA = [check for check in CHECKS if check.group in OF_DATA]
IDS = st.one_of(
    st.integers(0, 5).map(str),
    st.sampled_from(["a", "b", "007", "7", "1e3", "-1", "9" * 18, "9" * 30, "ü", "\x1b[31m", ""]),
)
TIMES = st.sampled_from(["0", "1", "5", "1700000000", "-3", "nan", "inf", "1e400", "", "x"])
LABELS = st.sampled_from(["0", "0", "0", "1", "2", "3", "0.0", ""])
ROWS = st.lists(st.tuples(IDS, IDS, TIMES, LABELS), max_size=25)
TEXTS = st.lists(
    st.sampled_from(["red shoe", "green tea", "", "!", "red  shoe", "ü" * 9]), max_size=8
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audited")


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS, TEXTS, st.booleans())
def test_interactions_are_audited_or_refused(place: Path, rows, texts, whole: bool) -> None:
    """`whole` adds rows of every split, so that most tables are not refused."""
    folder = place / "odd"
    folder.mkdir(exist_ok=True)
    known = [("1", "1", "4", "0"), ("1", "2", "6", "1"), ("1", "3", "9", "2")] if whole else []
    lines = ["userID\titemID\ttimestamp\tx_label", *("\t".join(row) for row in [*known, *rows])]
    (folder / "odd.inter").write_text("\n".join(lines) + "\n")
    table = ["item_id\ttitle", *(f"{number}\t{text}" for number, text in enumerate(texts))]
    (folder / "items.tsv").write_text("\n".join(table) + "\n")
    with trial("audit", "interactions"):
        try:
            subject = open_subject(DataSpec("odd", data_path=place), seeds=(0, 1, 2))
        except DataError:
            return
        report = audit(subject, OF_THE_DATA)
        assert len(report.checks) + len(report.skipped) == len(OF_THE_DATA)
        assert "\x1b" not in as_terminal(report) + as_markdown(report)
        write_audit(place / "odd.json", report)
        assert read_audit(place / "odd.json") == report


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.just([]),
    st.just({}),
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_report_is_refused_or_whole(place: Path, data) -> None:
    folder = place / "small"
    folder.mkdir(exist_ok=True)
    path = place / "small.json"
    if not (folder / "small.inter").exists():
        (folder / "small.inter").write_text(
            "userID\titemID\tx_label\n1\t1\t0\n1\t2\t1\n1\t3\t2\n2\t1\t0\n"
        )
        subject = open_subject(DataSpec("small", data_path=place), seeds=(0, 1, 2))
        write_audit(place / "whole.json", audit(subject, OF_THE_DATA))
    content = json.loads((place / "whole.json").read_text())
    where = content
    while True:
        key = data.draw(st.sampled_from(sorted(where) if isinstance(where, dict) else
                                        list(range(len(where)))))  # fmt: skip
        if isinstance(where[key], (dict, list)) and where[key] and data.draw(st.booleans()):
            where = where[key]
            continue
        where[key] = data.draw(VALUES)
        break
    path.write_text(json.dumps(content))
    with trial("audit", "report"):
        try:
            report = read_audit(path)
        except RecordError:
            return
        assert "\x1b" not in as_terminal(report) + as_markdown(report)
