"""Generated trials: saved trainings, per-user values and records in a run's place, damaged or of
another run. Right is: the numbers of an uninterrupted run, or an error that names the file."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import json
import random
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from records import read_records, store
from trials import trial

from alignrec_recbole.errors import RecordError
from alignrec_recbole.io import training_state
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.runs import identity, lists, prepare, run, tasks
from alignrec_recbole.runs.record import Run, RunRecord, read_record, write_record
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.testing.synthetic import make_blocks

WORLD = make_blocks(users=6, items=8, cold=1)
EPOCHS = 4


def spec(root: Path, output: str = "out", **changes: Any) -> RunSpec:
    given = {
        "model": "LightGCN", "dataset": WORLD.name, "data_path": root / "data",
        "output": root / output, "epochs": EPOCHS, "progress": False, "device": "cpu",
        "overrides": {"train_batch_size": 64, "learning_rate": 0.05, "topk": [1, 20],
                      "valid_metric": "NDCG@1"},
    }  # fmt: skip
    return RunSpec(**{**given, **changes})


@dataclasses.dataclass(frozen=True)
class Saved:
    """A run stopped after two epochs, and the same run uninterrupted."""

    root: Path
    state: bytes
    whole: RunRecord


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    root = tmp_path_factory.mktemp("states")
    WORLD.write(root / "data")
    whole = run_one(spec(root, "whole"))
    trainer = begin(root)
    trainer.fit(*data(root), saved=False)
    assert [entry["epoch"] for entry in trainer.history] == [0, 1]
    return Saved(root, trainer.state_file.read_bytes(), whole)


def data(root: Path) -> tuple[Any, Any]:
    prepared = prepared_of(root)
    return tasks.train_data(prepared), tasks.valid_task(prepared)


_PREPARED: dict[Path, Any] = {}


def prepared_of(root: Path) -> Any:
    if root not in _PREPARED:
        _PREPARED[root] = prepare.prepare_run(spec(root))
    return _PREPARED[root]


def begin(root: Path) -> Any:
    """A trainer that stops after its second epoch."""
    trainer = tasks.build_trainer(prepared_of(root), root / "x.state.pt")
    original = trainer._run_epoch

    def run_epoch(batches: Any, epoch: int) -> dict[str, Any]:
        trainer.stop_requested = epoch == 1
        return original(batches, epoch)

    trainer._run_epoch = run_epoch
    return trainer


def resume(saved: Saved, content: bytes) -> None:
    """The oracle: equal numbers, or a RecordError with the file's name."""
    path = saved.root / "x.state.pt"
    path.write_bytes(content)
    trainer = tasks.build_trainer(prepared_of(saved.root), path)
    refused = ""
    try:
        trainer.fit(*data(saved.root), saved=False)
    except RecordError as error:
        refused = str(error)
    if refused:
        assert refused.startswith(f"The saved state {path.name} cannot be resumed.")
        assert "--overwrite" in refused
        return
    keys = ("epoch", "loss", "losses", "valid")
    for mine, other in zip(trainer.history, saved.whole.history, strict=True):
        assert {key: mine[key] for key in keys} == {key: other[key] for key in keys}
    assert trainer.stopping.best_result == saved.whole.valid_metrics
    ranking = trainer.rank(tasks.test_task(prepared_of(saved.root)), 50)
    means = ranking.means(prepared_of(saved.root).config["metrics"], trainer.cutoffs)
    assert means == saved.whole.metrics


def test_the_saved_state_itself_is_resumed(saved: Saved) -> None:
    with trial("states", "undamaged"):
        path = saved.root / "x.state.pt"
        path.write_bytes(saved.state)
        trainer = tasks.build_trainer(prepared_of(saved.root), path)
        trainer.fit(*data(saved.root), saved=False)
        assert trainer.start_epoch == 2
        resume(saved, saved.state)


