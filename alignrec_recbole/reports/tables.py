"""Tables made of run records: terminal, Markdown, LaTeX, CSV, HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tabulate import tabulate

from alignrec_recbole.data.rekeyed_names import shown_name
from alignrec_recbole.errors import RecordError
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.reports import escaping
from alignrec_recbole.reports.audit_marks import AuditMarks
from alignrec_recbole.reports.budgets import (
    FACTOR,
    MARK,
    UNKNOWN,
    Budget,
    budgets_of,
    differs,
)
from alignrec_recbole.reports.grouping import (
    COLUMNS,
    PRIMARY_METRIC,
    ComparisonKey,
    SeedGroup,
    comparable_groups,
    default_variants,
    primary_metric,
    shown_metrics,
)
from alignrec_recbole.reports.reference_results import (
    features_of,
    reference_results,
    reproduction_status,
)
from alignrec_recbole.reports.significance import Comparison, Side, UserMeans, compare, corrected
from alignrec_recbole.runs.record import Run

TESTED_METRICS = ("Recall@20", "NDCG@20")
DEFAULT_TARGET = "AlignRec"
MISSING = "—"
DATA_MARK, LATEX_MARK = "\u2021", r"\textsuperscript{\textdaggerdbl}"  # of a table with a footnote
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
    """A table before it has a format.

    Attributes:
        note: about its figures.
        footnote: about its data; the title has a mark then.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    footnote: str = ""

    def without_empty(self) -> Table:
        """The table without columns that are empty in every row."""
        kept = [
            i for i in range(len(self.header)) if any(row[i].text != MISSING for row in self.rows)
        ]
        rows = [[row[i] for i in kept] for row in self.rows]
        return replace(self, header=[self.header[i] for i in kept], rows=rows)


def text_cell(value: object) -> Cell:
    """A cell of words; a dash if there are none."""
    return Cell(str(value) if value not in ("", None) else MISSING)


