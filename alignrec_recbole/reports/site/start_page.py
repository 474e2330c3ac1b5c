"""The start page: a card per data set, suites and audits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignrec_recbole.audit.report import AuditReport
from alignrec_recbole.data.rekeyed_names import shown_name
from alignrec_recbole.errors import counted
from alignrec_recbole.reports import audit_tables
from alignrec_recbole.reports.comparisons import PAIRED_TESTS
from alignrec_recbole.reports.grouping import PRIMARY_METRIC, row_name
from alignrec_recbole.reports.site.audit_pages import audit_page
from alignrec_recbole.reports.site.blocks import Block, block
from alignrec_recbole.reports.site.dataset_pages import dataset_page, protocol_of
from alignrec_recbole.reports.table import MISSING, Cell, Table, text_cell
from alignrec_recbole.runs.record import Run
from alignrec_recbole.suites.status import CellStatus

BARS = 6  # of a card, one per model
MAX_LABEL = 48
GAIN = "over best baseline"
FEWEST_PAIRS = {"users": 2, "seeds": 3}  # of a test that a card shows
MAX_PROBLEMS = 100
MAX_CARDS = 60
MAX_AUDITS = 150


def page(
    runs: Sequence[Run],
    tables: Mapping[str, Mapping[str, Sequence[Table]]],
    suites: Mapping[str, Sequence[CellStatus]],
    audits: Sequence[tuple[Path, AuditReport]],
) -> dict[str, Any]:
    """What the start page shows.

    Args:
        tables: of each data set, by the stem of their files.
    """
    count = Counter(run.record.dataset for run in runs)
    cards = [_card(dataset, own, count[dataset]) for dataset, own in tables.items()]
    return {
        "counts": _counted(runs),
        "cards": cards[:MAX_CARDS],
        "more": [(card["name"], card["page"]) for card in cards[MAX_CARDS:]],
        "suites": [_suite(name, cells) for name, cells in suites.items()],
        "audits": _all_audits(audits) if audits else None,
    }


def _counted(runs: Sequence[Run]) -> str:
    kinds = Counter(run.record.protocol for run in runs)
    sets = {run.record.dataset for run in runs}
    each = ", ".join(f"{count} {name}" for name, count in sorted(kinds.items()))
    return f"{counted(len(runs), 'run')} on {counted(len(sets), 'data set')} ({each})"


def _card(dataset: str, tables: Mapping[str, Sequence[Table]], runs: int) -> dict[str, Any]:
    """Best row, target and best other row of the first leaderboard, and a chart of it."""
    card: dict[str, Any] = {
        "name": shown_name(dataset),
        "page": dataset_page(dataset),
        "runs": runs,
        "facts": [],
        "bars": [],
        "metric": "",
        "chart": "",
    }
    boards = [t for stem, ts in tables.items() if protocol_of(stem, dataset) == "full" for t in ts]
    board = next((table for table in boards if table.header[:2] == ["model", "features"]), None)
    if board is None:
        return card
    columns = [i for i, name in enumerate(board.header) if "@" in name]
    named = [i for i in columns if board.header[i] == PRIMARY_METRIC] or columns
    if not named:
        return card
    main = named[0]
    gain = list(board.header).index(GAIN) if GAIN in board.header else None
    own = [
        row for row in board.rows if not row[0].text.endswith((" (published)", " (reference run)"))
    ]
    scored = [row for row in own if row[main].value is not None]
    if not scored:
        return card
    targets = [row for row in scored if gain is not None and row[gain].text != MISSING]
    others = [row for row in scored if row not in targets]
    best = max(scored, key=lambda row: row[main].value or 0.0)
    card["metric"] = board.header[main]
    facts = [("Best model", f"{_name(best)}: {best[main].text}")]
    if targets:
        target = targets[0]
        facts.append(("Target", f"{_name(target)}: {target[main].text}"))
        if others:
            other = max(others, key=lambda row: row[main].value or 0.0)
            facts.append(("Best baseline", f"{_name(other)}: {other[main].text}"))
        if gain is not None:
            facts.append(("Over it", target[gain].text.partition(" (")[0]))  # without p
        if others:
            facts.append(("p", _p(_tests(boards, board), target, other, board.header[main])))
    card["facts"] = facts
    ranked = sorted(scored, key=lambda row: -(row[main].value or 0.0))
    best_of: dict[str, Sequence[Cell]] = {_model(row): row for row in targets}
    for row in ranked:
        best_of.setdefault(_model(row), row)
    shown = [row for row in ranked if row is best_of[_model(row)]][:BARS]
    largest = shown[0][main].value or 0.0
    if largest > 0:
        card["bars"] = [
            (
                _model(row)[:22],
                f"{160 * max(row[main].value or 0.0, 0.0) / largest:.1f}",
                f"{row[main].value:.4f}",
                row in targets,
            )
            for row in shown
        ]
        card["chart"] = "; ".join(f"{_name(row)} {row[main].value:.4f}" for row in shown)
    return card


def _tests(tables: Sequence[Table], board: Table) -> list[Mapping[str, Cell]]:
    """The paired tests between a leaderboard's rows, each as cells by their column."""
    return [
        dict(zip(table.header, row, strict=True))
        for table in tables
        if table.title == f"{board.title}: {PAIRED_TESTS}"
        for row in table.rows
    ]


