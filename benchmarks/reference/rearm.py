"""Drives a checkout of MrShouxingMa/REARM, which has a harness of its own, without changing it.

Its graphs of common items and users are read from files as it stores them, which have equals in the
order of our graphs. Two of its habits are mended: negatives and the list of the users with most
items follow from training rows alone (rearm.py D2), and `random.sample` is given a list, as Python
3.11 demands.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.graphs.user_item import user_cooccurrence_graph
from benchmarks.reference import checkout
from benchmarks.reference.epoch_timer import epoch_seconds

MARK = "rearm"
STORED = 200  # others per node in its files


@contextlib.contextmanager
def built(
    reference: Path,
    settings: dict[str, Any],
    features: dict[str, np.ndarray],
    interactions: Any,
    places: list[np.ndarray] | None = None,
) -> Iterator[Any]:
    """The model on given features (text, image: [I, f]) and a scipy matrix [U, I].

    Every user needs an interaction: it divides by their number. It has the methods of MMRec's.

    Args:
        settings: its options.
        places: of the users and of the items among equals, by their numbers; default: in order.
    """
    item, user = interactions.T.tocsr().nonzero()  # of equals its list has the first row's first
    unsold = np.setdiff1d(np.arange(interactions.shape[1]), item)
    held_out = np.stack([np.zeros_like(unsold), unsold])  # it counts items in all splits
    places = places or [np.arange(count) for count in interactions.shape]
    with tempfile.TemporaryDirectory() as folder, checkout.importable(reference, MARK):
        target = Path(folder) / "data" / "toy"
        _write(target, {"train": np.stack([user, item]), "valid": held_out, "test": held_out})
        _write_graphs(target, interactions, places)
        for kind, values in features.items():
            np.save(target / checkout.FILES[kind], values)
        with _inside(Path(folder)), _mended(), contextlib.redirect_stdout(None):
            config = _config("toy", settings)
            data = importlib.import_module("utils.data_loader").Load_dataset(config)
            model = importlib.import_module("model").REARM(config, data)
        model.pre_epoch_processing = lambda: None
        model.calculate_loss = lambda batch: model.loss(*_pairs(batch, model.n_users))[0]
        yield model


def _pairs(batch: torch.Tensor, n_users: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Users and items [b, 2] as its loss takes them, from users, positives and negatives [3, b]."""
    users, positives, negatives = batch
    return torch.stack([users, users], 1), torch.stack([positives, negatives], 1) + n_users


