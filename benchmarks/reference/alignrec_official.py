"""The official AlignRec code's model, on synthetic data and in its own harness."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.reference import checkout

HYPER_PARAMETERS = {"cl_loss": 0.01, "learning_rate": 0.001, "sim_weight": 0.1}

SETTINGS = {
    "ui_cosine_loss": True, "side_emb_div": 0, "warmup_ui": False, "n_layers": 1, "knn_k": 10,
    "log_file_name": "parity", **HYPER_PARAMETERS,
}  # fmt: skip


def build(
    reference: Path,
    features: np.ndarray,
    interactions: Any,
    *,
    batch_size: int,
    uia: bool,
    double: bool,
) -> Any:
    """The official model on given features [I, f] and a scipy matrix [U, I]."""
    settings = {
        "train_batch_size": batch_size, "embedding_size": 64, "n_ui_layers": 2, "n_layers": 1,
        "knn_k": 10, "reg_weight": 1e-4, "cl_loss": 0.01, "sim_weight": 0.1,
        "ui_cosine_loss_weight": 0.1, "ui_cosine_loss": uia, "side_emb_div": 0,
    }  # fmt: skip
    with (
        checkout.importable(reference, "alignrec"),
        checkout.given({"image": features}, interactions, settings) as (config, loader),
        checkout.default_dtype(torch.float64 if double else torch.float32),
    ):
        from models.alignrec import ALIGNREC

        with contextlib.redirect_stdout(None):
            model = ALIGNREC(config, loader)
        model.built_r = model.R.to_dense()
        if double:
            _to_double(model, features)
    return model


def _to_double(model: Any, features: np.ndarray) -> None:
    """Float64 throughout: the code rounds tables, graphs and features to float32 on the way."""
    from utils.utils import build_knn_normalized_graph, build_sim

    model.double()
    with torch.no_grad():
        model.mm_embedding.weight.copy_(torch.from_numpy(features))
    model.v_feat = model.mm_embedding.weight.data  # the shared storage, as built
    matrix = model.interaction_matrix
    model.interaction_matrix = matrix.astype(np.float64)
    adjacency = _exact_adjacency(model.interaction_matrix)
    users = matrix.shape[0]
    model.norm_adj = _sparse(adjacency)
    model.R = _sparse(adjacency.tocsr()[:users, users:])
    model.mm_original_adj = build_knn_normalized_graph(
        build_sim(model.v_feat), topk=model.knn_k, is_sparse=True, norm_type="sym"
    )


def _exact_adjacency(matrix: Any) -> Any:
    import scipy.sparse as sp

    full = sp.bmat([[None, matrix], [matrix.T, None]]).tocsr()
    degrees = np.asarray(full.sum(1)).ravel()
    root = np.where(degrees > 0, np.maximum(degrees, 1) ** -0.5, 0.0)
    return sp.diags(root) @ full @ sp.diags(root)


def _sparse(matrix: Any) -> torch.Tensor:
    coo = matrix.tocoo()
    index = torch.from_numpy(np.vstack([coo.row, coo.col]).astype(np.int64))
    return torch.sparse_coo_tensor(index, torch.from_numpy(coo.data), coo.shape)


def train(
    reference: Path, dataset_dir: Path, features_file: Path, seeds: list[int], epochs: int
) -> list[dict[str, Any]]:
    """Train in the official harness; returns what `checkout.train` returns."""
    settings = {**SETTINGS, "epochs": epochs}
    return checkout.train(
        reference, "alignrec", "ALIGNREC", dataset_dir, {"image": features_file}, settings, seeds
    )


def actions(
    reference: Path,
    dataset_dir: Path,
    features_file: Path,
    folder: Path,
    steps: int | None = None,
    device: str = "cpu",
) -> dict[str, Callable[[], Any]]:
    """Training epoch and validation of the official harness (for timing)."""
    files = {"image": features_file}
    return checkout.actions(
        reference, "alignrec", "ALIGNREC", dataset_dir, files, dict(SETTINGS), folder, steps, device
    )
