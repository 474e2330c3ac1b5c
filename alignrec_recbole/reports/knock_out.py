"""Tables of protocol knock-out: what content explains of a lead, and interventions at test time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from alignrec_recbole.errors import RecordError
from alignrec_recbole.features.knock_out import KnockOut
from alignrec_recbole.reports.grouping import PRIMARY_METRIC, ComparisonKey, SeedGroup
from alignrec_recbole.reports.lead_share import Interval, Leads, leads
from alignrec_recbole.reports.notes import candidates_note, seeds_note, table_title
from alignrec_recbole.reports.table import Cell, Table, mean_sd_cell, text_cell
from alignrec_recbole.runs.lists import read_user_values
from alignrec_recbole.runs.record import Run

REAL, TWIN, SHUFFLED, SAME_POPULARITY = "real", "ID-only", "shuffled", "popularity-shuffled"
ORDER = (REAL, "only", "random", SHUFFLED, SAME_POPULARITY, "constant", "zero", TWIN)
LISTS = ("overlap@20", "RBO@20", "same list")
TABLES, GRAPHS = "features", "features and item graphs"  # what an intervention replaced
OTHER = {TABLES: GRAPHS, GRAPHS: TABLES}
EITHER = "features, whatever the graphs"

Skip = Callable[[Path, RecordError], None]


@dataclass
class KnockedOut:
    """The runs of one model on one group of features and what replaced them.

    Attributes:
        label: the model, and settings that differ from the usual ones.
        features: the real ones.
        runs: variant → seed → run.
        twin: how the ID-only twin was made.
        seeds: those that every variant has.
        leads: None without real features or a twin.
        over_users: whether the intervals are of users, too.
    """

    label: str
    features: str
    runs: dict[str, dict[int, Run]] = field(default_factory=dict)
    twin: str = ""
    seeds: tuple[int, ...] = ()
    leads: Leads | None = None
    over_users: bool = False

    @property
    def variants(self) -> list[str]:
        """Its variants in the order of tables."""
        return sorted(self.runs, key=variant_place)

    def is_twin(self, variant: str) -> bool:
        """Whether a variant is the ID-only twin, under this name or another."""
        return self.runs[variant] == self.runs.get(TWIN)


def variant_place(variant: str) -> tuple[int, str]:
    """The place of a variant in tables and figures."""
    return ORDER.index("only" if variant.endswith(" only") else variant), variant


def knocked_out(members: Sequence[SeedGroup], skipped: Skip | None = None) -> list[KnockedOut]:
    """The models that were trained on real features and on others, with their leads.

    Args:
        skipped: called for per-user values that cannot be used; without it, the error is raised.
    """
    found: dict[tuple[str, str], KnockedOut] = {}
    ordered = sorted(members, key=lambda group: bool(_of(group.runs[0]).real))  # real ones first
    for group in ordered:
        for run in group.runs:
            what = _of(run)
            key = run.record.model, what.real or run.record.config_sha256
            if key not in found:
                found[key] = KnockedOut(group.label, "+".join(what.of))
            _add(found[key], run, what)
    for each in found.values():
        _measure(each, skipped)
    return sorted(found.values(), key=_by_lead)


def _by_lead(model: KnockedOut) -> tuple[str, float, str]:
    lead = model.leads.lead.value if model.leads else -math.inf
    return model.features, -lead, model.label


def _of(run: Run) -> KnockOut:
    return KnockOut.model_validate(run.record.config["knock_out"])


def _add(model: KnockedOut, run: Run, what: KnockOut) -> None:
    record = run.record
    names: list[str] = [] if what.variant == "id-only" else [what.variant]
    if what.variant == "alone":
        names = ["+".join(dict.fromkeys(f["modality"] for f in record.feature_files.values()))]
        names = [f"{name} only" for name in names]
    if what.id_only:
        names.append(TWIN)
        kinds = {name.partition(":")[0] for name in record.feature_files}
        model.twin = " and ".join(sorted(kinds))
    for name in names:
        model.runs.setdefault(name, {})[record.seed] = run


def _measure(model: KnockedOut, skipped: Skip | None) -> None:
    """Set the seeds and leads of a model that has real features and a twin."""
    if REAL not in model.runs or TWIN not in model.runs:
        return
    common = set.intersection(*(set(by_seed) for by_seed in model.runs.values()))
    runs = {
        variant: [by_seed[seed] for seed in sorted(common)]
        for variant, by_seed in model.runs.items()
    }
    everywhere = [run.record.metrics for several in runs.values() for run in several]
    if not common or not all(PRIMARY_METRIC in metrics for metrics in everywhere):
        return
    model.seeds = tuple(sorted(common))
    values = _user_values(runs, skipped)
    model.over_users = values is not None
    if values is None and len(common) == 1:
        return  # one number per variant has no interval
    if values is None:
        values = {
            variant: np.array([[run.record.metrics[PRIMARY_METRIC]] for run in several])
            for variant, several in runs.items()
        }
    model.leads = leads(values, REAL, TWIN)


def _user_values(runs: dict[str, list[Run]], skipped: Skip | None) -> dict[str, np.ndarray] | None:
    """Variant → the metric [seeds, users]; None if not every run has it for the same users."""
    out: dict[str, np.ndarray] = {}
    users: np.ndarray | None = None
    for variant, several in runs.items():
        rows = []
        for run in several:
            try:
                stored = read_user_values(run)
            except RecordError as error:
                if skipped is None:
                    raise
                skipped(run.path, error)
                return None
            if stored is None or PRIMARY_METRIC not in stored.values:
                return None
            users = stored.users if users is None else users
            if not np.array_equal(users, stored.users):
                return None
            rows.append(stored.values[PRIMARY_METRIC])
        out[variant] = np.stack(rows)
    return out


# Tables ------------------------------------------------------------------------------------------


def knock_out_tables(
    key: ComparisonKey, members: Sequence[SeedGroup], skipped: Skip | None = None
) -> list[Table]:
    """What content explains, every variant's value, and the interventions."""
    models = knocked_out(members, skipped)
    chance = candidates_note(members, PRIMARY_METRIC)
    return [_shares(key, models), _variants(models, chance), *_interventions(models)]


