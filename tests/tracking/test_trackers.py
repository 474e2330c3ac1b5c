"""Trackers: what they were given is read back from their files, and none of them can end a run."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from alignrec_recbole import run
from alignrec_recbole.cli.main import main
from alignrec_recbole.errors import DataError, Interrupted
from alignrec_recbole.runs.record import RunRecord, read_runs
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.testing.synthetic import make_blocks
from alignrec_recbole.tracking import TRACKERS, TrackerEntry, energy
from alignrec_recbole.tracking.base import RunFacts


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_blocks(users=30, items=24, cold=1).write(folder)
    return folder


def spec(data: Path, output: Path, *track: str, **given: Any) -> RunSpec:
    return RunSpec("BPR", "block_world", data_path=data, output=output, epochs=3,
                   track=track, progress=False, **given)  # fmt: skip


class Recorder:
    """A tracker that remembers what it was told, and can fail anywhere."""

    calls: ClassVar[list[tuple[Any, ...]]] = []
    fails: ClassVar[str] = ""

    def _note(self, name: str, *values: Any) -> None:
        self.calls.append((name, *values))
        if name == self.fails:
            raise RuntimeError(f"no {name}\x1b[31m")

    def start(self, run: RunFacts) -> None:
        self._note("start", run)

    def epoch(self, number: int, values: dict[str, float]) -> None:
        self._note("epoch", number, values)

    def energy(self) -> None:
        self._note("energy")

    def end(self, result: Any) -> None:
        self._note("end", result)


@pytest.fixture
def recorder(monkeypatch) -> type[Recorder]:
    entry = TrackerEntry("tensorboard", "x:y", "")
    monkeypatch.setattr(TrackerEntry, "load", lambda _: Recorder)
    monkeypatch.setitem(TRACKERS, "tensorboard", entry)
    monkeypatch.setattr(Recorder, "calls", [])
    monkeypatch.setattr(Recorder, "fails", "")
    return Recorder


def test_a_tracker_gets_start_epochs_and_end(data: Path, tmp_path: Path, recorder) -> None:
    record = run_one(spec(data, tmp_path, "tensorboard"))
    names = [name for name, *_ in recorder.calls]
    assert names == ["start", "epoch", "epoch", "epoch", "energy", "end"]
    facts = recorder.calls[0][1]
    assert facts.config["model"] == "BPR"
    assert facts.config["epochs"] == 3
    for (_, number, values), entry in zip(recorder.calls[1:4], record.history, strict=True):
        assert number == entry["epoch"]
        assert values["loss"] == entry["loss"]
        assert values[f"valid/{record.selection['metric']}"] == entry["valid"]
    result = recorder.calls[-1][1]
    assert result.metrics == record.metrics
    assert result.valid_metrics == record.valid_metrics
    assert RunRecord.model_validate_json(result.record.read_bytes()) == record
    assert record.energy is None
    run_one(spec(data, tmp_path, "tensorboard"))
    assert len(recorder.calls) == 6, "a finished run is read, not tracked"


@pytest.mark.parametrize("fails", ["start", "epoch", "energy", "end"])
def test_an_exception_in_a_tracker_is_one_warning(
    data: Path, tmp_path: Path, recorder, monkeypatch, caplog, fails: str
) -> None:
    monkeypatch.setattr(recorder, "fails", fails)
    plain = run_one(spec(data, tmp_path / "plain"))
    with caplog.at_level(logging.WARNING):
        record = run_one(spec(data, tmp_path / "tracked", "tensorboard"))
    assert record.metrics == plain.metrics
    said = [r.getMessage() for r in caplog.records if "--track" in r.getMessage()]
    assert len(said) == 1
    assert f"no {fails}" in said[0]
    assert "\x1b" not in said[0]
    assert [name for name, *_ in recorder.calls].count(fails) == 1


def test_a_tracker_changes_no_number(data: Path, tmp_path: Path, recorder, monkeypatch) -> None:
    import random

    import numpy as np
    import torch

    def draw(self: Any, number: int, values: Any) -> None:
        random.random(), np.random.rand(3), torch.rand(3)  # noqa: NPY002
        np.random.seed(1)  # noqa: NPY002

    monkeypatch.setattr(recorder, "epoch", draw)
    plain = run_one(spec(data, tmp_path / "plain"))
    tracked = run_one(spec(data, tmp_path / "tracked", "tensorboard"))
    assert [entry["loss"] for entry in tracked.history] == [e["loss"] for e in plain.history]
    assert tracked.metrics == plain.metrics
    assert tracked.config_sha256 == plain.config_sha256


def test_an_interrupted_run_ends_its_trackers_and_repeats_its_epochs(
    data: Path, tmp_path: Path, recorder, monkeypatch
) -> None:
    def stop(self: Any, number: int, values: Any) -> None:
        self._note("epoch", number, values)
        if number == 1 and len(recorder.calls) == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(recorder, "epoch", stop)
    with pytest.raises(Interrupted):
        run_one(spec(data, tmp_path, "tensorboard"))
    assert recorder.calls[-1] == ("end", None)
    recorder.calls.clear()
    run_one(spec(data, tmp_path, "tensorboard"))
    assert [call[1] for call in recorder.calls if call[0] == "epoch"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--track", "tensorbord"], "Did you mean"),
        (["--track", "missing"], "pip install 'alignrec-recbole[some]'"),
        (["--protocol", "zero-shot", "--track", "rapl"], "does not use --track"),
    ],
)
def test_what_cannot_track_is_refused_before_training(
    data: Path, tmp_path: Path, capsys, monkeypatch, options: list[str], words: str
) -> None:
    missing = TrackerEntry("missing", "x:y", "", ("no_such_module",), "some")
    monkeypatch.setitem(TRACKERS, "missing", missing)
    model = [] if "zero-shot" in options else ["--model", "BPR"]
    command = [*model, "--dataset", "block_world", "--data-path", str(data), "--output"]
    assert main([*command, str(tmp_path), *options]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# The trackers themselves: run, then opened and read back ------------------------------------------


def tracked(data: Path, output: Path, name: str) -> RunRecord:
    """A run in a process of its own, from the command line: what it prints has no warning."""
    done = subprocess.run(
        [sys.executable, "-m", "alignrec_recbole", "--model", "BPR", "--dataset", "block_world",
         "--data-path", str(data), "--output", str(output), "--epochs", "3", "--track", name,
         "--no-progress"],
        capture_output=True, text=True, cwd=output.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--track" not in done.stderr, done.stderr
    (run,) = read_runs(output / "runs" / "block_world")
    left = {path.name for path in output.parent.iterdir()} - {output.name}
    assert not left, "nothing in the working directory"
    return run.record


def test_tensorboard_is_read_back(data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = tracked(data, tmp_path / "out", "tensorboard")
    (events,) = (tmp_path / "out" / "tracking" / "tensorboard").rglob("events.out.*")
    found = EventAccumulator(str(events.parent)).Reload()
    losses = [(e.step, e.value) for e in found.Scalars("loss")]
    assert losses == [(e["epoch"], pytest.approx(e["loss"])) for e in record.history]
    metric = record.selection["metric"]
    valid = [e.value for e in found.Scalars(f"valid/{metric}")]
    assert valid == [pytest.approx(e["valid"]) for e in record.history]
    for name, value in record.metrics.items():
        assert found.Scalars(f"test/{name}")[0].value == pytest.approx(value)
    texts = {
        name: found.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()
        for name in ("config", "record")
    }
    shown = {name: json.loads(text[8:-4]) for name, text in texts.items()}
    assert shown["record"]["config_sha256"] == record.config_sha256
    assert shown["config"]["embedding_size"] == record.config["embedding_size"]


def test_runs_in_processes_of_their_own_and_from_python_are_tracked(
    data: Path, tmp_path: Path
) -> None:
    command = ["--model", "BPR", "--dataset", "block_world", "--data-path", str(data), "--seeds",
               "1,2", "--jobs", "2", "--epochs", "2", "--no-progress"]  # fmt: skip
    assert main([*command, "--output", str(tmp_path / "a"), "--track", "tensorboard"]) == 0
    run(model="BPR", dataset="block_world", data_path=data, output=tmp_path / "b", seeds=[1, 2],
        epochs=2, track="tensorboard", progress=False)  # fmt: skip
    for output in ("a", "b"):
        files = (tmp_path / output / "tracking" / "tensorboard").rglob("events.out.*")
        assert sorted(path.parent.name[-3:] for path in files) == ["-s1", "-s2"]


def test_wandb_offline_is_read_back(data: Path, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("wandb", reason="needs the extra wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.delenv("WANDB_MODE", raising=False)
    record = tracked(data, tmp_path / "out", "wandb")
    (file,) = (tmp_path / "out" / "tracking" / "wandb").rglob("run-*.wandb")
    steps: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    config: dict[str, Any] = {}
    artifacts, exits = [], []
    for stored in log_entries(file.read_bytes()):
        entry = Record()
        entry.ParseFromString(stored)
        kind = entry.WhichOneof("record_type")
        if kind == "history":
            steps.append(values_of(entry.history.item))
        elif kind == "summary":
            summary |= values_of(entry.summary.update)
        elif kind in ("config", "run"):
            part = entry.config if kind == "config" else entry.run.config
            config |= values_of(part.update)
        elif kind == "exit":
            exits.append(entry.exit.exit_code)
        elif "artifact" in str(entry):
            artifacts.append(str(entry))
    assert exits == [0]
    losses = [step["loss"] for step in steps if "loss" in step]
    assert losses == [entry["loss"] for entry in record.history]
    metric = f"valid/{record.selection['metric']}"
    assert [step[metric] for step in steps if metric in step] == [
        entry["valid"] for entry in record.history
    ]
    for name, value in record.metrics.items():
        assert summary[f"test/{name}"] == value
    assert config["embedding_size"] == record.config["embedding_size"]
    assert any(".json" in text for text in artifacts), "the record is an artifact"


def log_entries(data: bytes) -> Iterator[bytes]:
    """The entries of a W&B file: a header of 7 bytes, then LevelDB's log format.

    Blocks of 32 KiB with parts: checksum (4 bytes), length (2), kind (1: whole, 2 to 4: first,
    middle and last part of an entry).
    """
    assert data[:4] == b":W&B"
    place, entry = 7, b""
    while place < len(data):
        left = -place % 32768 or 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        entry += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield entry
            entry = b""


def values_of(items: Any) -> dict[str, Any]:
    """Values of a W&B record by key."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_a_local_mlflow_is_read_back(data: Path, tmp_path: Path, monkeypatch) -> None:
    for name in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(name, reason="needs the extra mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    record = tracked(data, tmp_path / "out", "mlflow")
    folder = tmp_path / "out" / "tracking" / "mlflow"
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("block_world")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    losses = sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss"))
    assert losses == [(entry["epoch"], entry["loss"]) for entry in record.history]
    for name, value in record.metrics.items():
        assert run.data.metrics[f"test/{name.replace('@', ' at ')}"] == value
    assert run.data.params["embedding_size"] == str(record.config["embedding_size"])
    (stored,) = (folder / "artifacts").rglob("*-s999.json")
    assert RunRecord.model_validate_json(stored.read_bytes()) == record


# Energy -------------------------------------------------------------------------------------------


def zone(folder: Path, number: str, name: str, energy_uj: int, size: int = 999) -> Path:
    """A zone of a made-up /sys/class/powercap."""
    path = folder / f"intel-rapl:{number}"
    path.mkdir(parents=True, exist_ok=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{size}\n")
    return path


def test_counters_are_summed_over_their_rounds(tmp_path: Path) -> None:
    package = zone(tmp_path, "0", "package-0", 900)
    memory = zone(tmp_path, "0:2", "dram", 10)
    zone(tmp_path, "0:0", "core", 5)  # part of the package
    zone(tmp_path, "1", "psys", 5)  # more than packages and memory
    found = energy.counters(tmp_path)
    assert len(found) == 2
    (package / "energy_uj").write_text("100\n")  # 200 later, of 1000
    (memory / "energy_uj").write_text("40\n")
    assert sum(counter.joules() for counter in found) == pytest.approx(230e-6)
    (package / "energy_uj").write_text("50\n")
    assert sum(counter.joules() for counter in found) == pytest.approx(1180e-6)


def test_rapl_is_in_the_record(data: Path, tmp_path: Path, monkeypatch) -> None:
    package = zone(tmp_path / "powercap", "0", "package-0", 0, 10**9)
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    monkeypatch.setattr(energy, "SAMPLE_EVERY", 0.001)
    real = energy.Rapl.epoch

    def spend(self: Any, number: int, values: Any) -> None:
        (package / "energy_uj").write_text(f"{(number + 1) * 2_000_000}\n")
        real(self, number, values)

    monkeypatch.setattr(energy.Rapl, "epoch", spend)
    record = run_one(spec(data, tmp_path / "out", "rapl"))
    assert record.energy is not None
    assert record.energy["joules"] == 6.0
    assert 0 < record.energy["seconds"] <= record.seconds["total"]
    (run,) = read_runs(tmp_path / "out" / "runs" / "block_world")
    assert run.record.energy == record.energy


@pytest.mark.parametrize("damage", ["no folder", "not readable", "no number"])
def test_energy_is_absent_where_it_cannot_be_measured(
    data: Path, tmp_path: Path, monkeypatch, caplog, damage: str
) -> None:
    path = zone(tmp_path / "powercap", "0", "package-0", 5)
    if damage == "no folder":
        shutil.rmtree(tmp_path / "powercap")
    elif damage == "not readable":
        (path / "energy_uj").unlink()
        (path / "energy_uj").mkdir()
    else:
        (path / "energy_uj").write_text("much\n")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    with caplog.at_level(logging.WARNING):
        record = run_one(spec(data, tmp_path / "out", "rapl"))
    assert record.energy is None
    assert len([r for r in caplog.records if "--track rapl" in r.getMessage()]) == 1


@pytest.mark.skipif(not list(energy.POWERCAP.glob("intel-rapl:*")), reason="no RAPL here")
def test_the_counters_of_this_machine() -> None:
    try:
        found = energy.counters(energy.POWERCAP)
    except DataError:
        pytest.skip("the counters are not readable by this user")
    time.sleep(0.2)
    assert sum(counter.joules() for counter in found) > 0


def test_codecarbon_is_in_the_record(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("codecarbon", reason="needs the extra codecarbon")
    record = tracked(data, tmp_path / "out", "codecarbon")
    assert record.energy is not None
    assert record.energy["joules"] > 0
    assert str(record.energy["source"]).startswith("CodeCarbon")