def mean_sd_cell(values: Iterable[float], rank: int = 0) -> Cell:
    """Mean ± standard deviation over seeds; a dash where there is no value.

    >>> mean_sd_cell([0.1, 0.2]).text, mean_sd_cell([0.1]).text, mean_sd_cell([]).text
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


def column_ranks(means: Sequence[float | None]) -> list[int]:
    """1 for the best, 2 for the second, as far as the printed places tell; equals share a rank.

    >>> column_ranks([0.10001, 0.2, None, 0.10002, 0.05]), column_ranks([0.3])
    ([2, 1, 0, 2, 0], [0])
    """
    shown = [None if mean is None else round(mean, PLACES) for mean in means]
    best = sorted({value for value in shown if value is not None}, reverse=True)[:2]
    if sum(value is not None for value in shown) < 2:
        return [0] * len(shown)
    return [1 + best.index(value) if value in best else 0 for value in shown]


# What is compared --------------------------------------------------------------------------------


def targets(members: Sequence[SeedGroup], wanted: str | None) -> list[SeedGroup]:
    """The rows that are tested against the others: those of a label, model or feature set.

    Without a name: AlignRec's; where it has no run, the row with the best validation score. The
    plain label comes first, so that an ablated variant is one of the others.
    """
    name = wanted or DEFAULT_TARGET
    found = [g for g in members if g.label == name] or [
        g for g in members if name in (g.first.model, g.first.features)
    ]
    if found or wanted:
        return found
    metric = primary_metric(members)
    means = [(g.mean(metric, "valid"), g) for g in members]
    scored = [(mean, g) for mean, g in means if mean is not None]
    return [max(scored, key=lambda entry: entry[0])[1]] if scored else []


def comparisons(
    members: Sequence[SeedGroup],
    wanted: str | None = None,
    side: Side = "two-sided",
    test: str = "t",
    user_means: UserMeans | None = None,
) -> list[Comparison]:
    """Every target against every other row; Holm within each metric and kind of pair."""
    ours = targets(members, wanted)
    others = [group for group in members if group not in ours]
    user_means = UserMeans() if user_means is None else user_means
    found = [
        entry
        for target in ours
        for other in others
        for metric in tested_metrics(members)
        for entry in compare(target, other, metric, side, test, user_means)
    ]
    return _holm_within_kinds(found)


def variant_comparisons(
    members: Sequence[SeedGroup],
    side: Side = "two-sided",
    test: str = "t",
    user_means: UserMeans | None = None,
) -> list[Comparison]:
    """Every variant of a model against that model as it is, on the same features; Holm as above."""
    bases = default_variants(members)
    user_means = UserMeans() if user_means is None else user_means
    pairs = [(group, bases.get((group.first.model, group.first.features))) for group in members]
    found = [
        entry
        for variant, base in pairs
        if base is not None and base is not variant
        for metric in tested_metrics(members)
        for entry in compare(variant, base, metric, side, test, user_means)
    ]
    return _holm_within_kinds(found)


def tested_metrics(members: Sequence[SeedGroup]) -> tuple[str, ...]:
    """Metrics of the paired tests: the usual ones that the records have, else the primary one."""
    usual = tuple(name for name in TESTED_METRICS if name in shown_metrics(members))
    return usual or (primary_metric(members),)


def _holm_within_kinds(found: Sequence[Comparison]) -> list[Comparison]:
    out: list[Comparison] = []
    for metric in dict.fromkeys(entry.metric for entry in found):
        for over in ("users", "seeds"):
            out += corrected([c for c in found if (c.metric, c.over) == (metric, over)])
    return out


# Tables ------------------------------------------------------------------------------------------


def table_title(key: ComparisonKey) -> str:
    """Data set, protocol, setting, in words."""
    excluded = {
        "mmrec": "training items excluded",
        "recbole": "training and validation items excluded",
    }
    data = f", data {key.data}" if key.data else ""
    return (
        f"{shown_name(key.dataset)}, {key.protocol}, {key.setting} ({excluded[key.setting]}){data}"
    )


def leaderboard(
    key: ComparisonKey,
    members: Sequence[SeedGroup],
    tests: Sequence[Comparison] = (),
    wanted: str | None = None,
    tuning: Sequence[Run] = (),
) -> Table:
    """One row per group, best first, reference rows below.

    Args:
        tuning: trials that budgets are derived from where records do not have them.
    """
    metric, columns = primary_metric(members), shown_metrics(members)
    order = sorted(members, key=lambda group: _descending(group.mean(metric)))
    ours = targets(members, wanted)
    anchors = reference_results(key.dataset) if key.protocol == "full" else []
    means = {m: [group.mean(m) for group in order] for m in columns}
    rank = {name: column_ranks(column) for name, column in means.items()}
    chance = any(metric in (group.first.chance or {}) for group in order)
    searches = budgets_of(members, tuning)
    against = next((searches[group.name] for group in ours if group.name in searches), None)
    rows = []
    for place, group in enumerate(order):
        record = group.first
        rows.append(
            [
                text_cell(group.label),
                text_cell(record.features),
                Cell(str(len(group.runs)), float(len(group.runs))),
                *(mean_sd_cell(group.values(m).values(), rank[m][place]) for m in columns),
                *([_chance(record.chance, metric)] if chance else []),
                _improvement(group, members, ours, tests, metric),
                text_cell(reproduction_status(group, anchors)),
                _budget(searches, group, against),
                text_cell("/".join(str(r.epochs) for r in group.records if r.epochs)),
                _seconds(group),
                _energy(group),
                text_cell("; ".join(group.notes)),
            ]
        )
    models = {group.first.model for group in members}
    published = {features_of(group.first) for group in members}
    for row in anchors:
        if row.model in models:
            rows.append(
                [
                    text_cell(row.label),
                    text_cell(row.features),
                    text_cell(""),
                    *(mean_sd_cell([row.values[m]] if m in row.values else []) for m in columns),
                    *([text_cell("")] if chance else []),
                    *(text_cell("") for _ in range(6)),
                    text_cell(row.note(published)),
                ]
            )
    return Table(
        table_title(key),
        [
            "model",
            "features",
            "seeds",
            *columns,
            *(
                ["chance R@20" if metric == PRIMARY_METRIC else f"chance {metric}"]
                if chance
                else []
            ),
            "over best baseline",
            "reproduction",
            "budget",
            "epochs",
            "s/epoch",
            "kJ/run",
            "note",
        ],
        rows,
        "Test split, mean ± sd over seeds. Best bold, second underlined. "
        + _first_look(members)
        + _budget_note(searches, members, against)
        + (f"No record has {PRIMARY_METRIC}: ordered by {metric}. " * (metric != PRIMARY_METRIC))
        + (
            f"Over best baseline: {metric} of {_names(ours)} against the best other row, "
            f"p over users after Holm.{_without_p(ours, tests, metric)}"
            if ours
            else "No target: no row has a validation score and --target is not given."
        ),
    ).without_empty()


def _budget(searches: Mapping[str, Budget], group: SeedGroup, against: Budget | None) -> Cell:
    """How many settings were tried on validation; marked where the target had another chance."""
    if not searches:
        return text_cell("")
    budget = searches.get(group.name)
    if budget is None:
        return Cell(UNKNOWN)
    mark = f" {MARK}" if differs(budget, against) else ""
    return Cell(f"{budget.trials} trials{mark}", float(budget.trials))


def _budget_note(
    searches: Mapping[str, Budget], members: Sequence[SeedGroup], against: Budget | None
) -> str:
    """What the column says, as sentences; empty without the column."""
    if not searches:
        return ""
    text = "Budget: settings tried on validation before the test. "
    if against is None:
        return text + "The target's is unknown, so none is marked. "
    if any(differs(searches.get(group.name), against) for group in members):
        return text + f"{MARK}: differs from the target's by more than a factor of {FACTOR:g}. "
    return text


def budget_table(
    key: ComparisonKey, members: Sequence[SeedGroup], searches: Mapping[str, Budget]
) -> Table:
    """What the choice of each row's settings cost, most trials first."""
    order = sorted(
        members, key=lambda group: -searches[group.name].trials if group.name in searches else 1
    )
    rows = []
    for group in order:
        budget = searches.get(group.name)
        cells = [text_cell(group.label), text_cell(group.first.features)]
        if budget is None:
            rows.append([*cells, Cell(UNKNOWN), *(text_cell("") for _ in range(9))])
            continue
        counts = (budget.trials, budget.pruned, budget.failed, budget.epochs)
        rows.append(
            [
                *cells,
                *(Cell(f"{count:,}", float(count)) for count in counts),
                Cell(f"{budget.seconds:,.0f}", budget.seconds),
                text_cell("" if budget.patience is None else budget.patience),
                text_cell(budget.sampler),
                text_cell(budget.pruner),
                text_cell(budget.chosen_on),
                mean_sd_cell([] if budget.best is None else [budget.best]),
            ]
        )
    return Table(
        f"{table_title(key)}: budgets",
        [
            "model",
            "features",
            "trials",
            "pruned",
            "diverged",
            "epochs",
            "seconds",
            "patience",
            "sampler",
            "pruner",
            "chosen on",
            "best on validation",
        ],
        rows,
        "What the search for each row's settings cost. Epochs and seconds are those of all trials; "
        "seconds are of training and validation, on the machines and devices of the records. "
        f"{UNKNOWN}: neither the records nor the stored trials tell.",
    ).without_empty()


