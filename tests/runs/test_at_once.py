"""Several runs at once: the same records and output as one after the other; errors; Ctrl-C."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from alignrec_recbole.cli.main import main
from alignrec_recbole.engines import child, open_engine
from alignrec_recbole.engines.base import Answer, CellDied, Work
from alignrec_recbole.errors import DivergedError, Interrupted, RecordError
from alignrec_recbole.runs import at_once, provenance
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.record import RunRecord, read_runs
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runtime import threads
from alignrec_recbole.testing.synthetic import make_blocks

ROOT = Path(__file__).resolve().parents[2]
OF_THE_MOMENT = {"seconds", "started_utc", "peak_rss_bytes", "history", "per_user"}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A small data set."""
    make_blocks(users=6, items=6, cold=1).write(tmp_path / "data")
    return tmp_path / "data"


def settled(folder: Path) -> dict[str, Any]:
    """The records without what differs from run to run."""
    found = {}
    for path, record in read_runs(folder / "runs"):
        losses = [(entry["loss"], entry.get("valid")) for entry in record.history]
        kept = record.model_dump(exclude=OF_THE_MOMENT)
        for spent in [kept["budget"], *kept["budget"]["curve"]] if kept["budget"] else []:
            del spent["seconds"]
        found[path.name] = {**kept, "losses": losses}
    return found


def test_records_and_output_are_those_of_one_after_the_other(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {}
    for jobs in ("1", "2"):
        given = ["--model", "BPR,Pop", "--dataset", "block_world", "--data-path", str(world)]
        given += ["--epochs", "2", "--grid", "BPR.reg_weight=0.1,0.01", "--jobs", jobs]
        assert main([*given, "--output", str(tmp_path / jobs)]) == 0
        told = capsys.readouterr()
        shown[jobs] = re.sub(r"\d+ s\)|/[12]/|[\d.]+$", "", told.out, flags=re.M)
        assert ("2 at a time" in told.err) is (jobs == "2")
    lines = {jobs: text.splitlines()[:4] for jobs, text in shown.items()}
    assert lines["1"] == lines["2"]
    assert settled(tmp_path / "1") == settled(tmp_path / "2")
    assert len(settled(tmp_path / "1")) == 2
    assert "[BPR, seed 999, reg_weight=0.1] BPR on block_world, seed 999: reading" in told.err
    assert {run.record.command for run in read_runs(tmp_path / "2" / "runs")} == {
        provenance.command()
    }


def test_an_answer_is_the_record_or_the_error_of_the_run(world: Path, tmp_path: Path) -> None:
    spec = RunSpec("BPR", "block_world", data_path=world, output=tmp_path, epochs=1, progress=False)
    answer = json.loads(json.dumps(at_once.answer_of(spec, False, "the command")))
    record = at_once.result_of(answer)
    assert isinstance(record, RunRecord)
    assert record.command == "the command"
    assert record == read_runs(tmp_path / "runs")[0].record

    diverging = RunSpec(
        "BPR", "block_world", data_path=world, output=tmp_path, epochs=3, progress=False,
        overrides={"learning_rate": 1e30, "reg_weight": 1e30},
    )  # fmt: skip
    with pytest.raises(DivergedError, match=r"NaN|not finite") as raised:
        at_once.result_of(json.loads(json.dumps(at_once.answer_of(diverging, False, ""))))
    assert "lower learning_rate" in raised.value.hint
    with pytest.raises(Interrupted, match="run the same command"):
        at_once.result_of({"interrupted": True})


def test_a_specification_survives_the_way_to_a_child(tmp_path: Path) -> None:
    spec = RunSpec("A", "d", ("f", "g"), output=tmp_path, overrides={"topk": [1], "a": {"b": 0.1}})
    assert at_once.SPECS.validate_json(at_once.SPECS.dump_json(spec)) == spec


def test_a_child_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "COMMAND", ("-c", "import sys; sys.exit('no memory')"))
    with (
        pytest.raises(CellDied, match=r"BPR, seed 999 ended .*\n.*exit status 1") as caught,
        open_engine("local", 2) as engine,
    ):
        at_once.AtOnce(engine, overwrite=False).record(RunSpec("BPR", "d"))
    assert caught.value.printed == "no memory"


class Elsewhere:
    """An engine whose workers do not see the output folder."""

    places_by_size, places = True, 2

    def __init__(self) -> None:
        self.submitted: list[Work] = []

    def submit(self, work: Work) -> Future[Answer]:
        """Note what it would run."""
        self.submitted.append(work)
        return Future()


