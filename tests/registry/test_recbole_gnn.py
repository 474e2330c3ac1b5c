"""RecBole-GNN's models by name: with a stand-in clone always, with a real one where there is one.

The real one: RECBOLE_GNN_PATH=CLONE python -m pytest -m parity tests/test_recbole_gnn.py
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import recbole
import torch

from alignrec_recbole.errors import MissingDependencyError
from alignrec_recbole.registry import recbole_gnn, stock_recbole
from alignrec_recbole.registry.components import components
from alignrec_recbole.registry.models import resolve
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.training import recbole_trainers
from alignrec_recbole.training.recbole_trainers import HMLETTrainer, NCLTrainer, RecBoleModelTrainer

CLONE = os.environ.get("RECBOLE_GNN_PATH")
ML_100K = Path(recbole.__file__).parent / "dataset_example"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without a clone, and without what an earlier test imported of one."""
    monkeypatch.delenv("RECBOLE_GNN_PATH", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "recbole_gnn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(
        sys, "path", [p for p in sys.path if not (Path(p) / "recbole_gnn").is_dir()]
    )


@pytest.fixture
def no_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a clone."""
    forget(monkeypatch)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the parts of a clone that are looked up, and a stub of PyTorch Geometric."""
    forget(monkeypatch)
    models = tmp_path / "recbole_gnn" / "model" / "general_recommender"
    models.mkdir(parents=True)
    bpr = "from recbole.model.general_recommender.bpr import BPR\n"
    (models / "simgcl.py").write_text(f"{bpr}class SimGCL(BPR): pass\n")
    (models / "lightgcn.py").write_text(f"import torch_sparse\n{bpr}class LightGCN(BPR): pass\n")
    (models / "directau.py").write_text(
        f"{bpr}class DirectAU(BPR):\n    def predict(self, interaction): raise AttributeError\n"
    )
    data = tmp_path / "recbole_gnn" / "data"
    data.mkdir()
    (data / "dataset.py").write_text(
        "from recbole.data.dataset import Dataset\nclass GeneralGraphDataset(Dataset): pass\n"
    )
    yamls = tmp_path / "recbole_gnn" / "properties" / "model"
    yamls.mkdir(parents=True)
    for name in ("SimGCL", "LightGCN", "DirectAU"):
        (yamls / f"{name}.yaml").write_text("embedding_size: 8\nreg_weight: 1e-4\n")
    monkeypatch.setitem(sys.modules, "torch_geometric", SimpleNamespace())
    monkeypatch.setenv("RECBOLE_GNN_PATH", str(tmp_path))
    return tmp_path


def test_without_a_clone_the_error_says_how_to_get_it(no_clone):
    with pytest.raises(MissingDependencyError, match="no clone of it can be imported") as caught:
        components("SimGCL")
    for word in ("git clone https://github.com/RUCAIBox/RecBole-GNN", "torch_geometric",
                 "RECBOLE_GNN_PATH"):  # fmt: skip
        assert word in caught.value.hint
    assert not stock_recbole.is_added("SimGCL")


