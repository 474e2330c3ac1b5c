"""Waiting threads sleep while other processes need the cores, and epochs that wait are noticed."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from alignrec_recbole.runtime import slow_epochs, waiting

ROOT = Path(__file__).resolve().parents[2]
MEASURED = """
import time, torch
from alignrec_recbole.runtime import waiting

torch.set_num_threads(2)
table = torch.ones(1 << 18)

def cpu_per_region():
    cpu, began, regions = time.process_time(), time.perf_counter(), 0
    while time.perf_counter() - began < 0.6:
        table.add_(1)
        regions += 1
        time.sleep(0.002)
    return (time.process_time() - cpu) / regions

for _ in range(3):
    long = cpu_per_region()
    with waiting.short_waits(waiting.openmp_libraries()):
        short = cpu_per_region()
    print(long, short)
"""


def test_a_waiting_thread_sleeps_at_once_while_a_team_is_held() -> None:
    """Between two parallel parts it would otherwise use the processor for milliseconds."""
    if not waiting.openmp_libraries():
        pytest.skip("torch's OpenMP is not GNU's here")
    if len(waiting.cores_of_affinity()) < 2:
        pytest.skip("on one core GNU OpenMP never waits long")
    unset = {"OMP_NUM_THREADS", *waiting.OWN_CHOICE}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURED],
        env={**{k: v for k, v in os.environ.items() if k not in unset}, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    measured = [tuple(map(float, line.split())) for line in done.stdout.splitlines()]
    assert max(long / short for long, short in measured) > 3, measured


@pytest.mark.parametrize("threads", [1, 2])
def test_a_watched_part_ends_without_threads_of_its_own(threads: int) -> None:
    before = threading.active_count()
    with waiting.considerate(threads):
        pass
    assert threading.active_count() <= before


def test_the_cores_are_watched_and_a_team_is_held_while_they_are_crowded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = iter([0.0, 1.0, 1.0, 0.0])  # cores' worth
    seen: list[tuple[str, float]] = []  # and when
    clock = [0.0, 0.0, 0.0]

    class Ended:
        def wait(self, seconds: float) -> bool:
            try:
                clock[0] += seconds
                clock[1] += seconds * (next(others) + 2.0)
                clock[2] += seconds * 2.0
            except StopIteration:
                return True
            return False

    class Held:
        def __init__(self, libraries: list[Path]) -> None:
            pass

        def __enter__(self) -> None:
            seen.append(("held", clock[0]))

        def __exit__(self, *_: object) -> None:
            seen.append(("released", clock[0]))

    monkeypatch.setattr(waiting, "cores_of_affinity", lambda: [0, 1])
    monkeypatch.setattr(waiting, "_times", lambda cores: tuple(clock))
    monkeypatch.setattr(waiting, "short_waits", Held)
    waiting._watch(2, [], Ended())  # type: ignore[arg-type]
    assert seen == [("held", 1.0), ("released", 2.0)]


def test_the_time_of_virtual_machines_is_counted_once() -> None:
    times = {"user": 10.0, "system": 1.0, "idle": 5.0, "iowait": 2.0, "guest": 4.0, "guest_nice": 1}
    linux, macos = namedtuple("linux", times), namedtuple("macos", "user system idle")
    assert waiting._busy(linux(**times)) == 11.0  # user has guest in it
    assert waiting._busy(macos(10.0, 1.0, 5.0)) == 11.0


@pytest.mark.parametrize("name", waiting.OWN_CHOICE)
def test_the_users_own_choice_wins(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_watch", None)  # would fail if it were called
    monkeypatch.setenv(name, "1")
    assert waiting.own_choice() == f"{name}=1"
    with waiting.considerate(2):
        pass


@pytest.mark.parametrize(
    ("wall", "cpu", "threads", "load", "quota", "words"),
    [
        (10, 9.5, 1, 1.0, None, None),
        (10, 8.0, 2, 9.0, None, None),  # 2.5 times: not many
        (40, 2.0, 2, 9.0, None, "40 times their CPU time: other processes use the cores"),
        (40, 2.0, 2, 9.0, None, "fewer threads"),
        (40, 2.0, 1, 1.0, 0.1, "the container may use 0.1 cores"),
        (40, 2.0, 1, 1.0, None, "waits for the disk"),
    ],
)
def test_slow_epochs_have_a_reason(
    wall: float, cpu: float, threads: int, load: float, quota: float | None, words: str | None
) -> None:
    found = slow_epochs.slowness(wall, cpu, threads, load, cores=2, quota=quota)
    assert found is None if words is None else words in str(found)


def test_it_is_said_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    counted = slow_epochs.SlowEpochs()
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            counted.add(3.0, 0.1)
    assert len(caplog.records) == 1
    assert "other processes" in caplog.text
