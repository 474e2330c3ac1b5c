"""Does content help? The runs of the suite knock-out of one data set, in one file and one figure.

    python run_benchmark.py suite knock-out --data-path DIR --output OUT
    python -m benchmarks.knock_out --output OUT --dataset ml-100k

Reads the records of protocol knock-out and the values per user beside them, and writes
`FOLDER/<dataset>.json` and the figure `FOLDER/<dataset>.{svg,pdf,png}` with its data as CSV. The
file has one entry per run (model, variant, seed, metrics, epochs, seconds, the record's hash and
commit) and the tables of the report as they were computed with the values per user, which are not
committed. Models that the file has and OUT has not stay in it, so that models may be trained one
after the other and on several machines. Prints the tables.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alignrec_recbole.errors import RecordError
from alignrec_recbole.reports.grouping import ComparisonKey, SeedGroup, comparable_groups
from alignrec_recbole.reports.knock_out import REAL, knock_out_tables, knocked_out
from alignrec_recbole.reports.plots import draw_leads, leads_data, save
from alignrec_recbole.reports.plots.knock_out import ABOVE
from alignrec_recbole.reports.table import MISSING
from alignrec_recbole.runs.record import read_runs
from benchmarks import command_line

FOLDER = Path("results/shipped/knock-out")
PROTOCOL = "knock-out"
METRICS = ("Recall@20", "NDCG@20")
SHARED = ("header", "note")  # of equal tables
ALL = "all"  # an intervention on all feature sets


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
                    "model": model.label,
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
    files = members[0].first.data["files"].items()
    files = {name: value for name, value in files if name.endswith(".inter")}
    return {"dataset": key.dataset, "files": files, "runs": [*runs.values()], "tables": tables}


def with_stored(
    new: dict[str, Any], leads: pd.DataFrame, path: Path
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Results and the figure's data, with the models of a stored file that are not in them.

    Args:
        new: what `collected` returns.
        path: of the stored file; the figure's data lie beside it, as .csv.

    Raises:
        RecordError: the stored results are of other data or have other columns or notes.
    """
    if not path.is_file():
        return new, leads
    old = json.loads(path.read_text("utf-8"))
    before, after = ({table["title"]: table for table in each["tables"]} for each in (old, new))
    for what, one, other in [
        ("files", old["files"], new["files"]),
        *((key, before[t][key], after[t][key]) for t in before if t in after for key in SHARED),
    ]:
        if one != other:
            raise RecordError(
                f"The results in {path} and those of --output do not make one table.",
                found=f"other {what}: {one} and {other}",
                expected="the same data, evaluation convention, variants and kind of intervals",
                hint="Write into another --folder.",
            )
    own = {(run["model"], run["features"]) for run in new["runs"]}
    drawn = pd.read_csv(path.with_suffix(".csv"), keep_default_na=False)
    is_kept = [key not in own for key in zip(drawn["model"], drawn["features"], strict=True)]
    both = pd.concat([drawn[is_kept], leads])
    real = both[both["variant"] == REAL].sort_values(
        ["features", ABOVE, "model"], ascending=[True, False, True]
    )
    order = list(zip(real["model"], real["features"], strict=True))

    def place(model: str, features: str) -> tuple[int, str]:
        found = (n for n, key in enumerate(order) if _is_of((model, features), key))
        return next(found, len(order)), model

    tables = []
    for title in before | after:
        kept = [row for row in _rows(before, title) if not any(_is_of(row[:2], key) for key in own)]
        rows = sorted([*_rows(after, title), *kept], key=lambda row: place(*row[:2]))
        tables.append({**(before | after)[title], "rows": rows})
    runs = [run for run in old["runs"] if (run["model"], run["features"]) not in own]
    runs = sorted([*new["runs"], *runs], key=lambda run: place(run["model"], run["features"]))
    lines = zip(both["model"], both["features"], strict=True)
    places = [place(*line)[0] for line in lines]
    return {**new, "runs": runs, "tables": tables}, both.iloc[np.argsort(places, kind="stable")]


def _is_of(line: Sequence[str], key: tuple[str, str]) -> bool:
    """Whether a line's model and features are these, or an intervention's on a part of these.

    >>> [_is_of(["VBPR", "text"], ("VBPR", features)) for features in ("image+text", "image")]
    [True, False]
    """
    (model, part), (name, features) = line, key
    return model == name and part in {features, *features.split("+"), ALL}


def _rows(tables: dict[str, dict[str, Any]], title: str) -> list[list[str]]:
    return tables[title]["rows"] if title in tables else []


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
    path = options.folder / f"{options.dataset}.json"
    stored, leads = with_stored(collected(key, members), leads_data(members), path)
    command_line.store(path, stored)
    save(draw_leads(leads), options.folder, options.dataset)
    for place in range(len(stored["tables"])):
        header, cells = table(stored, place)
        command_line.show(header, cells)
        print()
    return 0


if __name__ == "__main__":
    command_line.end(main)