def test_without_pytorch_geometric_the_error_names_it(stand_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    with pytest.raises(MissingDependencyError, match="needs PyTorch Geometric"):
        components("SimGCL")


def test_its_models_run_by_name_in_our_runner(stand_in, tmp_path):
    spec = RunSpec(
        "SimGCL", "ml-100k", data_path=ML_100K, output=tmp_path / "out", epochs=1, progress=False
    )
    record = run_one(spec)
    assert record.model == "SimGCL"
    assert record.config["embedding_size"] == 8
    assert record.config["reg_weight"] == 1e-4
    assert 0 < record.metrics["Recall@20"] < 1


def test_stock_recbole_finds_them(stand_in, monkeypatch):
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.utils import ModelType, get_model, get_trainer

    monkeypatch.setattr(sys, "argv", ["test"])
    assert get_model("SimGCL") is components("SimGCL").model_class
    assert get_trainer(ModelType.GENERAL, "SimGCL") is RecBoleModelTrainer
    config = Config("SimGCL", "ml-100k", config_dict={"gpu_id": ""})
    assert config["reg_weight"] == 1e-4
    assert type(create_dataset(config)).__name__ == "GeneralGraphDataset"


def test_shadowed_names_have_a_prefix_and_torch_sparse_is_not_needed(stand_in):
    cls = components("gnn-LightGCN").model_class
    assert cls.__module__ == "recbole_gnn.model.general_recommender.lightgcn"
    assert components("LightGCN").model_class.__module__ == "alignrec_recbole.models.lightgcn"
    assert resolve("SGL").family == "recbole"


def test_a_broken_predict_is_replaced(stand_in):
    cls = components("DirectAU").model_class
    table = torch.arange(12.0).view(3, 4)
    model = SimpleNamespace(
        ITEM_ID="item", full_sort_predict=lambda batch: table[batch["user"]].view(-1)
    )
    batch = {"user": torch.tensor([2, 0]), "item": torch.tensor([1, 3])}
    assert cls.predict(model, batch).tolist() == [9.0, 3.0]


def test_models_with_a_trainer_of_their_own_keep_it():
    assert recbole_gnn.trainer_class("gnn-NCL") is NCLTrainer
    assert recbole_gnn.trainer_class("HMLET") is HMLETTrainer
    assert recbole_gnn.trainer_class("gnn-LightGCN") is RecBoleModelTrainer


# What the two trainers add, on counters instead of models ---------------------------------------


def test_ncl_clusters_every_m_step_and_drops_the_prototype_loss_at_first(monkeypatch):
    seen, steps = [], []

    class Model:
        user_2cluster = None

        def calculate_loss(self, batch: object) -> tuple[int, ...]:
            return (1, 2, 3)

        def e_step(self) -> None:
            self.user_2cluster = "clusters"
            steps.append(epoch)

    trainer = NCLTrainer.__new__(NCLTrainer)
    trainer.config, trainer.model = {"m_step": 2, "warm_up_step": 3}, Model()
    monkeypatch.setattr(
        RecBoleModelTrainer,
        "_run_epoch",
        lambda self, batches, epoch: seen.append(self.model.calculate_loss(None)),
    )
    for epoch in range(5):
        trainer._run_epoch(None, epoch)
    assert steps == [0, 2, 4]
    assert seen == [(1, 2)] * 3 + [(1, 2, 3)] * 2


@pytest.mark.parametrize(("m_step", "resumes"), [(1, True), (5, False)])
def test_ncl_resumes_only_where_no_epoch_needs_the_clusters_of_an_earlier_one(
    m_step, resumes, tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr(recbole_trainers, "announce", said.append)
    trainer = NCLTrainer.__new__(NCLTrainer)
    trainer.config, trainer.continued_from = {"m_step": m_step}, None
    trainer.state_file = tmp_path / "ncl.state.pt"
    assert trainer._saved_state() is None
    assert not said
    trainer.state_file.touch()
    assert trainer._saved_state() == (trainer.state_file if resumes else None)
    assert len(said) == (0 if resumes else 1)


def test_hmlet_gates_learn_only_after_warm_up(monkeypatch):
    gate = torch.nn.Linear(2, 2)
    model = SimpleNamespace(gating_nets=[gate], gum_temp=0.7)
    model._gating_freeze = lambda gate, learn: gate.requires_grad_(learn)
    trainer = HMLETTrainer.__new__(HMLETTrainer)
    trainer.model = model
    trainer.config = {"warm_up_epochs": 1, "ori_temp": 0.7, "min_temp": 0.6, "gum_temp_decay": 0.1}
    states = []
    monkeypatch.setattr(
        RecBoleModelTrainer,
        "_run_epoch",
        lambda self, b, e: states.append((round(model.gum_temp, 4), gate.weight.requires_grad)),
    )
    monkeypatch.setattr(
        RecBoleModelTrainer, "_build_optimizer", lambda self: gate.weight.requires_grad
    )
    assert trainer._build_optimizer() is True  # the optimiser knows them from the start
    for epoch in range(4):
        trainer._run_epoch(None, epoch)
    assert states == [(0.7, False), (0.7, False), (0.6334, True), (0.6, True)]


# A real clone -----------------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("name", list(recbole_gnn.MODELS))
def test_a_real_clone(name, tmp_path):
    if CLONE is None:
        pytest.skip("no clone of RecBole-GNN: set RECBOLE_GNN_PATH")
    if name == "gnn-NCL" and importlib.util.find_spec("faiss") is None:
        pytest.skip("NCL needs faiss, which is not here")
    small = {"num_clusters": 50, "warm_up_step": 0} if name == "gnn-NCL" else {}
    record = run_one(
        RunSpec(
            name, "ml-100k", data_path=ML_100K, output=tmp_path, epochs=1, progress=False,
            overrides=small,
        )
    )  # fmt: skip
    assert record.epochs == 1
    assert record.metrics["Recall@20"] > 0
