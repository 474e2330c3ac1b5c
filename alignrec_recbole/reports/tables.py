"""Tables made of run records: terminal, Markdown, LaTeX, CSV, HTML."""

from __future__ import annotations

import csv
import io
import re
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tabulate import tabulate

from alignrec_recbole.data.rekeyed_names import shown_name
from alignrec_recbole.errors import RecordError
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
    candidates_of,
    chosen_settings,
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
DATA_MARK = "\u2021"  # of a table with a footnote
PLACES = 4
PAIRED_TESTS = "paired tests"  # of the target against the others, as their table's title says
SIGNIFICANT, LEVEL = "*", 0.05
OTHER_FEATURES = "not the paper's features"
TERMINAL, BETWEEN = 100, 2  # columns of a terminal, and between those of a table
FOLDS, CELL = (21, 17), 30  # letters of a line of a cell, in the first columns and the others
FEW = 10  # a recall over fewer candidates than so many times its list says so
RECALL = re.compile(r"Recall@(\d+)")
BEST = "Best bold, second underlined."  # as notes say it
BEST_IN_TERMINAL = "Best marked *, second '."


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        rank: 1 for the best of its column, 2 for the second.
        mark: of a significant difference, where a format has room for it.
    """

    text: str
    value: float | None = None
    spread: float | None = None
    rank: int = 0
    link: str = ""  # on the site
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table before it has a format.

    Attributes:
        note: about its figures.
        footnote: about its data; the title has a mark then.
        marks: what the marks of cells mean.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    footnote: str = ""
    marks: str = ""

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
    over, significant = _significant(ours, tests)
    models = {group.first.model for group in members}
    beside = any(row.model in models for row in anchors)
    searches = budgets_of(members, tuning)
    against = next((searches[group.name] for group in ours if group.name in searches), None)
    gains = [_improvement(group, members, ours, tests, metric) for group in order]
    rows = []
    for place, group in enumerate(order):
        record = group.first
        rows.append(
            [
                text_cell(group.label),
                text_cell(record.features),
                Cell(str(len(group.runs)), float(len(group.runs))),
                *(
                    replace(
                        mean_sd_cell(group.values(m).values(), rank[m][place]),
                        mark=SIGNIFICANT if (group.name, m) in significant else "",
                    )
                    for m in columns
                ),
                *([_chance(record.chance, metric)] if chance else []),
                gains[place],
                text_cell(reproduction_status(group, anchors)),
                _budget(searches, group, against),
                text_cell("/".join(str(r.epochs) for r in group.records if r.epochs)),
                _seconds(group),
                _energy(group),
                text_cell("; ".join(_notes(group, beside))),
            ]
        )
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
        (
            f"Test split. {seeds_note(rows)}{BEST} "
            + _first_look(members)
            + _budget_note(searches, members, against)
            + (
                f"No record has {PRIMARY_METRIC}: ordered by {metric}. "
                * (metric != PRIMARY_METRIC)
            )
            + candidates_note(order, metric, chance)
            + (
                f"Over best baseline: {metric} of {_names(ours)} against the best other row, "
                f"p over users after Holm.{_without_p(ours, tests, metric)}"
                if any(cell.text != MISSING for cell in gains)
                else ""
            )
        ).rstrip(),
        marks=f"{SIGNIFICANT}: differs from {_names(ours)} with p < {LEVEL} over {over} after Holm",
    ).without_empty()


def _notes(group: SeedGroup, beside: bool) -> list[str]:
    """The notes of a row; that features are not the paper's only beside published rows."""
    return [note for note in group.notes if beside or not note.startswith(OTHER_FEATURES)]


def _significant(
    ours: Sequence[SeedGroup], tests: Sequence[Comparison]
) -> tuple[str, set[tuple[str, str]]]:
    """What was tested over, users where there are values of them, and (row, metric) that differ."""
    names = {group.name for group in ours}
    of_ours = [test for test in tests if test.target in names and test.p_holm is not None]
    over = "users" if any(test.over == "users" for test in of_ours) else "seeds"
    return over, {
        (test.baseline, test.metric)
        for test in of_ours
        if test.over == over and (test.p_holm or 0.0) < LEVEL
    }


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
            rows.append([*cells, Cell(UNKNOWN), *(text_cell("") for _ in range(10))])
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
                text_cell(", ".join(f"{key}={value}" for key, value in _chosen(group).items())),
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
            "chosen",
            "best on validation",
        ],
        rows,
        "What the search for each row's settings cost. Epochs and seconds are those of all trials; "
        "seconds are of training and validation, on the machines and devices of the records. "
        f"{UNKNOWN}: neither the records nor the stored trials tell.",
    ).without_empty()


def _chosen(group: SeedGroup) -> dict[str, str]:
    """The searched settings of a group with the values that were chosen."""
    return next((chosen_settings(record) for record in group.records if record.tuned_on), {})


def significance(
    key: ComparisonKey,
    tests: Sequence[Comparison],
    side: Side,
    test: str,
    what: str = PAIRED_TESTS,
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


def seeds_note(rows: Sequence[Sequence[Cell]]) -> str:
    """What the figures are of, as a sentence."""
    several = any(cell.spread is not None for row in rows for cell in row)
    return "Mean ± sd over seeds. " if several else "One seed per row. "


def candidates_note(members: Sequence[SeedGroup], metric: str, shown: bool = False) -> str:
    """What a recall is out of, as sentences: its chance, and that a list has most candidates.

    Args:
        shown: the table has the chance of each row.
    """
    match = RECALL.fullmatch(metric)
    if not match or not members:
        return ""
    length = int(match[1])
    counts = {group.first.protocol: candidates_of(group.first) for group in members}
    out = ""
    for protocol, count in counts.items():
        if not count:
            continue
        if protocol == "cold-start":
            out += f"Candidates: {count:,} cold items. "
        elif not shown:
            out += f"Chance of {metric}: about {min(1.0, length / count):.{PLACES}f}. "
        if length * FEW > count:
            part = "all" if length >= count else f"{length / count:.0%}"
            out += (
                f"{metric} is over at most {count} candidates: a list of {length} has {part} of "
                "them. "
            )
    return out


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
    "html": (escaping.as_html, "<strong>{}</strong>", "<u>{}</u>"),
}


