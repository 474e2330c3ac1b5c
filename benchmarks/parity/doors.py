"""Does every way to start a run give the same metrics, to the last digit?

    python -m benchmarks.parity.doors
        [--data-path DIR --dataset D --features F --models M,M --epochs 2]

The doors: the command line, `alignrec_recbole.run`, stock RecBole's `run_recbole` (features not
cached yet, then cached), a cell of a suite, and a run that is interrupted by SIGTERM and resumed.
Each model is trained and ranked through each of them under both evaluation conventions; test and
validation metrics are compared with those of the command line. Exit status 1: a metric differs. The
last line printed is one JSON object: `max_difference` over all doors, models and settings, and
`doors`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

import alignrec_recbole
from alignrec_recbole.errors import Interrupted
from alignrec_recbole.registry.models import resolve
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.suites.schema import Suite
from alignrec_recbole.training.trainer import MultimodalTrainer
from benchmarks.parity.errors import largest

MODELS = ("AlignRec", "LightGCN", "FREEDOM")
SETTINGS = ("mmrec", "recbole")
SEED = 999

Metrics = dict[str, float]  # names in lower case; those of validation start with "valid "


@dataclass(frozen=True)
class Case:
    """What is run through every door.

    Attributes:
        overrides: further settings, in every door the same.
    """

    data_path: Path | None
    dataset: str
    features: tuple[str, ...]
    models: tuple[str, ...]
    epochs: int
    overrides: dict[str, Any]

    def features_of(self, model: str) -> tuple[str, ...]:
        """The feature sets of a model; none where it needs none."""
        return self.features if resolve(model).needs_features else ()

    def spec(self, model: str, setting: str, output: Path) -> RunSpec:
        """The run in Python."""
        return RunSpec(
            model=model,
            dataset=self.dataset,
            features=self.features_of(model),
            setting=setting,
            seed=SEED,
            data_path=self.data_path,
            output=output,
            epochs=self.epochs,
            overrides=self.overrides,
            device="cpu",
            progress=False,
        )

    def arguments(self, model: str, setting: str, output: Path) -> list[str]:
        """The run on the command line."""
        given = ["run", "--model", model, "--dataset", self.dataset, "--setting", setting]
        given += ["--seeds", str(SEED), "--epochs", str(self.epochs), "--device", "cpu", "--quiet"]
        given += ["--output", str(output)]
        if names := self.features_of(model):
            given += ["--features", ",".join(names)]
        if self.data_path:
            given += ["--data-path", str(self.data_path)]
        return given + [f"--set={key}={json.dumps(value)}" for key, value in self.overrides.items()]


Door = Callable[[Case, str, str, Path], Metrics]


def command_line(case: Case, model: str, setting: str, output: Path) -> Metrics:
    """A process of its own."""
    _process(case.arguments(model, setting, output))
    return _stored(output)


def python(case: Case, model: str, setting: str, output: Path) -> Metrics:
    """`alignrec_recbole.run`."""
    return _of_record(alignrec_recbole.run(case.spec(model, setting, output)))


def resumed(case: Case, model: str, setting: str, output: Path) -> Metrics:
    """A run that gets SIGTERM in its first epoch, and the same run again."""
    original = MultimodalTrainer._run_epoch

    def interrupted(self: MultimodalTrainer, batches: Any, epoch: int) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batches, epoch)

    spec = case.spec(model, setting, output)
    MultimodalTrainer._run_epoch = interrupted  # type: ignore[method-assign]
    try:
        alignrec_recbole.run(spec)
    except Interrupted:
        pass
    else:
        raise SystemExit(f"{model}: SIGTERM did not stop the run")
    finally:
        MultimodalTrainer._run_epoch = original  # type: ignore[method-assign]
    return _of_record(alignrec_recbole.run(spec))


def run_recbole(case: Case, model: str, setting: str, output: Path) -> Metrics:
    """Stock RecBole's entry point; features are encoded anew, then read from the cache."""
    from recbole.quick_start import run_recbole as entry

    given: dict[str, Any] = {
        "setting": setting,
        "seed": SEED,
        "epochs": case.epochs,
        "features": list(case.features_of(model)),
        "checkpoint_dir": str(output),
        "gpu_id": "",
        "show_progress": False,
        "state": "ERROR",
        **case.overrides,
    }
    if case.data_path:
        given["data_path"] = str(case.data_path)
    first, again = (
        _named(found["test_result"], found["best_valid_result"])
        for found in (
            entry(model=model, dataset=case.dataset, config_dict=dict(given), saved=saved)
            for saved in (True, False)
        )
    )
    if first != again:
        raise SystemExit(f"{model}: run_recbole gives {first}, then {again}")
    return first


