"""The engine of Dask: workers that die, a scheduler that is started again, equal tables."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("distributed", reason="the extra dask is not installed")

from distributed import LocalCluster
from two_blocks import write_two_blocks

from alignrec_recbole.engines import child, on_dask, on_worker, open_engine
from alignrec_recbole.engines.base import CellDied, EngineError, Work
from alignrec_recbole.errors import Interrupted
from alignrec_recbole.runs import saved_model
from alignrec_recbole.suites.status import read_status

ROOT = Path(__file__).resolve().parents[2]
COUNTED = """
import os, time, wrapt

@wrapt.when_imported("alignrec_recbole.runs.run")
def count(module):
    make = module._make

    def counted(prepared, *rest):
        note(prepared, "begun")
        time.sleep(0.5)  # a moment in which it can be killed
        record = make(prepared, *rest)
        note(prepared, "ended")
        return record

    module._make = counted

def note(prepared, what):
    name = prepared.record_path.name
    with open(os.environ["ALIGNREC_TEST_COUNT"], "a") as handle:
        handle.write(f"{name} {what} {os.getppid()}\\n")
"""
SAID = """
import sys, wrapt

@wrapt.when_imported("alignrec_recbole.training.trainer")
def say(module):
    train = module.MultimodalTrainer._run_epoch

    def said(self, *rest):
        print("epoch", len(self.history), "begins", file=sys.stderr, flush=True)
        return train(self, *rest)

    module.MultimodalTrainer._run_epoch = said
