"""Several runs at once, each in a process of its own; or one after the other in this one.

What is printed, and the order of the records, do not depend on which. An engine decides where the
processes run; each gets its run as JSON, shows what it does line by line, and answers with its
record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import Protocol

from pydantic import TypeAdapter
from recbole.utils import ModelType

from alignrec_recbole import errors
from alignrec_recbole.engines.base import Answer, Engine, Work
from alignrec_recbole.engines.child import STOPPED
from alignrec_recbole.engines.gpus import visible_gpus
from alignrec_recbole.errors import AlignRecError, Interrupted, printable
from alignrec_recbole.registry.components import components
from alignrec_recbole.runs import provenance
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.prepared import PreparedRun
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.run import finished_record, run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runtime import threads
from alignrec_recbole.training import memory_estimate

VERB = "run-spec"  # the hidden verb that makes one run
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
    """Makes runs by an engine, several at a time; a run that is finished is only read.

    When a run fails, the others save their state and stop too, as the engine is left.
    """

    def __init__(self, engine: Engine, overwrite: bool) -> None:
        self.engine, self.overwrite = engine, overwrite
        self._asked: dict[bytes, Future[Answer]] = {}
        self._prepared: dict[str, PreparedRun | None] = {}

    def ask(self, spec: RunSpec) -> None:
        """Begin the run as soon as the engine has a place for it."""
        key = SPECS.dump_json(spec)
        if key not in self._asked:
            self._asked[key] = self._finished(spec) or self.engine.submit(self._work(spec))

    def record(self, spec: RunSpec) -> RunRecord:
        """Wait for the record of a run.

        Raises:
            AlignRecError: the run's own.
            Interrupted: the command was stopped.
        """
        self.ask(spec)
        try:
            return result_of(self._asked[SPECS.dump_json(spec)].result())
        except CancelledError:
            raise Interrupted(STOPPED) from None

    def _finished(self, spec: RunSpec) -> Future[Answer] | None:
        """The answer of a run whose record is here, where a worker may not see it."""
        run = self._run(spec) if self.engine.places_by_size and not self.overwrite else None
        if run is None:
            return None
        found: Future[Answer] = Future()
        try:
            record = finished_record(run, self.overwrite)
        except AlignRecError as error:  # raised where the record is wanted
            found.set_exception(error)
            return found
        if record is None:
            return None
        found.set_result(_answer(record))
        return found

    def _work(self, spec: RunSpec) -> Work:
        order = {
            "spec": SPECS.dump_python(spec, mode="json"),
            "overwrite": self.overwrite,
            "command": provenance.command(),
        }
        size = self._needed_bytes(spec) if self.engine.places_by_size else 0
        return Work(
            name_of(spec),
            VERB,
            order,
            output=spec.output,
            bytes=size,
            device=spec.device,
            overwrite=self.overwrite,
        )

    def _needed_bytes(self, spec: RunSpec) -> int:
        run = self._run(spec)
        return 0 if run is None else _bytes_of(run)

    def _run(self, spec: RunSpec) -> PreparedRun | None:
        """A run without its data, which are read once for all seeds; None if it is refused."""
        key = repr(replace(spec, seed=0))
        if key not in self._prepared:
            self._prepared[key] = _sized(spec)
        run = self._prepared[key]
        return None if run is None else run.with_seed(spec.seed)


def name_of(spec: RunSpec) -> str:
    """What lines of output call a run.

    >>> name_of(RunSpec("BPR", "ml-100k", seed=1))
    'BPR, seed 1'
    """
    values = [f"{key}={value}" for key, value in spec.overrides.items()]
    trial = values if spec.validation_only else []
    return printable(", ".join([spec.model, f"seed {spec.seed}", *trial]), 120)


def answer_of(spec: RunSpec, overwrite: bool, command: str) -> Answer:
    """Make a run, in a child process; its record, or why there is none."""

    def make() -> Answer:
        return _answer(run_one(spec, overwrite=overwrite, command=command))

    return answered(make)


def _answer(record: RunRecord) -> Answer:
    return {"record": record.model_dump(mode="json")}


def answered(make: Callable[[], Answer]) -> Answer:
    """What a child process answers: what `make` returns, or why it returned nothing."""
    try:
        return make()
    except (Interrupted, KeyboardInterrupt):
        return {"interrupted": True}
    except AlignRecError as error:
        parts = {name: getattr(error, name) for name in ("found", "expected", "hint")}
        return {"error": type(error).__name__, "problem": error.problem, "parts": parts}


def result_of(answer: Answer) -> RunRecord:
    """The record of an answer; raises as `checked` does."""
    return RunRecord.model_validate(checked(answer)["record"])


def checked(answer: Answer) -> Answer:
    """The answer of a child process, which `answered` made.

    Raises:
        AlignRecError, Interrupted: what it answered instead.
    """
    if "interrupted" in answer:
        raise Interrupted(STOPPED)
    if "error" in answer:
        kind = getattr(errors, answer["error"], AlignRecError)
        raise kind(answer["problem"], **answer["parts"])
    return answer


def choose_jobs(specs: Sequence[RunSpec], overwrite: bool) -> int:
    """How many runs are made at once: as many as cores and memory allow, if processes pay.

    The number follows the sizes of the data, what is free now and which runs are already finished;
    no result depends on it. With GPUs, one on each; where anything is refused, one by one.
    """
    free = threads.free_cores()
    firsts = list({spec.model: spec for spec in reversed(specs)}.values())
    pending: list[PreparedRun] = []
    prepared: dict[str, tuple[PreparedRun, int]] = {}
    for number, spec in enumerate([*firsts, *(spec for spec in specs if spec not in firsts)]):
        if number >= len(firsts) and len(pending) >= free:
            break  # more will not run at once, and the largest is known
        key = repr((spec.model, spec.overrides))
        try:
            if not _trains_in_steps(spec.model):
                continue
            if key not in prepared:
                prepared[key] = _without_data(prepare_run(spec))
        except AlignRecError:
            return 1  # the run itself will say what is wrong
        run, pairs = prepared[key]
        run = replace(run, spec=replace(run.spec, seed=spec.seed))
        finished = run.record_path.is_file() and not overwrite
        if not finished and pairs >= WORTH_A_PROCESS:
            pending.append(run)
    if len(pending) < 2:
        return 1
    if any(str(run.config["device"]) != "cpu" for run in pending):
        shared = firsts[0].device in ("auto", "cuda")
        return max(1, min(len(pending), len(visible_gpus()))) if shared else 1
    numbers = max(run.data.numbers for run in pending)
    batch = max(run.config["train_batch_size"] for run in pending)
    given = max(run.config["threads"] or 0 for run in pending) or None
    per_run = given or threads.threads_of_environment() or threads.threads_by_size(numbers)
    by_memory = memory_estimate.available_bytes() // memory_estimate.run_bytes(numbers, batch)
    return max(1, min(len(pending), free // per_run, by_memory))


def needed_bytes(spec: RunSpec) -> int:
    """The memory that a run will need; 0 where anything is refused, which the run itself says."""
    run = _sized(spec)
    return 0 if run is None else _bytes_of(run)


def _bytes_of(run: PreparedRun) -> int:
    return memory_estimate.run_bytes(run.data.numbers, run.config["train_batch_size"])


def _sized(spec: RunSpec) -> PreparedRun | None:
    """A run without its data; None where anything is refused, which the run itself says."""
    try:
        return _without_data(prepare_run(spec))[0]
    except AlignRecError:
        return None


def _trains_in_steps(model: str) -> bool:
    return bool(components(model).model_class.type != ModelType.TRADITIONAL)


def _without_data(run: PreparedRun) -> tuple[PreparedRun, int]:
    """A run that holds no interactions and features, and its training pairs in all epochs."""
    pairs = int(len(run.splits[0].inter_feat) * run.config["epochs"])
    return replace(run, data=replace(run.data, splits=[])), pairs
