"""Training both sides from equal weights: a reference that computes the same, and another."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from benchmarks.parity import same_start
from benchmarks.reference import checkout

REFERENCE = """
import numpy as np, torch
from torch import nn


class VBPR(nn.Module):
    def __init__(self, config, loader):
        super().__init__()
        folder = config["data_path"] + config["dataset"] + "/"
        text, image = (np.load(folder + config[f"{kind}_feature_file"])
                       for kind in ("text", "vision"))
        self.features = torch.from_numpy(np.hstack([text, image]))
        users, items = loader.dataset.get_user_num(), loader.dataset.get_item_num()
        size, self.penalty = config["embedding_size"], config["reg_weight"]
        self.u_embedding = nn.Parameter(torch.zeros(users, 2 * size))
        self.i_embedding = nn.Parameter(torch.zeros(items, size))
        self.item_linear = nn.Linear(self.features.shape[1], size)
        nn.init.normal_(self.item_linear.weight, std=0.1)

    def pre_epoch_processing(self):
        pass

    def items(self):
        return torch.cat([self.i_embedding, self.item_linear(self.features)], 1)

    def calculate_loss(self, batch):
        user, good, bad = self.u_embedding[batch[0]], *(self.items()[ids] for ids in batch[1:])
        ranked = nn.functional.softplus((user * (bad - good)).sum(1)).mean()
        return ranked + FACTOR * self.penalty * sum(x.norm() for x in (user, good, bad)) / len(user)

    def full_sort_predict(self, interaction):
        return self.u_embedding[interaction[0]] @ self.items().T
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Forty users with five items each, features of texts and images."""
    draw, folder = np.random.default_rng(0), tmp_path / "data" / "shop"
    folder.mkdir(parents=True)
    lines = ["userID\titemID\tx_label"]
    for user in range(40):
        items = draw.permutation(24)[:5]
        lines += [f"{user}\t{i}\t{n}" for i, n in zip(items, [0, 0, 0, 1, 2], strict=True)]
    (folder / "shop.inter").write_text("\n".join(lines) + "\n")
    for name in ("words", "photos"):
        np.save(folder / f"{name}.npy", draw.normal(size=(24, 8)).astype(np.float32))
    return tmp_path / "data"


def trained(data: Path, factor: float, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The epochs of VBPR against a reference whose penalty has a factor."""
    code = data.parent / f"reference-{factor}"
    (code / "src" / "models").mkdir(parents=True)
    (code / "src" / "models" / "freedom.py").touch()
    (code / "src" / "models" / "vbpr.py").write_text(f"FACTOR = {factor}\n{REFERENCE}")
    same_start.main([
        "--reference", str(code), "--model", "VBPR", "--data-path", str(data), "--dataset", "shop",
        "--text", "words", "--other", "photos", "--epochs", "3", "--learning-rate", "0.01",
    ])  # fmt: skip
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["VBPR"]
    xavier = (2 / (16 + 64)) ** 0.5  # ours; the reference's is .1
    assert found["initial spread"] == {"item_linear.weight": pytest.approx(xavier / 0.1, rel=0.1)}
    epochs: list[dict[str, Any]] = found["epochs"]
    return epochs


def test_a_reference_that_computes_the_same_differs_by_rounding(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = trained(data, 1.0, capsys)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    for epoch in epochs:
        assert epoch["worst loss"] < 1e-5
        assert epoch["worst loss by rounding"] < 1e-5
        for metric in ("Recall@20", "NDCG@20"):
            assert epoch[f"reference {metric}"] == pytest.approx(epoch[f"ours {metric}"])


def test_another_penalty_is_seen_in_the_first_step(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = trained(data, 2.0, capsys)[0]
    assert first["first loss"] > 1e-2
    assert first["worst loss by rounding"] < 1e-5


def test_every_weight_is_rounded_by_one_unit() -> None:
    layer = torch.nn.Linear(20, 20)
    before = layer.weight.detach().clone()
    same_start.Ours.round_weights(types.SimpleNamespace(model=layer), 1)  # type: ignore[arg-type]
    change = (layer.weight / before - 1).abs() / torch.finfo(torch.float32).eps
    assert 0.4 < change.min() <= change.max() < 2.1
    assert 0 < (layer.weight > before).sum() < 400


def test_equals_among_common_users_stand_in_the_order_given() -> None:
    interactions = np.eye(3)[[0, 0, 0, 0, 1]]  # users 0 to 3 have one item in common
    for places in ([0, 1, 2, 3, 4], [0, 3, 2, 1, 4]):
        place = [np.array(places), np.arange(3)]
        matrix = sp.csr_matrix(interactions)
        with checkout.given({}, matrix, {}, place) as (config, _):
            path = f"{config['data_path']}toy/{config['user_graph_dict_file']}"
            graph = np.load(path, allow_pickle=True).item()  # written by the line above
        assert graph[0][0] == sorted([1, 2, 3], key=lambda user: places[user])
