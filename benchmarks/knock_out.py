"""Does content help? The runs of the suite knock-out of one data set, in one file and one figure.

    python run_benchmark.py suite knock-out --data-path DIR --output OUT
    python -m benchmarks.knock_out --output OUT --dataset ml-100k

Reads the records of protocol knock-out and the values per user beside them, and writes
`FOLDER/<dataset>.json` and the figure `FOLDER/<dataset>.{svg,pdf,png}` with its data as CSV. The
file has one entry per run (model, variant, seed, metrics, epochs, seconds, the record's hash and
commit) and the tables of the report as they were computed with the values per user, which are not
committed. Prints the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignrec_recbole.errors import RecordError
from alignrec_recbole.reports.colours import colours_of
from alignrec_recbole.reports.grouping import ComparisonKey, SeedGroup, comparable_groups
from alignrec_recbole.reports.knock_out import knock_out_tables, knocked_out
from alignrec_recbole.reports.plots import knock_out_leads, save
from alignrec_recbole.reports.table import MISSING
from alignrec_recbole.runs.record import read_runs
from benchmarks import command_line

FOLDER = Path("results/shipped/knock-out")
PROTOCOL = "knock-out"
METRICS = ("Recall@20", "NDCG@20")


def groups(output: Path, dataset: str) -> tuple[ComparisonKey, list[SeedGroup]]:
    """The runs of protocol knock-out on a data set.

    Raises:
        RecordError: there are none, or of more than one evaluation convention or file.
    """
    folder = output / "runs" / dataset / PROTOCOL
    runs = [*read_runs(folder)] if folder.is_dir() else []
    found = comparable_groups(runs)
    if len(found) != 1:
        raise RecordError(
            f"The runs of protocol {PROTOCOL} on {dataset!r} do not make one table.",
            found=f"{len(runs)} runs that make {len(found)} in {folder}",
            expected="runs of one evaluation convention and one split",
            hint="Run the suite knock-out with this --output.",
        )
    return next(iter(found.items()))


def collected(key: ComparisonKey, members: Sequence[SeedGroup]) -> dict[str, Any]:
    """The runs and the tables as they are stored."""
    runs: dict[tuple[str, int], dict[str, Any]] = {}
    for model in knocked_out(members):
        for variant in model.variants:  # the twin last: most are a variant of another name
            for seed, run in sorted(model.runs[variant].items()):
                record = run.record
                stored = {
                    "model": record.model,
                    "features": model.features,
                    "variant": variant,
                    "seed": seed,
                    **{name: record.metrics[name] for name in METRICS},
                    "epochs": record.epochs,
                    "seconds": record.seconds["total"],
                    "config_sha256": record.config_sha256,
                    "commit": record.code.get("commit"),
                }
                runs.setdefault((record.config_sha256, seed), stored)
    tables = [
        {
            "title": table.title,
            "header": [*table.header],
            "rows": [[cell.text for cell in row] for row in table.rows],
            "note": table.note,
        }
        for table in knock_out_tables(key, members)
    ]
    return {"dataset": key.dataset, "runs": [*runs.values()], "tables": tables}


def read(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The stored results, by data set."""
    return command_line.stored(folder)


def table(stored: dict[str, Any], place: int) -> tuple[list[str], list[list[str]]]:
    """Header and cells of one of the tables, without columns that are empty in every row."""
    one = stored["tables"][place]
    shown = [i for i in range(len(one["header"])) if any(row[i] != MISSING for row in one["rows"])]
    rows = [[row[i] for i in shown] for row in one["rows"]]
    return [one["header"][i] for i in shown], rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect, store, draw and print."""
    parser = command_line.parser("knock_out", __doc__, FOLDER)
    options = parser.parse_args(arguments)
    key, members = groups(options.output, options.dataset)
    stored = collected(key, members)
    command_line.store(options.folder / f"{options.dataset}.json", stored)
    save(knock_out_leads(members, colours_of({key: members})), options.folder, options.dataset)
    for place in range(len(stored["tables"])):
        header, cells = table(stored, place)
        command_line.show(header, cells)
        print()
    return 0


if __name__ == "__main__":
    command_line.end(main)
