"""Curves, table and convergence of `benchmarks.two_stage`.

    python -m benchmarks.two_stage_report

Reads FOLDER/s<seed>.json and writes the figure FOLDER/curves.{svg,pdf,png} and its data as
FOLDER/curves.csv (one row per seed, arm, series and update); prints the table of the arms and where
each series converged.

A series has converged by 90 % at the first evaluation at which it has covered 90 % of the way from
its first to its best value of the run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats
from tabulate import tabulate

from alignrec_recbole.reports.colours import GREY, OTHERS, TARGET
from alignrec_recbole.reports.plots import PAGE, Drawing, save
from alignrec_recbole.reports.plots.style import fold, legend, styled
from benchmarks.two_stage import ARMS, FOLDER

SERIES = {
    "mlm": "held-out words (MLM)",
    "mim": "held-out patches (MIM)",
    "bpr": "validation BPR loss",
    "recall": "validation Recall@20",
}
TASKS = {"ica": ("mlm", "mim"), "rec": ("bpr", "recall")}
SHARE = 0.9


def read(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The results by seed."""
    paths = sorted(folder.glob("s*.json"), key=lambda path: int(path.stem[1:]))
    return [json.loads(path.read_text("utf-8")) for path in paths]


def curves(results: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row per seed, arm, series and update."""
    return pd.DataFrame(
        [
            (result["seed"], arm, name, point["update"], point["seconds"], point[name])
            for result in results
            for arm, content in result["arms"].items()
            for task, names in TASKS.items()
            for point in content["curves"][task]
            for name in names
        ],
        columns=["seed", "arm", "series", "update", "seconds", "value"],
    )


def converged(values: Sequence[float], share: float = SHARE) -> int:
    """Place of the first value that has covered a share of the way from the first to the best.

    The best is the value farthest in the direction in which the series moves on the whole.

    >>> converged([8.0, 6.0, 5.2, 5.0, 5.5]), converged([0.0, 0.2, 0.3, 0.31])
    (2, 2)
    """
    moved = np.asarray(values, dtype=np.float64) - values[0]
    moved = moved if moved[np.abs(moved).argmax()] >= 0 else -moved
    return int(np.flatnonzero(moved >= share * moved.max())[0])


def convergence(frame: pd.DataFrame) -> pd.DataFrame:
    """Per arm, series and seed: update and seconds of the task at which it has converged."""
    rows = []
    for (arm, name, seed), part in frame.groupby(["arm", "series", "seed"], sort=False):
        at = part.iloc[converged(part["value"].tolist())]
        seconds = at["seconds"] - part["seconds"].iloc[0]  # a second stage starts later
        rows.append((arm, name, seed, at["update"], seconds))
    return pd.DataFrame(rows, columns=["arm", "series", "seed", "update", "seconds"])


def arms(results: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells: the arms' results, and the difference from two-stage over the seeds."""
    header = ["arm", "seeds", "MLM", "MIM", "validation BPR", "test Recall@20"]
    header += ["against two-stage", "p, seeds", "p, users", "CPU seconds"]
    frame, rows = curves(results), []
    ends = frame.sort_values("update").groupby(["arm", "series", "seed"])["value"].last()
    for arm in ARMS:
        having = [result for result in results if arm in result["arms"]]
        if not having:
            continue
        own = [result["arms"][arm] for result in having]
        test = {r["seed"]: np.array(r["arms"][arm]["test_recalls"]) for r in having}
        cells = []
        for name in ("mlm", "mim", "bpr"):
            found = ends[arm].get(name)
            cells.append("—" if found is None else f"{found.mean():.4f}")
        means = [float(one.mean()) for one in test.values()]
        spread = f" ± {np.std(means, ddof=1):.4f}" if len(means) > 1 else ""
        cells.append(f"{np.mean(means):.4f}{spread}")
        cells += ["—"] * 3 if arm == ARMS[0] else _against(results, arm)
        seconds = np.mean([one["seconds"] for one in own])
        rows.append([arm, str(len(having)), *cells, f"{seconds:.0f}"])
    return header, rows


def _against(results: Sequence[dict[str, Any]], arm: str) -> list[str]:
    """Difference from two-stage in test Recall@20, p over seeds and over users."""
    pairs = [
        (np.array(r["arms"][arm]["test_recalls"]), np.array(r["arms"][ARMS[0]]["test_recalls"]))
        for r in results
        if {arm, ARMS[0]} <= r["arms"].keys()
    ]
    if not pairs:
        return ["—"] * 3
    over_seeds = np.array([float(one.mean() - other.mean()) for one, other in pairs])
    over_users = np.mean([one - other for one, other in pairs], axis=0)
    p_seeds = f"{stats.ttest_1samp(over_seeds, 0).pvalue:.2g}" if len(pairs) > 1 else "—"
    p_users = f"{stats.ttest_1samp(over_users, 0).pvalue:.2g}" if over_users.any() else "1"
    return [f"{over_seeds.mean():+.4f}", p_seeds, p_users]


def when(results: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells: update and CPU seconds of 90 % convergence, mean and range over seeds."""
    found, rows = convergence(curves(results)), []
    for arm in ARMS:
        for name, title in SERIES.items():
            part = found[(found["arm"] == arm) & (found["series"] == name)]
            if len(part):
                low, high = int(part["update"].min()), int(part["update"].max())
                span = f" ({low}–{high})" if low < high else ""
                update = f"{part['update'].mean():.0f}{span}"
                rows.append([arm, title, update, f"{part['seconds'].mean():.0f}"])
    return ["arm", "series", "updates to 90 %", "CPU seconds to 90 %"], rows


def gradients(results: Sequence[dict[str, Any]]) -> str:
    """The norm of the recommendation's gradient in the encoder as a share of that of L_ICA."""
    shares = [
        point["rec"] / point["ica"]
        for result in results
        if "joint" in result["arms"]
        for point in result["arms"]["joint"]["curves"]["gradients"]
    ]
    if not shares:
        return "no joint arm yet"
    return (
        f"{np.median(shares):.2g} (median of {len(shares)}; {min(shares):.2g} to {max(shares):.2g})"
    )


@styled
def plot(frame: pd.DataFrame) -> Drawing:
    """The series over updates (above) and CPU seconds (below), one line per seed."""
    figure = Figure(figsize=(PAGE, 3.6), layout="constrained")
    axes = figure.subplots(2, len(SERIES))
    colours = dict(zip(ARMS, (TARGET, OTHERS[0], GREY), strict=True))
    for row, along in zip(axes, ("update", "seconds"), strict=True):
        for axis, (name, title) in zip(row, SERIES.items(), strict=True):
            own = frame[frame["series"] == name]
            for (arm, _), part in own.groupby(["arm", "seed"]):
                axis.plot(part[along], part["value"], color=colours[arm], lw=1)
            if along == "update":
                axis.set_title(fold(title, 16))
            axis.set_xlabel("update" if along == "update" else "CPU seconds")
    present = [arm for arm in ARMS if (frame["arm"] == arm).any()]
    legend(figure, {arm: Line2D([], [], color=colours[arm]) for arm in present})
    return Drawing(figure, frame)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write curves and figure, print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.two_stage_report", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the results")
    options = parser.parse_args(arguments)
    results = read(options.folder)
    if not results:
        parser.error(f"{options.folder} has no s<seed>.json; run benchmarks.two_stage first")
    frame = curves(results)
    save(plot(frame), options.folder, "curves")
    for header, rows in (arms(results), when(results)):
        print(tabulate(rows, headers=header, tablefmt="github", disable_numparse=True), "\n")
    print(f"gradient of L_REC / L_ICA in the encoder: {gradients(results)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
