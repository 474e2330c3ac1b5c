"""Paired tests of the rows of a table: a target against the others, a variant against its model."""

from __future__ import annotations

from collections.abc import Sequence

from alignrec_recbole.reports.grouping import (
    ComparisonKey,
    SeedGroup,
    default_variants,
    primary_metric,
    shown_metrics,
)
from alignrec_recbole.reports.notes import table_title
from alignrec_recbole.reports.significance import (
    TESTED_METRICS,
    Comparison,
    Side,
    UserMeans,
    compare,
    corrected,
)
from alignrec_recbole.reports.table import Cell, Table, text_cell

DEFAULT_TARGET = "AlignRec"
PAIRED_TESTS = "paired tests"  # of the target against the others, as their table's title says


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
            p_cell(entry.p, entry.why),
            p_cell(entry.p_holm, "") if entry.p_holm is not None else text_cell(""),
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


def p_cell(value: float | None, why: str, name: str = "") -> Cell:
    """A p-value, after its name if one is given, or why there is none.

    >>> p_cell(0.0312, "").text, p_cell(1e-6, "", "p").text, p_cell(None, "one seed").text
    ('0.0312', 'p < 0.0001', 'no p: one seed')
    """
    if value is None:
        return text_cell(f"no {name or 'p'}" + (f": {why}" if why else ""))
    shown = "< 0.0001" if value < 1e-4 else f"{value:.4f}"
    return Cell(
        f"{name} {shown}".strip() if "<" in shown or not name else f"{name} = {shown}", value
    )