def highlight(table: Table, style: str) -> list[list[str]]:
    """The cells' texts, escaped, best and second marked as the style has it."""
    escape, best, second = MARKS[style]
    wrap = {0: "{}", 1: best, 2: second}
    return [[wrap[cell.rank].format(escape(cell.text)) for cell in row] for row in table.rows]


def as_text(tables: Sequence[Table], style: str = "simple") -> str:
    """Tables for the terminal, at most 100 columns wide, or for Markdown (github).

    For the terminal, columns that do not fit follow below, with the names of the rows once more.
    """
    escape = MARKS[style][0]
    parts = []
    for table in tables:
        head = f"## {escape(table.title)}" if style == "github" else escape(table.title)
        mark = f" {DATA_MARK}" if table.footnote else ""
        below = f"{DATA_MARK} {escape(table.footnote)}" if table.footnote else ""
        texts = [head + mark, escape(_note(table, style))]
        if style == "simple":
            texts = [textwrap.fill(text, TERMINAL) for text in texts]
            below = textwrap.fill(below, TERMINAL)
            bodies = _for_terminal(table)
        else:
            header = [escape(name) for name in table.header]
            rows = highlight(table, style)
            bodies = [tabulate(rows, headers=header, tablefmt=style, disable_numparse=True)]
        parts.append("\n\n".join(part for part in (*texts, *bodies, below) if part))
    return "\n\n".join(parts)


def _note(table: Table, style: str) -> str:
    """The note, which names the marks of the format, if there are any."""
    if not any(cell.rank for row in table.rows for cell in row):
        return table.note.replace(f"{BEST} ", "")
    return table.note.replace(BEST, BEST_IN_TERMINAL) if style == "simple" else table.note


def _for_terminal(table: Table) -> list[str]:
    """The table, in parts if it does not fit; long words are then folded in their cells."""
    header = [escaping.plain(name) for name in table.header]
    rows = highlight(table, "simple")
    columns = [[header[i], *(row[i] for row in rows)] for i in range(len(header))]
    parts = [list(range(len(header)))]
    if sum(map(_width_of, columns)) > TERMINAL + BETWEEN:
        limits = [*FOLDS, *([CELL] * len(header))]
        columns = [
            [_folded(text.replace(" ± 0.", "±."), limit) for text in column]
            for column, limit in zip(columns, limits, strict=False)
        ]
        metrics = [i for i, name in enumerate(table.header) if name in COLUMNS]
        rest = [i for i in range(2, len(header)) if i not in metrics]
        widths = [_width_of(column) for column in columns]
        parts = _parts(range(2, len(header)), widths)
        if not set(metrics) <= set(parts[0]):  # the metrics are what a table is read for
            parts = _parts([*metrics, *rest], widths)
    return [
        tabulate(
            [[columns[i][row + 1] for i in part] for row in range(len(rows))],
            headers=[columns[i][0] for i in part],
            tablefmt="simple",
            disable_numparse=True,
        )
        for part in parts
    ]


def _parts(places: Iterable[int], widths: Sequence[int]) -> list[list[int]]:
    """Columns of each part: the first two, and those that fit beside them."""
    names = list(range(min(2, len(widths))))
    parts: list[list[int]] = [[*names]]
    for place in places:
        used = sum(widths[i] for i in parts[-1])
        if used + widths[place] > TERMINAL + BETWEEN and len(parts[-1]) > len(names):
            parts.append([*names])
        parts[-1].append(place)
    return parts


def _width_of(column: Sequence[str]) -> int:
    """Columns of a terminal that a column takes, with tabulate's space beside the heading."""
    heading, *lines = (line for text in column for line in text.split("\n"))
    return max([_display_width(heading) + 2, *map(_display_width, lines)]) + BETWEEN


def _folded(text: str, limit: int) -> str:
    """Lines of a cell, broken at spaces and after a plus."""
    lines: list[str] = []
    for line in textwrap.wrap(text.replace("+", "+\0"), limit + 99, break_on_hyphens=False):
        current = ""
        for piece in re.split(r"(?<=[\0 ])", line):
            shown = piece.replace("\0", "")
            if current and _display_width((current + shown).rstrip()) > limit:
                lines.append(current.rstrip())
                current = ""
            current += shown
            while _display_width(current.rstrip()) > limit:
                lines.append(current[:limit])
                current = current[limit:]
        lines.append(current.rstrip())
    return "\n".join(lines) or text


def _display_width(text: str) -> int:
    """Columns of a terminal that a text takes; wide letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


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
                line[name] = _plain_value(cell)
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


def _plain_value(cell: Cell) -> str | float | int | None:
    """A number as a number, words as words; blank if there is nothing."""
    if cell.value is None:
        return None if cell.text == MISSING else escaping.as_csv(cell.text)
    whole = float(cell.value).is_integer() and "." not in cell.text
    return int(cell.value) if whole else cell.value


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
