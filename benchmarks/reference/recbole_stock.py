"""The actions of stock RecBole, its own classes throughout, on the same split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

import alignrec_recbole  # noqa: F401  (lets RecBole run on today's packages)
from alignrec_recbole.compat.config import hide_command_line

PARTS = ("train", "valid", "test")
TUNED_CELLS = 40_960_000  # eval_batch_size at which RecBole ranks fastest on Sports


def write_atomic(source: Path, folder: Path) -> Path:
    """MMRec's x.inter as RecBole's three benchmark files in folder/x; returns folder/x."""
    frame = pd.read_csv(source, sep="\t", usecols=["userID", "itemID", "x_label"])
    frame.columns = ["user_id:token", "item_id:token", "x_label"]
    target = folder / source.stem
    target.mkdir(parents=True, exist_ok=True)
    for label, part in enumerate(PARTS):
        rows = frame[frame.x_label == label].drop(columns="x_label")
        rows.to_csv(target / f"{source.stem}.{part}.inter", sep="\t", index=False)
    return target


def actions(
    source: Path, scratch: Path, layers: int, reg_weight: float, eval_batch_size: int
) -> dict[str, Callable[[], Any]]:
    """Training epoch and validation of RecBole's LightGCN with RecBole's loaders and trainer.

    `scratch` is an empty folder for the converted files.
    """
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender import LightGCN
    from recbole.trainer import Trainer
    from recbole.utils import init_logger, init_seed

    folder = write_atomic(source, scratch)
    values = {
        "data_path": str(scratch), "benchmark_filename": list(PARTS), "gpu_id": "",
        "embedding_size": 64, "n_layers": layers, "reg_weight": reg_weight,
        "train_batch_size": 2048, "eval_batch_size": eval_batch_size, "topk": [5, 10, 20, 50],
        "metrics": ["Recall", "NDCG", "Precision", "MAP"], "valid_metric": "Recall@20",
        "checkpoint_dir": str(scratch / "saved"), "show_progress": False, "state": "WARNING",
        "load_col": {"inter": ["user_id", "item_id"]},
    }  # fmt: skip
    with hide_command_line():
        config = Config(model=LightGCN, dataset=folder.name, config_dict=values)
    config["data_path"] = str(folder)  # RecBole puts its own folder there for ml-100k
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    trainer = Trainer(config, LightGCN(config, train.dataset).to(config["device"]))
    return {
        "epoch": lambda: trainer._train_epoch(train, 0),
        "evaluation": lambda: trainer.evaluate(valid, load_best_model=False),
    }


def ranking_only(source: Path, scratch: Path, eval_batch_size: int) -> dict[str, Callable[[], Any]]:
    """Validation alone."""
    return {"evaluation": actions(source, scratch, 2, 1e-3, eval_batch_size)["evaluation"]}