def significance(
    key: ComparisonKey,
    tests: Sequence[Comparison],
    side: Side,
    test: str,
    what: str = "paired tests",
) -> Table:
    """Every comparison, with p before and after Holm or the reason why there is none."""
    rows = [
        [
            text_cell(entry.target),
            text_cell(entry.baseline),
            text_cell(entry.metric),
            text_cell(entry.over),
            Cell(str(entry.pairs), float(entry.pairs)),
            Cell(f"{entry.difference:+.4f}", entry.difference)
            if entry.difference is not None
            else text_cell(""),
            _p(entry.p, entry.why),
            _p(entry.p_holm, "") if entry.p_holm is not None else text_cell(""),
        ]
        for entry in tests
    ]
    kinds = {"t": "t-test", "wilcoxon": "Wilcoxon signed-rank test"}
    return Table(
        f"{table_title(key)}: {what}",
        ["target", "against", "metric", "pairs of", "pairs", "difference", "p", "p (Holm)"],
        rows,
        f"Paired {kinds[test]}, {side}"
        + (" (target larger)" if side == "right-sided" else "")
        + "; over users: each user's mean over seeds; over seeds: equal seeds. Holm's correction "
        "within each metric and kind of pair.",
    )


def _first_look(members: Sequence[SeedGroup]) -> str:
    """That rows are not trained to the end, as a sentence; empty if all are."""
    limits = sorted({epochs for group in members for epochs in group.epoch_limits})
    if not limits:
        return ""
    if len(limits) == 1 and all(group.epoch_limits for group in members):
        return f"A first look: at most {limits[0]} epochs, which ended before early stopping. "
    return 'Rows noted "at most N epochs" ended there, before early stopping. '


def _descending(mean: float | None) -> float:
    return float("inf") if mean is None else -mean


def _chance(chance: dict[str, float] | None, metric: str) -> Cell:
    return mean_sd_cell([chance[metric]] if chance and metric in chance else [])


def _names(ours: Sequence[SeedGroup]) -> str:
    return " and ".join(group.name for group in ours)


