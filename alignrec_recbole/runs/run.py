"""One run: configuration → data → model → trainer → ranking → record."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from recbole.utils import ModelType

from alignrec_recbole.errors import DataError, Interrupted, Pruned, RecordError, SettingError
from alignrec_recbole.evaluation.ranking import Ranking
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.ops import columns
from alignrec_recbole.runs import continuation, identity, keep_model, provenance
from alignrec_recbole.runs.exclusive import one_at_a_time
from alignrec_recbole.runs.lists import LIST_LENGTH, write_user_values
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.prepared import PreparedRun
from alignrec_recbole.runs.record import RunRecord, read_record, write_record
from alignrec_recbole.runs.recording import Stopwatch, record_of, with_choice
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runs.tasks import build_trainer, test_task, train_data, valid_task
from alignrec_recbole.runtime import processes, progress, random_state
from alignrec_recbole.runtime.stop_signals import stop_on_signal
from alignrec_recbole.tracking.base import RunFacts, RunResult, Trackers
from alignrec_recbole.training import divided
from alignrec_recbole.training.trainer import MultimodalTrainer

OnEpoch = Callable[[list[dict[str, Any]]], None]
# From a run, its trained model and its test ranking to further fields of its record.
Examine = Callable[[PreparedRun, MultimodalTrainer, Ranking], dict[str, Any]]


def run_one(
    spec: RunSpec,
    *,
    overwrite: bool = False,
    command: str | None = None,
    examine: Examine | None = None,
    on_epoch: OnEpoch | None = None,
) -> RunRecord:
    """Train and rank, or read the record if this run is finished.

    An interrupted run resumes from its saved state, and a run with more epochs than a finished one
    from where that one ended (`continuation`). Another configuration, feature file or data file has
    another record path, so no record of other content is overwritten.

    Where several processes make a run together (`runtime.processes`), each of them calls this; the
    first one writes, the others return its record.

    Args:
        examine: called once the test split is ranked.
        on_epoch: called with the history after each epoch; it may raise Pruned.

    Raises:
        SettingError: the specification is of a protocol that is not made of such a run.
        Interrupted: the run was stopped by a signal; calling again resumes it.
        Pruned: raised by `on_epoch`; the run leaves no record and no state.
    """
    _check_protocol(spec)
    if not processes.is_first():
        spec = replace(spec, progress=False, track=())
    with progress.shown(spec.progress):
        return _run_one(spec, overwrite, command, examine, on_epoch)


def _check_protocol(spec: RunSpec) -> None:
    """Refuse a specification whose record would name a protocol that the run does not follow."""
    kinds = {"full": True, "mask-modality": spec.mask, "knock-out": spec.knock_out}
    if not kinds.get(spec.protocol):
        needs = {"mask-modality": " without a mask", "knock-out": " without a knock_out"}
        raise SettingError(
            f"A run is not of the protocol {spec.protocol!r}.",
            found=f"protocol={spec.protocol!r}{needs.get(spec.protocol, '')}",
            expected="full, mask-modality with a mask, or knock-out with a knock_out",
            hint="run_protocol, or --protocol on the command line, computes the others",
        )


def _run_one(
    spec: RunSpec,
    overwrite: bool,
    command: str | None,
    examine: Examine | None,
    on_epoch: OnEpoch | None,
) -> RunRecord:
    stopwatch = Stopwatch()
    name = f"{spec.model} on {spec.dataset}, seed {spec.seed}"
    progress.announce(f"{name}: reading the data")
    with processes.first_alone():
        prepared = prepare_run(spec)
    progress.announce(f"{name}: {prepared.data.read}")
    if record := finished_record(prepared, overwrite):
        return record
    _check_grid_point(prepared)
    first = processes.is_first()
    if first:
        _check_writable(prepared.record_path.parent)
    path = prepared.record_path
    replaced = _writing_of(path) if overwrite else None
    with one_at_a_time(path) if first else nullcontext(False) as waited:
        (made,) = divided.any_of(waited and _writing_of(path) != replaced)  # not interrupted
        if made and (record := finished_record(prepared, overwrite=False)):
            return record
        return _run_alone(prepared, stopwatch, name, overwrite, command, examine, on_epoch)


def finished_record(prepared: PreparedRun, overwrite: bool) -> RunRecord | None:
    """The record of a run that is finished; None if there is none, or one that is to be replaced.

    A record that says nothing of how its settings were chosen gets what the specification knows of
    it (`with_choice`).

    Raises:
        RecordError: it is damaged, of another run, or of features of another modality.
    """
    record = identity.finished_record(prepared, overwrite)
    return None if record is None else with_choice(_same_modalities(record, prepared), prepared)


def _writing_of(path: Path) -> tuple[int, int] | None:
    """What differs each time that a record is written; None where there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _run_alone(
    prepared: PreparedRun,
    stopwatch: Stopwatch,
    name: str,
    overwrite: bool,
    command: str | None,
    examine: Examine | None,
    on_epoch: OnEpoch | None,
) -> RunRecord:
    """Make a run that no other process makes now."""
    spec = prepared.spec
    if processes.is_first() and overwrite:
        prepared.state_path.unlink(missing_ok=True)
    processes.wait()
    if spec.save and processes.is_first():
        keep_model.check_place(prepared)

    provenance.code()  # what the record says of it is known before anything is trained
    trackers = Trackers(spec.track)
    with trackers.watching(_facts(prepared)) if spec.track else nullcontext():
        try:
            return _make(prepared, stopwatch, trackers, name, overwrite, command, examine, on_epoch)
        except Pruned:
            prepared.state_path.unlink(missing_ok=True)
            raise


