"""Engines by name, and the child processes of the local one."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from alignrec_recbole import engines
from alignrec_recbole.cli.main import main
from alignrec_recbole.engines import ENGINES, check_engine, child, local, open_engine
from alignrec_recbole.engines.base import CellDied, Work
from alignrec_recbole.engines.gpus import Gpus
from alignrec_recbole.errors import (
    Interrupted,
    MissingDependencyError,
    SettingError,
    UnknownNameError,
)

SCRIPT = """
import json, os, pathlib, signal, sys, time
order = json.loads(sys.stdin.readline())
print("on", sys.argv[1], flush=True)
if "signal" in order:
    os.kill(os.getpid(), order["signal"])
if "wait" in order:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pathlib.Path(order["wait"]).touch()
    time.sleep(60)
print("answer: " + json.dumps(os.environ.get("CUDA_VISIBLE_DEVICES")))
"""


def work(output: Path, name: str = "a", **order: Any) -> Work:
    """A cell of the small script."""
    return Work(name, "verb", order, output=output)


@pytest.fixture(autouse=True)
def _small_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "COMMAND", ("-c", SCRIPT))


def test_names_and_addresses() -> None:
    assert check_engine("local") == (ENGINES["local"], "")
    with pytest.raises(UnknownNameError, match=r"Engine 'dusk' is unknown.*dask"):
        check_engine("dusk")
    for text in ("local:8786", "dask:"):
        with pytest.raises(SettingError, match="cannot be used"):
            check_engine(text)


def test_jobs_are_the_workers_own_at_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.EngineEntry, "missing_packages", lambda self: [])
    assert check_engine("dask:tcp://x:1")[1] == "tcp://x:1"
    assert check_engine("dask", 2)[1] == ""
    with pytest.raises(SettingError, match="--jobs has no effect"):
        check_engine("dask:tcp://x:1", 2)


def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.EngineEntry, "missing_packages", lambda self: ["distributed"])
    with pytest.raises(MissingDependencyError, match=r"alignrec-recbole\[dask\]"):
        check_engine("dask")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["suite", "smoke", "--engine", "condor"], "Engine 'condor' is unknown"),
        (["suite", "smoke", "--engine", "local:1"], "Engine 'local:1' cannot be used"),
        (["--model=BPR", "--dataset=ml-100k", "--engine=condor"], "Engine 'condor' is unknown"),
        (
            ["--protocol=zero-shot", "--dataset=ml-100k", "--engine=dask"],
            "Protocol zero-shot does not use --engine",
        ),
    ],
)
def test_the_command_line_refuses_first(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_child_that_dies_takes_no_other_with_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with open_engine("local", 2) as engine:
        killed = engine.submit(work(tmp_path, "killed", signal=int(signal.SIGKILL)))
        crashed = engine.submit(work(tmp_path, "crashed", signal=int(signal.SIGSEGV)))
        others = [engine.submit(work(tmp_path)) for _ in range(3)]
        with pytest.raises(CellDied, match=r"(?s)killed ended.*SIGKILL.*memory runs out"):
            killed.result()
        with pytest.raises(CellDied, match="SIGSEGV"):
            crashed.result()
        assert [future.result() for future in others] == [os.environ["CUDA_VISIBLE_DEVICES"]] * 3
    assert "[a] on verb" in capfd.readouterr().err


@pytest.mark.parametrize(("free", "jobs", "share"), [(5, 2, 2), (4, 1, 4), (1, 3, 1)])
def test_cells_share_the_free_cores(
    free: int, jobs: int, share: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = "import json, os; print('answer: ' + json.dumps(os.environ['ALIGNREC_CORES']))"
    monkeypatch.setattr(child, "COMMAND", ("-c", answer))
    monkeypatch.setattr(local.threads, "free_cores", lambda: free)
    with open_engine("local", jobs) as engine:
        cells = [engine.submit(work(tmp_path)) for _ in range(jobs)]
        assert [cell.result() for cell in cells] == [str(share)] * jobs


def test_a_log_has_what_a_cell_prints(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "logs" / "a.log"
    with open_engine("local", 1) as engine:
        engine.submit(Work("a", "verb", {}, output=tmp_path, log=log)).result()
    assert log.read_text() == "on verb\n"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("error", [None, ValueError("of another run"), KeyboardInterrupt()])
def test_leaving_with_an_error_stops_what_runs(tmp_path: Path, error: BaseException | None) -> None:
    mark, began = tmp_path / "mark", time.monotonic()

    def leave() -> None:
        with open_engine("local", 1) as engine:
            futures.append(engine.submit(work(tmp_path, wait=str(mark))))
            futures.append(engine.submit(work(tmp_path)))
            while not mark.exists():
                assert time.monotonic() < began + 50
                time.sleep(0.01)
            if error is None:
                engine.stop()
            else:
                raise error

    futures: list[Any] = []
    if error is None:
        leave()
    else:
        with pytest.raises(type(error)):
            leave()
    assert time.monotonic() < began + 55  # not the sixty seconds of the script
    for future in futures:
        assert future.cancelled() or isinstance(future.exception(), Interrupted)


def test_each_cell_has_the_gpu_with_the_fewest() -> None:
    gpus = Gpus(["4", "5", "7"], first=1)
    with gpus.one("auto") as a, gpus.one("cuda") as b, gpus.one("auto") as c, gpus.one("auto") as d:
        chosen = [each["CUDA_VISIBLE_DEVICES"] for each in (a, b, c, d)]
    assert chosen == ["5", "7", "4", "5"]
    with gpus.one("cuda:1") as named:
        assert named == {}
    with Gpus(["0"]).one("auto") as only:
        assert only == {}


def test_a_second_process_waits_for_the_run_of_the_first(tmp_path: Path) -> None:
    from alignrec_recbole.runs.exclusive import one_at_a_time

    record, seen = tmp_path / "r.json", []

    def second() -> None:
        with one_at_a_time(record) as waited:
            seen.append((waited, record.is_file()))

    with one_at_a_time(record) as waited:
        assert not waited
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.3)
        assert not seen
        record.write_text("{}")
    other.join(30)
    assert seen == [(True, True)]
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
