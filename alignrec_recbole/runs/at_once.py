"""Several runs at once, each in a process of its own; or one after the other in this one.

What is printed, and the order of the records, do not depend on which. A child process gets its run
as one line of JSON, shows what it does on standard error, which is passed on line by line with the
run's name, and answers with its record.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

from pydantic import TypeAdapter
from recbole.utils import ModelType

from alignrec_recbole import errors
from alignrec_recbole.errors import AlignRecError, Interrupted, printable
from alignrec_recbole.runs import provenance
from alignrec_recbole.runs.prepare import PreparedRun, prepare_run
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runtime import threads
from alignrec_recbole.training import memory_estimate

CHILD = ("-m", "alignrec_recbole", "run-spec")  # arguments of Python that run one specification
ANSWER = "answer: "  # begins the line of standard output that holds the result
WORTH_A_PROCESS = 1_000_000  # training pairs in all epochs; below, starting a process takes longer
SPECS = TypeAdapter(RunSpec)


class Runs(Protocol):
    """Something that makes runs."""

    def ask(self, spec: RunSpec) -> None:
        """Say that a run will be wanted, so that it may begin."""

    def record(self, spec: RunSpec) -> RunRecord:
        """Wait for the record of a run."""


class OneByOne:
    """Makes each run in this process when its record is wanted."""

    def __init__(self, overwrite: bool) -> None:
        self.overwrite = overwrite

    def ask(self, spec: RunSpec) -> None:
        """Nothing yet."""

    def record(self, spec: RunSpec) -> RunRecord:
        """The record of a run."""
        return run_one(spec, overwrite=self.overwrite)


class AtOnce:
    """Makes runs in child processes, `jobs` at a time.

    The first Ctrl-C or SIGTERM lets every run finish its epoch and save its state, the second ends
    them at once. When a run fails, the others save their state and stop too.
    """

    def __init__(self, jobs: int, overwrite: bool) -> None:
        self.jobs, self.overwrite = jobs, overwrite
        self._cores = max(1, threads.free_cores() // jobs)
        self._asked: dict[bytes, Future[RunRecord]] = {}
        self._children: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stops = 0

    def __enter__(self) -> AtOnce:
        self._pool = ThreadPoolExecutor(self.jobs)
        self._handlers: dict[int, Any] = {}
        with contextlib.suppress(ValueError):  # not in the main thread: the caller handles signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            if kind is not None and not self._stops:
                self._stop()
            self._pool.shutdown(cancel_futures=True)
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def ask(self, spec: RunSpec) -> None:
        """Begin the run as soon as one of the `jobs` is free."""
        key = SPECS.dump_json(spec)
        if key not in self._asked:
            self._asked[key] = self._pool.submit(self._run, spec)

    def record(self, spec: RunSpec) -> RunRecord:
        """Wait for the record of a run.

        Raises:
            AlignRecError: the run's own.
            Interrupted: the command was stopped.
        """
        self.ask(spec)
        try:
            return self._asked[SPECS.dump_json(spec)].result()
        except CancelledError:
            raise Interrupted(_STOPPED) from None

    def _on_signal(self, number: int, frame: Any) -> None:
        again = self._stops > 0
        self._stop()
        if again:
            raise KeyboardInterrupt
        print("\nstopping after the running epochs; press again to stop at once", file=sys.stderr)

    def _stop(self) -> None:
        self._stops += 1
        for child in list(self._children):
            child.send_signal(signal.SIGTERM)

    def _run(self, spec: RunSpec) -> RunRecord:
        if self._stops:
            raise Interrupted(_STOPPED)
        order = {
            "spec": SPECS.dump_python(spec, mode="json"),
            "overwrite": self.overwrite,
            "command": provenance.command(),
        }
        child = subprocess.Popen(
            [sys.executable, *CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                threads.SHARE: str(self._cores),
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # a Ctrl-C reaches this process, which passes it on once
        )
        self._children.add(child)
        try:
            return self._answer(child, spec, order)
        finally:
            self._children.discard(child)
            child.kill()
            child.wait()

    def _answer(
        self, child: subprocess.Popen[str], spec: RunSpec, order: dict[str, Any]
    ) -> RunRecord:
        assert child.stdin
        assert child.stdout
        if self._stops:
            raise Interrupted(_STOPPED)
        shower = threading.Thread(target=self._show, args=(child, name_of(spec)), daemon=True)
        shower.start()
        with contextlib.suppress(BrokenPipeError):  # it died before: see its exit status
            child.stdin.write(json.dumps(order) + "\n")
            child.stdin.flush()  # and stays open: the child ends when it closes
        answers = [line for line in child.stdout if line.startswith(ANSWER)]
        code = child.wait()
        shower.join()
        if not answers:
            if self._stops:
                raise Interrupted(_STOPPED)
            raise AlignRecError(
                f"The run {name_of(spec)} ended without a result.",
                found=signal.Signals(-code).name if code < 0 else f"exit status {code}",
                hint="what it printed is above; --jobs 1 runs one after the other",
            )
        return result_of(json.loads(answers[-1].removeprefix(ANSWER)))

    def _show(self, child: subprocess.Popen[str], name: str) -> None:
        assert child.stderr
        for line in child.stderr:
            if line.strip():
                with self._lock:
                    print(f"[{name}] {printable(line.rstrip())}", file=sys.stderr, flush=True)


_STOPPED = (
    "Interrupted: runs that had begun have saved their state; run the same command to resume."
)


def name_of(spec: RunSpec) -> str:
    """What lines of output call a run.

    >>> name_of(RunSpec("BPR", "ml-100k", seed=1))
    'BPR, seed 1'
    """
    values = [f"{key}={value}" for key, value in spec.overrides.items()]
    trial = values if spec.validation_only else []
    return printable(", ".join([spec.model, f"seed {spec.seed}", *trial]), 120)


def answer_of(spec: RunSpec, overwrite: bool, command: str) -> dict[str, Any]:
    """Make a run, in a child process; its record, or why there is none."""
    try:
        record = run_one(spec, overwrite=overwrite, command=command)
    except (Interrupted, KeyboardInterrupt):
        return {"interrupted": True}
    except AlignRecError as error:
        parts = {name: getattr(error, name) for name in ("found", "expected", "hint")}
        return {"error": type(error).__name__, "problem": error.problem, "parts": parts}
    return {"record": record.model_dump(mode="json")}


def result_of(answer: dict[str, Any]) -> RunRecord:
    """The record of an answer.

    Raises:
        AlignRecError, Interrupted: what the child process answered instead.
    """
    if "record" in answer:
        return RunRecord.model_validate(answer["record"])
    if "interrupted" in answer:
        raise Interrupted(_STOPPED)
    kind = getattr(errors, answer["error"], AlignRecError)
    raise kind(answer["problem"], **answer["parts"])


def choose_jobs(specs: Sequence[RunSpec], overwrite: bool) -> int:
    """How many runs are made at once: as many as cores and memory allow, if processes pay.

    The number follows the sizes of the data, what is free now and which runs are already finished;
    no result depends on it. On a GPU, and where anything is refused, one after the other.
    """
    free = threads.free_cores()
    firsts = list({spec.model: spec for spec in reversed(specs)}.values())
    pending: list[PreparedRun] = []
    prepared: dict[str, PreparedRun] = {}
    for number, spec in enumerate([*firsts, *(spec for spec in specs if spec not in firsts)]):
        if number >= len(firsts) and len(pending) >= free:
            break  # more will not run at once, and the largest is known
        key = repr((spec.model, spec.overrides))
        try:
            if key not in prepared:
                prepared[key] = prepare_run(spec)
        except AlignRecError:
            return 1  # the run itself will say what is wrong
        run = replace(prepared[key], spec=replace(prepared[key].spec, seed=spec.seed))
        finished = run.record_path.is_file() and not overwrite
        if not finished and _pairs(run) >= WORTH_A_PROCESS:
            pending.append(run)
    if len(pending) < 2 or any(str(run.config["device"]) != "cpu" for run in pending):
        return 1
    numbers = max(run.data.numbers for run in pending)
    batch = max(run.config["train_batch_size"] for run in pending)
    given = max(run.config["threads"] or 0 for run in pending) or None
    per_run = given or threads.threads_of_environment() or threads.threads_by_size(numbers)
    by_memory = memory_estimate.available_bytes() // memory_estimate.run_bytes(numbers, batch)
    return max(1, min(len(pending), free // per_run, by_memory))


def _pairs(run: PreparedRun) -> int:
    """Training pairs in all epochs; none for a model without training."""
    if run.components.model_class.type == ModelType.TRADITIONAL:
        return 0
    return int(len(run.splits[0].inter_feat) * run.config["epochs"])