def _shares(key: ComparisonKey, models: Sequence[KnockedOut]) -> Table:
    """One row per model: its lead and the shares of it."""
    rows = []
    for model in models:
        seeds = Cell(str(len(model.seeds)), float(len(model.seeds)))
        cells = [text_cell(model.label), text_cell(model.features), text_cell(model.twin), seeds]
        if model.leads is None:
            rows.append([*cells, *(text_cell("") for _ in range(6))])
            continue
        cells += [_number(model.leads.lead), _ends(model.leads.lead)]
        for variant in (SHUFFLED, SAME_POPULARITY):
            share = model.leads.shares.get(variant)
            if share is not None:
                cells += [_percent(share), _percents(share)]
            elif variant in model.runs and not model.leads.lead.is_positive:
                cells += [text_cell("no lead"), text_cell("")]
            else:
                cells += [text_cell(""), text_cell("")]
        rows.append(cells)
    interval = "95 % interval"
    note = (
        f"Lead: {PRIMARY_METRIC} with the real features less that of the model's ID-only twin, "
        "trained on the control features named. Content explains the share of the lead that is "
        "lost when features are shuffled across items; beyond popularity, among items of equal "
        "popularity. No lead: its interval reaches 0, and a share of it would say nothing. "
        f"{_basis(models)}"
    )
    return Table(
        table_title(key),
        [
            "model", "features", "twin", "seeds", "lead", f"lead, {interval}",
            "content explains", f"content, {interval}",
            "beyond popularity", f"beyond popularity, {interval}",
        ],
        rows,
        note,
    )  # fmt: skip


def _basis(models: Sequence[KnockedOut]) -> str:
    """What the intervals are of."""
    measured = [model for model in models if model.leads is not None]
    without = [model.label for model in measured if not model.over_users]
    if not measured:
        return (
            "Not measured yet: it takes runs with real features and of the twin, and values per "
            "user or at least two seeds."
        )
    if len(without) == len(measured):
        return "Intervals: over seeds; there are no values per user beside the records."
    rest = f", of {', '.join(without)} over seeds alone" if without else ""
    one = [model.label for model in measured if model.over_users and len(model.seeds) == 1]
    rest += f", of {', '.join(one)} over the users of one seed" if one else ""
    return f"Intervals: over users and seeds{rest}."


