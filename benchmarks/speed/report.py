"""The committed timings as a table and two plots.

    python -m benchmarks.speed.report

Reads results/shipped/speed/*.json, each the last line that a script of this package printed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from tabulate import tabulate

from alignrec_recbole.errors import RecordError
from alignrec_recbole.reports.colours import GREY, OTHERS, TARGET
from alignrec_recbole.reports.plots import PAGE, Drawing, save
from alignrec_recbole.reports.plots.style import log_axis, marker, styled

FOLDER = Path(__file__).resolve().parents[2] / "results" / "shipped" / "speed"
ROWS = {  # file → what was timed, against whom, what bounds ours
    "alignrec": (
        "AlignRec, training epoch, fastest mode",
        "official code",
        "arithmetic of the gate and of the contrastive losses",
    ),
    "alignrec_frozen": (
        "the same, ours with frozen features",
        "official code",
        "arithmetic of the contrastive losses",
    ),
    "alignrec_avx2": (
        "AlignRec, training epoch, no bfloat16 units",
        "official code",
        "arithmetic",
    ),
    "alignrec_frozen_avx2": (
        "the same, ours with frozen features",
        "official code",
        "arithmetic",
    ),
    "lightgcn": ("LightGCN, training epoch", "RecBole", "gathering rows, Adam"),
    "lightgcn_avx2": ("the same, without AVX-512", "RecBole", "gathering rows, Adam"),
    "evaluation": ("full ranking", "RecBole, best batch", "arithmetic, the top-K search"),
    "evaluation_avx2": (
        "the same, without AVX-512",
        "RecBole, best batch",
        "arithmetic, the top-K search",
    ),
}
ENCODERS = {  # case of speed.encoders → what was timed, against whom
    "st": ("texts by st:all-MiniLM-L6-v2", "sentence-transformers"),
    "vision": ("images by vision:, DINOv2 small's size", "transformers"),
    "clip": ("images and texts by clip:, two towers of that size", "transformers"),
    "audio": ("sounds of 10 s by audio:, Whisper tiny's size", "transformers"),
    "caption": ("captions of 16 tokens, BLIP with 6 layers", "transformers"),
}
MMREC = "github.com/enoche/MMRec"
SHOWN = 0.15  # shares of a step from here on


def read(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Results by file name.

    Raises:
        RecordError: there is none.
    """
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if not found:
        raise RecordError(
            "There are no timings.",
            found=f"no .json in {folder}",
            hint="python -m benchmarks.speed.NAME … | tail -1 > results/shipped/speed/NAME.json",
        )
    return found


