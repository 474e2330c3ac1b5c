"""Audits beside the records are pages of the site."""

from __future__ import annotations

from pathlib import Path

from records import record, store

from alignrec_recbole.audit.report import AuditReport, Check, Skipped, write_audit
from alignrec_recbole.reports import build
from alignrec_recbole.reports.audit_tables import as_markdown, as_terminal

CHECK = Check(
    name="numbering-users",
    group="numbering",
    question="Does <b>it</b>?",
    method="a|b \x1b[31m",
    metric="Recall@20",
    value=0.15,
    control=0.004,
    control_range=(0.003, 0.005),
    chance=0.003,
    verdict="leak",
    rule="leak: yes",
    remedy="Number at random.",
    details={"users": 12, "kind": "ids"},
)
REPORT = AuditReport(
    dataset="toy",
    data={"users": 3, "items": 4, "interactions": [5, 1, 1], "split": {}, "files": {"a": "b"}},
    split_sha256="0" * 64,
    checks=[CHECK, CHECK.model_copy(update={"name": "numbering-items", "verdict": "clean"})],
    skipped=[Skipped(name="split-x", group="split", question="?", reason="no <i>items</i>")],
    seconds=3.0,
)


def test_the_site_has_a_page_per_audit(tmp_path: Path) -> None:
    store(tmp_path, record("BPR", 999, 0.1))
    write_audit(tmp_path / "audit" / "toy-01234567.json", REPORT)
    build.build(tmp_path)
    index = (tmp_path / "site" / "index.html").read_text()
    assert 'href="audits/toy-01234567.html"' in index
    page = (tmp_path / "site" / "audits" / "toy-01234567.html").read_text()
    assert "<h1>Audit of toy: leak</h1>" in page
    assert "Does &lt;b&gt;it&lt;/b&gt;?" in page
    assert "no &lt;i&gt;items&lt;/i&gt;" in page
    assert "\x1b" not in page
    (tmp_path / "audit" / "toy-01234567.json").unlink()
    build.build(tmp_path)
    assert "audits/" not in (tmp_path / "site" / "index.html").read_text()
    assert not (tmp_path / "site" / "audits" / "toy-01234567.html").exists()


def test_an_audit_that_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    store(tmp_path, record("BPR", 999, 0.1))
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "toy.json").write_text('{"dataset": "toy"}')
    skipped = []
    build.build(tmp_path, skipped=lambda path, error: skipped.append(path.name))
    assert skipped == ["toy.json"]


def test_text_for_the_terminal_and_markdown() -> None:
    shown = as_terminal(REPORT)
    assert max(map(len, shown.splitlines())) <= 100
    assert "\x1b" not in shown
    assert "leak: numbering-users. Does <b>it</b>?\n  Number at random." in shown
    text = as_markdown(REPORT)
    assert "- control: 0.0040 (0.0030 to 0.0050)" in text
    assert "- details: users 12; kind ids" in text
    assert "\x1b" not in text
