"""Suites: cells from YAML, statuses, failures that don't stop the rest, resuming."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from alignrec_recbole.cli.main import main
from alignrec_recbole.cli.run import parse
from alignrec_recbole.engines import child
from alignrec_recbole.engines.base import Answer, Work
from alignrec_recbole.errors import RecordError, SettingError, UnknownNameError
from alignrec_recbole.io.yaml_loader import properties_dir
from alignrec_recbole.protocols import PROTOCOLS
from alignrec_recbole.registry import components as registry_components
from alignrec_recbole.registry import models
from alignrec_recbole.registry.components import components
from alignrec_recbole.runs.record import Run
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.settings import check_keys, nested, read_settings
from alignrec_recbole.suites import names as suite_files
from alignrec_recbole.suites import scheduler, schema
from alignrec_recbole.suites.scheduler import Scheduler, SuiteOptions, key_of
from alignrec_recbole.suites.status import CellStatus, read_cell, read_status, write_status
from alignrec_recbole.testing.synthetic import make_blocks

NAMES = suite_files.suite_names()
ROOT = Path(__file__).resolve().parents[2]


def test_the_suites_are_there() -> None:
    assert set(NAMES) >= {
        "smoke",
        "paper-main",
        "paper-intermediate",
        "paper-ablation",
        "paper-long-tail",
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_a_command_line(name: str) -> None:
    cells = schema.read_suite(name).expanded
    assert len({cell.stem for cell in cells}) == len(cells)
    for cell in cells:
        options = parse(cell.arguments)
        assert options.protocol[0] in PROTOCOLS
        for model in options.model:
            models.resolve(model)
        assert options.model or options.protocol != ("full",)
    later = [cell.protocol in schema.AFTER_TRAINING for cell in cells]
    assert later == sorted(later)  # long-tail reads what the others leave


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_of_every_cell_are_read_by_its_model(name: str) -> None:
    """A wrong key, or a value that is not allowed, would only be found hours into a suite."""
    for group in schema.read_suite(name).cells:
        for model in group.models if group.protocols == ["full"] else []:
            parts = components(model)
            defaults = parts.defaults_for(group.datasets[0])
            known = parts.keys_for(group.datasets[0])
            for values in itertools.product(*group.grid.values()):
                pairs = [*group.set.items(), *zip(group.grid, values, strict=True)]
                overrides = nested(pairs)
                check_keys(overrides, known, model)
                kind = getattr(parts.model_class, "settings_class", None)
                if kind is not None:
                    read_settings({**defaults, **overrides}, kind, model)


def test_cells_are_the_product_and_a_grid_keeps_its_seeds() -> None:
    group = {"models": ["A", "B"], "datasets": ["x"], "features": ["f,g"], "seeds": [1, 2]}
    cells = list(schema.CellGroup(**group).cells())
    assert schema.CellGroup(**group).count() == 4
    assert schema.CellGroup(**group, grid={"reg": [1]}).count() == 2
    assert [cell.name for cell in cells] == [
        f"{model} x f,g full {seed}" for model in "AB" for seed in (1, 2)
    ]
    grid = list(schema.CellGroup(**group, grid={"reg": [0.1, 1]}).cells())
    assert [cell.arguments[-2:] for cell in grid] == [["--seeds=1,2", "--grid=reg=0.1,1"]] * 2


def test_an_unknown_suite_and_a_wrong_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="Unknown suite"):
        schema.read_suite("smoky")
    monkeypatch.setattr(suite_files, "FOLDER", tmp_path)
    (tmp_path / "odd.yaml").write_text("cells: [{model: [BPR], datasets: [x]}]")
    with pytest.raises(SettingError, match="model"):
        schema.read_suite("odd")


def test_statuses_are_set_in_a_time_that_grows_with_the_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cell's name is made a few times, however many cells and status files there are."""
    named = []
    stem = schema.Cell.stem.fget
    monkeypatch.setattr(schema.Cell, "stem", property(lambda cell: named.append(1) or stem(cell)))
    group = {"models": ["BPR"], "datasets": ["x"], "seeds": list(range(100))}
    suite = schema.Suite.model_validate({"cells": [group]})
    scheduler = Scheduler(suite, SuiteOptions(name="s", output=tmp_path, progress=False))
    stale = schema.Cell(arguments=["gone"], dataset="x", protocol="full")
    write_status(
        scheduler._status_path(stale), CellStatus(name="gone", arguments=["gone"], status="missing")
    )
    for wanted in (suite.expanded, suite.expanded[7:9]):
        assert scheduler._reset_status(wanted) == wanted
    assert len(read_status(tmp_path / "suites")["s"]) == 100
    assert len(named) < 20 * 100


