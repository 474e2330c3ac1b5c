"""Seconds of `run --download` from an empty folder to the table, stage by stage.

    python -m benchmarks.speed.from_nothing --data-path DIR [--dataset sports] [--model AlignRec]
        [--epochs 1] [--seed 0] [--profile FILE]

A server on this machine serves an archive in the form of the published ones: the split of DIR and
two features of the published widths (4,096 and 384 columns). Their values are random, so the
metrics mean nothing and the order of rows is not confirmed; times and sizes are those of the true
ones. Seconds of the clock and of this process's CPU; the server is another process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

WIDTHS = {"visual_modality.pkl": 4096, "textual_modality.pkl": 384}
SPLITS = ("train.txt", "valid.txt", "test.txt")


def write_archive(inter: Path, path: Path, seed: int) -> None:
    """Write an archive of the published form with the split of a file in MMRec's layout."""
    import pandas as pd
    import torch

    table = pd.read_csv(inter, sep="\t", usecols=["userID", "itemID", "x_label"])
    items = int(table["itemID"].max()) + 1
    rng = np.random.default_rng(seed)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for label, name in enumerate(SPLITS):
            part = table.loc[table["x_label"] == label, ["userID", "itemID"]]
            text = part.set_axis(["USER", "ITEM"], axis=1).to_csv(sep="\t", index=False)
            archive.writestr(name, text)
        for name, width in WIDTHS.items():
            values = torch.from_numpy(rng.standard_normal((items, width), dtype=np.float32))
            archive.writestr(name, pickle.dumps(values, pickle.HIGHEST_PROTOCOL))


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of a folder, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--directory", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(200):
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
                break
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


class Stages:
    """Seconds of the clock and of the CPU by stage; a stage inside another is not counted twice."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}
        self._open: list[list[float]] = []

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside."""
        begun = time.perf_counter(), time.process_time()
        inner = [0.0, 0.0]
        self._open.append(inner)
        try:
            yield
        finally:
            self._open.pop()
            own = time.perf_counter() - begun[0], time.process_time() - begun[1]
            for totals in self._open[-1:]:
                totals[0] += own[0]
                totals[1] += own[1]
            spent = self.spent.setdefault(name, [0.0, 0.0])
            spent[0] += own[0] - inner[0]
            spent[1] += own[1] - inner[1]

    def time(self, name: str, owner: Any, attribute: str) -> None:
        """Count the calls of a function or method."""
        function: Callable[..., Any] = getattr(owner, attribute)

        def timed(*positional: Any, **keywords: Any) -> Any:
            with self.stage(name):
                return function(*positional, **keywords)

        setattr(owner, attribute, timed)


def watch(stages: Stages) -> None:
    """Count the steps of a command."""
    from alignrec_recbole.data import published_archive
    from alignrec_recbole.io import download, pins
    from alignrec_recbole.runs import keep_model, run
    from alignrec_recbole.training.trainer import MultimodalTrainer

    stages.time("download", download, "transfer")
    stages.time("verify", download, "sha256_file")
    stages.time("verify", pins, "sha256_file")
    stages.time("convert", published_archive, "convert")
    stages.time("load", run, "prepare_run")
    stages.time("build the model", run, "build_trainer")
    stages.time("epoch", MultimodalTrainer, "_run_epoch")
    stages.time("rank (validation and test)", MultimodalTrainer, "rank")
    stages.time("store the state", MultimodalTrainer, "save_state")
    stages.time("store the model", keep_model, "keep")


def main(arguments: list[str] | None = None) -> int:
    """Serve, run and print."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.speed.from_nothing", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--data-path", type=Path, required=True)
    parser.add_argument("--dataset", default="sports")
    parser.add_argument("--model", default="AlignRec")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", type=Path, help="write a cProfile of the command")
    given = parser.parse_args(arguments)

    from alignrec_recbole.cli.main import main as command
    from alignrec_recbole.data.published import source_of

    (entry,) = source_of(given.dataset, "mmrec").entries
    stages = Stages()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "served").mkdir()
        archive = folder / "served" / entry.file
        source = given.data_path / given.dataset / f"{given.dataset}.inter"
        write_archive(source, archive, given.seed)
        size = archive.stat().st_size
        with served(folder / "served") as url:
            words = ["--model", given.model, "--dataset", given.dataset, "--download"]
            words += ["--epochs", str(given.epochs), "--data-path", str(folder / "data")]
            words += ["--output", str(folder / "results"), "--mirror", url, "--quiet"]
            with contextlib.ExitStack() as stack:
                if given.profile:
                    import cProfile

                    profile = stack.enter_context(cProfile.Profile())
                    stack.callback(profile.dump_stats, given.profile)
                stack.enter_context(stages.stage("imports, checks and tables"))
                watch(stages)
                status = command(words)
    if status:
        return status
    rows: list[list[Any]] = [[name, *spent] for name, spent in stages.spent.items()]
    total = [sum(spent[n] for _, *spent in rows) for n in range(2)]
    print(tabulate([*rows, ["total", *total]], ["stage", "seconds", "CPU seconds"], floatfmt=".1f"))
    facts = {
        "benchmark": "from_nothing",
        "model": given.model,
        "dataset": given.dataset,
        "epochs": given.epochs,
        "features": "random values of the published shapes",
        "archive_bytes": size,
        "stages": stages.spent,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
