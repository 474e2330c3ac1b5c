"""A page per audit of data, features and a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignrec_recbole.audit.report import AuditReport
from alignrec_recbole.reports import audit_tables
from alignrec_recbole.reports.site.blocks import block
from alignrec_recbole.reports.site.names import safe
from alignrec_recbole.reports.site.run_pages import facts


def audit_page(path: Path) -> str:
    """Path of an audit's page in the site."""
    return f"audits/{safe(path.stem)}.html"


def page(report: AuditReport) -> dict[str, Any]:
    """What the page of an audit shows."""
    return {
        "title": audit_tables.title(report),
        "facts": audit_tables.facts(report),
        "notes": report.notes,
        "blocks": [block(table, f"t-{i}") for i, table in enumerate(audit_tables.tables(report))],
        "checks": [
            (f"{audit_tables.label(check)}: {check.verdict}", list(audit_tables.lines(check)))
            for check in report.checks
        ],
        "skipped": [(entry.name, entry.reason) for entry in report.skipped],
        "provenance": facts(
            {
                "command": report.command,
                "code": report.code,
                "data": report.data,
                "split sha256": report.split_sha256,
                "features": report.feature_files,
            }
        ),
    }