"""


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


class Cluster:
    """A scheduler and workers as a user starts them, each a process on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{len(self.processes)}-{module}.txt").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
            env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))},
            cwd=self.folder,
            stdout=log,
            stderr=log,
        )
        log.close()
        self.processes.append(process)
        return process

    def scheduler(self) -> subprocess.Popen[bytes]:
        """Start the scheduler, at the same address each time."""
        return self._start(
            "dask_scheduler", "--host=127.0.0.1", f"--port={self.port}", "--no-dashboard"
        )

    def worker(self, *more: str) -> subprocess.Popen[bytes]:
        """Start a worker of one process, without a nanny that would start it again."""
        return self._start(
            "dask_worker", self.address, "--no-nanny", "--nthreads=1", "--host=127.0.0.1",
            "--no-dashboard", f"--local-directory={self.folder}", *more,
        )  # fmt: skip

    def end(self) -> None:
        """End every process that was started here."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster without processes yet."""
    (tmp_path / "dask").mkdir()
    made = Cluster(tmp_path / "dask")
    yield made
    made.end()


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 300) -> None:
    """Wait for a condition, or fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def settled(output: Path) -> dict[str, object]:
    """All that must be equal wherever cells run: hashes, metrics, training, tables."""
    found: dict[str, object] = {}
    for path in sorted((output / "runs").rglob("*.json")):
        made = json.loads(path.read_text("utf-8"))
        training = [(entry["epoch"], entry["loss"], entry["valid"]) for entry in made["history"]]
        keys = ("config_sha256", "metrics", "groups", "data")
        found[path.name + made["protocol"]] = [training, *(made[key] for key in keys)]
    for path in sorted((output / "tables").glob("*.csv")):
        table = pd.read_csv(path)
        found[path.name] = table.drop(columns="s/epoch", errors="ignore").to_csv()
    return found


def customize(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every Python process that is started from here run some code first."""
    (folder / "first").mkdir()
    (folder / "first" / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{folder / 'first'}{os.pathsep}{ROOT}")


@pytest.mark.slow
@pytest.mark.long
def test_killed_late_and_restarted_processes_lose_no_cell(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 cells and one that fails; equal elsewhere; what lives is not made twice.

    Two cells are compared with the local engine's, the others with runs of one process.
    """
    customize(tmp_path, COUNTED, monkeypatch)
    write_two_blocks(tmp_path)
    (tmp_path / "twelve.yaml").write_text(
        "cells:\n"
        "  - {models: [BPR, LightGCN], datasets: [two], seeds: [1, 2, 3, 4, 5, 6], epochs: 3}\n"
        "  - {models: [BPR], datasets: [nowhere], seeds: [1]}\n"
    )
    counts = tmp_path / "counts.txt"

    def start(output: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "run_benchmark.py"), *arguments, f"--output={output}"],
            cwd=tmp_path,
            env={**os.environ, "ALIGNREC_TEST_COUNT": str(counts)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip

    def counted(what: str, process: int | None = None) -> Counter[str]:
        """The runs that have begun or ended, in children of one process or of all."""
        lines = counts.read_text().splitlines() if counts.is_file() else []
        found = [line.split() for line in lines if line.count(" ") == 2]
        parents = {str(process)} if process else {parent for *_, parent in found}
        return Counter(name for name, kind, parent in found if kind == what and parent in parents)

    def ended() -> int:
        return counted("ended").total()

    def running(process: subprocess.Popen[bytes] | None = None) -> int:
        pid = process.pid if process else None
        return counted("begun", pid).total() - counted("ended", pid).total()

    scheduler = cluster.scheduler()
    victim, second = cluster.worker(), cluster.worker()
    suite = ("suite", "twelve.yaml", "--data-path=.", "--quiet")
    process = start("by_dask", *suite, f"--engine=dask:{cluster.address}")
    try:
        wait_until(lambda: ended() >= 2 and running(victim), "two runs, and one in the middle")
        victim.kill()  # SIGKILL
        late = cluster.worker()
        before = ended()
        wait_until(lambda: ended() >= before + 3 and running(), "runs of the others")
        scheduler.kill()
        wait_until(lambda: second.poll() is not None, "workers end with their scheduler")
        wait_until(lambda: late.poll() is not None, "workers end with their scheduler")
        assert process.poll() is None
        cluster.scheduler()
        cluster.worker()
        cluster.worker()
        said, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 1, said
    assert "1 failed, 12 finished" in said
    assert "are sent to the next one" in said
    begun, finished = counted("begun"), counted("ended")
    assert counted("begun", victim.pid).total() > counted("ended", victim.pid).total()
    assert len(finished) == 12
    assert set(finished.values()) == {1}  # nothing is made twice
    died = {name: begun[name] - 1 for name in begun if begun[name] > 1}
    assert sum(died.values()) <= 3, died  # one with the worker, two with the scheduler

    counts.unlink()
    ten = ("--model=BPR,LightGCN", "--dataset=two", "--seeds=2,3,4,5,6", "--epochs=3", "--jobs=1")
    said, _ = start("others", *ten, "--data-path=.", "--quiet").communicate(timeout=300)
    said, _ = start("others", *suite, "--seeds=1", "--engine=local").communicate(timeout=300)
    assert "1 failed, 2 finished" in said  # the local engine's, and the tables of all twelve
    assert counted("begun").total() == 12
    assert settled(tmp_path / "by_dask") == settled(tmp_path / "others")
    assert len(list((tmp_path / "by_dask" / "runs").rglob("*.json"))) == 12
    left = [path.name for path in (tmp_path / "by_dask").rglob("*") if path.suffix == ".lock"]
    assert not left
    errors = [
        cell.error for cell in read_status(tmp_path / "by_dask/suites")["twelve"] if cell.error
    ]
    assert len(errors) == 1
    assert "'nowhere' is unknown" in errors[0]


# Its parts, with workers that are threads of this process -----------------------------------------

CHILD = """
import json, os, pathlib, sys, time
order = json.loads(sys.stdin.readline())
print("starting", file=sys.stderr, flush=True)
if order.get("wait"):
    import signal
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("saved"))
    pathlib.Path(order["wait"]).touch()
    time.sleep(60)
if order.get("die"):
    os._exit(9)
folder = pathlib.Path(order["output"], "runs", "d")
folder.mkdir(parents=True)
(folder / "record.json").write_text("{}")
if order.get("model"):
    model = pathlib.Path(order["output"], "models", "d", "record.safetensors")
    model.parent.mkdir(parents=True)
    model.write_bytes(b"tensors")
seen = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "ALIGNREC_CORES")}
print("answer: " + json.dumps({**seen, "folder": os.getcwd()}))
"""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A scheduler with one worker of two threads; cells are a small script."""
    monkeypatch.setattr(child, "COMMAND", ("-c", CHILD))
    monkeypatch.setattr(on_worker, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(on_worker, "_here", on_worker._Worker())
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None,
        protocol="tcp", host="127.0.0.1",
    ) as made:  # fmt: skip
        yield made.scheduler_address