@pytest.mark.parametrize("seed", range(8))
def test_bytes_of_a_state_are_changed(saved: Saved, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(6):
        content = bytearray(saved.state)
        for _ in range(rng.choice((1, 1, 30))):
            content[rng.randrange(len(content))] = rng.randrange(256)
        with trial("states", f"bytes {seed} {number}"):
            resume(saved, bytes(content))
    for _ in range(3):
        with trial("states", f"length {seed}"):
            resume(saved, saved.state[: rng.randrange(len(saved.state))])
    with trial("states", f"longer {seed}"):
        resume(saved, saved.state + rng.randbytes(9))


FOREIGN: tuple[Any, ...] = (
    None, -5, 10**30, 1.5, float("nan"), "x", [], {}, [1, [2]], True, {"a": 1}, "\x1b[31m",
)  # fmt: skip


def places(value: Any, at: tuple = ()) -> list[tuple]:
    """Every place in nested dicts, and the first and last of each list."""
    out = [at] if at else []
    if isinstance(value, dict):
        for key, inner in value.items():
            out += places(inner, (*at, key))
    elif isinstance(value, list) and value:
        for index in {0, len(value) - 1}:
            out += places(value[index], (*at, index))
    return out


def replaced(value: Any, at: tuple, new: Any) -> Any:
    value = copy.deepcopy(value)
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = new
    return value


Change = Callable[[dict[str, Any]], dict[str, Any]]


def rewritten(saved: Saved, change: Change, seal: bool) -> bytes:
    """The state with other contents; `seal`: with the digest of these."""
    state = torch.load(io.BytesIO(saved.state), weights_only=True)
    state |= {name: json.loads(state[name]) for name in training_state.TEXTS}
    state = change(state)
    if seal:
        texts = {name: state.get(name) for name in training_state.TEXTS}
        own = ("schema_version", "digest", *training_state.TEXTS)
        rest = {name: value for name, value in state.items() if name not in own}
        with contextlib.suppress(TypeError):  # a text is replaced by a tensor
            state["digest"] = training_state._digest(rest, texts)
    for name in training_state.TEXTS:
        with contextlib.suppress(TypeError, KeyError):
            state[name] = json.dumps(state[name])
    handle = io.BytesIO()
    torch.save(state, handle)
    return handle.getvalue()


def test_every_plain_value_is_replaced(saved: Saved) -> None:
    """With a digest that fits: the values themselves are checked."""
    state = torch.load(io.BytesIO(saved.state), weights_only=True)
    rng = random.Random(0)
    harmless = {"seconds", "evaluate_seconds"}  # durations, and the losses below, are only shown
    for name in training_state.TEXTS:
        for at in places(json.loads(state[name])):
            for new in rng.sample(FOREIGN, 3):
                with trial("states", f"{name} {at} {new!r}"):
                    content = rewritten(
                        saved, lambda s, n=name, a=at, v=new: {**s, n: replaced(s[n], a, v)}, True
                    )
                    if harmless & set(map(str, at)) or "loss" in at or "losses" in at:
                        numbers = isinstance(new, (int, float)) and not isinstance(new, bool)
                        if numbers:
                            continue
                    resume(saved, content)


def test_tensors_are_replaced(saved: Saved) -> None:
    one = torch.ones(1)
    others: dict[str, Any] = {
        "none": None, "a number": 3, "a tensor": one, "an empty dict": {},
        "other names": {"x": one}, "a list": [one], "sparse": torch.eye(3).to_sparse(),
    }  # fmt: skip
    for name in ("model", "best", "optimizer", "schema_version", "digest", "identity", "plain"):
        for kind, value in others.items():
            for seal in (True, False):
                with trial("states", f"{name} is {kind}"):
                    resume(saved, rewritten(saved, lambda s, n=name, v=value: {**s, n: v}, seal))
        with trial("states", f"{name} is absent"):
            absent = rewritten(saved, lambda s, n=name: {k: s[k] for k in s if k != n}, True)
            resume(saved, absent)
    for name in ("model", "best"):
        for kind, change in {
            "wider": lambda w: torch.cat([w, w], 1),
            "transposed": lambda w: w.T.contiguous(),
            "flat": torch.flatten,
        }.items():
            with trial("states", f"{name} {kind}"):
                content = rewritten(
                    saved,
                    lambda s, n=name, c=change: {**s, n: {k: c(v) for k, v in s[n].items()}},
                    True,
                )
                path = saved.root / "x.state.pt"
                path.write_bytes(content)
                trainer = tasks.build_trainer(prepared_of(saved.root), path)
                with pytest.raises(RecordError, match=r"x\.state\.pt cannot be resumed"):
                    trainer.fit(*data(saved.root), saved=False)


def refused_state(saved: Saved, content: bytes, words: str) -> None:
    path = saved.root / "x.state.pt"
    path.write_bytes(content)
    trainer = tasks.build_trainer(prepared_of(saved.root), path)
    with pytest.raises(RecordError, match=rf"(?s)x\.state\.pt cannot be resumed.*{words}"):
        trainer.fit(*data(saved.root), saved=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 5}, "seed 5, not 999"),
        ({"model": "BPR"}, "model BPR, not LightGCN"),
        ({"setting": "recbole"}, "setting recbole, not mmrec"),
        ({"overrides": {**spec(Path()).overrides, "learning_rate": 0.01}}, "training_sha256"),
    ],
)
def test_the_state_of_another_run_is_refused(saved: Saved, changes: dict, words: str) -> None:
    other = prepare.prepare_run(spec(saved.root, "other", **changes))
    path = saved.root / "other.pt"
    path.unlink(missing_ok=True)
    trainer = tasks.build_trainer(other, path)
    trainer.epochs = 1
    trainer.fit(tasks.train_data(other), tasks.valid_task(other), saved=False)
    with trial("states", words):
        refused_state(saved, path.read_bytes(), words)


