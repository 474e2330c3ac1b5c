"""One run: configuration → data → model → trainer → ranking → record."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from recbole.utils import ModelType

from alignrec_recbole.errors import DataError, Interrupted, RecordError, SettingError
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.runs import provenance
from alignrec_recbole.runs.lists import LIST_LENGTH, save_lists
from alignrec_recbole.runs.prepare import Prepared, prepare
from alignrec_recbole.runs.record import RunRecord, read_record, write_record
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runs.tasks import build_trainer, test_task, train_data, valid_task
from alignrec_recbole.runtime import memory_usage
from alignrec_recbole.training.trainer import MultimodalTrainer


def run_one(spec: RunSpec, *, overwrite: bool = False, command: str | None = None) -> RunRecord:
    """Run or, if its record is there, read it.

    A run that was interrupted goes on from its saved state. A different configuration, feature
    file or data file has another record path, so it never overwrites this one.

    Raises:
        Interrupted: the run was stopped by a signal; calling again continues it.
    """
    started = time.perf_counter()
    started_utc = datetime.now(timezone.utc).isoformat(timespec="seconds")
    memory_usage.reset_peaks()
    prepared = prepare(spec)
    state_file = prepared.path("checkpoints", ".state.pt")
    if overwrite:
        state_file.unlink(missing_ok=True)
    elif prepared.record_path.is_file():
        return _same_modalities(read_record(prepared.record_path), prepared)
    _check_chosen(prepared)
    _check_writable(prepared.record_path.parent)

    seconds = {"prepare": time.perf_counter() - started}
    trainer = build_trainer(prepared, state_file)
    seconds["build"] = time.perf_counter() - started - seconds["prepare"]
    with _stop_on_signal(trainer):
        trainer.fit(
            train_data(prepared), valid_task(prepared), saved=False, show_progress=spec.progress
        )
    if trainer.stopped == "interrupted":
        raise Interrupted(f"State saved in {state_file}; run the same command to go on.")

    metrics: dict[str, float] = {}
    per_user = None
    if spec.score_test:
        begun = time.perf_counter()
        ranking = trainer.rank(test_task(prepared), max(LIST_LENGTH, *trainer.cutoffs))
        seconds["evaluate"] = time.perf_counter() - begun
        names = prepared.config["metrics"], trainer.cutoffs
        metrics = ranking.means(*names)
        per_user = save_lists(prepared, ranking, ranking.per_user(*names))
    history = trainer.history
    if history:
        seconds["train_epoch"] = float(np.median([entry["seconds"] for entry in history]))
    else:
        seconds["train_epoch"] = 0.0
    seconds["total"] = time.perf_counter() - started + trainer.seconds_before
    record = RunRecord(
        status="finished",
        model=spec.model,
        dataset=spec.dataset,
        features=prepared.feature_name,
        protocol=spec.protocol,
        setting=prepared.config["setting"],
        seed=spec.seed,
        config=prepared.resolved,
        config_sha256=prepared.digest,
        tuned_on=spec.tuned_on,
        data=prepared.data,
        feature_files=prepared.feature_files,
        selection={
            "metric": prepared.config["valid_metric"],
            "split": "valid",
            "best_epoch": trainer.best_epoch,
            "best_score": trainer.best_valid_score
            if np.isfinite(trainer.best_valid_score)
            else None,
            "stopped": trainer.stopped,
        },
        valid_metrics=_titled(trainer.best_valid_result or {}, prepared.config["metrics"]),
        metrics=metrics,
        per_user=per_user,
        epochs=len(history),
        history=history,
        parameters=sum(p.numel() for p in trainer.model.parameters()),
        seconds=seconds,
        peak_rss_bytes=memory_usage.peak_rss_bytes(),
        peak_gpu_bytes=memory_usage.peak_gpu_bytes(),
        code=provenance.code(),
        machine=provenance.machine(str(prepared.config["device"])),
        command=command or provenance.command(),
        started_utc=started_utc,
        notes=prepared.notes,
    )
    write_record(prepared.record_path, record)
    if spec.score_test:  # a grid point keeps its state: if chosen, it is only ranked
        state_file.unlink(missing_ok=True)
    return record


def _check_chosen(prepared: Prepared) -> None:
    """Refuse a grid point that would end without a validation score."""
    epochs, step = prepared.config["epochs"], prepared.config["eval_step"]
    trained = prepared.parts.model_class.type != ModelType.TRADITIONAL
    if trained and epochs < step and not prepared.spec.score_test:
        raise SettingError(
            "Without a validation score nothing can be chosen.",
            found=f"{epochs} epochs, the first evaluation after {step}",
            expected="at least one evaluation in every grid point",
            hint="raise --epochs, or lower eval_step",
        )


def _same_modalities(record: RunRecord, prepared: Prepared) -> RunRecord:
    """The record, if its features were of the modalities they are now said to be of."""
    for name, file in prepared.feature_files.items():
        was, now = record.feature_files[name].get("modality"), file["modality"]
        if was != now:
            raise RecordError(
                f"There is a record of this run with {name!r} as other features.",
                found=f"modality {now}, in the record {was}: {prepared.record_path.name}",
                expected="one modality for one file",
                hint="correct the features' .json, or pass --overwrite or another --output",
            )
    return record


def _titled(result: dict[str, float], names: list[str]) -> dict[str, float]:
    """RecBole's lower-case metric names in the spelling of the records."""
    titles = {name.lower(): name for name in names}
    return {
        f"{titles[key.split('@')[0]]}@{key.split('@')[1]}": value for key, value in result.items()
    }


@contextlib.contextmanager
def _stop_on_signal(trainer: MultimodalTrainer) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: finish the epoch, save, stop. Second: stop at once."""

    def handler(number: int, frame: Any) -> None:
        if trainer.stop_requested:
            raise KeyboardInterrupt
        trainer.stop_requested = True
        print("\nstopping after this epoch; once more to stop at once", file=sys.stderr)

    try:
        old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever runs us handles signals
        yield
        return
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / ".writable"):
            pass
        (folder / ".writable").unlink(missing_ok=True)  # another process may try the same folder
    except OSError as error:
        raise DataError(
            f"Results cannot be written to {folder}.",
            found=getattr(error, "found", "") or str(error),
            expected="a folder this user may write to",
            hint="pass --output with another folder",
        ) from error
