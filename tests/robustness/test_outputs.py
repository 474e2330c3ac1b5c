"""Damaged records, states and output folders; full disks, kills, and paths out of a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from bad_input import (
    Bad,
    Place,
    arguments,
    check_refused,
    evil_state,
    files,
    record,
    state,
    whole,
)
from hostile_records import DAMAGED
from records import read_records
from trials import check_refused as check_verb_refused
from trials import run_verb, trial

from alignrec_recbole.cli.main import main
from alignrec_recbole.data.items import read_item_table
from alignrec_recbole.errors import DataError, WriteError
from alignrec_recbole.io.files import atomic_write, inside
from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.runs.config_hash import config_hashes
from alignrec_recbole.runs.record import read_record, read_runs, record_stem

CASES = [
    Bad(
        "record cut off",
        record(lambda b: b[:100]),
        "RecordError",
        (
            ".json is not a run record",
            "hint      delete it and run again, or `run` with --overwrite",
        ),
    ),
    Bad(
        "record of a later schema",
        record(
            lambda b: b.replace(b'"schema_version": 1', b'"schema_version": 9').replace(
                b'"schema_version":1', b'"schema_version":9'
            )
        ),
        "RecordError",
        (".json is not a run record", "schema version 1"),
    ),
    Bad(
        "state is garbage",
        state(lambda place: b"garbage"),
        "RecordError",
        (".state.pt cannot be resumed", "--overwrite"),
    ),
    Bad(
        "state runs code",
        state(evil_state),
        "RecordError",
        (".state.pt cannot be resumed", "--overwrite"),
    ),
    Bad(
        "output is a file",
        whole,
        "DataError",
        ("Results cannot be written", "--output"),
        ("--output", "{data}/block_world.inter"),
    ),
    Bad(
        "output below a file",
        whole,
        "DataError",
        ("Results cannot be written", "--output"),
        ("--output", "{data}/block_world.inter/results"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused(place: Place, case: Bad, capsys: pytest.CaptureFixture[str]) -> None:
    check_refused(place, case, capsys)


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("name", DAMAGED)
def test_overwrite_replaces_a_damaged_record_and_nothing_else(place: Place, name: str) -> None:
    line = ["--dataset", "block_world", "--protocol", "zero-shot", "--features", "image"]
    line += ["--data-path", str(place.data.parent), "--output", str(place.output), "--quiet"]
    assert run_verb(*line).status == 0
    (path,) = place.output.glob("runs/block_world/zero-shot/**/*.json")
    whole = read_record(path)
    with trial("records", f"--overwrite: {name}"):
        DAMAGED[name](path)
        check_verb_refused(run_verb(*line), path.name, kind="RecordError")
        others = files(place.output / "runs" / "block_world" / "AlignRec")
        answer = run_verb(*line, "--overwrite")
        if is_regular_file(path):
            assert answer.status == 0, answer
            assert read_record(path).metrics == whole.metrics
        else:
            check_verb_refused(answer, path.name, kind="RecordError")
            assert os.path.lexists(path)
        assert files(place.output / "runs" / "block_world" / "AlignRec") == others


def test_a_damaged_record_under_the_name_of_an_earlier_version_is_no_missing_one(
    place: Place,
) -> None:
    line = ["--dataset", "block_world", "--protocol", "zero-shot", "--features", "image"]
    line += ["--data-path", str(place.data.parent), "--output", str(place.output), "--quiet"]
    assert run_verb(*line).status == 0
    (path,) = place.output.glob("runs/block_world/zero-shot/**/*.json")
    whole = read_record(path)
    identity = ("model", "dataset", "protocol", "config", "data", "feature_files")
    older = config_hashes(**{key: getattr(whole, key) for key in identity})[1]
    named = path.with_name(f"{record_stem(whole.features, whole.setting, older, whole.seed)}.json")
    named.write_bytes(path.read_bytes()[:100])
    path.unlink()
    check_verb_refused(run_verb(*line), named.name, kind="RecordError")
    assert run_verb(*line, "--overwrite").status == 0
    assert read_record(named).metrics == whole.metrics
    assert not path.exists()


def test_a_damaged_copy_of_the_ordinary_run_is_not_replaced_unasked(place: Place) -> None:
    """Ratio 0 of mask-modality is a copy of the record of protocol full."""
    line = [*arguments(place), "--protocol", "mask-modality", "--set", "ratios=[0, 1]"]
    line += ["--features", "image", "--seeds", "999"]
    assert run_verb(*line).status == 0
    runs = read_runs(place.output / "runs" / "block_world" / "mask-modality")
    ((path, whole),) = [run for run in runs if run.record.notes[-1].startswith("the run of")]
    path.write_bytes(path.read_bytes()[:100])
    check_verb_refused(run_verb(*line), path.name, kind="RecordError")
    assert run_verb(*line, "--overwrite").status == 0
    assert read_record(path).metrics == whole.metrics


@pytest.mark.parametrize("name", ["cut off", "another seed's", "a folder", "a FIFO"])
def test_a_training_with_overwrite_replaces_a_damaged_record(place: Place, name: str) -> None:
    (path,) = place.output.glob("runs/**/*.json")
    whole = read_record(path)
    with trial("records", f"training with --overwrite: {name}"):
        DAMAGED[name](path)
        check_verb_refused(run_verb(*arguments(place)), path.name, kind="RecordError")
        before = files(place.output)
        answer = run_verb(*arguments(place), "--overwrite")
        if name in ("a folder", "a FIFO"):  # before anything is trained
            check_verb_refused(answer, "not a regular file", kind="RecordError")
            assert files(place.output) == before
        else:
            assert answer.status == 0, answer
            assert read_record(path).metrics == whole.metrics


# Disks, kills and paths -------------------------------------------------------------------------


def test_a_full_disk_loses_nothing(place: Place) -> None:
    """A limit on the size of files stands for a full disk: writes fail half-way, for real."""
    before = files(place.output)
    program = f"""