def work(output: Path, **order: Any) -> Work:
    """A cell of the small script."""
    return Work("a cell", "verb", order, output=output)


def test_a_cell_answers_and_its_lines_are_shown(
    address: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.chdir(tmp_path)
    with open_engine(f"dask:{address}", 1) as engine:
        answer = engine.submit(work(Path("out"))).result(60)
        time.sleep(0.5)  # lines come on their own way
    assert answer["OMP_NUM_THREADS"] == "3"  # that of the command, not Dask's
    assert int(answer["ALIGNREC_CORES"]) >= 1
    assert answer["folder"] == str(tmp_path)
    assert (tmp_path / "out" / "runs" / "d" / "record.json").is_file()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["runs"]  # no mark is left
    said = capfd.readouterr().err
    assert "[a cell] starting" in said
    assert "1 workers, 2 cells at a time; dashboard: " in said


def test_a_worker_without_the_output_folder_sends_its_files(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_worker, "_is_shared", lambda mark: False)
    with open_engine(f"dask:{address}", 1) as engine:
        log = tmp_path / "log" / "cell.log"
        made = Work("a", "verb", {"model": True}, output=tmp_path / "out", log=log)
        engine.submit(made).result(60)
        assert (tmp_path / "out" / "runs" / "d" / "record.json").read_text() == "{}"
        model = tmp_path / "out" / saved_model.FOLDER / "d" / "record.safetensors"
        assert model.read_bytes() == b"tensors"
        assert log.read_text() == "starting\n"
        reader = Work("a reader", "verb", {}, output=tmp_path / "out", reads_records=True)
        with pytest.raises(EngineError, match="reads records that the worker"):
            engine.submit(reader).result(60)


def test_files_of_a_finished_run_are_replaced_only_on_request(tmp_path: Path) -> None:
    out, sent = tmp_path / "out", {"tuning/d/M/a-s1.json": b"1", "log.txt": b"1"}
    for stem in ("a-s1", "a-s2"):
        sent[f"models/d/M/{stem}.json"] = sent[f"models/d/M/{stem}.safetensors"] = b"1"
        sent[f"runs/d/M/{stem}.json"] = sent[f"runs/d/M/{stem}.users.npz"] = b"1"
    there = [f"{kind}/d/M/a-s1.json" for kind in ("runs", "models")]
    for name in there:
        (out / name).parent.mkdir(parents=True)
        (out / name).write_bytes(b"0")

    def written() -> dict[str, bytes]:
        files = [path for path in out.rglob("*") if path.is_file()]
        return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}

    cell = Work("a", "verb", {}, output=out, log=out / "log.txt")
    on_dask._write(cell, sent)
    others = {
        name: made
        for name, made in sent.items()
        if not name.startswith(("runs/d/M/a-s1.", "models/d/M/a-s1."))
    }
    assert written() == {**others, **dict.fromkeys(there, b"0")}
    on_dask._write(replace(cell, overwrite=True), sent)
    assert written() == sent


def test_what_a_worker_sends_stays_in_the_output_folder(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"\.\."):
        on_dask._write(work(tmp_path / "out"), {"../evil": b""})
    assert not (tmp_path / "evil").exists()