def test_a_finished_run_is_not_given_to_workers(world: Path, tmp_path: Path) -> None:
    places: dict[str, Any] = {"data_path": world, "output": tmp_path, "progress": False}
    specs = [RunSpec("BPR", "block_world", seed=seed, epochs=1, **places) for seed in (1, 2, 3)]
    made = run_one(specs[1])
    made_path = read_runs(tmp_path / "runs")[0].path
    engine = Elsewhere()
    runs = at_once.AtOnce(engine, overwrite=False)  # type: ignore[arg-type]
    for spec in specs:
        runs.ask(spec)
    assert [work.name for work in engine.submitted] == ["BPR, seed 1", "BPR, seed 3"]
    assert not any(work.overwrite for work in engine.submitted)
    assert runs.record(specs[1]) == made
    at_once.AtOnce(engine, overwrite=True).ask(specs[1])  # type: ignore[arg-type]
    assert engine.submitted[-1].name == "BPR, seed 2"
    assert engine.submitted[-1].overwrite

    made_path.write_text("{}")
    damaged = at_once.AtOnce(engine, overwrite=False)  # type: ignore[arg-type]
    damaged.ask(specs[1])
    with pytest.raises(RecordError, match="is not a run record"):
        damaged.record(specs[1])
    assert len(engine.submitted) == 3


def test_how_many_at_a_time(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "free_cores", lambda: 6)

    def count(**overrides: Any) -> int:
        specs = [
            RunSpec("BPR", "block_world", data_path=world, output=tmp_path, seed=seed, **overrides)
            for seed in (1, 2, 3, 4)
        ]
        return at_once.choose_jobs(specs, overwrite=False)

    assert count(epochs=2) == 1  # starting processes would take longer
    monkeypatch.setattr(at_once, "WORTH_A_PROCESS", 1)
    assert count(epochs=2) == 4
    assert count(overrides={"threads": 3}) == 2
    assert count(overrides={"no_such_setting": 3}) == 1  # the run will refuse it
    monkeypatch.setattr(threads, "free_cores", lambda: 1)
    assert count(epochs=2) == 1
    monkeypatch.setattr(threads, "free_cores", lambda: 6)
    monkeypatch.setattr(at_once.memory_estimate, "available_bytes", lambda *_: 2 << 30)
    assert count(epochs=2) == 2


def test_finished_runs_take_no_place(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "free_cores", lambda: 6)
    monkeypatch.setattr(at_once, "WORTH_A_PROCESS", 1)
    specs = [
        RunSpec("BPR", "block_world", data_path=world, output=tmp_path, seed=seed, epochs=1,
                progress=False, save=False)
        for seed in (1, 2, 3)
    ]  # fmt: skip
    run_one(specs[1])
    assert at_once.choose_jobs(specs, overwrite=False) == 2
    assert at_once.choose_jobs(specs, overwrite=True) == 3


def test_counting_jobs_keeps_no_data_set(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One data set at a time is in memory, and none is read for a model that has no steps."""
    read: list[weakref.ref[Any]] = []

    def prepare(spec: RunSpec) -> Any:
        gc.collect()
        assert [each for each in read if each() is not None] == []
        run = prepare_run(spec)
        read.append(weakref.ref(run.splits[0]))
        return run

    monkeypatch.setattr(at_once, "prepare_run", prepare)
    monkeypatch.setattr(at_once, "WORTH_A_PROCESS", 1)
    monkeypatch.setattr(threads, "free_cores", lambda: 6)
    places: dict[str, Any] = {"data_path": world, "output": tmp_path, "epochs": 2}
    points = [{"reg_weight": weight} for weight in (0.1, 0.2, 0.3)]
    specs = [RunSpec("BPR", "block_world", overrides=point, **places) for point in points]
    untrained = RunSpec("Pop", "block_world", **places)
    assert at_once.choose_jobs([*specs, untrained], overwrite=False) == 3
    assert len(read) == 3


@pytest.mark.slow
def test_ctrl_c_stops_all_runs_after_their_epoch(world: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable, "run_benchmark.py", "--model=BPR", "--seeds=1,2", "--jobs=2",
            "--dataset=block_world", f"--data-path={world}", f"--output={tmp_path / 'out'}",
            "--epochs=100000", "--set", "stopping_step=100000",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    training = set()
    for line in process.stderr:
        if "epoch " in line:
            training.add(line.split("]")[0])
        if len(training) == 2:
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    rest = process.stderr.read()
    assert process.wait(60) == 130, rest
    assert "run the same command to resume" in rest
    assert len(list((tmp_path / "out" / "checkpoints").rglob("*.state.pt"))) == 2
    time.sleep(0.2)
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(tmp_path) not in listed
