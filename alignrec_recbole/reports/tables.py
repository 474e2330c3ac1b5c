"""Tables as views of run records: terminal, Markdown, LaTeX, CSV, HTML."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.reports.grouping import Block, Group, blocks, plain
from alignrec_recbole.reports.reference_results import PRIMARY_METRIC, published, verdict
from alignrec_recbole.reports.significance import Comparison, Side, compare, corrected
from alignrec_recbole.runs.record import Run

COLUMNS = ("Recall@10", "Recall@20", "NDCG@10", "NDCG@20")
TESTED_METRICS = ("Recall@20", "NDCG@20")
TARGET = "AlignRec"
MISSING = "—"
PLACES = 4


@dataclass(frozen=True)
class Cell:
    """One cell; `rank` is 1 for the best of its column, 2 for the second."""

    text: str
    value: float | None = None
    spread: float | None = None
    rank: int = 0
    link: str = ""  # on the site


@dataclass(frozen=True)
class Table:
    """A table before it has a format."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def without_empty(self) -> Table:
        """The table without columns that say nothing."""
        kept = [
            i for i in range(len(self.header)) if any(row[i].text != MISSING for row in self.rows)
        ]
        rows = [[row[i] for i in kept] for row in self.rows]
        return replace(self, header=[self.header[i] for i in kept], rows=rows)


def text(value: object) -> Cell:
    """A cell of words."""
    return Cell(str(value) if value not in ("", None) else MISSING)


def number(values: Iterable[float], rank: int = 0) -> Cell:
    """Mean ± standard deviation over seeds; a dash where there is no value.

    >>> number([0.1, 0.2]).text, number([0.1]).text, number([]).text
    ('0.1500 ± 0.0707', '0.1000', '—')
    """
    found = np.asarray(list(values), dtype=np.float64)
    if not len(found):
        return Cell(MISSING)
    mean = float(found.mean())
    if len(found) == 1:
        return Cell(f"{mean:.{PLACES}f}", mean, None, rank)
    spread = float(found.std(ddof=1))
    return Cell(f"{mean:.{PLACES}f} ± {spread:.{PLACES}f}", mean, spread, rank)


def ranks(means: Sequence[float | None]) -> list[int]:
    """1 for the best, 2 for the second, as far as the printed places tell; equals share a rank.

    >>> ranks([0.10001, 0.2, None, 0.10002, 0.05]), ranks([0.3])
    ([2, 1, 0, 2, 0], [0])
    """
    shown = [None if mean is None else round(mean, PLACES) for mean in means]
    best = sorted({value for value in shown if value is not None}, reverse=True)[:2]
    if sum(value is not None for value in shown) < 2:
        return [0] * len(shown)
    return [1 + best.index(value) if value in best else 0 for value in shown]


# What is compared --------------------------------------------------------------------------------


def targets(members: Sequence[Group], wanted: str | None) -> list[Group]:
    """The rows that are tested against the others: those of a label, model or feature set.

    Without a name: AlignRec's; where it has no run, the row with the best validation score. The
    plain label comes first, so that an ablated variant is one of the others.
    """
    name = wanted or TARGET
    found = [g for g in members if g.label == name] or [
        g for g in members if name in (g.first.model, g.first.features)
    ]
    if found or wanted:
        return found
    scored = [(g.values(PRIMARY_METRIC, "valid").mean(), g) for g in members]
    scored = [entry for entry in scored if entry[0] == entry[0]]
    return [max(scored, key=lambda entry: entry[0])[1]] if scored else []


def comparisons(
    members: Sequence[Group],
    wanted: str | None = None,
    side: Side = "two-sided",
    test: str = "t",
) -> list[Comparison]:
    """Every target against every other row; Holm within each metric and kind of pair."""
    ours = targets(members, wanted)
    others = [group for group in members if group not in ours]
    found = [
        entry
        for target in ours
        for other in others
        for metric in TESTED_METRICS
        for entry in compare(target, other, metric, side, test)
    ]
    return _holm_within_kinds(found)