def test_a_dead_cell_is_an_error_and_the_next_one_runs(address: str, tmp_path: Path) -> None:
    with open_engine(f"dask:{address}", 1) as engine:
        dead = engine.submit(work(tmp_path / "out", die=True))
        with pytest.raises(CellDied, match="exit status 9") as caught:
            dead.result(60)
        assert caught.value.printed == "starting"
        assert engine.submit(work(tmp_path / "out")).result(60)


def test_a_worker_of_another_version_is_refused(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_engine(f"dask:{address}", 1) as engine:
        monkeypatch.setattr(on_worker, "__version__", "0.0.1")
        with pytest.raises(EngineError, match=r"another version[^/]*0\.0\.1"):
            engine.submit(work(tmp_path / "out")).result(60)


def test_stopped_cells_end_and_others_do_not_begin(address: str, tmp_path: Path) -> None:
    with open_engine(f"dask:{address}", 1) as engine:
        marks = [tmp_path / str(number) for number in range(3)]
        found = [engine.submit(work(tmp_path / "out", wait=str(mark))) for mark in marks]
        wait_until(lambda: marks[0].exists() and marks[1].exists(), "two cells run")
        engine.stop()
        for future in found:
            with pytest.raises(Interrupted, match="run the same command"):
                future.result(60)
        assert not marks[2].exists()
        with pytest.raises(Interrupted):
            engine.submit(work(tmp_path / "out")).result(60)


def test_a_stop_ends_cells_that_no_worker_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_dask, "LOOK_SECONDS", 0.05)
    with (
        LocalCluster(n_workers=0, dashboard_address=None, host="127.0.0.1") as made,
        open_engine(f"dask:{made.scheduler_address}", 1) as engine,
    ):
        future = engine.submit(work(tmp_path / "out"))
        time.sleep(0.5)
        assert not future.done()
        engine.stop()
        with pytest.raises(Interrupted):
            future.result(60)


def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_dask, "FIRST_SECONDS", 0.5)
    monkeypatch.setattr(on_dask, "TRY_SECONDS", 0.3)
    for address in (f"tcp://127.0.0.1:{free_port()}", "no address", "nothing://x:1"):
        with (
            pytest.raises(EngineError, match="No Dask scheduler"),
            open_engine(f"dask:{address}", 1),
        ):
            pass


def test_a_cell_waits_for_memory_and_the_largest_runs_alone() -> None:
    room, inside = on_worker.Room(100), threading.Event()

    def enter(needed: int) -> None:
        with room.of(needed):
            inside.set()

    with room.of(80):
        small = threading.Thread(target=enter, args=(20,))
        small.start()
        assert inside.wait(10)
        small.join()
        inside.clear()
        large = threading.Thread(target=enter, args=(400,))
        large.start()
        assert not inside.wait(0.1)
    assert inside.wait(10)
    large.join()
    assert room.used == 0


@pytest.mark.slow
def test_ctrl_c_stops_cells_on_workers_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    customize(tmp_path, SAID, monkeypatch)
    write_two_blocks(tmp_path)
    (tmp_path / "long.yaml").write_text(
        "cells:\n  - {models: [BPR], datasets: [two], seeds: [1, 2, 3], epochs: 100000,"
        " set: {stopping_step: 100000}}\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run_benchmark.py"), "suite", "long.yaml", "--engine=dask",
         "--jobs=2", "--output=out", "--data-path=.", "--quiet"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )  # fmt: skip
    logs = tmp_path / "out" / "suites" / "long"

    def training() -> int:
        return sum("epoch 1 begins" in path.read_text() for path in logs.glob("*.log"))

    try:
        wait_until(lambda: training() == 2 or process.poll() is not None, "two runs train", 120)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        said, _ = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, said
    assert "stopping after the running epochs" in said
    assert "3 missing" in said
    assert "Traceback" not in said
    assert len(list((tmp_path / "out" / "checkpoints").rglob("*.state.pt"))) == 2
