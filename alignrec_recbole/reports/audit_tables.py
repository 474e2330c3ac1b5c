"""The report of an audit as a table for terminals, as Markdown and as parts of a page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from alignrec_recbole.audit.report import GROUPS, AuditReport, Check
from alignrec_recbole.reports import escaping
from alignrec_recbole.reports.formats.text import as_text
from alignrec_recbole.reports.table import Cell, Table, text_cell

HEADER = ("check", "metric", "figure", "control", "chance", "verdict")
WIDTH = 100  # of a terminal
TITLES = {
    "numbering": "Numbers and order",
    "split": "Split",
    "features": "Features",
    "models": "Model",
}


def as_terminal(report: AuditReport) -> str:
    """A table of at most 100 columns, what is not clean in words, and what was skipped."""
    parts = [_wrapped(title(report)), _wrapped(facts(report))]
    parts += [as_text([table]) for table in tables(report)]
    for check in report.not_clean():
        parts.append(_wrapped(f"{check.verdict}: {label(check)}. {check.question}", check.remedy))
    if report.skipped:
        rows = [f"{entry.name}: {escaping.plain(entry.reason)}" for entry in report.skipped]
        parts.append("\n".join(["Not checked:", *(_indented(row) for row in rows)]))
    return "\n\n".join(parts)


def title(report: AuditReport) -> str:
    """What was audited, and the worst verdict."""
    others = [*report.features, *([report.model] if report.model else [])]
    return f"Audit of {', '.join([report.dataset, *others])}: {report.verdict}"


def facts(report: AuditReport) -> str:
    """Counts and the CPU time of the audit, in one line."""
    data = report.data
    rows = " / ".join(f"{count:,}" for count in data.get("interactions", []))
    return (
        f"{data.get('users', 0):,} users, {data.get('items', 0):,} items, {rows} interactions "
        f"(training / validation / test); {len(report.checks)} checks in {report.seconds:.0f} s of "
        "CPU"
    )


def label(check: Check) -> str:
    """A check's name and what it is about."""
    return f"{check.name} ({check.subject})" if check.subject else check.name


def tables(report: AuditReport) -> list[Table]:
    """One table per group that was checked."""
    out = []
    for group in GROUPS:
        checks = [check for check in report.checks if check.group == group]
        if checks:
            out.append(Table(TITLES[group], HEADER, [_row(check) for check in checks]))
    return out


def _row(check: Check) -> list[Cell]:
    return [
        text_cell(label(check)),
        text_cell(check.metric),
        figure(check.value),
        figure(check.control),
        figure(check.chance),
        text_cell(check.verdict),
    ]


def figure(value: float | None) -> Cell:
    """A figure to four places; a dash where there is none."""
    return text_cell("") if value is None else Cell(f"{value:.4f}", value)


def as_markdown(report: AuditReport) -> str:
    """The whole report: tables, then each check with its question, method, rule and figures."""
    escape = escaping.as_markdown
    parts = [f"# {escape(title(report))}", escape(facts(report)) + "."]
    parts += [escape(note) for note in report.notes]
    parts.append(as_text(tables(report), "github"))
    for check in report.checks:
        parts.append(f"## {escape(label(check))}: {check.verdict}")
        parts.append("\n".join(f"- {name}: {escape(text)}" for name, text in lines(check)))
    if report.skipped:
        rows = [f"- {entry.name}: {escape(entry.reason)}" for entry in report.skipped]
        parts.append("\n".join(["## Not checked", "", *rows]))
    files = [f"`{name}` {sha}" for name, sha in report.data["files"].items()]
    command = [f"`{escaping.plain(report.command)}`"] if report.command else []
    parts.append(
        "\n".join(f"- {line}" for line in [*command, *files, f"split {report.split_sha256}"])
    )
    return "\n\n".join(parts) + "\n"


def lines(check: Check) -> Iterable[tuple[str, str]]:
    """What a reader needs to judge a check, by name."""
    yield "question", check.question
    yield "method", check.method
    yield "figure", f"{check.metric} {figure(check.value).text}"
    if check.control is not None:
        low_high = check.control_range
        spread = "" if low_high is None else f" ({low_high[0]:.4f} to {low_high[1]:.4f})"
        yield "control", f"{check.control:.4f}{spread}"
    if check.chance is not None:
        yield "chance", f"{check.chance:.4f}"
    yield "rule", check.rule
    if check.details:
        yield (
            "details",
            "; ".join(f"{name} {_short(value)}" for name, value in check.details.items()),
        )
    for note in check.notes:
        yield "note", note
    if check.verdict != "clean":
        yield "remedy", check.remedy
    yield "seconds of CPU", f"{check.seconds:.1f}"


def _short(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4f}"


def _wrapped(*paragraphs: str) -> str:
    first, *rest = (escaping.plain(paragraph) for paragraph in paragraphs)
    return "\n".join([textwrap.fill(first, WIDTH), *map(_indented, rest)])


def _indented(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