def _seconds(group: SeedGroup) -> Cell:
    value = float(np.median([record.seconds["train_epoch"] for record in group.records]))
    device = "" if group.device == "cpu" else f" ({group.device})"
    return Cell(f"{value:.2f}{device}", value) if value else text_cell("")


def _energy(group: SeedGroup) -> Cell:
    """Median energy of the runs that were measured; blank if none was."""
    measured = [float(record.energy["joules"]) for record in group.records if record.energy]
    value = float(np.median(measured)) / 1000 if measured else 0.0
    return Cell(f"{value:.3g}", value) if measured else text_cell("")


def _improvement(
    group: SeedGroup,
    members: Sequence[SeedGroup],
    ours: Sequence[SeedGroup],
    tests: Sequence[Comparison],
    metric: str,
) -> Cell:
    """The gain over the best other row, with its p if it was tested."""
    means = {other.name: other.mean(metric) for other in members if other not in ours}
    others = {name: mean for name, mean in means.items() if mean is not None}
    own = group.mean(metric)
    if group not in ours or not others or own is None:
        return text_cell("")
    best = max(others, key=lambda name: others[name])
    if not others[best]:
        return text_cell("")
    gain = own / others[best] - 1
    shown = f"{100 * gain:+.1f} %"
    for entry in tests:
        pair = (entry.target, entry.baseline, entry.metric, entry.over)
        if pair == (group.name, best, metric, "users"):
            return Cell(f"{shown} ({_p(entry.p_holm, '', 'p').text})", gain)
    return Cell(shown, gain)


def _without_p(ours: Sequence[SeedGroup], tests: Sequence[Comparison], metric: str) -> str:
    """Why targets have no p over users, as a sentence; empty if they have one."""
    names = {group.name for group in ours}
    reasons = {
        entry.why
        for entry in tests
        if entry.target in names and (entry.metric, entry.over) == (metric, "users") and entry.why
    }
    return f" No p: {'; '.join(sorted(reasons))}." if reasons else ""


def _p(value: float | None, why: str, name: str = "") -> Cell:
    if value is None:
        return text_cell(f"no {name or 'p'}" + (f": {why}" if why else ""))
    shown = "< 0.0001" if value < 1e-4 else f"{value:.4f}"
    return Cell(
        f"{name} {shown}".strip() if "<" in shown or not name else f"{name} = {shown}", value
    )


# Formats -----------------------------------------------------------------------------------------

MARKS: dict[str, tuple[Callable[[str], str], str, str]] = {
    "simple": (escaping.plain, "{}*", "{}'"),
    "github": (escaping.as_markdown, "**{}**", "<u>{}</u>"),
    "latex": (escaping.as_latex, r"\textbf{{{}}}", r"\underline{{{}}}"),
    "html": (escaping.as_html, "<strong>{}</strong>", "<u>{}</u>"),
}


def highlight(table: Table, style: str) -> list[list[str]]:
    """The cells' texts, escaped, best and second marked as the style has it."""
    escape, best, second = MARKS[style]
    wrap = {0: "{}", 1: best, 2: second}
    return [[wrap[cell.rank].format(escape(cell.text)) for cell in row] for row in table.rows]


def as_text(tables: Sequence[Table], style: str = "simple") -> str:
    """Tables for the terminal or for Markdown (github)."""
    escape = MARKS[style][0]
    parts = []
    for table in tables:
        header = [escape(name) for name in table.header]
        body = tabulate(
            highlight(table, style), headers=header, tablefmt=style, disable_numparse=True
        )
        head = f"## {escape(table.title)}" if style == "github" else escape(table.title)
        mark = f" {DATA_MARK}" if table.footnote else ""
        below = f"{DATA_MARK} {escape(table.footnote)}" if table.footnote else ""
        parts.append(
            "\n\n".join(part for part in (head + mark, escape(table.note), body, below) if part)
        )
    return "\n\n".join(parts)


