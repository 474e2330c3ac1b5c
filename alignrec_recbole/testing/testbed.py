"""Where checks get trained models from: a model, a synthetic data set, and each fit cached."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.utils import ModelType, init_seed
from torch import Tensor

from alignrec_recbole.compat.config import hide_command_line
from alignrec_recbole.dataset import SPLITS, MultimodalDataset
from alignrec_recbole.evaluation.ranking import EvalTask
from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.registry.components import components
from alignrec_recbole.testing.synthetic import BlockWorld, make_blocks, world_settings
from alignrec_recbole.training.batches import train_loader
from alignrec_recbole.training.trainer import MultimodalTrainer

EPOCHS = 60  # of three batches: enough for the right answers, in about a second
SMOKE_EPOCHS = 3  # where two fits are compared bit by bit
ONE_BATCH = 1024  # more than the world has training rows
TEST_CONFIG: dict[str, Any] = {
    "train_batch_size": 256,
    "learning_rate": 0.02,
    "lr_decay": [1.0, 50],
    "stopping_step": 10**6,
    "setting": "mmrec",
}
# class → the values it is tested with instead
MODEL_TEST_CONFIG: dict[str, dict[str, Any]] = {
    # its published grid ends at 0.01; 0.02 diverges, and at 0.005 rounding changes the final ranks
    "MMGCN": {"learning_rate": 0.003},
    # 0.02 leaves it swinging when all rows are one batch
    "VBPR": {"learning_rate": 0.01},
    # and these two, whose items are layers of content: 0.01 does, too
    "MILK": {"learning_rate": 0.005},
    "SiBraR": {"learning_rate": 0.005},
    # its attention takes d² per item; larger batches are fewer
    "REARM": {"embedding_size": 16, "train_batch_size": 1024},
}


@dataclass(frozen=True)
class ModelUnderTest:
    """A model class with its configuration, data set and trainer.

    Attributes:
        name: as in the registry, or any name for a class that is not registered.
        model_class: the RecBole model.
        settings: its configuration defaults.
        uses_features: its scores depend on item features.
        scores_cold_items: its scores of items without interactions follow their features; the class
            attribute of this name, if it exists, says so.
        dataset_class, trainer_class: it is built and trained with these.
        known_keys: every configuration key that is read; empty: unknown.
    """

    name: str
    model_class: Any
    settings: Mapping[str, Any] = field(repr=False, default_factory=dict)
    uses_features: bool = False
    scores_cold_items: bool = False
    dataset_class: Any = MultimodalDataset
    trainer_class: Any = MultimodalTrainer
    known_keys: frozenset[str] = field(repr=False, default=frozenset())

    @property
    def learns(self) -> bool:
        """Whether it is trained by an optimizer."""
        return self.model_class.type != ModelType.TRADITIONAL


def model_under_test(name: str) -> ModelUnderTest:
    """A registered model by its name."""
    parts = components(name)
    entry, settings = parts.entry, parts.defaults_for("block_world")
    return ModelUnderTest(
        name=name,
        model_class=parts.model_class,
        settings=settings,
        uses_features=entry.needs_features,
        scores_cold_items=getattr(parts.model_class, "scores_cold_items", entry.needs_features),
        dataset_class=parts.dataset_class,
        trainer_class=parts.trainer_class,
        known_keys=frozenset(parts.known_keys | set(settings)),
    )


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A model built on a world; trained unless it comes from `Testbed.build`."""

    under_test: ModelUnderTest
    world: BlockWorld
    config: Any
    splits: list[Any]
    model: Any
    trainer: Any

    @property
    def losses(self) -> list[float]:
        """Mean training loss of each epoch."""
        return [entry["loss"] for entry in self.trainer.history]

    @cached_property
    def user_ids(self) -> np.ndarray:
        """Internal id of each user position of the world."""
        return self._ids(self.splits[0].uid_field, self.world.users)

    @cached_property
    def item_ids(self) -> np.ndarray:
        """Internal id of each item position of the world."""
        return self._ids(self.splits[0].iid_field, self.world.items)

    def _ids(self, column: str, tokens: Iterable[str]) -> np.ndarray:
        place = self.splits[0].field2token_id[column]
        return np.array([place[token] for token in tokens])

    def scores(self, users: np.ndarray | None = None) -> Tensor:
        """Scores [users, item_num] by internal ids, PAD in column 0; default: all users."""
        ids = torch.as_tensor(self.user_ids if users is None else users)
        self.model.eval()
        with torch.no_grad():
            batch = Interaction({self.splits[0].uid_field: ids}).to(self.config["device"])
            return self.model.full_sort_predict(batch).view(len(ids), -1).clone().cpu()

    def scores_by_position(self) -> Tensor:
        """Scores [users, items] by the world's positions."""
        return self.scores()[:, torch.from_numpy(self.item_ids)]

    def pairs(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Internal (user, item) ids of a split."""
        return self.splits[SPLITS.index(split)].pairs()

    def task(self, target: str, masked: Iterable[str]) -> EvalTask:
        """Ranking for the users of split `target`, without the items of the splits `masked`."""
        train = self.splits[0]
        seen = [self.pairs(split) for split in masked]
        shape = (train.user_num, train.item_num)
        order = tie_ranks(train.field2id_token[train.iid_field])
        return EvalTask.from_pairs(self.pairs(target), seen, shape, order)

    def batches(self) -> Any:
        """The training batches."""
        return train_loader(self.under_test.model_class, self.config, self.splits)

    def batch(self) -> Any:
        """A first training batch on the model's device."""
        return next(iter(self.batches())).to(self.config["device"])


def _own_settings(under_test: ModelUnderTest) -> dict[str, Any]:
    names = [kind.__name__ for kind in under_test.model_class.__mro__]
    return next((MODEL_TEST_CONFIG[name] for name in names if name in MODEL_TEST_CONFIG), {})


class Testbed:
    """Builds and trains one model on synthetic data sets; equal fits are computed once.

    Args:
        model: a registered name, or a model of your own.
        folder: gets the data sets.
        world: that checks start from; default: `make_blocks()`.
        device: cpu or cuda.
    """

    def __init__(
        self,
        model: str | ModelUnderTest,
        folder: Path,
        world: BlockWorld | None = None,
        device: str = "cpu",
    ) -> None:
        self.under_test = model_under_test(model) if isinstance(model, str) else model
        self.folder = Path(folder)
        self.world = world or make_blocks()
        self.device = device
        self._folders: dict[BlockWorld, Path] = {}
        self._fits: dict[Any, FittedModel] = {}
        self._numbers = itertools.count()

    def folder_of(self, world: BlockWorld) -> Path:
        """Folder of a world's data set, written at first use."""
        if world not in self._folders:
            self._folders[world] = world.write(self.folder / f"world{next(self._numbers)}")
        return self._folders[world]

    def config(self, world: BlockWorld, seed: int, settings: Mapping[str, Any]) -> Any:
        """A RecBole configuration for a world; later sources win."""
        folder = self.folder_of(world)
        given = {
            **self.under_test.settings,
            **world_settings(),
            **TEST_CONFIG,
            **_own_settings(self.under_test),
            "features": list(world.features),
            "epochs": EPOCHS,
            **settings,
            "seed": seed,
            "data_path": str(folder.parent),
            "checkpoint_dir": str(self.folder / "checkpoints"),
            "gpu_id": "" if self.device == "cpu" else "0",
            "show_progress": False,
        }
        for harness_only in ("expected", "downloads"):
            given.pop(harness_only, None)
        with hide_command_line():
            config = Config(
                model=self.under_test.model_class, dataset=world.name, config_dict=dict(given)
            )
        config["data_path"] = str(folder)
        return config

    def splits(self, config: Any) -> list[Any]:
        """Training, validation and test split."""
        return self.under_test.dataset_class(config).build()

    def build(
        self, world: BlockWorld | None = None, *, seed: int = 1, **settings: Any
    ) -> FittedModel:
        """An untrained model with its trainer."""
        world = world or self.world
        config = self.config(world, seed, settings)
        splits = self.splits(config)
        init_seed(seed, True)
        model = self.under_test.model_class(config, splits[0]).to(config["device"])
        return FittedModel(
            self.under_test,
            world,
            config,
            splits,
            model,
            self.under_test.trainer_class(config, model),
        )

    def fit(
        self,
        world: BlockWorld | None = None,
        *,
        seed: int = 1,
        validate: bool = False,
        **settings: Any,
    ) -> FittedModel:
        """A trained model; of the last epoch, or of the best one where `validate` is set."""
        world = world or self.world
        key = (world, seed, validate, repr(sorted(settings.items())))
        if key not in self._fits:
            self._fits[key] = self.fresh_fit(world, seed=seed, validate=validate, **settings)
        return self._fits[key]

    def smoke_fit(self, world: BlockWorld | None = None, **settings: Any) -> FittedModel:
        """`fit` for a few epochs."""
        return self.fit(world, epochs=SMOKE_EPOCHS, **settings)

    def one_batch_fit(self, world: BlockWorld | None = None, **settings: Any) -> FittedModel:
        """`fit` with one batch per epoch: the right answers as well, in half the time."""
        return self.fit(world, train_batch_size=ONE_BATCH, **settings)

    def fresh_fit(
        self,
        world: BlockWorld | None = None,
        *,
        seed: int = 1,
        validate: bool = False,
        **settings: Any,
    ) -> FittedModel:
        """The same, not from the cache."""
        fit = self.build(world, seed=seed, **settings)
        task = fit.task("valid", ["train"]) if validate else None
        fit.trainer.fit(fit.batches(), task, saved=False, show_progress=False)
        return fit
