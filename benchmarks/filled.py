"""What filling the rows of masked items gives, beside the same for rows that say nothing.

    python run_benchmark.py --protocol mask-modality --dataset D --features F \
        --set fill=neighbours --data-path DIR --output OUT
        (zero, mean and propagation, too; then F = random)
    python -m benchmarks.filled --output OUT --dataset D

Rows filled from neighbours are made of training interactions, and rankers by features then read
these. `random` features say nothing about the items: what they give once filled is not content.
Reads the records of the training-free rankers and stores the mean of Recall@20 over the masks, by
ranker, features, fill and share of masked items, in FOLDER/<dataset>.json.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from alignrec_recbole.errors import RecordError
from alignrec_recbole.reports.grouping import publishable
from alignrec_recbole.runs.record import read_runs
from benchmarks import command_line

FOLDER = Path("results/shipped/filled")
METRIC = "Recall@20"
SHOWN = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # shares of masked items
RANKER = "item-cf"  # of the table
FILLS = ("zero", "mean", "neighbours", "propagation")


@dataclass(frozen=True)
class Curve:
    """A ranker's figures by the share of masked items.

    Attributes:
        masks: masks per share.
        values: share → mean of METRIC over the masks.
    """

    ranker: str
    features: str
    fill: str
    masks: int
    values: dict[str, float]
    commit: str


def curves(output: Path, dataset: str) -> list[Curve]:
    """The curves of a data set's records, by features, ranker and fill.

    Raises:
        RecordError: there is none.
    """
    folder = output / "runs" / dataset
    out = []
    for run in publishable(read_runs(folder)):
        record = run.record
        if record.protocol != "mask-modality" or record.curve is None:
            continue
        masked = sorted({point["modality"] for point in record.curve})
        if len(masked) > 1:
            raise RecordError(
                f"The curve of {record.features!r} masks several modalities.",
                found=", ".join(masked),
                expected="records of one modality each, whose masks are averaged",
            )
        points: dict[float, list[float]] = defaultdict(list)
        for point in record.curve:
            points[point["ratio"]].append(point["metrics"][METRIC])
        out.append(
            Curve(
                ranker=record.model,
                features=record.features,
                fill=record.config["protocol"]["fill"],
                masks=max(map(len, points.values())),
                values={f"{ratio:g}": fmean(found) for ratio, found in sorted(points.items())},
                commit=str(record.code.get("commit")),
            )
        )
    if not out:
        raise RecordError(
            f"There is no record of protocol mask-modality on {dataset!r}.",
            found=f"none in {folder}",
            expected="those of rankers without training",
        )
    return sorted(
        out, key=lambda c: (c.features == "random", c.features, c.ranker, FILLS.index(c.fill))
    )


def read(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The stored curves, by data set."""
    return command_line.stored(folder)


def table(stored: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of RANKER's curves."""
    header = ["data set", "features", "filled by", *(f"{ratio:.0%}" for ratio in SHOWN)]
    return header, [
        [
            stored["dataset"],
            curve["features"],
            "nothing" if curve["fill"] == "zero" else curve["fill"],
            *(f"{curve['values'][f'{ratio:g}']:.4f}" for ratio in SHOWN),
        ]
        for curve in stored["curves"]
        if curve["ranker"] == RANKER
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect, store and print."""
    parser = command_line.parser("filled", __doc__, FOLDER)
    options = parser.parse_args(arguments)
    found = curves(options.output, options.dataset)
    stored = {
        "dataset": options.dataset,
        "metric": METRIC,
        "curves": [asdict(curve) for curve in found],
    }
    command_line.store(options.folder / f"{options.dataset}.json", stored)
    header, cells = table(stored)
    command_line.show(header, cells)
    return 0


if __name__ == "__main__":
    command_line.end(main)
