"""The work of `--rekey`: a data set under random numbers, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from alignrec_recbole.cli._needed import has_features
from alignrec_recbole.cli._next import show_first_run
from alignrec_recbole.data.dataset_paths import data_folders, find_dataset
from alignrec_recbole.data.rekey import Rekeyed, rekey
from alignrec_recbole.data.split_manifest import summary
from alignrec_recbole.errors import printable


def run(dataset: str, data_path: Path | None, seed: int) -> int:
    """Re-key a data set; prints a summary."""
    made = of(dataset, data_path, seed)
    print(printable(tabulate(summary(made.manifest), tablefmt="plain"), 8000))
    print("\n".join(printable(line) for line in made.said))
    print(printable(str(made.folder)))
    name = made.folder.name
    show_first_run(name, data_path, content=has_features(made.folder, name))
    return 0


def of(dataset: str, data_path: Path | None, seed: int) -> Rekeyed:
    """Re-key a data set of the data folders into the first of them."""
    return rekey(find_dataset(dataset, data_path), dataset, data_folders(data_path)[0], seed)
