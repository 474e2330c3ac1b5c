"""Training batches of users, positives and negatives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import InputType, ModelType

from alignrec_recbole.training import memory_estimate
from alignrec_recbole.training.sampler import PairSampler

USUAL_WIDTH = 64  # of the vectors of models without a setting embedding_size


class PairBatches:
    """Batches (user, item, negative) of a training split as RecBole Interactions on the device.

    Args:
        dataset: training split.
        config: reads train_batch_size, train_neg_sample_args.sample_num, NEG_PREFIX, seed, device;
            embedding_size for the memory that negatives need.
    """

    def __init__(self, dataset: Any, config: Any) -> None:
        self.fields = (
            dataset.uid_field,
            dataset.iid_field,
            config["NEG_PREFIX"] + dataset.iid_field,
        )
        arguments = config["train_neg_sample_args"] or {}
        size = config["embedding_size"]
        memory_estimate.check_negatives(
            len(dataset.inter_feat),
            int(arguments.get("sample_num") or 1),
            config["train_batch_size"],
            size if isinstance(size, int) else USUAL_WIDTH,
        )
        self.sampler = PairSampler(
            dataset.inter_feat[dataset.uid_field].numpy(),
            dataset.inter_feat[dataset.iid_field].numpy(),
            negatives=int(arguments.get("sample_num") or 1),
            tokens=dataset.field2id_token[dataset.uid_field],
        )
        self.batch_size = config["train_batch_size"]
        self.device = config["device"]
        self.generator = np.random.default_rng(config["seed"])

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[Interaction]:
        epoch = self.sampler.epoch(self.generator)
        parts = [torch.from_numpy(ids).to(self.device).split(self.batch_size) for ids in epoch]
        for batch in zip(*parts, strict=True):
            yield Interaction(dict(zip(self.fields, batch, strict=True)))


def train_loader(model_class: Any, config: Any, splits: Sequence[Any]) -> Iterable[Interaction]:
    """The training batches of a model, an epoch each time they are iterated.

    Pairs with uniform negatives are drawn by PairBatches; all else (points, whole user rows, other
    negatives) by RecBole's loader. A model that does not learn has none.

    Args:
        model_class: its `type` and `input_type` decide.
        config: of the run.
        splits: training, validation and test split.
    """
    from recbole.data.utils import create_samplers, get_dataloader

    if model_class.type == ModelType.TRADITIONAL:
        return ()
    if draws_pairs(model_class, config):
        return PairBatches(splits[0], config)
    sampler = create_samplers(config, splits[0], splits)[0]
    return get_dataloader(config, "train")(config, splits[0], sampler, shuffle=True)


def replace_loader(loader: Any, model_class: Any, config: Any) -> Any:
    """The batches that stock RecBole hands to a trainer, with its pair loader replaced by ours."""
    if isinstance(loader, AbstractDataLoader) and draws_pairs(model_class, config):
        return PairBatches(loader._dataset, config)
    return loader


def draws_pairs(model_class: Any, config: Any) -> bool:
    """Whether a model learns from pairs with uniform negatives, which PairBatches draws."""
    return bool(
        model_class.type == ModelType.GENERAL
        and model_class.input_type == InputType.PAIRWISE
        and config["train_neg_sample_args"]["distribution"] == "uniform"
        and not config["train_neg_sample_args"]["dynamic"]
    )