def table(folder: Path = FOLDER) -> str:
    """Seconds, ratio and memory of each comparison, then the sizes that have no peer."""
    found = read(folder)
    rows: list[tuple[str, list[str]]] = []  # file, cells
    for name, (what, peer, bound) in ROWS.items():
        if name not in found:
            continue
        entry = found[name]
        ratio = f"{entry['ratio']:.1f}×"
        if abs(entry["ratio_float32"] - entry["ratio"]) > 0.05:
            ratio += f" ({entry['ratio_float32']:.1f}× in float32)"
        if "ratio_default" in entry:
            ratio += f" ({entry['ratio_default']:.0f}× its default batch)"
        rows.append(
            (
                name,
                [
                    f"{what}, {entry['dataset']}{_from_steps(entry)}",
                    f"{entry['ours_seconds']:.2f} s",
                    f"{entry['peer_seconds']:.1f} s, {peer}",
                    ratio,
                    f"{entry['ours_peak_bytes'] / 2**30:.2f} / "
                    f"{entry['peer_peak_bytes'] / 2**30:.2f} GiB",
                    bound,
                ],
            )
        )
    for model, entry in found.get("baselines", {}).get("models", {}).items():
        dataset = entry.get("dataset", found["baselines"]["dataset"])
        rows.append(
            (
                f"baselines {model}",
                [
                    f"{model}, training epoch, {dataset}{_from_steps(entry)}",
                    f"{entry['ours_seconds']:.2f} s",
                    f"{entry['peer_seconds']:.1f} s, {_short(entry)}",
                    f"{entry['ratio']:.1f}×",
                    f"{entry['ours_peak_bytes'] / 2**30:.2f} / "
                    f"{entry['peer_peak_bytes'] / 2**30:.2f} GiB",
                    _largest(found, model),
                ],
            )
        )
    if "beit3" in found:
        entry = found["beit3"]
        real = [
            f"{text['ratio']:.1f}× on texts of {table.split('/')[0]}"
            for table, text in entry["real"].items()
        ]
        half = entry.get("ratio_bf16")  # not timed without bfloat16 units
        autocast = f"{half:.1f}× its autocast, " if half else ""
        rows.append(
            ("beit3", [f"BEiT-3 base, 8 items of 197 + 128 tokens, {entry['precision_chosen']}",
             f"{entry['ours_seconds']:.2f} s", f"{entry['peer_seconds']:.1f} s, torchscale",
             f"{entry['ratio']:.1f}× ({entry['ratio_float32']:.1f}× in float32, "
             f"{autocast}{', '.join(real)})",
             f"{entry['ours_peak_bytes'] / 2**30:.2f} / {entry['peer_peak_bytes'] / 2**30:.2f} GiB",
             "arithmetic"])
        )  # fmt: skip
    entry = found.get("encoders", {})
    for case, timed in entry.get("encoders", {}).items():
        what, peer = ENCODERS[case]
        rows.append(
            ("encoders", [f"{entry['items']} {what}",
             f"{timed['ours_seconds']:.1f} s ({timed['items_per_second']:.1f} items/s)",
             f"{timed['peer_seconds']:.1f} s, {peer}",
             f"{timed['peer_seconds'] / timed['ours_seconds']:.1f}×",
             f"{timed['ours_peak_bytes'] / 2**30:.2f} / "
             f"{timed['peer_peak_bytes'] / 2**30:.2f} GiB",
             "arithmetic"])
        )  # fmt: skip
    for name in [n for n in ("alignrec", "alignrec_avx2") if n in found]:
        start = found[name]["startup"]
        rows.append(
            (name, ["AlignRec, start to first step, sports", f"{start['ours']:.1f} s",
             f"{start['peer']:.1f} s, official code", f"{start['peer'] / start['ours']:.1f}×", "",
             "reading, imports, the kNN graph"])
        )  # fmt: skip
    if "knn" in found:
        entry = found["knn"]
        rows.append(
            ("knn", [f"item kNN graph, {entry['items']:,} × {entry['width']}",
             f"{entry['ours_seconds']:.0f} s", "", "",
             f"{entry['bytes_above_features'] / 2**30:.2f} GiB above the features", "arithmetic"])
        )  # fmt: skip
    if "electronics" in found:
        entry = found["electronics"]
        fitting = [e for e in entry["models"].values() if "peak_bytes" in e]
        steps = sorted({e["steps"] for e in fitting if e.get("steps")})
        rows.append(
            ("electronics", [
             f"one epoch of each of {len(entry['models'])} models at Electronics' size"
             f"{_from_steps({'steps': ' or '.join(map(str, steps))})}",
             f"{min(e['seconds'] for e in fitting):.0f} to "
             f"{max(e['seconds'] for e in fitting):.0f} s", "", "",
             f"{entry['worst_peak_bytes'] / 2**30:.1f} GiB at most", "feature tables, Adam"])
        )  # fmt: skip
    header = ["what", "ours", "peer", "ratio", "peak memory, ours / peer", "bound by"]
    places = numbered(found)
    if max(places.values()) > 1:
        header.append("on")
        rows = [(name, [*cells, f"({places[name]})"]) for name, cells in rows]
    return tabulate([cells for _, cells in rows], header, tablefmt="github", disable_numparse=True)


def _largest(found: dict[str, dict[str, Any]], model: str) -> str:
    """The kinds of operators with the largest shares of a step (`speed.operator_profile`)."""
    profiled = found.get("shares", {}).get("models", {})
    if model not in profiled:
        return "not profiled"
    shares = profiled[model]["shares"].items()
    return ", ".join(f"{kind} {share:.0%}" for kind, share in shares if share >= SHOWN)