def variant_comparisons(
    members: Sequence[Group], side: Side = "two-sided", test: str = "t"
) -> list[Comparison]:
    """Every variant of a model against that model as it is, on the same features; Holm as above."""
    bases = plain(members)
    pairs = [(group, bases.get((group.first.model, group.first.features))) for group in members]
    found = [
        entry
        for variant, base in pairs
        if base is not None and base is not variant
        for metric in TESTED_METRICS
        for entry in compare(variant, base, metric, side, test)
    ]
    return _holm_within_kinds(found)


def _holm_within_kinds(found: Sequence[Comparison]) -> list[Comparison]:
    out: list[Comparison] = []
    for metric in TESTED_METRICS:
        for over in ("users", "seeds"):
            out += corrected([c for c in found if (c.metric, c.over) == (metric, over)])
    return out


# Tables ------------------------------------------------------------------------------------------


def block_title(block: Block) -> str:
    """Data set, protocol, setting, in words."""
    masks = {"mmrec": "training items hidden", "recbole": "training and validation items hidden"}
    data = f", data {block.data}" if block.data else ""
    return f"{block.dataset}, {block.protocol}, {block.setting} ({masks[block.setting]}){data}"


def leaderboard(
    block: Block,
    members: Sequence[Group],
    tests: Sequence[Comparison] = (),
    wanted: str | None = None,
) -> Table:
    """One row a group, best first, published rows beneath."""
    order = sorted(members, key=lambda group: -group.values(PRIMARY_METRIC).mean())
    ours = targets(members, wanted)
    anchors = published(block.dataset) if block.protocol == "full" else []
    means = {m: [_mean(group.values(m)) for group in order] for m in COLUMNS}
    rank = {metric: ranks(column) for metric, column in means.items()}
    chance = any(group.first.chance for group in order)
    rows = []
    for place, group in enumerate(order):
        record = group.first
        rows.append(
            [
                text(group.label),
                text(record.features),
                Cell(str(len(group.runs)), float(len(group.runs))),
                *(number(group.values(m), rank[m][place]) for m in COLUMNS),
                *(
                    [number([record.chance[PRIMARY_METRIC]] if record.chance else [])]
                    if chance
                    else []
                ),
                text(_improvement(group, members, ours, tests)),
                text(verdict(group, anchors)),
                text("/".join(str(r.epochs) for r in group.records if r.epochs)),
                _seconds(group),
                text("; ".join(group.notes)),
            ]
        )
    models = {group.first.model for group in members}
    for row in anchors:
        if row.model in models:
            rows.append(
                [
                    text(row.label),
                    text(row.features),
                    text(""),
                    *(number([row.values[m]] if m in row.values else []) for m in COLUMNS),
                    *([text("")] if chance else []),
                    *(text("") for _ in range(4)),
                    text(row.note),
                ]
            )
    return Table(
        block_title(block),
        [
            "model",
            "features",
            "seeds",
            *COLUMNS,
            *(["chance R@20"] if chance else []),
            "over best baseline",
            "reproduction",
            "epochs",
            "s/epoch",
            "note",
        ],
        rows,
        "Test split, mean ± sd over seeds. Best bold, second underlined. "
        + (
            f"Over best baseline: {PRIMARY_METRIC} of {_names(ours)} against the best other row, "
            f"p over users after Holm.{_without_p(ours, tests)}"
            if ours
            else "No target: nothing was scored on validation and none was named."
        ),
    ).without_empty()


