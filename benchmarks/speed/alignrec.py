"""AlignRec's training epoch and evaluation: ours against the official code, official behaviour.

    python -m benchmarks.speed.alignrec [--reference CHECKOUT] [--data-path DIR] --dataset D
        [--features F] [--frozen] [--rounds 5] [--steps N] [--device cpu]

Both sides read the same file and take the same batch size, loss terms and hyper-parameters. Without
--features a seeded random table of 768 columns stands in for the features: a step costs the same
whatever their values. bfloat16 is timed where the processor has units for it. With --frozen ours
keeps the features constant; the official code has no such switch and trains them. With
--steps an epoch is extrapolated from its first N steps (`epoch_seconds`).

On a GPU ours has two more sides, whose steps are captured (`captured_steps`), and milliseconds per
step are printed side by side. Without --reference ours is timed alone.

Start-up is measured with existing features and no cached item graph; `startup_again` is that of a
later run on the same features, whose neighbour lists are cached.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from alignrec_recbole.runs.spec import RunSpec
from benchmarks.reference import alignrec_official
from benchmarks.reference import our_timing as our_side
from benchmarks.reference.interactions import add_data, in_mmrec_layout, is_converted
from benchmarks.reference.options import add_steps
from benchmarks.reference.simulated_features import write_features
from benchmarks.speed import paired_timing

WIDTH = 768
CAPTURED = ", captured"  # behind the name of a side


def ours(
    dataset: str,
    data_path: Path,
    features: Path,
    output: Path,
    precision: str,
    frozen: bool,
    steps: int | None,
    device: str,
    captured: bool,
) -> Any:
    """Actions of our harness with the official hyper-parameters."""
    given = alignrec_official.HYPER_PARAMETERS
    return our_side.actions(
        RunSpec(
            "AlignRec",
            dataset,
            (features.stem,),
            setting="mmrec",
            data_path=data_path,
            features_path=features.parent,
            output=output,
            progress=False,
            device=device,
            overrides={
                "variant": "official",
                "cca_weight": given["cl_loss"],
                "learning_rate": given["learning_rate"],
                "reg_sim_weight": given["sim_weight"],
                "uia_weight": 0.1,
                "precision": precision,
                "train_features": not frozen,
                "captured_steps": captured,
            },
        ),
        steps,
        ("epoch", "evaluation", "step") if device == "cuda" else ("epoch", "evaluation"),
    )


def steps_side_by_side(timings: Mapping[str, paired_timing.Timing], device: str) -> str:
    """Milliseconds per step as usual and captured; on the CPU, why there are none."""
    if device != "cuda":
        return "captured steps: not timed, they need a GPU (--device cuda)"
    lines = []
    for name, timing in timings.items():
        if f"{name}{CAPTURED}" in timings:
            usual, captured = (
                1000 * one.median("step") for one in (timing, timings[f"{name}{CAPTURED}"])
            )
            ratio = f"{usual / captured:.2f}×"
            lines.append(f"{name}: {usual:.2f} ms a step, captured {captured:.2f} ms: {ratio}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.alignrec")
    parser.add_argument("--reference", type=Path, help="official checkout; else ours alone")
    add_data(parser)
    parser.add_argument("--features", type=Path, help="a .npy, row = itemID")
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    add_steps(parser)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args(arguments)
    if options.steps and options.device != "cpu":
        parser.error("--steps needs the CPU: a GPU runs behind the host that marks the times")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error(
            "--device cuda: there is no GPU here, so captured steps cannot be timed either"
        )
    with in_mmrec_layout(parser, options) as data_path, tempfile.TemporaryDirectory() as scratch:
        folder = data_path / options.dataset
        features = options.features
        if features and is_converted(options.dataset, data_path):
            parser.error("--features needs a data set in MMRec's layout, whose item numbers it has")
        if features is None:
            write_features(Path(scratch), folder / f"{options.dataset}.inter", {"simulated": WIDTH})
            features = Path(scratch) / "simulated.npy"
        mine = options.dataset, data_path, features.resolve()
        own = Path(scratch) / "ours"
        common = options.steps, options.device
        skipped = paired_timing.skipped_bfloat16(options.device, ["ours bfloat16"])
        kinds = ["float32", *([] if skipped else ["bfloat16"])]
        sides: dict[str, Any] = {
            f"ours {kind}{CAPTURED if captured else ''}": (
                ours,
                (*mine, own / kind, kind, options.frozen, *common, captured),
            )
            for captured in ([False, True] if options.device == "cuda" else [False])
            for kind in kinds
        }
        both = dict(sides)
        if options.reference:
            reference, their_folder = options.reference.resolve(), Path(scratch) / "official"
            other = reference, folder, features.resolve(), their_folder, *common
            both["official"] = (alignrec_official.actions, other)
        timings = paired_timing.measure(both, rounds=options.rounds)
        again = paired_timing.measure({"again": sides["ours float32"]}, rounds=0, warm_up=0)[
            "again"
        ]
    print(paired_timing.table(timings))
    print(steps_side_by_side(timings, options.device))
    what = {
        "dataset": options.dataset,
        "features": str(options.features.name) if options.features else "simulated, 768",
        "frozen": options.frozen,
        "skipped": skipped,
        "steps": options.steps,
        "step_seconds": {
            name: t.seconds["step"] for name, t in timings.items() if "step" in t.seconds
        },
    }
    if not options.reference:
        seconds = {name: timing.seconds["epoch"] for name, timing in timings.items()}
        paired_timing.finish(
            {"benchmark": "alignrec alone", **what, "epoch_seconds": seconds},
            device=options.device,
        )
        return 0
    peer, single = timings["official"], timings["ours float32"]
    fastest = min((timings[name] for name in sides), key=lambda t: t.median("epoch"))
    paired_timing.finish(
        {
            "benchmark": "alignrec",
            **what,
            "ratio": peer.median("epoch") / fastest.median("epoch"),
            "ratio_float32": peer.median("epoch") / single.median("epoch"),
            "ratio_evaluation": peer.median("evaluation") / single.median("evaluation"),
            **paired_timing.seconds_and_bytes(fastest, peer, "epoch"),
            "startup_again": again.startup,
            "float32_seconds": single.seconds["epoch"],
            "evaluation_seconds": {name: t.seconds["evaluation"] for name, t in timings.items()},
        },
        device=options.device,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