def _facts(prepared: PreparedRun) -> RunFacts:
    """What trackers are given before the training."""
    spec = prepared.spec
    kind = "tuning" if spec.validation_only else "runs"
    return RunFacts(
        name=f"{spec.model} {prepared.feature_name} seed {spec.seed}",
        group=spec.dataset,
        folder=spec.output / "tracking",
        run_id=f"{kind}/{prepared.run_id.as_posix()}",
        config={
            "model": spec.model,
            "features": prepared.feature_name,
            "protocol": spec.protocol,
            **prepared.effective_config,
        },
    )


def _make(
    prepared: PreparedRun,
    stopwatch: Stopwatch,
    trackers: Trackers,
    name: str,
    overwrite: bool,
    command: str | None,
    examine: Examine | None,
    on_epoch: OnEpoch | None,
) -> RunRecord:
    """Train and rank, and write the record."""
    spec = prepared.spec
    seconds = {"prepare": stopwatch.seconds()}
    progress.announce(f"{name}: building the model")
    trainer = build_trainer(prepared, prepared.state_path)
    trainer.continued_from = None if overwrite else continuation.find(prepared)
    metric = prepared.config["valid_metric"]

    def after_epoch(history: list[dict[str, Any]]) -> None:
        if spec.track:
            trackers.epochs(history, metric)
        if on_epoch is not None:
            on_epoch(history)

    trainer.on_epoch = after_epoch
    seconds["build"] = stopwatch.seconds() - seconds["prepare"]
    with _stop_on_signal(trainer):
        trainer.fit(
            train_data(prepared), valid_task(prepared), saved=False, show_progress=spec.progress
        )
    if trainer.stop_reason == "interrupted":
        raise Interrupted(
            f"Interrupted after epoch {len(trainer.history)}: the state is saved in "
            f"{prepared.state_path}; run the same command to resume."
        )

    metrics: dict[str, float] = {}
    per_user = weights = None
    found: dict[str, Any] = {}
    if not spec.validation_only:
        progress.announce(f"{name}: ranking the test split")
        begun = stopwatch.seconds()
        drawn = random_state.RandomStates.now()
        ranking = trainer.rank(test_task(prepared), max(LIST_LENGTH, *trainer.cutoffs))
        seconds["evaluate"] = stopwatch.seconds() - begun
        if not processes.is_first():
            return _of_the_first(prepared)
        names = prepared.config["metrics"], trainer.cutoffs
        metrics = ranking.means(*names)
        per_user = write_user_values(prepared, ranking, ranking.per_user(*names))
        if spec.protocol == "full":
            if spec.save:
                weights = keep_model.keep(prepared, trainer, ranking, metrics, drawn)
            if weights is None:
                keep_model.forget(prepared)
        if examine is not None:
            found = examine(prepared, trainer, ranking)
    elif not processes.is_first():
        return _of_the_first(prepared)
    history = trainer.history
    epochs = [entry["seconds"] for entry in history]
    seconds["train_epoch"] = float(np.median(epochs)) if epochs else 0.0
    seconds["total"] = stopwatch.seconds() + trainer.seconds_before
    best = trainer.stopping.best_score
    record = record_of(
        prepared,
        stopwatch,
        seconds=seconds,
        metrics=metrics,
        selection={
            "metric": prepared.config["valid_metric"],
            "split": "valid",
            "best_epoch": trainer.stopping.best_epoch,
            "best_score": best if np.isfinite(best) else None,
            "stopped": trainer.stop_reason,
            **trainer.valid_users,
        },
        valid_metrics=trainer.stopping.best_result,
        per_user=per_user,
        weights=weights,
        history=history,
        parameters=sum(map(columns.numel, trainer.model.parameters())),
        item_searches=trainer.item_searches or None,
        command=command,
        energy=trackers.energy(),
        budget=spec.budget,
        **found,
    )
    write_record(prepared.record_path, record)
    trackers.finish(RunResult(metrics, trainer.stopping.best_result or {}, prepared.record_path))
    if not spec.validation_only:  # the state of a grid point stays: if chosen, it is only ranked
        continuation.keep_or_delete(prepared, trainer.stop_reason)
    processes.wait()
    return record