def _short(entry: dict[str, Any]) -> str:
    """The repository of a baseline's peer; MMRec where the timing does not say."""
    return str(entry.get("peer", MMREC)).replace(MMREC, "MMRec").removeprefix("github.com/")


def _from_steps(entry: dict[str, Any]) -> str:
    return f" (extrapolated from {entry['steps']} steps)" if entry.get("steps") else ""


def machines(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The machine of each result, in words; each of the baselines is a result."""
    entries = {
        name: entry for name, entry in found.items() if name != "baselines" and "machine" in entry
    }
    for model, entry in found.get("baselines", {}).get("models", {}).items():
        entries[f"baselines {model}"] = entry
    out = {}
    for name, entry in entries.items():
        m = entry["machine"]
        instructions = f" ({m['instructions']})" if "instructions" in m else ""
        threads = f"{m['threads']} thread{'' if m['threads'] == 1 else 's'}"
        out[name] = (
            f"{m['cpu']}{instructions}, {threads}, torch {m['versions']['torch']}, "
            f"Python {m['python']}, {m['system']}"
        )
    return out


def numbered(found: dict[str, dict[str, Any]]) -> dict[str, int]:
    """The number of each result's machine, from 1 in the order of the results."""
    seen = machines(found)
    order = list(dict.fromkeys(seen.values()))
    return {name: order.index(machine) + 1 for name, machine in seen.items()}


def machine(folder: Path = FOLDER) -> str:
    """The machines of the committed timings, numbered as in the table if there are several."""
    found = read(folder)
    seen, places = machines(found), numbered(found)
    names = {places[name]: words for name, words in seen.items()}
    if len(names) == 1:
        return names[1]
    return "; ".join(f"({place}) {words}" for place, words in names.items())


@styled
def growth_plot(entry: dict[str, Any]) -> Drawing:
    """Milliseconds a step and peak memory against the size of the graph, with the linear course."""
    figure = Figure(figsize=(PAGE, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    models = list(dict.fromkeys(point["model"] for point in entry["points"]))
    for i, model in enumerate(models):
        points = [p for p in entry["points"] if p["model"] == model]
        scale = [p["scale"] for p in points]
        step = [1e3 * p["step_seconds"] for p in points]
        colour = (TARGET, *OTHERS)[i % 5]
        look = {"color": colour, "marker": marker(i), "label": model}
        left.plot(scale, step, **look)
        left.plot(scale, [step[0] * s / scale[0] for s in scale], ":", color=colour)
        right.plot(scale, [p["peak_bytes"] / 2**30 for p in points], **look)
    left.set(ylabel="training step, ms (dotted: linear)")
    log_axis(left, "y")
    right.set(ylabel="peak memory, GiB")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set(xlabel=f"interactions, multiples of {entry['dataset'].capitalize()}", xscale="log")
        axes.set_xticks(scale, [f"{s}×" for s in scale])
        axes.minorticks_off()
        axes.legend()
    return Drawing(figure, pd.DataFrame(entry["points"]))


@styled
def roofline_plot(entry: dict[str, Any]) -> Drawing:
    """Milliseconds of each part of a step beside the least that the machine allows."""
    figure = Figure(figsize=(PAGE, 3), layout="constrained")
    axes = figure.subplots()
    names = list(entry["parts"])[::-1]
    taken = [1e3 * entry["parts"][name]["seconds"] for name in names]
    least = [1e3 * entry["parts"][n]["seconds"] * entry["parts"][n]["reached"] for n in names]
    axes.barh(names, taken, color=GREY, label="measured")
    axes.barh(names, least, height=0.4, color=TARGET, label="bound by arithmetic or memory")
    axes.set_xlabel("milliseconds")
    axes.legend()
    data = pd.DataFrame({"part": names, "milliseconds": taken, "bound, milliseconds": least})
    return Drawing(figure, data)


def main(arguments: list[str] | None = None) -> int:
    """Print the table, draw the plots."""
    argparse.ArgumentParser(
        prog="benchmarks.speed.report", description="The committed timings as a table and plots."
    ).parse_args(arguments)
    found = read()
    print(machine())
    print(table())
    for name, draw in (("growth", growth_plot), ("roofline", roofline_plot)):
        if name in found:
            for path in save(draw(found[name]), FOLDER, name):
                print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