def _write(folder: Path, splits: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for name, rows in splits.items():
        np.save(folder / f"{name}.npy", rows)


def _write_graphs(folder: Path, interactions: Any, places: list[np.ndarray]) -> None:
    """What it stores beside the data; the matrices, of nodes × nodes, are not used then."""
    sides = {"user": interactions, "item": interactions.T.tocsr()}
    for (kind, matrix), place in zip(sides.items(), places, strict=True):
        graph = user_cooccurrence_graph(matrix.nonzero(), matrix.shape, STORED, place)
        rows = {}
        for node, (start, stop) in enumerate(itertools.pairwise(graph.indptr)):
            others, common = graph.indices[start:stop], graph.data[start:stop]
            order = np.lexsort((place[others], -common))
            rows[node] = [others[order].tolist(), common[order].tolist()]
        torch.save(rows, folder / f"dict_{kind}_co_occ_graph.pt")
        torch.save(torch.zeros(0), folder / f"{kind}_co_occ_matrix.pt")


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _mended() -> Iterator[None]:
    loader: Any = importlib.import_module("utils.data_loader")
    added = loader.update_dict

    def training_only(kind: str, rows: Any, known: Any) -> Any:
        return known if known else added(kind, rows, known)  # held-out rows come second

    sample = types.SimpleNamespace(sample=lambda items, k: random.sample(list(items), k))
    with (
        mock.patch.object(loader, "update_dict", training_only),
        mock.patch.object(loader, "random", sample),
    ):
        yield


# MMRec's name of a setting → its option
NAMES = {"learning_rate": "l_r", "weight_decay": "reg_weight", "epochs": "num_epoch"}


def _options(dataset: str, settings: dict[str, Any]) -> Any:
    """Its command line, parsed by itself."""
    given = {"dataset": dataset, "use_gpu": "", "num_workers": 0, **settings}
    schedule = given.pop("learning_rate_scheduler", [1.0, 50])
    assert schedule == [1.0, 50], "its command line cannot read a schedule"
    line = ["main.py", *(f"--{NAMES.get(key, key)}={value}" for key, value in given.items())]
    with mock.patch.object(sys, "argv", line):
        return importlib.import_module("utils.parser").parse_args()


def _config(dataset: str, settings: dict[str, Any]) -> Any:
    return importlib.import_module("utils.configurator").Config(_options(dataset, settings))


def _enter_copy(
    reference: Path, dataset_dir: Path, features: dict[str, Path], folder: Path
) -> None:
    """A scratch copy with the data in its layout; the working directory moves into it."""
    dataset = dataset_dir.name
    skipped = shutil.ignore_patterns(".git", "data")
    shutil.copytree(reference, folder, ignore=skipped, dirs_exist_ok=True)
    frame = pd.read_csv(dataset_dir / f"{dataset}.inter", sep="\t")
    splits = {
        name: frame.loc[frame.x_label == label, ["userID", "itemID"]].to_numpy().T
        for label, name in enumerate(("train", "valid", "test"))
    }
    shape = frame.userID.max() + 1, frame.itemID.max() + 1
    matrix = sp.csr_matrix((np.ones(splits["train"].shape[1]), tuple(splits["train"])), shape)
    target = folder / "data" / dataset
    _write(target, splits)
    places = [tie_ranks(["[PAD]", *map(str, range(count))])[1:] for count in shape]
    _write_graphs(target, matrix, places)
    for kind, path in features.items():
        shutil.copyfile(path, target / checkout.FILES[kind])
    os.chdir(folder)


def _net(dataset: str, settings: dict[str, Any]) -> Any:
    """Its training, with data, model and optimizer."""
    return importlib.import_module("main").Net(_options(dataset, settings))


def train(
    reference: Path,
    dataset_dir: Path,
    features: dict[str, Path],
    settings: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Train with its own harness in a scratch folder and a process of its own.

    Args:
        features: files for text and image, row = itemID.
        settings: its options; some under MMRec's names.

    Returns:
        test (metrics at the best validation epoch, which it rounds to 4 places) and epochs.
    """
    order = {
        "reference": str(reference.resolve()), "dataset_dir": str(dataset_dir.resolve()),
        "features": {kind: str(path.resolve()) for kind, path in features.items()},
        "settings": {**settings, "seed": seed},
    }  # fmt: skip
    return checkout.in_a_process(__name__, order)


def _train_here(
    reference: str, dataset_dir: str, features: dict[str, str], settings: dict[str, Any]
) -> dict[str, Any]:
    files = {kind: Path(path) for kind, path in features.items()}
    with tempfile.TemporaryDirectory() as folder, _inside(Path(folder)):
        _enter_copy(Path(reference), Path(dataset_dir), files, Path(folder))
        with (
            checkout.importable(Path(folder), MARK),
            _mended(),
            contextlib.redirect_stdout(sys.stderr),
        ):
            net = _net(Path(dataset_dir).name, settings)
            found = net.run()
    test = {name.lower(): float(value) for name, value in found.items()}
    return {"test": test, "epochs": len(net.best_valid_result)}


def actions(
    reference: Path,
    dataset_dir: Path,
    features: dict[str, Path],
    settings: dict[str, Any],
    folder: Path,
    steps: int | None = None,
    device: str = "cpu",
) -> dict[str, Callable[[], Any]]:
    """Training epoch and validation of its harness, in this process (for timing).

    Batches are drawn beforehand, without its loader, which draws each negative in Python.

    Args:
        folder: a scratch folder; the working directory moves into it.
        steps: extrapolate the epoch's seconds from so many (`epoch_seconds`).
        device: cpu or cuda.
    """
    _enter_copy(reference, dataset_dir, features, folder)
    opened = contextlib.ExitStack()
    opened.enter_context(checkout.importable(folder, MARK, device))
    opened.enter_context(_mended())
    given = {**settings, "seed": 999, "use_gpu": "" if device == "cpu" else "yes"}
    with contextlib.redirect_stdout(sys.stderr):
        net = _net(dataset_dir.name, given)
    step = importlib.import_module("trainer").train
    evaluate = importlib.import_module("utils.evaluator").evaluate_model
    batches = _batches(net, device)

    def run(some: Any) -> None:
        net.train_data = some
        step(net, 0)

    return {
        "epoch": lambda: epoch_seconds(run, batches, steps),
        "evaluation": lambda: (opened, evaluate(net, 0, net.valid_data, t_or_v="valid"))[1],
    }


def _batches(net: Any, device: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """An epoch's pairs in random order with negatives that are drawn from all items."""
    rng = np.random.default_rng(999)
    users, items = rng.permutation(net.train_data.dataset.train_data).T
    drawn = rng.integers(net.model.n_items, size=len(users))
    whole = torch.from_numpy(np.stack([users, items - net.model.n_users, drawn])).to(device)
    return [_pairs(batch, net.model.n_users) for batch in whole.split(net.batch_size, 1)]


if __name__ == "__main__":
    print(json.dumps(_train_here(**json.loads(sys.argv[1]))))
