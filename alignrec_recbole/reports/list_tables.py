"""Tables of what recommended lists are like: coverage, concentration, popularity, novelty."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from alignrec_recbole.errors import printable
from alignrec_recbole.reports.grouping import (
    ComparisonKey,
    SeedGroup,
    possible_hashes,
    primary_metric,
)
from alignrec_recbole.reports.notes import seeds_note, table_title
from alignrec_recbole.reports.table import Cell, Table, mean_sd_cell, text_cell
from alignrec_recbole.runs.lists import user_values_path
from alignrec_recbole.runs.record import Run, RunRecord

PROTOCOL = "beyond-accuracy"
SHOWN = tuple(
    f"{name}@20"
    for name in ("coverage", "Gini", "entropy", "popularity", "lift", "tail", "EPC", "ILD")
)
BY_HISTORY = {
    "coverage@20": "items in any list",
    "lift@20": "popularity of the lists over that of the users' own items, minus 1",
    "tail@20": "share of tail items",
    "EPC@20": "novelty of what was found (EPC)",
    "ILD@20": "intra-list distance by content",
}
RANKED = ("full", "zero-shot", "item-cf")  # the protocols whose runs leave lists of all items
NO_LISTS = "no lists beside the record"
NOT_COMPUTED = "not computed: run --protocol beyond-accuracy"

NOTE = (
    "First 20 places of the test lists; no figure but the first is better by itself. coverage: "
    "share of items in any list; Gini: of the places of all items, 0 is even; entropy: of the "
    "places, in nats; popularity: mean training interactions of listed items; lift: that over the "
    "users' own training items, minus 1; tail: share of items outside of the most popular ones "
    "with 80 % of the interactions; EPC: novelty of what was found; ILD: mean 1 − cosine between "
    "listed items. Formulas: alignrec_recbole/evaluation/beyond_accuracy.py."
)

Source = tuple[str, int]  # hash and seed of a ranking


def ranked(
    found: Mapping[ComparisonKey, Sequence[SeedGroup]], key: ComparisonKey
) -> list[SeedGroup]:
    """The groups whose lists could be described under a key of this protocol."""
    keys = (key._replace(protocol=protocol) for protocol in RANKED)
    return [group for one in keys for group in found.get(one, [])]


def content_of(record: RunRecord) -> str:
    """The feature sets of the intra-list distance, or none."""
    return "+".join(record.config["protocol"].get("content", {})) or "none"


def source_of(record: RunRecord) -> Source:
    """The ranking that a record is about."""
    return str(record.config["protocol"]["of_sha256"]), record.seed


def sources(record: RunRecord) -> list[Source]:
    """What a record about this ranking may call it: records of other ages have other hashes."""
    return [(digest, record.seed) for digest in possible_hashes(record)]


def why_blank(runs: Sequence[Run]) -> str:
    """Why rankings have no figures here."""
    there = all(user_values_path(run) is not None for run in runs)
    return NOT_COMPUTED if there else NO_LISTS


def tables(
    key: ComparisonKey, members: Sequence[SeedGroup], rankings: Sequence[SeedGroup]
) -> list[Table]:
    """One table of all users per content, then some figures by the users' history.

    Args:
        rankings: every group of runs that has lists or had them.
    """
    by_content: dict[str, list[SeedGroup]] = defaultdict(list)
    for group in members:
        by_content[content_of(group.first)].append(group)
    out = []
    for content, groups in sorted(by_content.items()):
        title = table_title(key)
        if content != "none":
            title += f", content {printable(content, 200)}"
        out.append(_of_all(title, groups, rankings))
        out += _by_history(title, groups)
    return out


def _of_all(title: str, members: Sequence[SeedGroup], rankings: Sequence[SeedGroup]) -> Table:
    metric = primary_metric(members)
    order = sorted(members, key=lambda group: -(group.mean(metric) or 0.0))
    rows = [
        [
            text_cell(group.label),
            text_cell(group.first.features),
            Cell(str(len(group.runs)), float(len(group.runs))),
            *(_cell(group, name) for name in (metric, *SHOWN)),
            text_cell(""),
        ]
        for group in order
    ]
    described = {source_of(record) for group in members for record in group.records}
    for group in rankings:
        if not any(source in described for r in group.records for source in sources(r)):
            blank = [text_cell("") for _ in range(2 + len(SHOWN))]
            names = [text_cell(group.label), text_cell(group.first.features)]
            rows.append([*names, *blank, text_cell(why_blank(group.runs))])
    return Table(
        title,
        ["model", "features", "seeds", metric, *SHOWN, "why blank"],
        rows,
        f"{seeds_note(rows)}{NOTE}",
    ).without_empty()


def _by_history(title: str, members: Sequence[SeedGroup]) -> list[Table]:
    out = []
    for name, meaning in BY_HISTORY.items():
        by_row: dict[tuple[str, str], dict[str, list[float]]] = {}
        for group in members:
            own = by_row.setdefault((group.label, group.first.features), defaultdict(list))
            for record in group.records:
                for label, figures in (record.groups or {}).get("history", {}).items():
                    if name in figures:
                        own[label].append(figures[name])
        present = {label for values in by_row.values() for label in values}
        names = list(
            dict.fromkeys(
                label
                for group in members
                for label in (group.first.groups or {}).get("history", {})
                if label in present
            )
        )
        if names:
            rows = [
                [*map(text_cell, row), *(mean_sd_cell(values.get(label, [])) for label in names)]
                for row, values in sorted(by_row.items())
            ]
            shown = f"{title}: {name}, {meaning}, by the user's training items"
            note = f"{seeds_note(rows)}Groups of other sizes: coverage is compared within one."
            out.append(Table(shown, ["model", "features", *names], rows, note))
    return out


def _cell(group: SeedGroup, name: str) -> Cell:
    values = list(group.values(name).values())
    if name.startswith(("popularity@", "entropy@")) and values:
        mean = sum(values) / len(values)
        return Cell(f"{mean:.4g}", mean)
    return mean_sd_cell(values)
