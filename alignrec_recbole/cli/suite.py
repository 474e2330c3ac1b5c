"""The verb `suite`: run the cells of a suite and report."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloup

from alignrec_recbole.cli import _names, _options
from alignrec_recbole.cli._types import FOLDER, SEEDS, Text, names
from alignrec_recbole.cli._verb import option, verb
from alignrec_recbole.engines import check_engine
from alignrec_recbole.errors import SettingError, printable
from alignrec_recbole.io.names import check_name
from alignrec_recbole.suites.names import suite_names, suite_path

if TYPE_CHECKING:
    from alignrec_recbole.suites.schema import Cell


@verb(
    examples=(
        "suite smoke --jobs 2",
        "suite knock-out --model VBPR --seeds 999,1000 --list",
    ),
)
@cloup.argument(
    "name",
    required=False,
    type=Text("name", str, suite_names),
    help="Suite (`list suites`), or a .yaml file of your own.",
)
@option("--suite", "named", hidden=True)
@cloup.option_group(
    "Files",
    _options.data_path(),
    _options.features_path(),
    option(
        "--output",
        type=FOLDER,
        metavar="DIR",
        help="Folder of records and tables.  [default: the suite's, else results]",
    ),
)
@cloup.option_group(
    "Only a part of the suite",
    option(
        "--model",
        "models",
        type=Text("names", names, _names.model_names),
        default=(),
        metavar="M[,M…]",
        help="Only the cells of these models.",
    ),
    option(
        "--dataset",
        "datasets",
        type=Text("names", names, _names.dataset_names),
        default=(),
        metavar="D[,D…]",
        help="Only the cells of these data sets.",
    ),
    option(
        "--seeds",
        type=SEEDS,
        metavar="S[,S…]",
        help="Only the cells with any of these training seeds.",
    ),
)
@cloup.option_group(
    "Execution",
    _options.jobs("Processes at a time: N, or auto."),
    _options.engine(),
    option("--list", "list_only", is_flag=True, help="Only list what is finished and missing."),
    option("--overwrite", is_flag=True, help="Run finished cells again."),
    _options.device(),
    _options.no_progress(),
)
def suite(name: str | None, named: str | None, **given: Any) -> int:
    """Run the experiments of one YAML file, and report.

    A suite that was stopped continues with the cells that remain. Exit status 1: a cell failed or
    is missing.
    """
    list_only = given.pop("list_only")
    chosen = name or named
    if chosen is None:
        known = ", ".join(suite_names())
        raise SettingError("No suite is named.", expected=f"suite NAME, NAME one of {known}")
    return _run(chosen, list_only, given)


def _run(name: str, list_only: bool, given: dict[str, Any]) -> int:
    check_engine(given["engine"], given["jobs"])
    suite_path(name)  # before the schema, which imports more
    from alignrec_recbole.suites.schema import read_suite

    suite = read_suite(name)  # before the scheduler, which imports more
    from alignrec_recbole.suites.scheduler import Scheduler, SuiteOptions

    label = check_name(Path(name).stem, "suite")
    cells = _part(suite.expanded, label, given)
    given["output"] = given["output"] or suite.output
    scheduler = Scheduler(suite, SuiteOptions(name=label, **given), cells)
    pending = scheduler.pending()
    stopped = False if list_only else scheduler.run(pending)
    status = [scheduler.status(cell, list_only and cell in pending) for cell in cells]
    counts = Counter(entry.status for entry in status)
    print(f"{label}: " + ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())))
    for entry in status:
        if entry.status != "finished":
            print(printable(f"  {entry.status}: {entry.name}: {entry.summary}"))
    if stopped:
        return 130
    if not list_only and counts["finished"]:
        from alignrec_recbole.reports.build import build

        print(build(scheduler.options.output)[-1])
    return int(counts["finished"] < len(status))


def _part(cells: list[Cell], label: str, given: dict[str, Any]) -> list[Cell]:
    """The cells of the wanted models, data sets and seeds, which are taken out of `given`.

    Raises:
        SettingError: there is none.
    """
    wanted = {
        "--model": given.pop("models"),
        "--dataset": given.pop("datasets"),
        "--seeds": [str(seed) for seed in given.pop("seeds") or ()],
    }
    found = [
        cell for cell in cells if all(cell.has(option, values) for option, values in wanted.items())
    ]
    if not found:
        raise SettingError(
            f"Suite {label!r} has no cell for these models, data sets and seeds.",
            found=" ".join(f"{option} {','.join(v)}" for option, v in wanted.items() if v),
            expected="models, data sets and seeds of the suite",
            hint="`suite … --list` without them shows its cells",
        )
    return found