def as_latex(tables: Sequence[Table]) -> str:
    """Tables with booktabs rules."""
    parts = []
    for table in tables:
        columns = "".join("r" if flag else "l" for flag in _numeric(table))
        header, *rows = (
            " & ".join(cells) + " \\\\"
            for cells in ([escaping.as_latex(h) for h in table.header], *highlight(table, "latex"))
        )
        lines = [
            "\\begin{table}",
            f"\\caption{{{escaping.as_latex(table.title)}{LATEX_MARK if table.footnote else ''}}}",
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            header,
            "\\midrule",
            *rows,
            "\\bottomrule",
            "\\end{tabular}",
            *([_latex_footnote(table)] if table.footnote else []),
            "\\end{table}",
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _latex_footnote(table: Table) -> str:
    return f"\\par{{\\footnotesize {LATEX_MARK} {escaping.as_latex(table.footnote)}}}"


def _numeric(table: Table) -> list[bool]:
    """Which columns hold numbers."""
    return [any(row[i].value is not None for row in table.rows) for i in range(len(table.header))]


def as_csv(tables: Sequence[Table]) -> str:
    """Unrounded values, each spread in a column of its own; the first column names the table."""
    rows: list[dict[str, object]] = []
    for table in tables:
        for row in table.rows:
            line: dict[str, object] = {"table": escaping.as_csv(table.title)}
            for heading, cell in zip(table.header, row, strict=True):
                name = escaping.as_csv(heading)
                line[name] = escaping.as_csv(cell.text) if cell.value is None else cell.value
                if cell.spread is not None or name in COLUMNS:
                    line[f"{name} sd"] = cell.spread
            rows.append(line)
    buffer = io.StringIO()
    writer = csv.DictWriter(
        buffer, dict.fromkeys(name for line in rows for name in line), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def as_html(table: Table) -> str:
    """A table that says what it is; cells carry their unrounded value for sorting."""
    numeric = _numeric(table)
    head = "".join(
        f'<th scope="col"{" class=number" * flag}>{escaping.as_html(name)}</th>'
        for name, flag in zip(table.header, numeric, strict=True)
    )
    body = []
    for row, shown in zip(table.rows, highlight(table, "html"), strict=True):
        cells = [_html_cell(*entry) for entry in zip(row, shown, numeric, strict=True)]
        first = cells[0].replace("<td", '<th scope="row"', 1).replace("</td>", "</th>")
        body.append(f"<tr>{first}{''.join(cells[1:])}</tr>")
    mark, below = "", ""
    if table.footnote:
        mark = f" {DATA_MARK}"
        below = f'\n<p class="footnote">{DATA_MARK} {escaping.as_html(table.footnote)}</p>'
    return (
        f"<table><caption>{escaping.as_html(table.title)}{mark}</caption>"
        f"<thead><tr>{head}</tr></thead>\n<tbody>{chr(10).join(body)}</tbody></table>{below}"
    )


def _html_cell(cell: Cell, shown: str, numeric: bool) -> str:
    """Best and second are said in words too, for those who don't see bold."""
    kind = "number" if numeric else "words" if len(cell.text) > 24 else ""
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    spoken = {1: "best", 2: "second"}.get(cell.rank)
    shown = f'<a href="{escaping.as_html(cell.link)}">{shown}</a>' if cell.link else shown
    return (
        f"<td{f' class={kind}' if kind else ''}{value}>{shown}"
        + (f'<span class="spoken"> ({spoken})</span>' if spoken else "")
        + "</td>"
    )


def comparison(
    runs: Iterable[Run],
    dataset: str,
    skipped: Callable[[Path, RecordError], None] | None = None,
    marks: AuditMarks | None = None,
) -> list[Table]:
    """The leaderboards of a data set's trained models, one per evaluation convention.

    Args:
        skipped: see `UserMeans`.
        marks: footnotes by data.
    """
    return [
        marked(
            leaderboard(key, members, comparisons(members, user_means=UserMeans(skipped))),
            members,
            marks,
        )
        for key, members in comparable_groups(runs).items()
        if (key.dataset, key.protocol) == (dataset, "full")
    ]


def marked(table: Table, members: Sequence[SeedGroup], marks: AuditMarks | None) -> Table:
    """The table with the footnote of the data of its records, if that has one."""
    if marks is None:
        return table
    data = (record.data for group in members for record in group.records)
    return replace(table, footnote=marks.footnote(data))


def write_tables(tables: Sequence[Table], folder: Path, stem: str) -> list[Path]:
    """Write `<stem>.md`, `.tex`, `.csv` and `.html` into a folder and return their paths."""
    page = "\n".join(as_html(table) for table in tables)
    texts = {
        "md": f"# {escaping.as_markdown(stem)}\n\n{as_text(tables, 'github')}\n",
        "tex": as_latex(tables),
        "csv": as_csv(tables),
        "html": '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{escaping.as_html(stem)}</title>\n{page}</html>\n",
    }
    paths = []
    for suffix, content in texts.items():
        path = folder / f"{stem}.{suffix}"
        with atomic_write(path, "w") as handle:
            handle.write(content)
        paths.append(path)
    return paths
