"""One answer through every door: the same metrics, to the last digit, however a run is started."""

from __future__ import annotations

import contextlib
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignrec_recbole.cli.main import main
from alignrec_recbole.data.dataset_paths import recbole_examples
from alignrec_recbole.errors import SettingError
from alignrec_recbole.registry.components import components
from alignrec_recbole.testing.synthetic import make_blocks
from alignrec_recbole.training.ranking_tasks import as_task
from benchmarks.parity import doors

OVERRIDES = {
    "train_batch_size": 64,
    "learning_rate": 0.05,
    "topk": [1, 20],
    "valid_metric": "NDCG@1",
    "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
}


@pytest.fixture
def case(tmp_path: Path) -> doors.Case:
    world = make_blocks(users=10, items=12, cold=1)
    world.write(tmp_path / "data")
    return doors.Case(tmp_path / "data", world.name, ("lsa",), doors.MODELS, 3, OVERRIDES)


def in_process(case: doors.Case, model: str, setting: str, output: Path) -> doors.Metrics:
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(case.arguments(model, setting, output)) == 0
    return doors._stored(output)


def test_every_door_gives_the_same_metrics(
    case: doors.Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doors.DOORS, "command line", in_process)
    within = [door for door in doors.DOORS if door != "suite cell"]
    found = doors.differences(case, tmp_path / "out", within)
    assert len(found) == len(within) * 6
    assert set(found.values()) == {0.0}, found


def test_the_two_conventions_differ_through_stock_recbole(case: doors.Case, tmp_path: Path) -> None:
    """Under `recbole` the validation items are excluded, so more lists have the test item."""
    mmrec, recbole = (
        doors.run_recbole(case, "LightGCN", setting, tmp_path / setting)
        for setting in doors.SETTINGS
    )
    assert mmrec["recall@1"] < recbole["recall@1"]


def stock(tmp_path: Path, dataset: str, **given: Any) -> tuple[Any, Any]:
    """RecBole's configuration and data set of AlignRec, as `run_recbole` makes them."""
    from recbole.config import Config
    from recbole.data import create_dataset

    given = {"features": ["lsa"], "checkpoint_dir": str(tmp_path / "saved"), "gpu_id": "", **given}
    config = Config(model="AlignRec", dataset=dataset, config_dict=given)
    return config, create_dataset(config)


def test_an_encoder_draws_nothing_that_initialises_a_model(
    case: doors.Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignrec_recbole import dataset as module

    find = module.find_or_encode

    def draws(*arguments: Any, **keywords: Any) -> Any:
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
        torch.manual_seed(1)
        return find(*arguments, **keywords)

    monkeypatch.setattr(module, "find_or_encode", draws)
    _, made = stock(tmp_path, case.dataset, data_path=str(case.data_path))
    torch.manual_seed(5), random.seed(5), np.random.seed(5)  # noqa: NPY002
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    assert made.features["lsa"].values.any()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2][1]).all()  # noqa: NPY002


def test_recboles_folder_of_example_data_is_only_read(tmp_path: Path) -> None:
    import recbole.data.dataset as classes

    shipped = recbole_examples()
    assert shipped is not None
    before = {path: path.stat().st_mtime_ns for path in shipped.rglob("*")}
    _, made = stock(tmp_path, "ml-100k")
    assert not hasattr(classes, "AlignRecDataset")  # nor is a class left in its module
    assert made.features["lsa"].values.any()
    assert {path: path.stat().st_mtime_ns for path in shipped.rglob("*")} == before
    assert list((tmp_path / "saved" / "features" / "ml-100k").glob("lsa-*.npy"))


def test_setting_chooses_this_packages_model_of_a_name_that_recbole_has_too(
    case: doors.Case, tmp_path: Path
) -> None:
    from recbole.config import Config
    from recbole.model.general_recommender.lightgcn import LightGCN as Stock
    from recbole.utils import get_model

    def chosen(name: str, **given: Any) -> Any:
        config = Config(model=name, dataset=case.dataset, config_dict=given)
        return get_model(config["model"])

    assert chosen("LightGCN") is Stock
    assert chosen("LightGCN", setting="mmrec") is components("LightGCN").model_class
    assert chosen("LightGCN") is Stock
    assert chosen("EASE", setting="recbole") is components("EASE").model_class
    with pytest.raises(SettingError, match="GRU4Rec is none that can be run"):
        chosen("GRU4Rec", setting="mmrec")


def test_test_rows_that_do_not_know_the_training_rows_are_not_ranked_under_mmrec(
    case: doors.Case, tmp_path: Path
) -> None:
    from recbole.data.utils import create_samplers, get_dataloader

    config, made = stock(tmp_path, case.dataset, data_path=str(case.data_path))
    splits = made.build()
    samplers = create_samplers(config, made, splits)
    valid, test = (
        get_dataloader(config, phase)(config, splits[k], samplers[k])
        for k, phase in enumerate(("train", "valid", "test"))
        if k
    )
    assert as_task(valid, "mmrec").masked.sum() == len(splits[0])
    assert as_task(test, "recbole").masked.sum() == len(splits[0]) + len(splits[1])
    with pytest.raises(SettingError, match="excludes the training items alone"):
        as_task(test, "mmrec")


@pytest.mark.slow
@pytest.mark.long
def test_the_comparison_of_all_doors_ends_with_one_json_object(
    case: doors.Case, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data-path", str(case.data_path), "--dataset", case.dataset, "--epochs", "2"]
    assert doors.main(given) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {"max_difference": 0.0, "doors": list(doors.DOORS)}
