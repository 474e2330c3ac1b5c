"""A bounded sample of a leaderboard's records, run again.

Of a record nothing is used but the names of a registered model, data set and feature sets, its
seed and its settings, and these as settings: they are checked like those of a command line, and
must give the record's own hash. Its command, paths and files are not used. Feature sets are files
that are here, or encoders that carry their weights; one that would open a model by a name of the
record's author is not made. Each run has a process and a folder of its own and a limit of time.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignrec_recbole.data.dataset_paths import find_dataset
from alignrec_recbole.encoders.lookup import find_file
from alignrec_recbole.encoders.registry import ENCODERS
from alignrec_recbole.engines.base import Work
from alignrec_recbole.engines.local import LocalEngine
from alignrec_recbole.errors import AlignRecError, Interrupted, SettingError, printable
from alignrec_recbole.features.derived_names import made_of
from alignrec_recbole.leaderboard.findings import Pair, Rerun, State, name_in
from alignrec_recbole.registry.components import components
from alignrec_recbole.reports.grouping import possible_hashes
from alignrec_recbole.runs.at_once import SPECS, VERB, name_of, result_of
from alignrec_recbole.runs.identity import lasting_hash
from alignrec_recbole.runs.prepare import check_run_spec, prepare_run
from alignrec_recbole.runs.record import Run, RunRecord
from alignrec_recbole.runs.spec import CLI_ONLY_KEYS, RunSpec


@dataclass(frozen=True)
class Limits:
    """Bounds of a sample, and where the data are.

    Attributes:
        records: at most so many are run.
        seconds: of each run.
        tolerance: largest relative difference of a metric that agrees.
        seed: of the choice.
    """

    records: int
    seconds: float
    tolerance: float
    seed: int = 0
    data_path: Path | None = None
    features_path: Path | None = None
    device: str = "cpu"


def candidates(folder: Path, runs: Sequence[Run], limits: Limits) -> dict[str, Run]:
    """Records by name that may be drawn: of trained models on data that are here, short enough.

    A record that took more than half of the limit of time is none: other machines are slower.
    """
    return {
        name_in(folder, run.path): run
        for run in runs
        if run.record.protocol == "full"
        and run.record.seconds["total"] <= limits.seconds / 2
        and _is_here(run.record.dataset, limits.data_path)
    }


def _is_here(dataset: str, data_path: Path | None) -> bool:
    try:
        find_dataset(dataset, data_path)
    except AlignRecError:
        return False
    return True


def draw(names: Sequence[str], count: int, seed: int) -> list[str]:
    """Some of the names, each set of so many equally likely.

    >>> draw(["b", "a", "c"], 5, 0)
    ['a', 'b', 'c']
    """
    ordered = sorted(names)
    return sorted(random.Random(seed).sample(ordered, min(count, len(ordered))))


def run_again(name: str, record: RunRecord, limits: Limits) -> Rerun:
    """Make the run of a record once more and compare its test metrics."""
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="leaderboard-") as scratch:
            spec = spec_of(record, limits, Path(scratch))
            again = _in_a_process(spec, limits.seconds)
    except (AlignRecError, Late) as error:
        reason = (
            f"It took longer than {limits.seconds:g} s."
            if isinstance(error, Late)
            else error.problem
        )
        return Rerun(path=name, state="not run again", reason=printable(reason, 400))
    return compared(name, record, again, limits.tolerance, time.perf_counter() - started)


def spec_of(record: RunRecord, limits: Limits, output: Path) -> RunSpec:
    """The run of a record, made of its names, seed and settings.

    Raises:
        SettingError: it may not be made, or is another one here.
        AlignRecError: a name or setting is unknown, or the data are not here.
    """
    names = tuple(record.feature_files)
    parts = components(record.model)
    usual = parts.defaults_for(record.dataset)
    known = parts.keys_for(record.dataset) - CLI_ONLY_KEYS.keys() - {"setting"}
    spec = RunSpec(
        model=record.model,
        dataset=record.dataset,
        features=names,
        setting=record.setting,
        seed=record.seed,
        data_path=limits.data_path,
        features_path=limits.features_path,
        output=output,
        overrides={
            key: value
            for key, value in record.config.items()
            if key in known and (key not in usual or usual[key] != value)
        },
        device=limits.device,
        progress=False,
        save=False,
    )
    folder = find_dataset(spec.dataset, spec.data_path)
    for name in names:
        _check_origin(name, folder, limits.features_path)
    check_run_spec(spec)
    prepared = prepare_run(spec)
    if lasting_hash(prepared) not in possible_hashes(record):
        raise SettingError(
            "Its data, features or settings are other ones here.",
            found=f"hash {prepared.config_hash[:12]}…",
            expected=f"{record.config_sha256[:12]}…",
        )
    return spec


def _check_origin(name: str, folder: Path, features_path: Path | None) -> None:
    """Refuse features that are no file here and no encoder with weights of its own."""
    name = made_of(name)
    if not name or find_file(name, folder, features_path):
        return
    entry = ENCODERS.get(name)
    if entry is None or entry.takes_model or not entry.by_name:
        raise SettingError(
            f"Its features {name!r} are no file here, and not made from a record.",
            expected="files, or encoders that carry their weights",
        )


def _in_a_process(spec: RunSpec, seconds: float) -> RunRecord:
    order: dict[str, Any] = {
        "spec": SPECS.dump_python(spec, mode="json"),
        "overwrite": False,
        "command": "leaderboard check",
    }
    with LocalEngine(1) as engine:
        future = engine.submit(Work(name_of(spec), VERB, order, output=spec.output))
        try:
            return result_of(future.result(timeout=seconds))
        except (Late, KeyboardInterrupt):
            engine.kill()  # asked to stop, it would finish its epoch; its folder is thrown away
            raise
        except Interrupted as error:
            raise KeyboardInterrupt from error


def compared(
    name: str, record: RunRecord, again: RunRecord, tolerance: float, seconds: float
) -> Rerun:
    """Whether every test metric of a record is that of the run that was made again."""
    pairs = {
        metric: Pair(stored=value, again=again.metrics[metric])
        for metric, value in record.metrics.items()
        if metric in again.metrics
    }
    missing = sorted(record.metrics.keys() - pairs.keys())
    reason = f"It has {printable(missing[0], 60)}, and the run has not." if missing else ""
    if not reason and pairs:
        worst = max(pairs, key=lambda metric: pairs[metric].difference)
        difference = pairs[worst].difference
        shown = f"{worst} {pairs[worst].stored:.4f}, again {pairs[worst].again:.4f}"
        reason = f"{shown} ({difference:.2%})" if difference else "equal to the last digit"
    agree = not missing and all(pair.difference <= tolerance for pair in pairs.values())
    state: State = "agrees" if agree else "differs"
    return Rerun(path=name, state=state, reason=reason, seconds=seconds, metrics=pairs)
