"""Every patch of RecBole is needed, works and is applied once; files are read safely."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import colorama
import compat_cases
import numpy as np
import pytest
import torch
from compat_cases import CASES, config, prepared

from alignrec_recbole.compat import checkpoints, imports, patches
from alignrec_recbole.errors import DataError

IDS = [case.__name__ for _, case, _ in CASES]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """RecBole writes into the working directory and wraps stdout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALIGNREC_RUN_DIR", raising=False)
    yield
    colorama.deinit()


def _python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def raised_without() -> dict[str, str]:
    """Case → what it raises when its patch alone is missing."""
    if not hasattr(os, "fork"):
        pytest.skip("no os.fork here: the cases without their patch cannot be run")
    done = _python(str(compat_cases.__file__))
    assert done.returncode == 0, done.stderr[-2000:]
    lines = map(json.loads, done.stdout.splitlines())
    return {line["case"]: line["raised"] for line in lines}


@pytest.mark.parametrize(("patch", "case", "failure"), CASES, ids=IDS)
def test_case_passes_with_all_patches(patch: str, case: Any, failure: str) -> None:
    case()


@pytest.mark.xdist_group("without patches")  # one worker runs them, in one process
@pytest.mark.parametrize(("patch", "case", "failure"), CASES, ids=IDS)
def test_case_fails_without_its_patch(
    patch: str, case: Any, failure: str, raised_without: dict[str, str]
) -> None:
    raised = raised_without[case.__name__]
    if not raised and patch == "patch_ray" and _python("-c", "import ray.tune").returncode == 0:
        pytest.skip("ray can be imported on this stack")
    if not raised and not patches.check()[patch]:
        pytest.skip(f"this stack does not need {patch}")
    assert re.search(failure, raised), f"without {patch}: {raised or 'nothing was raised'}"


