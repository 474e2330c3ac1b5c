"""Marks and footnotes of data sets whose audit is not clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from records import record

from alignrec_recbole.audit.report import AuditReport, Check, report_path, write_audit
from alignrec_recbole.cli.main import main
from alignrec_recbole.reports.audit_marks import AuditMarks
from alignrec_recbole.reports.build import build
from alignrec_recbole.reports.formats.csv import as_csv
from alignrec_recbole.reports.formats.html import as_html
from alignrec_recbole.reports.formats.latex import as_latex
from alignrec_recbole.reports.formats.text import as_text
from alignrec_recbole.reports.leaderboards import comparison
from alignrec_recbole.runs.record import Run, record_folder, record_stem, write_record

SHA, OTHER = "a" * 64, "b" * 64
RELEASED = {"kind": "released", "labels": "x_label"}
LEAK = (
    "Audit of this split: a ranker that reads user numbers and training rows alone has Recall@20 "
    "0.1496, 0.0039 after a random renumbering (leak)."
)


def data(sha: str = SHA, name: str = "toy", **split: Any) -> dict[str, Any]:
    return {"split": split or RELEASED, "files": {f"{name}.inter": sha}}


def check(name: str = "numbering-users", verdict: str = "leak", **changes: Any) -> Check:
    values: dict[str, Any] = {
        "name": name, "group": "numbering", "question": "?", "method": "m", "metric": "Recall@20",
        "value": 0.14961, "control": 0.0039, "verdict": verdict, "rule": "r", "remedy": "re-key",
    }  # fmt: skip
    return Check.model_validate({**values, **changes})


def report(*checks: Check, of: dict[str, Any] | None = None, **changes: Any) -> AuditReport:
    return AuditReport(
        dataset="toy",
        data=of or data(),
        split_sha256=SHA,
        checks=list(checks),
        seconds=1,
        **changes,
    )


def table(marks: AuditMarks, of: dict[str, Any]) -> Any:
    runs = [
        Run(Path("x.json"), record(model=model, value=value, data=of))
        for model, value in (("LightGCN", 0.08), ("BPR", 0.07))
    ]
    return comparison(runs, "toy", marks=marks)


def test_a_leak_is_stated_with_its_control_in_every_form() -> None:
    tables = table(AuditMarks.of([report(check())]), data())
    for text in (as_text(tables), as_text(tables, "github")):
        assert text.count("\u2021") == 2
        assert " ".join(text.split()).endswith(f"\u2021 {LEAK}")
        assert "excluded) \u2021" in text
    latex = as_latex(tables)
    mark = r"\textsuperscript{\textdaggerdbl}"
    assert f"excluded){mark}" in latex
    assert f"\\par{{\\footnotesize {mark} {LEAK}}}\n\\end{{table}}" in latex
    page = as_html(tables[0])
    assert "excluded) \u2021</caption>" in page
    assert page.endswith(f'<p class="footnote">\u2021 {LEAK}</p>')
    assert "\u2021" not in as_csv(tables)


@pytest.mark.parametrize(
    ("checks", "of"),
    [
        ([check(verdict="clean")], data()),
        ([], data()),
        ([check()], data(OTHER)),
        ([check()], {"split": RELEASED, "files": {}}),
        ([check(group="features", subject="lsa")], data()),
        ([check(group="models", subject="BPR")], data()),
    ],
    ids=["clean", "nothing checked", "other data", "no files", "of features", "of a model"],
)
def test_no_mark(checks: list[Check], of: dict[str, Any]) -> None:
    tables = table(AuditMarks.of([report(*checks)]), of)
    assert tables[0].footnote == ""
    assert "\u2021" not in as_text(tables) + as_latex(tables) + as_html(tables[0])


def test_the_audit_is_found_by_the_data_whatever_its_name() -> None:
    marks = AuditMarks.of([report(check())])
    assert marks.footnote([data(name="mine")]) == LEAK
    assert marks.footnote([{**data(), "files": {**data()["files"], "toy.item": OTHER}}]) == LEAK
    assert (
        marks.footnote([{"split": {**RELEASED, "rekeyed": {}}, "files": {"x.inter": OTHER}}]) == ""
    )


def test_a_drawn_split_is_that_of_its_seed() -> None:
    drawn = [data(kind="ratio", split_seed=seed, eval_args={}) for seed in (1, 2)]
    marks = AuditMarks.of([report(check(), of=drawn[0])])
    assert marks.footnote([drawn[0]]) == LEAK
    assert marks.footnote([drawn[1]]) == ""


def test_two_checks_are_named_and_the_others_counted() -> None:
    others = [
        check("row-order", "suspicious", value=0.02, control=None),
        check("repeated-pairs", "leak", group="split", value=None),
        check("time-order", "suspicious", group="split", metric="share"),
    ]
    assert AuditMarks.of([report(*others, check())]).footnote([data()]) == (
        f"{LEAK[:-1]}; repeated-pairs: leak; 2 more in its report."
    )
    assert AuditMarks.of([report(others[0])]).footnote([data()]) == (
        "Audit of this split: row-order, Recall@20 0.0200 (suspicious)."
    )
    assert AuditMarks.of([report(others[2])]).footnote([data()]) == (
        "Audit of this split: time-order, share 0.1496, 0.0039 under the control (suspicious)."
    )


def test_of_several_audits_the_worst_counts_once() -> None:
    reports = [report(check(verdict=v)) for v in ("clean", "leak", "suspicious")]
    for order in (reports, reports[::-1]):
        assert AuditMarks.of(order).footnote([data(), data()]) == LEAK


@pytest.fixture
def output(tmp_path: Path) -> Path:
    out = tmp_path / "results"
    for model in ("LightGCN", "BPR"):
        made = record(model=model, data=data())
        stem = record_stem("none", "mmrec", made.config_sha256, 999)
        write_record(out / "runs" / record_folder("toy", "full", model) / f"{stem}.json", made)
    audit = report(check())
    write_audit(report_path(out, audit), audit)
    return out


def test_reports_read_the_audits_of_their_folder(output: Path) -> None:
    (output / "audit" / "notes.md").write_text("x")
    build(output)
    assert LEAK in (output / "tables" / "toy.md").read_text()
    assert LEAK in (output / "tables" / "toy.html").read_text()
    page = (output / "site" / "data" / "toy.html").read_text()
    assert page.count(LEAK) == 1
    assert "excluded) \u2021</h3>" in page


def test_an_audit_that_cannot_be_used_is_named(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (output / "audit" / "damaged.json").write_text(json.dumps({"checks": []}))
    assert main(["report", "--output", str(output)]) == 1
    assert LEAK in (output / "tables" / "toy.md").read_text()
    out, err = capsys.readouterr()
    assert "damaged.json" in out + err


def test_a_new_audit_changes_the_site(output: Path) -> None:
    build(output)
    for path in (output / "audit").iterdir():
        path.unlink()
    build(output)
    assert LEAK not in (output / "site" / "data" / "toy.html").read_text()
    assert LEAK not in (output / "tables" / "toy.md").read_text()