def _p(
    tests: Sequence[Mapping[str, Cell]], target: Sequence[Cell], other: Sequence[Cell], metric: str
) -> str:
    """p of the target against the best baseline over users, else over seeds, or why it has none.

    Two common seeds are too few.
    """
    wanted = [*(row_name(row[0].text, row[1].text) for row in (target, other)), metric]
    found = {
        test["pairs of"].text: test
        for test in tests
        if [test[name].text for name in ("target", "against", "metric")] == wanted
    }
    reasons = []
    for over, fewest in FEWEST_PAIRS.items():
        if over not in found:
            continue
        test = found[over]
        pairs = int(test["pairs"].value or 0)
        if test["p (Holm)"].value is not None and pairs >= fewest:
            return f"{test['p (Holm)'].text} over {pairs:,} {over}, after Holm"
        reasons.append(test["p"].text.partition(": ")[2] or f"{pairs} common {over}")
    return f"not available: {'; '.join(reasons) or f'{metric} is not tested'}"


def _model(row: Sequence[Cell]) -> str:
    """The model without the settings of a variant."""
    return row[0].text.partition(" (")[0]


def _name(row: Sequence[Cell]) -> str:
    label, features = row[0].text, row[1].text
    label = label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}…"
    return label if features in (MISSING, "none") else f"{label} · {features}"


def _suite(name: str, cells: Sequence[CellStatus]) -> dict[str, Any]:
    counts = Counter(cell.status for cell in cells)
    problems = [cell for cell in cells if cell.status != "finished"]
    return {
        "name": name,
        "counts": ", ".join(f"{count} {status}" for status, count in sorted(counts.items())),
        "problems": [(c.status, c.name, c.error[-2000:]) for c in problems[:MAX_PROBLEMS]],
        "more": max(0, len(problems) - MAX_PROBLEMS),
    }


def _all_audits(audits: Sequence[tuple[Path, AuditReport]]) -> Block:
    rows = []
    for path, report in audits[:MAX_AUDITS]:
        checks = ", ".join(f"{audit_tables.label(c)}: {c.verdict}" for c in report.not_clean())
        rows.append(
            [
                Cell(path.stem, link=audit_page(path)),
                text_cell("+".join(report.features)),
                text_cell(report.dataset),
                text_cell(report.model),
                text_cell(report.verdict),
                text_cell(checks),
            ]
        )
    header = ["audit", "features", "data set", "model", "verdict", "not clean"]
    note = f"The first {MAX_AUDITS} of {len(audits)}." if len(audits) > MAX_AUDITS else ""
    return block(Table("Audits, by path", header, rows, note), "audit-list")
