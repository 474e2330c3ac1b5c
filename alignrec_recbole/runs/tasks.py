"""Training data and ranking tasks of a prepared run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignrec_recbole.dataset import MultimodalDataset
from alignrec_recbole.evaluation.ranking import EvalTask
from alignrec_recbole.graphs import knn_cache, searches
from alignrec_recbole.ops import columns
from alignrec_recbole.runs import identity
from alignrec_recbole.runs.prepared import PreparedData, PreparedRun
from alignrec_recbole.runtime import allocator, processes
from alignrec_recbole.training import divided, memory_estimate, ranking_tasks
from alignrec_recbole.training.batches import train_loader
from alignrec_recbole.training.recbole_trainers import model_errors
from alignrec_recbole.training.trainer import MultimodalTrainer


def build_trainer(prepared: PreparedRun, state_file: Path | None) -> MultimodalTrainer:
    """Model and trainer of a prepared run, seeded."""
    from recbole.utils import init_seed

    divided.check(prepared.components.model_class, prepared.config)
    init_seed(prepared.spec.seed, True)
    allocator.phase("load")  # encoders, or the training of an earlier run, have left it
    entry = prepared.components.entry
    named = contextlib.nullcontext() if entry.is_native else model_errors(entry.name, "be built")
    tables = memory_estimate.bounded_tables(entry.name)
    with (
        processes.first_alone(),  # its item graphs are those of all: a search may be approximate
        graph_searches(prepared) as made,
        named,
        tables,
    ):
        model = prepared.components.model_class(prepared.config, prepared.splits[0])
    if isinstance(prepared.splits[0], MultimodalDataset):
        prepared.splits[0].release_features()  # the model has its own copy
    columns.divide(model)
    model = model.to(prepared.config["device"])
    allocator.phase("train")
    trainer = prepared.components.trainer_class(prepared.config, model, state_file)
    trainer.identity = identity.of_training(prepared)
    trainer.item_searches = [asdict(search) for search in made.approximate]
    return trainer


@contextlib.contextmanager
def graph_searches(prepared: PreparedRun) -> Iterator[searches.Searches]:
    """Inside, item graphs are searched on the run's device and cached with its features."""
    kept = prepared.config["features_cache"]
    with (
        knn_cache.use_cache_folder(Path(kept) if kept else None),
        searches.searching_on(prepared.config["device"]) as made,
    ):
        yield made


def train_data(prepared: PreparedRun) -> Any:
    """Training batches, see `train_loader`."""
    return train_loader(prepared.components.model_class, prepared.config, prepared.splits)


def valid_task(prepared: PreparedData | PreparedRun) -> EvalTask:
    """Validation: training items are excluded under both evaluation conventions."""
    return ranking_tasks.valid_task(prepared.splits)


def test_task(prepared: PreparedData | PreparedRun) -> EvalTask:
    """Test: mmrec excludes the training items, recbole the validation items too."""
    return ranking_tasks.test_task(prepared.splits, prepared.config["setting"])
