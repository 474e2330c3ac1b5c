"""Our side of a trained comparison."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import RunRecord
from benchmarks.runner import RunSpec, run_one


def train_ours(
    model: str,
    options: argparse.Namespace,
    features: Sequence[str],
    seed: int,
    overrides: Mapping[str, Any] | None = None,
) -> RunRecord:
    """One run in MMRec's setting that leaves nothing behind but its record.

    Args:
        model: registered name.
        options: of the script, with dataset, data_path and epochs.
        features: feature sets.
        seed: of the run.
        overrides: settings that are not the defaults.
    """
    with tempfile.TemporaryDirectory() as output:
        return run_one(
            RunSpec(
                model,
                options.dataset,
                tuple(features),
                setting="mmrec",
                seed=seed,
                data_path=options.data_path,
                output=Path(output),
                epochs=options.epochs,
                progress=False,
                overrides=dict(overrides or {}),
            )
        )
