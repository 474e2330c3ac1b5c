"""The record of a prepared run and of what was found: the one place where records are built."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

from alignrec_recbole.runs import provenance
from alignrec_recbole.runs.prepared import PreparedRun
from alignrec_recbole.runs.record import RunRecord, write_record
from alignrec_recbole.runtime import memory_usage, processes

NOTHING_TRAINED = {"metric": None, "split": None, "stopped": "nothing to train"}


class Stopwatch:
    """When a run began, in wall-clock time and in seconds; memory peaks are counted from here."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.started_utc = datetime.now(timezone.utc).isoformat(timespec="seconds")
        memory_usage.reset_peaks()

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started


def record_of(
    prepared: PreparedRun,
    stopwatch: Stopwatch,
    *,
    seconds: dict[str, float],
    metrics: dict[str, float],
    selection: dict[str, Any] | None = None,
    valid_metrics: dict[str, float] | None = None,
    per_user: dict[str, str] | None = None,
    history: list[dict[str, Any]] | None = None,
    parameters: int = 0,
    notes: list[str] | None = None,
    command: str | None = None,
    **more: Any,
) -> RunRecord:
    """The record of a finished run.

    Args:
        prepared: what was run, on what.
        stopwatch: started when the run began.
        seconds: by step; `train_epoch` is 0 and `total` the time until now unless they are given.
        selection: how the scored weights were selected; default: nothing was trained.
        notes: added to those of the data.
        command: default: this process's command line.
        more: further fields of `RunRecord`: groups, curve, chance.
    """
    spec = prepared.spec
    return RunRecord(
        status="finished",
        model=spec.model,
        dataset=spec.dataset,
        features=prepared.feature_name,
        protocol=spec.protocol,
        setting=prepared.config["setting"],
        seed=spec.seed,
        config=prepared.effective_config,
        config_sha256=prepared.config_hash,
        tuned_on=spec.tuned_on,
        data=prepared.data.data,
        feature_files=prepared.feature_files,
        selection=NOTHING_TRAINED if selection is None else selection,
        valid_metrics=valid_metrics or {},
        metrics=metrics,
        per_user=per_user,
        epochs=len(history or []),
        history=history or [],
        parameters=parameters,
        seconds={"train_epoch": 0.0, "total": stopwatch.seconds(), **seconds},
        peak_rss_bytes=memory_usage.peak_rss_bytes(),
        peak_gpu_bytes=memory_usage.peak_gpu_bytes(),
        code=provenance.code(),
        machine={
            **provenance.machine(str(prepared.config["device"])),
            "threads_by": prepared.data.threads.reason,
            **({"processes": processes.count()} if processes.count() > 1 else {}),
        },
        command=command or provenance.command(),
        started_utc=stopwatch.started_utc,
        notes=[*prepared.notes, *(notes or [])],
        **more,
    )


def with_choice(record: RunRecord, prepared: PreparedRun) -> RunRecord:
    """A finished run's record with the choice of its settings, if it says nothing of one.

    It was made with these settings before a search chose them; the search's `tuned_on` and `budget`
    are added to its file.
    """
    spec = prepared.spec
    if spec.budget is None or record.budget is not None or record.tuned_on is not None:
        return record
    out = record.model_copy(update={"budget": spec.budget, "tuned_on": spec.tuned_on})
    if processes.is_first():
        write_record(prepared.record_path, out)
    return out
