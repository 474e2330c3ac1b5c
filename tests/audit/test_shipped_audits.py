"""The committed audits: the figures of the released splits, and the cards' verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignrec_recbole.audit.report import (
    OF_DATA,
    AuditReport,
    read_audits,
    report_path,
)
from alignrec_recbole.data.cards import read_card
from alignrec_recbole.data.dataset_paths import recbole_examples, registered_datasets
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.reports.audit_tables import as_markdown

SHIPPED = Path(__file__).resolve().parents[2] / "results" / "shipped"
NAMES = ("baby", "lfm2k", "ml-100k", "sports")


def shipped() -> dict[str, tuple[Path, AuditReport]]:
    """The audits of data alone, by data set."""
    audits = read_audits(SHIPPED / "audit")
    return {report.dataset: (path, report) for path, report in audits if not report.features}


def figure(report: AuditReport, name: str) -> float | None:
    return next(check.value for check in report.checks if check.name == name)


def test_each_file_is_where_its_content_says_and_its_markdown_is_made_of_it() -> None:
    for path, report in read_audits(SHIPPED / "audit"):
        assert path == report_path(SHIPPED, report)
        assert path.with_suffix(".md").read_text("utf-8") == as_markdown(report)


def test_figures_of_the_released_splits() -> None:
    reports = {name: report for name, (_, report) in shipped().items()}
    assert set(NAMES) <= set(reports)
    assert figure(reports["baby"], "numbering-users") == pytest.approx(0.1496, abs=1e-3)
    assert figure(reports["sports"], "numbering-users") == pytest.approx(0.1521, abs=1e-3)
    assert figure(reports["baby"], "numbering-positions") == pytest.approx(0.1120, abs=1e-3)
    assert figure(reports["sports"], "numbering-positions") == pytest.approx(0.1154, abs=1e-3)
    assert reports["lfm2k"].verdict == reports["ml-100k"].verdict == "clean"
    for name in ("baby", "sports"):
        found = {check.name: check.verdict for check in reports[name].checks}
        assert found["numbering-users"] == "leak"


@pytest.mark.parametrize("name", ["ml-100k", "sports"])
def test_features_of_minilm_know_nothing_of_held_out_rows(name: str) -> None:
    """Beside them the checks of the data have the figures of the audit without features."""
    audits = [report for _, report in read_audits(SHIPPED / "audit") if report.dataset == name]
    (alone,) = (report for report in audits if not report.features)
    (found,) = (report for report in audits if report.features == ["minilm"])
    checks = [check for check in found.checks if check.group == "features"]
    assert len(checks) == 7
    assert {check.verdict for check in checks} == {"clean"}
    assert [c.value for c in found.checks if c.group in OF_DATA] == [c.value for c in alone.checks]


@pytest.mark.parametrize("name", NAMES)
def test_a_card_has_the_verdict_of_the_audit_of_its_files(name: str) -> None:
    card = read_card(name)
    assert card is not None
    assert card.audit is not None
    _, report = shipped()[name]
    found = {check.name: check.verdict for check in report.not_clean(OF_DATA)}
    assert found == card.audit.not_clean
    assert card.audit.verdict == report.verdict_of(OF_DATA)
    assert card.audit.files == report.data["files"]


def test_the_audited_file_of_ml_100k_is_the_one_of_recbole() -> None:
    folder, card = recbole_examples(), read_card("ml-100k")
    assert folder is not None
    assert card is not None
    assert card.audit is not None
    assert card.audit.files == {"ml-100k.inter": sha256_file(folder / "ml-100k" / "ml-100k.inter")}


def test_data_sets_without_an_audit_say_so() -> None:
    others = set(registered_datasets()) - set(NAMES)
    for name in others:
        card = read_card(name)
        assert card is None or card.audit is None