def test_a_state_whose_epochs_would_now_have_other_numbers_is_refused(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "NUMBERS_EPOCH", identity.NUMBERS_EPOCH + 1)
    with trial("states", "numbers_epoch"):
        refused_state(saved, saved.state, "numbers_epoch 1, not 2")


def test_states_of_earlier_versions_and_inconsistent_ones_are_refused(saved: Saved) -> None:
    def plain(**changes: Any) -> Change:
        return lambda state: {**state, "plain": {**state["plain"], **changes}}

    cases: list[tuple[Change, str]] = [
        (plain(next_epoch=-5), "next_epoch"),
        (plain(next_epoch=3), "history is not that of epochs 0 to 2"),
        (plain(next_epoch=0, history=[]), "best epoch"),
        (plain(best_result={"NDCG@1": 0.123}), "best score"),
        (plain(best_result=None), "best epoch"),
        (plain(pairs=None), "another loader"),
        (plain(loader="00"), "another loader"),
        (lambda s: {**s, "best": None}, "best epoch"),
        (lambda s: {k: v for k, v in s.items() if k != "schema_version"}, "earlier versions"),
    ]
    for change, words in cases:
        with trial("states", words):
            refused_state(saved, rewritten(saved, change, True), words)
    with trial("states", "no seal"):
        refused_state(saved, rewritten(saved, plain(seconds=1.0), False), "digest")
    with trial("states", "a folder"):
        path = saved.root / "folder.state.pt"
        path.mkdir(exist_ok=True)
        with pytest.raises(RecordError, match=r"folder\.state\.pt is not a regular file"):
            training_state.load_state(path, ())
    with trial("states", "compressed"):
        packed = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(saved.state)) as old,
            zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for part in old.infolist():
                new.writestr(part.filename, old.read(part))
        refused_state(saved, packed.getvalue(), "compressed")


def test_more_epochs_than_the_run_has_are_refused(saved: Saved) -> None:
    path = saved.root / "x.state.pt"
    path.write_bytes(saved.state)
    trainer = tasks.build_trainer(prepared_of(saved.root), path)
    trainer.epochs = 1
    with (
        trial("states", "epochs"),
        pytest.raises(RecordError, match="2 epochs are done, of at most 1"),
    ):
        trainer.fit(*data(saved.root), saved=False)


