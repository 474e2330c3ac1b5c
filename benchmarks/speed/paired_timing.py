"""Times several programs in turn, each in a process of its own, so that load affects all alike.

A side is a function that prepares something and returns a dictionary of actions. Only one side
works at a time; the others wait. An action's time is its wall time, or the seconds that it returns
as a float. Peak memory is that of the side's process, or of its tensors on a GPU if it used one.
Nothing is set for a side that its users would not have: environment and allocator are the default.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from tabulate import tabulate

from alignrec_recbole.errors import RecordError
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.runs import provenance
from alignrec_recbole.runtime import hardware, memory_usage
from alignrec_recbole.runtime.threads import available_cores

Actions = Mapping[str, Callable[[], Any]]


@dataclass
class Timing:
    """Measurements of one side; seconds by action, in the order of the rounds."""

    startup: float
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak_bytes: int = 0

    def median(self, action: str) -> float:
        """Median seconds of an action."""
        return statistics.median(self.seconds[action])


def measure(
    sides: Mapping[str, tuple[Callable[..., Actions], tuple[Any, ...]]],
    *,
    rounds: int = 5,
    threads: int | None = None,
    warm_up: int = 1,
) -> dict[str, Timing]:
    """Start each side, then run the actions of all in turn, `rounds` times.

    Args:
        sides: name → (function, its arguments), both importable by a new process.
        rounds: measured rounds, after `warm_up` unmeasured ones.
        threads: CPU threads of each side; default: all cores of this process.

    Returns:
        one Timing per side; `startup` is from the start of its process until it is ready.
    """
    warn_if_busy()
    threads = threads or available_cores()
    with _workers(sides, threads) as workers:
        timings = {}
        for name, worker in workers.items():
            actions = worker.ask("open")
            startup = time.time() - worker.began
            for action in actions if warm_up else ():
                worker.ask(action)
            timings[name] = Timing(startup, {action: [] for action in actions})
            print(f"{name}: ready after {startup:.1f} s", file=sys.stderr)
        unmeasured = max(warm_up - 1, 0)
        for turn in range(unmeasured + rounds):
            for name, worker in workers.items():
                for action, taken in timings[name].seconds.items():
                    seconds = worker.ask(action)
                    if turn >= unmeasured:
                        taken.append(seconds)
        for name, worker in workers.items():
            timings[name].peak_bytes = worker.ask("peak")
    return timings


class _Worker:
    def __init__(self, function: Callable[..., Actions], arguments: tuple, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(end, function, arguments, threads), daemon=True
        )

    def start(self) -> None:
        self.began = time.time()
        self.process.start()

    def ask(self, order: str) -> Any:
        if order == "open":
            self.start()
        self.pipe.send(order)
        answer = self.pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextmanager
def _workers(sides: Mapping[str, Any], threads: int) -> Iterator[dict[str, _Worker]]:
    workers = {name: _Worker(side[0], side[1], threads) for name, side in sides.items()}
    try:
        yield workers
    finally:
        for worker in workers.values():
            if worker.process.pid is not None:
                worker.process.terminate()


def _serve(pipe: Any, function: Callable[..., Actions], arguments: tuple, threads: int) -> None:
    hardware.set_threads(threads)
    actions: Actions = {}
    while True:
        order = pipe.recv()
        try:
            if order == "open":
                actions = function(*arguments)
                pipe.send(list(actions))
            elif order == "peak":
                on_gpu = torch.cuda.is_initialized()
                pipe.send(
                    torch.cuda.max_memory_allocated() if on_gpu else memory_usage.peak_rss_bytes()
                )
            else:
                started = time.perf_counter()
                returned = actions[order]()
                elapsed = time.perf_counter() - started
                pipe.send(returned if isinstance(returned, float) else elapsed)
        except Exception as error:  # sent to the caller, who raises it
            import traceback

            pipe.send(RuntimeError(f"{error}\n{traceback.format_exc()}"))


def warn_if_busy() -> None:
    """Print a warning when other work would distort the figures."""
    busy = psutil.cpu_percent(interval=0.5)
    if busy > 25:
        print(f"warning: this machine is {busy:.0f} % busy; ratios will be noisy", file=sys.stderr)


def skipped_bfloat16(device: str, sides: list[str]) -> dict[str, str]:
    """Sides that need bfloat16 → why they are not timed; empty where the device has units for it.

    Without them products in bfloat16 take many times longer, so that a round would last for hours.
    """
    if hardware.has_bfloat16(device):
        return {}
    reason = "this processor has no bfloat16 units"
    print(f"not timed: {', '.join(sides)} ({reason})", flush=True)
    return dict.fromkeys(sides, reason)


def spread(values: list[float]) -> str:
    """ "median (min–max)" in seconds."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}–{max(values):.3g})"


def table(timings: Mapping[str, Timing]) -> str:
    """One row per side; seconds as median (minimum–maximum)."""
    names = list(dict.fromkeys(action for t in timings.values() for action in t.seconds))
    rows = [
        [
            side,
            *(spread(t.seconds[name]) if name in t.seconds else "" for name in names),
            f"{t.startup:.1f}",
            f"{t.peak_bytes / 2**30:.2f}",
        ]
        for side, t in timings.items()
    ]
    return tabulate(rows, ["", *(f"{n}, s" for n in names), "start-up, s", "peak, GiB"])


def seconds_and_bytes(ours: Timing, peer: Timing, action: str) -> dict[str, Any]:
    """The figures in every result, with all rounds."""
    return {
        "ours_seconds": ours.median(action),
        "peer_seconds": peer.median(action),
        "ours_peak_bytes": ours.peak_bytes,
        "peer_peak_bytes": peer.peak_bytes,
        "ratio_startup": peer.startup / ours.startup,
        "startup": {"ours": ours.startup, "peer": peer.startup},
        "rounds": {"ours": ours.seconds[action], "peer": peer.seconds[action]},
    }


def where(threads: int | None = None, device: str = "cpu") -> dict[str, Any]:
    """Code and machine of a measurement; threads: all cores unless given."""
    machine = {**provenance.machine(device), "threads": threads or available_cores()}
    return {"code": provenance.code(), "machine": machine}


def cached_models(cache: Path | None, made: Mapping[str, Any]) -> dict[str, Any]:
    """Results by model that `cache_models` wrote; none if there is no file.

    Args:
        made: what was measured, such as data set and steps; each result stores it.

    Raises:
        RecordError: a result was measured with something else, or does not say.
    """
    models = json.loads(cache.read_text())["models"] if cache and cache.exists() else {}
    for name, entry in models.items():
        before = {key: entry.get(key, "not stored") for key in made}
        if before != json.loads(json.dumps(made)):
            raise RecordError(
                f"The cached result of {name} is of another measurement.",
                found=f"cached {before}, now {dict(made)}",
                expected="the same options for all models of a cache",
                hint="write the new results to another --cache",
            )
    return models


def cache_models(cache: Path | None, models: Mapping[str, Any]) -> None:
    """Write results by model, so that a script called again measures only what is missing."""
    if cache:
        with atomic_write(cache, "w") as file:
            json.dump({"models": models}, file)


def finish(result: dict[str, Any], threads: int | None = None, device: str = "cpu") -> None:
    """Print the result, with code and machine, as the last line."""
    print(json.dumps({**result, **where(threads, device)}))
