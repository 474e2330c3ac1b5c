"""Our side of a trained comparison."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec


def train_ours(
    model: str,
    options: argparse.Namespace,
    features: Sequence[str],
    seed: int,
    overrides: Mapping[str, Any] | None = None,
    output: Path | None = None,
) -> RunRecord:
    """One run in MMRec's setting.

    Args:
        model: registered name.
        options: of the script, with dataset, data_path and epochs.
        features: feature sets.
        seed: of the run.
        overrides: settings that are not the defaults.
        output: results folder, where a finished run is not repeated; None: a temporary one.
    """
    with contextlib.ExitStack() as stack:
        folder = output or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return run_one(
            RunSpec(
                model,
                options.dataset,
                tuple(features),
                setting="mmrec",
                seed=seed,
                data_path=options.data_path,
                output=folder,
                epochs=options.epochs,
                progress=False,
                device="cpu",
                overrides=dict(overrides or {}),
            )
        )