def test_a_resumed_run_goes_on_with_every_generator(saved: Saved) -> None:
    """What a model draws from Python's, NumPy's or torch's generator is drawn as if unstopped."""

    def drawn(trainer: Any, stop: int | None) -> list[tuple]:
        original, draws = trainer._run_epoch, []

        def run_epoch(batches: Any, epoch: int) -> dict[str, Any]:
            draws.append((random.random(), np.random.rand(), float(torch.rand(1))))  # noqa: NPY002
            trainer.stop_requested = epoch == stop
            return original(batches, epoch)

        trainer._run_epoch = run_epoch
        trainer.fit(*data(saved.root), saved=False)
        return draws

    path = saved.root / "generators.state.pt"
    path.unlink(missing_ok=True)
    whole = drawn(tasks.build_trainer(prepared_of(saved.root), None), None)
    first = drawn(tasks.build_trainer(prepared_of(saved.root), path), 1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    second = drawn(tasks.build_trainer(prepared_of(saved.root), path), None)
    assert first + second == whole


# Per-user values --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def values(saved: Saved) -> tuple[Run, bytes]:
    (path,) = (saved.root / "whole" / "runs").rglob("*.json")
    return Run(path, read_record(path)), lists.user_values_path(Run(path, saved.whole)).read_bytes()


def read_values(made: Run, root: Path, content: bytes, words: str = "") -> lists.UserValues | None:
    """Read changed per-user values as if their record described them; None if refused."""
    path = root / "y.users.npz"
    path.write_bytes(content)
    described = {"file": path.name, "sha256": sha256_file(path)}
    record = made.record.model_copy(update={"per_user": described})
    try:
        return lists.read_user_values(Run(root / "y.json", record))
    except RecordError as error:
        refused = str(error)
    assert path.name in refused
    assert words in refused
    return None


def test_bytes_of_per_user_values_are_changed(values: tuple[Run, bytes], tmp_path: Path) -> None:
    made, good = values
    expected = read_values(made, tmp_path, good)
    assert expected is not None
    rng = random.Random(3)
    for number in range(40):
        content = bytearray(good)
        if number % 4:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        else:
            del content[rng.randrange(len(content)) :]
        with trial("per-user values", str(number)):
            found = read_values(made, tmp_path, bytes(content))
            if found is not None:
                assert (found.top == expected.top).all()
                assert (found.users == expected.users).all()
                assert all((found.values[k] == v).all() for k, v in expected.values.items())


def test_arrays_of_per_user_values_are_replaced(values: tuple[Run, bytes], tmp_path: Path) -> None:
    made, good = values
    with np.load(io.BytesIO(good)) as stored:
        arrays = dict(stored)
    wrong = [
        np.zeros(0), np.zeros(3), np.zeros((2, 2)), np.array("x"), np.array([1, 2]),
        np.full(24, np.nan), np.array([["a"]]), np.full((24, 50), 10**6), np.full((24, 50), -2),
        np.zeros((24, 50)), np.array([None], dtype=object),
    ]  # fmt: skip
    for name in ("users", "items", "top", "Recall@1"):
        for number, array in enumerate(wrong):
            if name == "top" and array.size == 0:
                continue  # lists may be absent
            handle = io.BytesIO()
            np.savez_compressed(handle, **{**arrays, name: array})
            with trial("per-user values", f"{name} {number}"):
                assert read_values(made, tmp_path, handle.getvalue()) is None
    for name in ("users",):
        handle = io.BytesIO()
        np.savez(handle, **{key: value for key, value in arrays.items() if key != name})
        with trial("per-user values", f"no {name}"):
            assert read_values(made, tmp_path, handle.getvalue()) is None


def test_users_that_repeat_and_positions_behind_the_last_item_are_refused(
    values: tuple[Run, bytes], tmp_path: Path
) -> None:
    made, good = values
    with np.load(io.BytesIO(good)) as stored:
        arrays = dict(stored)
    repeated, behind = arrays["users"].copy(), arrays["top"].copy()
    repeated[1] = repeated[0]
    behind[0, 0] = len(arrays["items"])
    for name, array in (("users", repeated), ("top", behind)):
        handle = io.BytesIO()
        np.savez(handle, **{**arrays, name: array})
        with trial("per-user values", f"{name} inconsistent"):
            assert read_values(made, tmp_path, handle.getvalue()) is None


def test_a_header_of_many_bytes_is_refused_before_they_are_allocated(
    values: tuple[Run, bytes], tmp_path: Path
) -> None:
    made, _ = values
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**9,)}
    )
    handle = io.BytesIO()
    with zipfile.ZipFile(handle, "w") as archive:
        archive.writestr("users.npy", header.getvalue() + bytes(16))
    with trial("per-user values", "header of 8 GB"):
        words = "users.npy has another size than its header says"
        assert read_values(made, tmp_path, handle.getvalue(), words) is None
    with trial("per-user values", "empty"):
        assert read_values(made, tmp_path, b"") is None