def significance(
    block: Block, tests: Sequence[Comparison], side: Side, test: str, what: str = "paired tests"
) -> Table:
    """Every comparison, with p before and after Holm or the reason why there is none."""
    rows = [
        [
            text(entry.target),
            text(entry.baseline),
            text(entry.metric),
            text(entry.over),
            Cell(str(entry.pairs), float(entry.pairs)),
            Cell(f"{entry.difference:+.4f}", entry.difference)
            if entry.difference is not None
            else text(""),
            _p(entry.p, entry.why),
            _p(entry.p_holm, "") if entry.p_holm is not None else text(""),
        ]
        for entry in tests
    ]
    kinds = {"t": "t-test", "wilcoxon": "Wilcoxon signed-rank test"}
    return Table(
        f"{block_title(block)}: {what}",
        ["target", "against", "metric", "pairs of", "pairs", "difference", "p", "p (Holm)"],
        rows,
        f"Paired {kinds[test]}, {side}"
        + (" (target larger)" if side == "right-sided" else "")
        + "; over users: each user's mean over seeds; over seeds: equal seeds. Holm's correction "
        "within each metric and kind of pair.",
    )


def _mean(values: pd.Series) -> float | None:
    return None if values.empty else float(values.mean())


def _names(ours: Sequence[Group]) -> str:
    return " and ".join(group.name for group in ours)


def _seconds(group: Group) -> Cell:
    value = float(np.median([record.seconds["train_epoch"] for record in group.records]))
    device = "" if group.device == "cpu" else f" ({group.device})"
    return Cell(f"{value:.2f}{device}", value) if value else text("")


def _improvement(
    group: Group, members: Sequence[Group], ours: Sequence[Group], tests: Sequence[Comparison]
) -> str:
    others = [other for other in members if other not in ours]
    if group not in ours or not others:
        return ""
    best = max(others, key=lambda other: other.values(PRIMARY_METRIC).mean())
    base = best.values(PRIMARY_METRIC).mean()
    if not base:
        return ""
    gain = f"{100 * (group.values(PRIMARY_METRIC).mean() / base - 1):+.1f} %"
    for entry in tests:
        pair = (entry.target, entry.baseline, entry.metric, entry.over)
        if pair == (group.name, best.name, PRIMARY_METRIC, "users"):
            return f"{gain} ({_p(entry.p_holm, '', 'p').text})"
    return gain


def _without_p(ours: Sequence[Group], tests: Sequence[Comparison]) -> str:
    """Why targets have no p over users, as a sentence; empty where they have."""
    names = {group.name for group in ours}
    reasons = {
        entry.why
        for entry in tests
        if entry.target in names
        and (entry.metric, entry.over) == (PRIMARY_METRIC, "users")
        and entry.why
    }
    return f" No p: {'; '.join(sorted(reasons))}." if reasons else ""


def _p(value: float | None, why: str, name: str = "") -> Cell:
    if value is None:
        return text(f"no {name or 'p'}" + (f": {why}" if why else ""))
    shown = "< 0.0001" if value < 1e-4 else f"{value:.4f}"
    return Cell(
        f"{name} {shown}".strip() if "<" in shown or not name else f"{name} = {shown}", value
    )


# Formats -----------------------------------------------------------------------------------------

MARKS: dict[str, tuple[Callable[[str], str], str, str]] = {
    "simple": (str, "{}*", "{}'"),
    "github": (lambda s: s.replace("|", "\\|"), "**{}**", "<u>{}</u>"),
    "latex": (lambda s: _latex(s), r"\textbf{{{}}}", r"\underline{{{}}}"),
    "html": (html.escape, "<strong>{}</strong>", "<u>{}</u>"),
}


def _latex(words: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "—": "---",
        "−": "$-$",
        "<": "$<$",
        "≥": r"$\geq$",
        "≤": r"$\leq$",
    } | {c: f"\\{c}" for c in "&%$#_{}"}
    return "".join(special.get(letter, letter) for letter in words)


def marked(table: Table, style: str) -> list[list[str]]:
    """The cells' texts, escaped, best and second marked as the style has it."""
    escape, best, second = MARKS[style]
    wrap = {0: "{}", 1: best, 2: second}
    return [[wrap[cell.rank].format(escape(cell.text)) for cell in row] for row in table.rows]