import resource, signal, sys
import numpy as np, torch
from pathlib import Path
from alignrec_recbole.errors import WriteError
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
folder = Path({str(place.root / "small")!r})
writers = dict(
    torch=lambda handle: torch.save(torch.ones(9999), handle),
    numpy=lambda handle: np.save(handle, np.ones(9999)),
    plain=lambda handle: handle.write(bytes(99999)),
)
for name, write in writers.items():
    try:
        with atomic_write(folder / name) as handle:
            write(handle)
    except WriteError as error:
        assert "File too large" in str(error) and name in str(error), error
    else:
        raise SystemExit(f"{{name}} was written")
assert list(folder.iterdir()) == []
sys.exit(main({[*arguments(place), "--seeds", "5"]!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "WriteError: " in done.stderr
    assert "could not be written" in done.stderr
    assert files(place.output) == before


def test_a_kill_in_mid_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")
    program = f"""
import os, signal
from pathlib import Path
from alignrec_recbole.io.files import atomic_write
with atomic_write(Path({str(path)!r}), "w") as handle:
    handle.write("half of the n")
    handle.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    left = [p.name for p in tmp_path.iterdir() if p != path]
    assert len(left) == 1
    assert left[0].endswith(".part")
    assert not list(
        tmp_path.glob("*.json.part")
    )  # hidden: no reader takes it for a file of its own
    with atomic_write(path, "w") as handle:
        handle.write("new")
    assert path.read_text() == "new"


def test_a_killed_run_goes_on_as_if_nothing_had_happened(place: Place) -> None:
    """Killed in the middle of writing its sixth state, then started by the same command."""
    line = [*arguments(place), "--model", "BPR", "--epochs", "12"]
    before = files(place.output)
    program = f"""
import os, signal, torch
from alignrec_recbole.training import trainer
from alignrec_recbole.cli.main import main
whole, written = torch.save, []
def save(state, handle):
    written.append(1)
    if len(written) == 6:
        handle.write(b"half a state")
        handle.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    whole(state, handle)
torch.save, trainer.SAVE_EVERY_SECONDS = save, 0.0
main({line!r})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert {name: files(place.output).get(name) for name in before} == before
    (kept,) = (place.output / "checkpoints").rglob("BPR/*.state.pt")
    begun = torch.load(kept, weights_only=True)
    assert json.loads(begun["plain"])["next_epoch"] == 5

    assert main(line) == 0
    assert main([*line, "--output", str(place.root / "fresh")]) == 0
    resumed, fresh = (
        next(r for r in read_records(out / "runs") if r.model == "BPR")
        for out in (place.output, place.root / "fresh")
    )
    assert resumed.metrics == fresh.metrics
    assert [e["losses"] for e in resumed.history] == [e["losses"] for e in fresh.history]


@contextmanager
def not_root() -> Iterator[None]:
    """Permissions bind: root may write anywhere, so it steps back for a moment."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    from alignrec_recbole.runs.run import _check_writable

    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "old.json").write_text("old")
    folder.chmod(0o555)
    try:
        with not_root():
            with pytest.raises(DataError, match="Results cannot be written to") as refused:
                _check_writable(folder)
            with (
                pytest.raises(WriteError, match=r"new\.json could not be written"),
                atomic_write(folder / "new.json"),
            ):
                pass
    finally:
        folder.chmod(0o755)
    assert "Permission denied" in str(refused.value)
    assert [path.name for path in folder.iterdir()] == ["old.json"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "link/x"])
def test_paths_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(DataError, match="leads out of its folder"):
        inside(folder, name)


def test_an_image_outside_its_folder_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "items.tsv"
    table.write_text("id\ttitle\timage\na\tA\t../secret.jpg\n")
    with pytest.raises(DataError, match=r"'\.\./secret\.jpg' leads out of its folder"):
        read_item_table(table)