def _of_the_first(prepared: PreparedRun) -> RunRecord:
    """The record that the first of several processes writes."""
    processes.wait()
    return read_record(prepared.record_path)


def _check_grid_point(prepared: PreparedRun) -> None:
    """Refuse a grid point that would end without a validation score."""
    epochs, step = prepared.config["epochs"], prepared.config["eval_step"]
    trained = prepared.components.model_class.type != ModelType.TRADITIONAL
    if trained and epochs < step and prepared.spec.validation_only:
        raise SettingError(
            f"A trial needs a validation score; {epochs} epochs with eval_step={step} have none.",
            found=f"{epochs} epochs, the first evaluation after {step}",
            expected="at least one evaluation in every trial",
            hint="raise --epochs, or lower eval_step",
        )


def _same_modalities(record: RunRecord, prepared: PreparedRun) -> RunRecord:
    """The record, if the modality of each of its feature files is that of the present manifest."""
    for name, file in prepared.feature_files.items():
        before, now = record.feature_files[name].get("modality"), file["modality"]
        if before != now:
            raise RecordError(
                f"Feature set {name!r} has another modality in the existing record of this run.",
                found=f"modality {now}, in {prepared.record_path.name} {before}",
                expected="one modality per feature file",
                hint="correct the features' .json, or pass another --output, or `run` with "
                "--overwrite",
            )
    return record


def _stop_on_signal(trainer: MultimodalTrainer) -> AbstractContextManager[None]:
    """First Ctrl-C or SIGTERM: finish the epoch, save, stop. Second: stop at once."""

    def stop() -> None:
        trainer.stop_requested = True

    return stop_on_signal(stop, "stopping after this epoch")


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / ".writable"):
            pass
        (folder / ".writable").unlink(missing_ok=True)  # another process may try the same folder
    except (OSError, ValueError, RuntimeError) as error:  # a zero byte, a link to itself
        raise DataError(
            f"Results cannot be written to {folder}.",
            found=getattr(error, "found", "") or str(error),
            expected="a folder this user may write to",
            hint="pass --output with another folder",
        ) from error