def as_text(tables: Sequence[Table], style: str = "simple") -> str:
    """Tables for the terminal or for Markdown (github)."""
    parts = []
    for table in tables:
        body = tabulate(
            marked(table, style), headers=table.header, tablefmt=style, disable_numparse=True
        )
        head = f"## {table.title}" if style == "github" else table.title
        parts.append("\n\n".join(part for part in (head, table.note, body) if part))
    return "\n\n".join(parts)


def as_latex(tables: Sequence[Table]) -> str:
    """Tables with booktabs rules."""
    parts = []
    for table in tables:
        frame = pd.DataFrame(marked(table, "latex"), columns=[_latex(h) for h in table.header])
        parts.append(
            frame.to_latex(
                index=False,
                escape=False,
                caption=_latex(table.title),
                column_format="".join("r" if flag else "l" for flag in _numeric(table)),
            )
        )
    return "\n".join(parts)


def _numeric(table: Table) -> list[bool]:
    """Which columns hold numbers."""
    return [any(row[i].value is not None for row in table.rows) for i in range(len(table.header))]


def as_csv(tables: Sequence[Table]) -> str:
    """Unrounded values, each spread in a column of its own; the first column names the table."""
    frames = []
    for table in tables:
        rows = []
        for row in table.rows:
            line: dict[str, object] = {"table": table.title}
            for name, cell in zip(table.header, row, strict=True):
                line[name] = cell.text if cell.value is None else cell.value
                if name in COLUMNS:
                    line[f"{name} sd"] = cell.spread
            rows.append(line)
        frames.append(pd.DataFrame(rows))
    buffer = io.StringIO()
    pd.concat(frames).to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()


def as_html(table: Table) -> str:
    """A table that says what it is; cells carry their unrounded value for sorting."""
    numeric = _numeric(table)
    head = "".join(
        f'<th scope="col"{" class=number" * flag}>{html.escape(name)}</th>'
        for name, flag in zip(table.header, numeric, strict=True)
    )
    body = []
    for row, shown in zip(table.rows, marked(table, "html"), strict=True):
        cells = [_html_cell(*entry) for entry in zip(row, shown, numeric, strict=True)]
        first = cells[0].replace("<td", '<th scope="row"', 1).replace("</td>", "</th>")
        body.append(f"<tr>{first}{''.join(cells[1:])}</tr>")
    return (
        f"<table><caption>{html.escape(table.title)}</caption>"
        f"<thead><tr>{head}</tr></thead>\n<tbody>{chr(10).join(body)}</tbody></table>"
    )


def _html_cell(cell: Cell, shown: str, numeric: bool) -> str:
    """Best and second are said in words too, for those who don't see bold."""
    kind = "number" if numeric else "words" if len(cell.text) > 24 else ""
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    spoken = {1: "best", 2: "second"}.get(cell.rank)
    shown = f'<a href="{html.escape(cell.link)}">{shown}</a>' if cell.link else shown
    return (
        f"<td{f' class={kind}' if kind else ''}{value}>{shown}"
        + (f'<span class="spoken"> ({spoken})</span>' if spoken else "")
        + "</td>"
    )


def comparison(runs: Iterable[Run], dataset: str) -> list[Table]:
    """The leaderboards of a data set's trained models, one a setting."""
    return [
        leaderboard(block, members, comparisons(members))
        for block, members in blocks(runs).items()
        if (block.dataset, block.protocol) == (dataset, "full")
    ]


def write_tables(tables: Sequence[Table], folder: Path, stem: str) -> list[Path]:
    """Write `<stem>.md`, `.tex`, `.csv` and `.html` into a folder and return their paths."""
    page = "\n".join(as_html(table) for table in tables)
    texts = {
        "md": f"# {stem}\n\n{as_text(tables, 'github')}\n",
        "tex": as_latex(tables),
        "csv": as_csv(tables),
        "html": f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(stem)}'
        f"</title>\n{page}</html>\n",
    }
    paths = []
    for suffix, content in texts.items():
        path = folder / f"{stem}.{suffix}"
        with atomic_write(path, "w") as handle:
            handle.write(content)
        paths.append(path)
    return paths