def test_a_cell_that_left_no_record_is_not_finished(tmp_path: Path) -> None:
    suite = schema.Suite.model_validate({"cells": [{"models": ["BPR"], "datasets": ["x"]}]})
    made = Scheduler(suite, SuiteOptions(name="s", output=tmp_path, progress=False))
    (cell,) = made.cells
    done = CellStatus(name=cell.name, arguments=cell.arguments, status="finished")
    write_status(made._status_path(cell), done)
    assert made.pending() == [cell]


def test_a_cell_with_other_defaults_is_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed default is another run; a new setting that leaves runs as they were is not."""
    make_blocks(users=6, items=6, cold=1).write(tmp_path / "data")
    place: dict[str, Any] = {"data_path": tmp_path / "data", "output": tmp_path, "progress": False}
    made = Run(Path(), run_one(RunSpec("Pop", "block_world", seed=1, **place)))
    properties = shutil.copytree(properties_dir(), tmp_path / "properties")
    monkeypatch.setattr(registry_components, "properties_dir", lambda: properties)
    group = {"models": ["Pop"], "datasets": ["block_world"], "seeds": [1]}
    suite = schema.Suite.model_validate({"cells": [group]})

    def scheduler_now() -> Scheduler:
        return Scheduler(suite, SuiteOptions(name="s", **place))

    now = scheduler_now()
    done: Future[Answer] = Future()
    done.set_result({"status": "finished", "records": [key_of(made)]})
    status = now._outcome(now.cells[0], done)
    assert status is not None
    write_status(now._status_path(now.cells[0]), status)
    defaults = (properties / "overall.yaml").read_text()
    for changed, pending in (
        (defaults, []),
        (re.sub("precision: .*\n", "", defaults), []),
        (f"{defaults}\nreg_weight_of_tests: 0.5\n", now.cells),
    ):
        (properties / "overall.yaml").write_text(changed)
        assert scheduler_now().pending() == pending
    old = status.model_copy(update={"defaults_sha256": ""})
    write_status(now._status_path(now.cells[0]), old)
    assert scheduler_now().pending() == []


class Recorded:
    """An engine that runs nothing and notes what it is given."""

    places_by_size = False

    def __init__(self) -> None:
        self.given: list[Work] = []

    def __enter__(self) -> Recorded:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Work) -> Future[Answer]:
        self.given.append(work)
        done: Future[Answer] = Future()
        done.set_result({"status": "finished", "records": []})
        return done

    def stop(self) -> None:
        pass


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_reads_records_runs_after_what_leaves_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    reading = {"protocols": ["long-tail"], "datasets": ["x"]}
    suite = schema.Suite.model_validate(
        {"cells": [{"models": ["BPR", "Pop"], "datasets": ["x"], "seeds": [1]}, reading]}
    )
    options = SuiteOptions(name="s", output=tmp_path, overwrite=overwrite, progress=False)
    engine = Recorded()
    monkeypatch.setattr(scheduler, "open_engine", lambda name, jobs: engine)
    cells = suite.expanded
    assert not Scheduler(suite, options).run(cells[::-1])
    assert [work.reads_records for work in engine.given] == [False, False, True]
    assert engine.given[-1].name == cells[-1].name
    for work in engine.given:
        assert ("--overwrite" in work.order["last"]) is overwrite


def test_a_damaged_status_is_named(tmp_path: Path) -> None:
    path = tmp_path / "smoke" / "a-0123abcd.json"
    write_status(path, CellStatus(name="a", arguments=[], status="finished"))
    assert read_status(tmp_path)["smoke"][0].name == "a"
    path.write_text(path.read_text()[:20])
    with pytest.raises(RecordError, match=r"a-0123abcd\.json is not the status"):
        read_cell(path)


@pytest.fixture
def place(tmp_path: Path) -> list[str]:
    """A suite of a good, a failing and a training-free cell on the block world."""
    make_blocks(users=6, items=6, cold=1).write(tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(
        "cells:\n"
        "  - {models: [Pop, BPR], datasets: [block_world], seeds: [1], epochs: 1}\n"
        "  - {models: [BPR], datasets: [nowhere], seeds: [1]}\n"
        "  - {protocols: [zero-shot], datasets: [block_world], features: [image]}\n"
        "  - {protocols: [long-tail], datasets: [block_world]}\n"
    )
    return [
        f"--suite={tmp_path / 'tiny.yaml'}",
        f"--data-path={tmp_path / 'data'}",
        f"--output={tmp_path / 'out'}",
        "--quiet",
    ]


@pytest.mark.slow
@pytest.mark.long
def test_a_failed_cell_is_recorded_and_the_rest_goes_on(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*place, "--list"]) == 1
    assert "5 missing" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()  # looking writes nothing
    assert main([*place, "--jobs=2"]) == 1
    said = capsys.readouterr().out
    assert "1 failed, 4 finished" in said
    assert "failed: BPR nowhere full 1" in said
    status = {cell.name: cell for cell in read_status(tmp_path / "out" / "suites")["tiny"]}
    assert "Traceback" in status["BPR nowhere full 1"].error
    assert "'nowhere' is unknown" in status["BPR nowhere full 1"].error
    index = (tmp_path / "out" / "site" / "index.html").read_text("utf-8")
    assert "nowhere" in index  # the site lists it, too

    assert main([*place, "--list"]) == 1  # looking changes nothing
    assert "1 failed, 4 finished" in capsys.readouterr().out

    # What is finished is not run again; a record that is gone, or other data, is.
    records = sorted((tmp_path / "out" / "runs").rglob("*.json"))
    before = {path: path.stat().st_mtime_ns for path in records}
    victim = next(path for path in records if path.parent.name == "Pop" and "long" not in str(path))
    victim.unlink()
    assert main([*place, "--list"]) == 1
    assert "missing: Pop block_world full 1" in capsys.readouterr().out
    assert main(place) == 1
    after = {path: path.stat().st_mtime_ns for path in records}
    assert [path for path in records if before[path] != after[path]] == [victim]
    command = json.loads(victim.read_text())["command"]
    assert command.startswith("run_benchmark.py --model=Pop --dataset=block_world")

    with (tmp_path / "data" / "block_world" / "block_world.inter").open("a") as handle:
        handle.write("u000\ti000\t0\n")
    assert main([*place, "--list"]) == 1
    assert "missing" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("code", ["raise SystemExit(1)", "import os; os._exit(0 * 1 or 7)"])
def test_a_cell_whose_process_dies_at_once_is_a_failed_cell(
    place: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(child, "COMMAND", ("-c", f"print('gone'); {code}"))
    assert main(place) == 1
    cells = read_status(tmp_path / "out" / "suites")["tiny"]
    assert {cell.status for cell in cells} == {"failed"}
    assert all("gone" in cell.error and "exit status" in cell.error for cell in cells)


def test_a_cell_with_other_features_is_not_finished(place: list[str], tmp_path: Path) -> None:
    suite = tmp_path / "tiny.yaml"
    suite.write_text(
        "cells: [{protocols: [zero-shot], datasets: [block_world], features: [image]}]"
    )
    assert main(place) == 0
    assert main([*place, "--list"]) == 0
    path = tmp_path / "data" / "block_world" / "image.npy"
    np.save(path, np.load(path) + 1)
    assert main([*place, "--list"]) == 1


def test_a_part_of_a_suite_is_run_and_the_rest_stays(
    place: list[str], tmp_path: Path, capsys
) -> None:
    suite = tmp_path / "tiny.yaml"
    suite.write_text(
        "cells: [{models: [Pop, BPR], datasets: [block_world], seeds: [1, 2], epochs: 1}]"
    )
    assert main([*place, "--model", "Pop", "--seeds", "2"]) == 0
    assert "1 finished" in capsys.readouterr().out
    assert main([*place, "--list"]) == 1
    shown = capsys.readouterr().out
    assert "1 finished, 3 missing" in shown
    assert main([*place, "--dataset", "block_world", "--model", "Pop", "--list"]) == 1
    assert "1 finished, 1 missing" in capsys.readouterr().out
    statuses = read_status(tmp_path / "out" / "suites")["tiny"]
    assert [cell.status for cell in statuses] == ["finished"]
    assert main([*place, "--model", "EASE"]) != 0
    assert "Suite 'tiny' has no cell" in capsys.readouterr().err


def settled(output: Path) -> dict[str, object]:
    """All that must not depend on interruptions: metrics, training, tables but their seconds."""
    found: dict[str, object] = {}
    for path in sorted((output / "runs").rglob("*.json")):
        made = json.loads(path.read_text("utf-8"))
        training = [(entry["epoch"], entry["loss"], entry["valid"]) for entry in made["history"]]
        found[path.name + made["protocol"]] = (made["metrics"], made["groups"], training)
    for path in sorted((output / "tables").glob("*.csv")):
        table = pd.read_csv(path)
        found[path.name] = table.drop(columns="s/epoch", errors="ignore").to_csv()
    return found


@pytest.mark.slow
@pytest.mark.long
def test_killed_twice_and_resumed_gives_the_same_tables(tmp_path: Path) -> None:
    make_blocks(users=6, items=6, cold=1).write(tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(
        "cells:\n"
        "  - {models: [BPR], datasets: [block_world], seeds: [1, 2], epochs: 30}\n"
        "  - {models: [AlignRec], datasets: [block_world], features: ['image,text'], seeds: [1],"
        " epochs: 30, set: {knn_k: 3}}\n"
        "  - {protocols: [long-tail], datasets: [block_world]}\n"
    )

    def start(output: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "run_benchmark.py",
                f"--suite={tmp_path / 'tiny.yaml'}",
                "--jobs=2",
                f"--data-path={tmp_path / 'data'}",
                f"--output={output}",
                "--quiet",
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )

    def finished(output: Path) -> int:
        cells = read_status(output / "suites").get("tiny", [])
        return sum(cell.status == "finished" for cell in cells)

    killed = tmp_path / "killed"
    for wanted in (1, 2):
        process = start(killed)
        while finished(killed) < wanted:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert finished(killed) < 4
    assert start(killed).wait() == 0
    assert start(tmp_path / "whole").wait() == 0
    assert finished(killed) == 4
    assert settled(killed) == settled(tmp_path / "whole")


@pytest.mark.slow
def test_the_cells_of_a_killed_suite_end_too(tmp_path: Path) -> None:
    make_blocks(users=6, items=6, cold=1).write(tmp_path / "data")
    (tmp_path / "long.yaml").write_text(
        "cells:\n  - {models: [BPR, LightGCN], datasets: [block_world], seeds: [1], epochs: 9000,"
        " set: {stopping_step: 9000}}\n"
    )
    process = subprocess.Popen(
        [
            sys.executable, "run_benchmark.py", "suite", str(tmp_path / "long.yaml"), "--jobs=2",
            f"--data-path={tmp_path / 'data'}", f"--output={tmp_path / 'out'}", "--quiet",
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while len(cells := psutil.Process(process.pid).children()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(cells, timeout=30)
    assert not alive
