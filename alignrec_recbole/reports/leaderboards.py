"""The table of trained models: one row per model, features and settings, best first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from alignrec_recbole.errors import RecordError, counted
from alignrec_recbole.reports.audit_marks import AuditMarks
from alignrec_recbole.reports.budgets import (
    FACTOR,
    MARK,
    UNKNOWN,
    Budget,
    budgets_of,
    differs,
)
from alignrec_recbole.reports.comparisons import comparisons, p_cell, targets
from alignrec_recbole.reports.grouping import (
    PRIMARY_METRIC,
    ComparisonKey,
    SeedGroup,
    comparable_groups,
    primary_metric,
    shown_metrics,
)
from alignrec_recbole.reports.notes import candidates_note, seeds_note, table_title
from alignrec_recbole.reports.reference_results import (
    features_of,
    reference_results,
    reproduction_status,
)
from alignrec_recbole.reports.significance import Comparison, Side, UserMeans
from alignrec_recbole.reports.table import (
    BEST,
    MISSING,
    Cell,
    Table,
    column_ranks,
    mean_sd_cell,
    text_cell,
)
from alignrec_recbole.runs.record import Run

SIGNIFICANT, LEVEL = "*", 0.05
_SIDED = {"two-sided": "", "right-sided": ", one-sided (target larger)"}
OTHER_FEATURES = "not the paper's features"


def leaderboard(
    key: ComparisonKey,
    members: Sequence[SeedGroup],
    tests: Sequence[Comparison] = (),
    wanted: str | None = None,
    tuning: Sequence[Run] = (),
    side: Side = "two-sided",
) -> Table:
    """One row per group, best first, reference rows below.

    Args:
        tuning: trials that budgets are derived from where records do not have them.
        side: of the tests.
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
                f"p over users after Holm{_SIDED[side]}.{_without_p(ours, members, tests, metric)}"
                if any(cell.text != MISSING for cell in gains)
                else ""
            )
        ).rstrip(),
        marks=f"{SIGNIFICANT}: differs from {_names(ours)} with p < {LEVEL} over {over} after Holm"
        f"{_SIDED[side]}",
    ).without_empty()


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


def _notes(group: SeedGroup, beside: bool) -> list[str]:
    """The notes of a row; that features are not the paper's only beside published rows."""
    return [note for note in group.notes if beside or not note.startswith(OTHER_FEATURES)]


def _significant(
    ours: Sequence[SeedGroup], tests: Sequence[Comparison]
) -> tuple[str, set[tuple[str, str]]]:
    """What was tested over, users where there are values of them, and (row, metric) that differ.

    A row that is marked differs from every target.
    """
    names = {group.name for group in ours}
    of_ours = [test for test in tests if test.target in names and test.p_holm is not None]
    over = "users" if any(test.over == "users" for test in of_ours) else "seeds"
    differ: dict[tuple[str, str], set[str]] = defaultdict(set)
    for test in of_ours:
        if test.over == over and (test.p_holm or 0.0) < LEVEL:
            differ[test.baseline, test.metric].add(test.target)
    return over, {row for row, from_targets in differ.items() if from_targets == names}


def _budget(searches: Mapping[str, Budget], group: SeedGroup, against: Budget | None) -> Cell:
    """How many settings were tried on validation; marked where the target's number differs."""
    if not searches:
        return text_cell("")
    budget = searches.get(group.name)
    if budget is None:
        return Cell(UNKNOWN)
    mark = f" {MARK}" if differs(budget, against) else ""
    return Cell(counted(budget.trials, "trial") + mark, float(budget.trials))


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


def _first_look(members: Sequence[SeedGroup]) -> str:
    """That rows are not trained to the end, as a sentence; empty if all are."""
    limits = sorted({epochs for group in members for epochs in group.epoch_limits})
    if not limits:
        return ""
    if len(limits) == 1 and all(group.epoch_limits for group in members):
        most = counted(limits[0], "epoch")
        return f"A first look: at most {most}, which ended before early stopping. "
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
    best, value = _best_other(members, ours, metric)
    own = group.mean(metric)
    if group not in ours or own is None or not value:
        return text_cell("")
    gain = own / value - 1
    shown = f"{100 * gain:+.1f} %"
    for entry in tests:
        pair = (entry.target, entry.baseline, entry.metric, entry.over)
        if pair == (group.name, best, metric, "users"):
            return Cell(f"{shown} ({p_cell(entry.p_holm, '', 'p').text})", gain)
    return Cell(shown, gain)


def _best_other(
    members: Sequence[SeedGroup], ours: Sequence[SeedGroup], metric: str
) -> tuple[str, float]:
    """The best row that is no target, and its mean; none and 0 if there is none."""
    means = {other.name: other.mean(metric) for other in members if other not in ours}
    others = {name: mean for name, mean in means.items() if mean is not None}
    best = max(others, key=lambda name: others[name], default="")
    return best, others.get(best, 0.0)


def _without_p(
    ours: Sequence[SeedGroup],
    members: Sequence[SeedGroup],
    tests: Sequence[Comparison],
    metric: str,
) -> str:
    """Why targets have no p over users against the best other row, as a sentence."""
    names = {group.name for group in ours}
    best, _ = _best_other(members, ours, metric)
    reasons = {
        entry.why
        for entry in tests
        if entry.target in names
        and (entry.baseline, entry.metric, entry.over) == (best, metric, "users")
        and entry.why
    }
    return f" No p: {'; '.join(sorted(reasons))}." if reasons else ""