def suite_cell(case: Case, model: str, setting: str, output: Path) -> Metrics:
    """A suite of one cell, which is a process of its own."""
    group = {
        "models": [model],
        "datasets": [case.dataset],
        "features": [",".join(names)] if (names := case.features_of(model)) else [],
        "seeds": [SEED],
        "setting": setting,
        "epochs": case.epochs,
        "set": case.overrides,
    }
    path = output / "one_cell.yaml"
    output.mkdir(parents=True)
    path.write_text(yaml.safe_dump({"cells": [group]}), encoding="utf-8")
    (cell,) = Suite.model_validate({"cells": [group]}).expanded
    assert cell.dataset == case.dataset
    arguments = ["suite", str(path), "--output", str(output), "--device", "cpu", "--quiet"]
    _process(arguments + (["--data-path", str(case.data_path)] if case.data_path else []))
    return _stored(output)


DOORS: dict[str, Door] = {
    "command line": command_line,
    "run": python,
    "run_recbole": run_recbole,
    "suite cell": suite_cell,
    "resumed run": resumed,
}


def differences(
    case: Case, output: Path, doors: Sequence[str] = tuple(DOORS)
) -> dict[tuple[str, str, str], float]:
    """(model, setting, door) → largest difference of a metric from that of the first door.

    Raises:
        SystemExit: a door has other metrics than the first, or fails.
    """
    out = {}
    for model in case.models:
        for setting in SETTINGS:
            found = {
                door: DOORS[door](case, model, setting, output / f"{model}-{setting}-{number}")
                for number, door in enumerate(doors)
            }
            first = found[doors[0]]
            for door, metrics in found.items():
                if metrics.keys() != first.keys():
                    raise SystemExit(f"{door}, {model}: metrics {sorted(metrics)}")
                out[model, setting, door] = largest(abs(metrics[k] - first[k]) for k in first)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare all doors; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.parity.doors", description=__doc__)
    parser.add_argument("--data-path", type=Path)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--features", default="lsa")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args(arguments)
    case = Case(
        given.data_path and given.data_path.resolve(),
        given.dataset,
        tuple(given.features.split(",")),
        tuple(given.models.split(",")),
        given.epochs,
        {"threads": 1},  # sums in one order, however busy the machine is
    )
    with tempfile.TemporaryDirectory() as folder:
        found = differences(case, Path(folder))
    print(
        tabulate(
            [[*key, value] for key, value in found.items()],
            ["model", "setting", "door", "largest difference"],
        )
    )
    worst = largest(found.values())
    print(json.dumps({"max_difference": worst, "doors": list(DOORS)}))
    return int(worst > 0)


def _process(arguments: list[str]) -> None:
    """Run a command line.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "alignrec_recbole", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")


def _stored(output: Path) -> Metrics:
    (record,) = alignrec_recbole.load_records(output)
    return _of_record(record)


def _of_record(record: Any) -> Metrics:
    return _named(record.metrics, record.valid_metrics)


def _named(test: dict[str, float], valid: dict[str, float]) -> Metrics:
    named = {name.lower(): value for name, value in test.items()}
    return named | {f"valid {name.lower()}": value for name, value in valid.items()}


if __name__ == "__main__":
    sys.exit(main())
