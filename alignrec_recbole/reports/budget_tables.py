"""What the search for the settings of each row cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alignrec_recbole.reports.budgets import UNKNOWN, Budget
from alignrec_recbole.reports.grouping import ComparisonKey, SeedGroup, chosen_settings
from alignrec_recbole.reports.notes import table_title
from alignrec_recbole.reports.table import Cell, Table, mean_sd_cell, text_cell


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