@pytest.mark.parametrize("computing", [True, False])
def test_a_ray_that_computes_is_not_replaced(
    computing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = types.ModuleType("ray")
    ray.is_initialized = lambda: computing  # type: ignore[attr-defined]
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.tune", None)  # cannot be imported
    monkeypatch.delitem(sys.modules, "recbole.quick_start.quick_start", raising=False)
    assert imports.patch_ray(None)
    assert (sys.modules["ray"] is ray) is computing
    assert sys.modules["ray"].tune is sys.modules["ray.tune"]


def test_every_patch_has_a_case() -> None:
    assert {patch for patch, _, _ in CASES} == set(patches.PATCHES)


def _patched_things() -> list[int]:
    import pandas as pd
    import recbole.quick_start.quick_start as quick_start
    import scipy.sparse as sp
    from recbole.config import Config, configurator
    from recbole.data.dataset import Dataset, dataset
    from recbole.trainer import trainer
    from recbole.utils import logger, utils

    places: list[Any] = [pd.Series, sp.dok_matrix, Config, Dataset, dataset, trainer,
                         trainer.Trainer, quick_start, configurator, logger, utils]  # fmt: skip
    return [id(value) for place in places for value in vars(place).values()] + [len(sys.meta_path)]


def test_registering_again_changes_nothing() -> None:
    before = _patched_things()
    patches.register()
    assert _patched_things() == before


def test_no_library_is_changed() -> None:
    """RecBole's modules get views of numpy, pandas, scipy and torch; the libraries stay as is."""
    done = _python(
        "-c",
        textwrap.dedent("""
            import numpy, pandas, scipy.sparse, torch

            places = [numpy, pandas, pandas.Series, pandas.DataFrame, scipy.sparse,
                      scipy.sparse.dok_matrix, torch, torch.distributed]

            def names():
                return [{k: id(v) for k, v in vars(p).items() if not isinstance(v, type(numpy))
                         and not k.startswith("_abc")} for p in places]

            before = names()
            import alignrec_recbole
            from alignrec_recbole.compat import patches
            from recbole.config import Config

            patches.check()
            Config("BPR", "ml-100k", config_dict={"gpu_id": ""})
            for place, old, new in zip(places, before, names()):
                changed = {k for k in old.keys() | new.keys() if old.get(k) != new.get(k)}
                assert not changed, (place, changed)
        """),
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_status_says_what_was_needed() -> None:
    done = _python(
        "-c",
        textwrap.dedent("""
            from alignrec_recbole.compat import patches

            assert set(patches.status().values()) == {None}, patches.status()
            import recbole.config

            assert patches.status()["patch_config_strings"] is True
            assert patches.status()["patch_checkpoints"] is None
            assert None not in patches.check().values(), patches.status()
        """),
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_ray_is_replaced_only_when_quick_start_is_imported() -> None:
    done = _python(
        "-c",
        textwrap.dedent("""
            import sys
            import alignrec_recbole
            import recbole.trainer

            assert "ray" not in sys.modules
            import recbole.quick_start

            assert "ray.tune" in sys.modules
        """),
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_row_length_frames_stay_such_frames() -> None:
    from alignrec_recbole.compat.frames import RowLengthFrame, RowLengthSeries

    frame = RowLengthFrame({"a": [1, 2, 1], "tags": [[1], [1, 2], []]})
    for later in (frame[frame["a"] > 0], frame.copy(), pickle.loads(pickle.dumps(frame)),
                  frame.sort_values("a"), frame.reset_index(drop=True)):  # fmt: skip
        assert type(later) is RowLengthFrame
        assert type(later["tags"]) is RowLengthSeries
        assert sorted(later["tags"].agg(len)) == [0, 1, 2]
    assert frame["a"].agg("sum") == 4
    assert frame["a"].agg(["min", "max"]).tolist() == [1, 2]


# Checkpoints ------------------------------------------------------------------------------------


class Evil:
    """Creates a file when it is un-pickled."""

    def __reduce__(self) -> tuple:
        return (open, ("evil-was-here", "w"))


def _read_everywhere(path: Path) -> Iterator[Any]:
    from recbole.quick_start import load_data_and_model

    trainer, _, splits = prepared()
    yield lambda: load_data_and_model(str(path))
    yield lambda: trainer.resume_checkpoint(path)
    yield lambda: trainer.evaluate(splits[2], load_best_model=True, model_file=str(path))


@pytest.mark.parametrize("kind", ["torch", "pickle", "truncated"])
def test_foreign_files_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"config": Evil()}))
    else:
        torch.save({"config": Evil(), "state_dict": {}}, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    for read in _read_everywhere(path):
        with pytest.raises(DataError, match=r"foreign\.pth cannot be read safely"):
            read()
    assert not (tmp_path / "evil-was-here").exists()


def test_an_absent_file_is_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        checkpoints.load(tmp_path / "none.pth")


def test_other_state_is_read_back_by_its_writer_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "module.pth"
    layer = torch.nn.Linear(2, 2)  # DIN and FDSA keep a module in their checkpoints
    checkpoints.save({"other_parameter": {"layer": layer}}, path)
    loaded = checkpoints.load(path)["other_parameter"]["layer"]
    assert torch.equal(loaded.weight, layer.weight)

    content = path.read_bytes()
    torch.save({"other_parameter": Evil()}, path)  # somebody else replaces it
    with pytest.raises(DataError):
        checkpoints.load(path)
    path.write_bytes(content)
    assert checkpoints.load(path)
    monkeypatch.setattr(checkpoints, "_trusted_files", {})  # another process
    with pytest.raises(DataError, match="this very process"):
        checkpoints.load(path)


@pytest.mark.parametrize("model", ["EASE", "ItemKNN", "Pop", "LightGCN"])
def test_stock_models_come_back_in_another_process(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EASE and ItemKNN keep scipy and numpy matrices, LightGCN caches."""
    from recbole.data.interaction import Interaction
    from recbole.quick_start import load_data_and_model

    settings = {"reg_weight": 250.0} if model == "EASE" else {}
    trainer, network, splits = prepared(model, **settings)
    trainer.fit(splits[0], splits[1], show_progress=False)
    trainer.evaluate(splits[2], load_best_model=True)
    network.eval()
    users = Interaction({"user_id": torch.arange(1, 5)})
    scores = network.full_sort_predict(users)

    monkeypatch.setattr(checkpoints, "_trusted_files", {})
    torch.load(trainer.saved_model_file, weights_only=True)
    _, loaded, *_ = load_data_and_model(trainer.saved_model_file)
    loaded.eval()
    assert torch.equal(loaded.full_sort_predict(users), scores)
    for name, value in network.other_parameter().items():
        assert type(getattr(loaded, name)) is type(value)


def test_arrays_and_matrices_keep_kind_and_values(tmp_path: Path) -> None:
    import scipy.sparse as sp

    values = {
        "matrix": sp.random(5, 4, density=0.5, format="csr", random_state=0),
        "array": sp.csc_array(np.eye(3)),
        "rows": sp.lil_matrix(np.eye(3)),
        "numbers": [np.arange(3), np.float32(0.5), np.array([True, False])],
        "pair": (1, "a"),
    }
    checkpoints.save({"other_parameter": values}, tmp_path / "file.pth")
    state = torch.load(tmp_path / "file.pth", weights_only=True)
    assert not isinstance(state["other_parameter"]["matrix"], sp.spmatrix)
    loaded = checkpoints.load(tmp_path / "file.pth")["other_parameter"]
    for name in ("matrix", "array", "rows"):
        assert type(loaded[name]) is type(values[name])
        assert (loaded[name] != values[name]).nnz == 0
    assert loaded["numbers"][0].tolist() == [0, 1, 2]
    assert loaded["numbers"][1] == 0.5
    assert loaded["numbers"][2].dtype == bool
    assert loaded["pair"] == (1, "a")


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("BPR", {"reg_weight": 0.5, "name": "123", "eval_args": {"mode": "uni100"}}),
        ("SASRec", {"train_neg_sample_args": None, "loss_type": "CE"}),
        ("LR", {"metrics": ["AUC"], "valid_metric": "AUC", "eval_args": {"mode": "labeled"}}),
    ],
)
def test_the_configuration_comes_back(model: str, values: dict[str, Any], tmp_path: Path) -> None:
    original = config(model, **values)
    checkpoints.save({"config": original}, tmp_path / "file.pth")
    loaded = checkpoints.load(tmp_path / "file.pth")["config"]
    assert loaded.final_config_dict == original.final_config_dict
    assert (loaded.model, loaded.dataset) == (original.model, original.dataset)


def test_a_distributed_run_is_read_by_a_single_process(tmp_path: Path) -> None:
    original = config()
    original["single_spec"], original["local_rank"] = False, 1
    checkpoints.save({"config": original}, tmp_path / "file.pth")
    loaded = checkpoints.load(tmp_path / "file.pth")["config"]
    assert (loaded["single_spec"], loaded["local_rank"]) == (True, 0)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.pth"
    checkpoints.save({"epoch": 1}, path)

    def full(state: Any, handle: Any) -> None:
        handle.write(b"half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space"):
            checkpoints.save({"epoch": 2}, path)
    assert checkpoints.load(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["file.pth"]


DEFERRED = """
import sys
{before}
import alignrec_recbole
from recbole.evaluator import metrics
assert ("sklearn" in sys.modules) == {imported}, sorted(m for m in sys.modules if "sklearn" in m)
assert metrics.sk_auc([0, 1], [0, 1]) == 0.5
import sklearn.metrics
assert sklearn.metrics.auc([0, 1], [0, 1]) == 0.5
assert sklearn.__version__
"""


@pytest.mark.parametrize(
    ("before", "imported"),
    [("", False), ("import sklearn.metrics", True)],
    ids=["not yet", "already"],
)
def test_recbole_imports_sklearn_when_a_metric_needs_it(before, imported):
    done = _python("-c", DEFERRED.format(before=before, imported=imported))
    assert done.returncode == 0, done.stderr
