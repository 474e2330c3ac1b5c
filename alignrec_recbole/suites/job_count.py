"""How many cells of a suite run at once, where the command does not say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignrec_recbole.data.dataset_paths import find_dataset
from alignrec_recbole.encoders.lookup import find_file
from alignrec_recbole.engines.gpus import visible_gpus
from alignrec_recbole.errors import AlignRecError
from alignrec_recbole.io.mapped_arrays import open_array
from alignrec_recbole.registry.models import DEFAULT_FEATURES, resolve
from alignrec_recbole.runs.prepare import prepare_data
from alignrec_recbole.runs.spec import DataSpec
from alignrec_recbole.runtime import threads
from alignrec_recbole.runtime.hardware import choose_device
from alignrec_recbole.suites.schema import Cell
from alignrec_recbole.training import memory_estimate

ENCODED_COLUMNS = {"lsa": 256}  # of features that are encoded first
OTHER_ENCODED_COLUMNS = 768
BATCH_SIZE = 2048  # of the defaults


def choose_jobs(
    cells: Sequence[Cell],
    *,
    data_path: Path | None,
    features_path: Path | None,
    output: Path,
    device: str,
) -> int:
    """As many as the free cores and memory allow for the largest cell; one per GPU where these are.

    Every data set is read once for its size. Results do not depend on the number.
    """
    if len(cells) < 2:
        return 1
    if choose_device(device) != "cpu":
        shared = device in ("auto", "cuda")
        return max(1, min(len(cells), len(visible_gpus()))) if shared else 1
    sizes = _sizes(cells, data_path, features_path, output, device)
    numbers = max(sizes, default=0)
    per_cell = threads.threads_of_environment() or threads.threads_by_size(numbers)
    by_memory = memory_estimate.available_bytes() // memory_estimate.run_bytes(numbers, BATCH_SIZE)
    return max(1, min(len(cells), threads.free_cores() // per_cell, by_memory))


def needed_bytes(
    cells: Sequence[Cell],
    *,
    data_path: Path | None,
    features_path: Path | None,
    output: Path,
    device: str,
) -> list[int]:
    """The memory that each cell will need; that of a process where its data cannot be read."""
    sizes = _sizes(cells, data_path, features_path, output, device)
    return [memory_estimate.run_bytes(numbers, BATCH_SIZE) for numbers in sizes]


def _sizes(
    cells: Sequence[Cell],
    data_path: Path | None,
    features_path: Path | None,
    output: Path,
    device: str,
) -> list[int]:
    """Numbers in the tables of each cell; 0 where its data cannot be read."""
    read = {}
    for dataset in {cell.dataset for cell in cells}:
        spec = DataSpec(dataset, data_path=data_path, output=output, device=device)
        try:
            read[dataset] = prepare_data(spec)
        except AlignRecError:  # its cells will say what is wrong
            continue
    return [
        data.numbers + data.data["items"] * _columns(cell, data_path, features_path)
        if (data := read.get(cell.dataset))
        else 0
        for cell in cells
    ]


def _columns(cell: Cell, data_path: Path | None, features_path: Path | None) -> int:
    """Columns of all feature sets of a cell; those of a file by its header."""
    given = dict(argument.split("=", 1) for argument in cell.arguments if "=" in argument)
    try:
        needed = not given.get("--model") or resolve(given["--model"]).needs_features
    except AlignRecError:
        needed = True
    names = given["--features"].split(",") if "--features" in given else DEFAULT_FEATURES
    return sum(_width(name, cell, data_path, features_path) for name in names) if needed else 0


def _width(name: str, cell: Cell, data_path: Path | None, features_path: Path | None) -> int:
    source = name.rpartition(":")[2]
    try:
        path = find_file(source, find_dataset(cell.dataset, data_path), features_path)
        shape = open_array(path).shape if path is not None else ()
        if len(shape) == 2:
            return int(shape[1])
    except AlignRecError:  # its cells will say what is wrong
        pass
    return ENCODED_COLUMNS.get(source, OTHER_ENCODED_COLUMNS)
