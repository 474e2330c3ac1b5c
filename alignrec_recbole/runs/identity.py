"""Whether what is found in a run's place is that run's: its record, its saved training."""

from __future__ import annotations

import os
from typing import Any

from alignrec_recbole.errors import RecordError
from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.io.training_state import differences
from alignrec_recbole.runs.config_hash import config_hashes, same_data
from alignrec_recbole.runs.prepared import PreparedRun
from alignrec_recbole.runs.record import NUMBERS_EPOCH, RunRecord, read_record

MAXIMUM = "epochs"  # the setting that decides nothing but when a training ends


def training_hash(run: PreparedRun) -> str:
    """Hash of the configuration without the maximum of epochs, on which no epoch depends."""
    return config_hashes(
        model=run.spec.model,
        dataset=run.spec.dataset,
        protocol=run.spec.protocol,
        config={key: value for key, value in run.effective_config.items() if key != MAXIMUM},
        data=run.data.data,
        feature_files=run.feature_files,
    )[0]


def lasting_hash(run: PreparedRun) -> str:
    """Hash of the configuration that does not depend on the age of this package's records."""
    return config_hashes(
        model=run.spec.model,
        dataset=run.spec.dataset,
        protocol=run.spec.protocol,
        config=run.effective_config,
        data=run.data.data,
        feature_files=run.feature_files,
    )[-1]


def of_training(run: PreparedRun) -> dict[str, Any]:
    """What a saved training must agree in: all that decides its weights, epoch by epoch."""
    return {
        **_names(run),
        "training_sha256": training_hash(run),
        "numbers_epoch": NUMBERS_EPOCH,
    }


def finished_record(run: PreparedRun, overwrite: bool) -> RunRecord | None:
    """The record in a run's place; None if there is none, or a file that is to be replaced.

    Raises:
        RecordError: it is damaged or of another run, or something other than a file is there,
            which is never replaced.
    """
    path = run.record_path
    if not os.path.lexists(path) or (overwrite and is_regular_file(path)):
        return None
    return check_record(read_record(path), run)


def check_record(record: RunRecord, run: PreparedRun) -> RunRecord:
    """Return the record that was found in a run's place, if it is of that run.

    Raises:
        RecordError: it is of another model, data set, seed, configuration or data.
    """
    expected = {**_names(run), "config_sha256": run.config_hash}
    found = {key: getattr(record, key) for key in expected}
    if found == expected and same_data(record.data, run.data.data):
        return record
    raise RecordError(
        f"The record {run.record_path.name} is not of this run.",
        found=differences(found, expected) or "other data",
        expected="the record that this run wrote",
        hint=f"delete {run.record_path} and run again, or pass another --output, or `run` with "
        "--overwrite",
    )


def _names(run: PreparedRun) -> dict[str, Any]:
    spec = run.spec
    return {
        "model": spec.model,
        "dataset": spec.dataset,
        "protocol": spec.protocol,
        "features": run.feature_name,
        "setting": run.config["setting"],
        "seed": spec.seed,
    }