def _number(interval: Interval) -> Cell:
    return Cell(f"{interval.value:.4f}", interval.value)


def _ends(interval: Interval) -> Cell:
    return text_cell(f"[{interval.low:.4f}, {interval.high:.4f}]")


def _percent(interval: Interval) -> Cell:
    return Cell(f"{100 * interval.value:.0f} %", interval.value)


def _percents(interval: Interval) -> Cell:
    return text_cell(f"[{100 * interval.low:.0f} %, {100 * interval.high:.0f} %]")


def _variants(models: Sequence[KnockedOut], chance: str) -> Table:
    """One row per model: the metric of every variant over its seeds."""
    variants = sorted({name for model in models for name in model.runs}, key=variant_place)
    rows = []
    for model in models:
        cells = []
        for variant in variants:
            records = [run.record for run in model.runs.get(variant, {}).values()]
            found = [r.metrics[PRIMARY_METRIC] for r in records if PRIMARY_METRIC in r.metrics]
            cells.append(mean_sd_cell(found))
        rows.append([text_cell(model.label), text_cell(model.features), *cells])
    return Table(
        f"{PRIMARY_METRIC} by what replaced the features",
        ["model", "features", *variants],
        rows,
        f"Test split. {seeds_note(rows)}Settings, epochs and patience are the same in a row. "
        f"For most models, zero is the ID-only twin itself. {chance}".rstrip(),
    )


def _interventions(models: Sequence[KnockedOut]) -> list[Table]:
    """One row per model, intervention and what is replaced; none if no run has any."""
    rows = []
    for model in models:
        runs = [run.record for run in model.runs.get(REAL, {}).values() if run.record.groups]
        found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for record in runs:
            for what, group in (record.groups or {}).items():
                if what not in OTHER:
                    continue
                for name, metrics in _without_draws(group).items():
                    line = found[name, what]
                    for metric, value in metrics.items():
                        line[metric].append(value)
                    if PRIMARY_METRIC in metrics and PRIMARY_METRIC in record.metrics:
                        change = metrics[PRIMARY_METRIC] - record.metrics[PRIMARY_METRIC]
                        line["change"].append(change)
        for (name, what), line in found.items():
            if line == found.get((name, OTHER[what])):  # graphs change nothing, or there are none
                if what != TABLES:
                    continue
                what = EITHER
            features, _, kind = name.partition(": ")
            cells = [text_cell(text) for text in (model.label, features, kind, what)]
            cells += [mean_sd_cell(line.get(m, [])) for m in (PRIMARY_METRIC, "change", *LISTS)]
            rows.append(cells)
    if not rows:
        return []
    note = (
        "The model as it was trained with the real features, ranked once more with features "
        "replaced, and with the item graphs that follow from them. Change: against the same model "
        "without intervention; lists: the users' top 20 against theirs without it. "
        f"{seeds_note(rows)}Permutations are averaged first. 1 throughout: the model ranks as if "
        "there were no features."
    )
    header = ["model", "features", "replaced by", "what", PRIMARY_METRIC, "change", *LISTS]
    return [Table("Interventions at test time", header, rows, note)]


def _without_draws(group: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Interventions by name, permutations averaged over their draws; metrics that all draws have.

    >>> _without_draws({"f: permutation 0": {"a": 1.0, "b": 5.0}, "f: permutation 1": {"a": 2.0}})
    {'f: permutation': {'a': 1.5}}
    """
    several: dict[str, list[dict[str, float]]] = defaultdict(list)
    for name, metrics in group.items():
        several[name.rstrip("0123456789").rstrip() if "permutation" in name else name].append(
            metrics
        )
    return {
        name: {
            metric: math.fsum(m[metric] for m in draws) / len(draws)
            for metric in draws[0]
            if all(metric in m for m in draws)
        }
        for name, draws in several.items()
    }