@pytest.mark.parametrize("name", ["../x.npz", "/etc/passwd", "a/../../x", "\0"])
def test_per_user_values_elsewhere_are_refused(
    values: tuple[Run, bytes], tmp_path: Path, name: str
) -> None:
    record = values[0].record.model_copy(update={"per_user": {"file": name, "sha256": "0" * 64}})
    path = store(tmp_path, record)
    with (
        trial("per-user values", name),
        pytest.raises(RecordError, match=r"per-user values of another run|not a run record"),
    ):
        read_record(path)


# Records in a run's place -----------------------------------------------------------------------


@pytest.fixture
def finished(saved: Saved, tmp_path: Path) -> tuple[RunSpec, Path]:
    """A finished run, whose record is then replaced."""
    made = dataclasses.replace(spec(saved.root), output=tmp_path, epochs=1)
    run_one(made)
    (path,) = (tmp_path / "runs").rglob("*.json")
    return made, path


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 7}, {"model": "BPR"}, {"setting": "recbole"},
        {"overrides": {**spec(Path()).overrides, "n_layers": 1}},
    ],
    ids=["seed", "model", "setting", "configuration"],
)  # fmt: skip
def test_the_record_of_another_run_is_refused(
    finished: tuple[RunSpec, Path], tmp_path: Path, changes: dict
) -> None:
    made, path = finished
    other = dataclasses.replace(made, output=tmp_path / "other", **changes)
    run_one(other)
    (foreign,) = (tmp_path / "other" / "runs").rglob("*.json")
    path.write_bytes(foreign.read_bytes())
    with trial("records in place"), pytest.raises(RecordError, match=path.name):
        run_one(made)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7}, {"model": "BPR"}, {"dataset": "other"}, {"setting": "recbole"},
        {"features": "lsa"}, {"protocol": "zero-shot"}, {"config_sha256": "0" * 64},
        {"data": {"split": {"kind": "ratio"}, "files": {}}},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_record_with_another_identity_is_refused(
    finished: tuple[RunSpec, Path], change: dict
) -> None:
    made, path = finished
    write_record(path, read_record(path).model_copy(update=change))
    with trial("records in place"), pytest.raises(RecordError):
        run_one(made)


def test_a_folder_in_the_record_s_place_is_refused_before_training(
    finished: tuple[RunSpec, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, path = finished
    path.unlink()
    path.mkdir()
    monkeypatch.setattr(run, "build_trainer", lambda *given: pytest.fail("it was trained"))
    with trial("records in place"), pytest.raises(RecordError, match=path.name):
        run_one(made)


# Kills ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_record(tmp_path: Path) -> None:
    WORLD.write(tmp_path / "data")
    line = [
        "run", "--model", "LightGCN", "--dataset", WORLD.name, "--data-path",
        str(tmp_path / "data"), "--epochs", "60", "--quiet", "--device", "cpu",
        "--set", "topk=[1,20]", "valid_metric=NDCG@1", "train_batch_size=16",
    ]  # fmt: skip
    program = (
        "import sys; from alignrec_recbole.training import trainer; from alignrec_recbole.cli.main "
        f"import main; trainer.SAVE_EVERY_SECONDS = 0.0; sys.exit(main({line!r} + sys.argv[1:]))"
    )

    def start(output: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", program, "--output", str(tmp_path / output)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    rng, killed = random.Random(1), 0
    while True:
        process = start("killed")
        # the first kills come at any moment of the start, later ones leave time to get on
        try:
            process.wait(rng.uniform(1, 8) + 2 * killed)
        except subprocess.TimeoutExpired:
            process.kill()
            assert process.wait() == -signal.SIGKILL
            killed += 1
            continue
        assert process.returncode == 0, process.stderr.read()
        break
    assert start("whole").wait() == 0
    found, whole = (read_records(tmp_path / name / "runs")[0] for name in ("killed", "whole"))
    with trial("kills", f"{killed} kills"):
        assert found.metrics == whole.metrics
        assert [e["losses"] for e in found.history] == [e["losses"] for e in whole.history]
    left = [path.name for path in (tmp_path / "killed").rglob("*.part")]
    assert not left
