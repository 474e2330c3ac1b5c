"""The command that data or features just written are for, printed at the end of their verb."""

from __future__ import annotations

from pathlib import Path

from alignrec_recbole.cli._command import as_typed
from alignrec_recbole.data.dataset_paths import data_folders, locate_dataset

WITH_CONTENT, WITHOUT = "AlignRec,LightGCN", "LightGCN,BPR"


def show_first_run(
    dataset: str,
    data_path: Path | None,
    *,
    content: bool,
    features: str = "",
    features_path: Path | None = None,
) -> None:
    """Print a command that trains on a data set; nothing if its interactions are not there.

    Args:
        dataset: its name.
        data_path: as it was given.
        content: whether models find features, or texts to make some of.
        features: names of feature sets to use; empty for the default ones.
        features_path: a folder of features beside the data set's own.
    """
    if locate_dataset(dataset, data_folders(data_path)) is None:
        return
    given = {
        "--model": WITH_CONTENT if content else WITHOUT,
        "--dataset": dataset,
        "--features": features,
        "--data-path": data_path,
        "--features-path": features_path,
    }
    arguments = [part for option, value in given.items() if value for part in (option, str(value))]
    print(f"\nNext, for example:\n\n  {as_typed(arguments)}")
