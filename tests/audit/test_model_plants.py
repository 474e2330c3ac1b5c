"""Models that read what they may not, each with its clean twin, under the audit's checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from broken_models import (
    CentresTheBatch,
    RanksByNumber,
    ReadsTheTestRows,
    TiesByNumber,
)

from alignrec_recbole.audit.definition import Finding
from alignrec_recbole.audit.registry import CHECKS
from alignrec_recbole.audit.rows import Rows
from alignrec_recbole.audit.subject import Subject
from alignrec_recbole.models.bpr import BPR
from alignrec_recbole.models.dualgnn import DualGNN
from alignrec_recbole.models.lightgcn import LightGCN
from alignrec_recbole.models.pop import Pop
from alignrec_recbole.models.positional_canary import PositionalCanary
from alignrec_recbole.registry import models
from alignrec_recbole.runs.spec import DataSpec
from alignrec_recbole.testing import testbed as testbeds
from alignrec_recbole.testing.testbed import ModelUnderTest, model_under_test

BY_NAME = {check.name: check for check in CHECKS if check.group == "models"}


class ShufflesAtEachStep:
    """Draws a permutation at each step, which the check cannot replace."""

    def loss_terms(self, *batch: Any) -> Any:
        torch.randperm(3)
        return super().loss_terms(*batch)  # type: ignore[misc]


class ShufflingCanary(ShufflesAtEachStep, PositionalCanary):
    """A canary whose training cannot be held fixed."""


class ShufflingLightGCN(ShufflesAtEachStep, LightGCN):
    """Its clean twin."""


class NearUsersByNumber(DualGNN):
    """Takes users with a near number among those with equally many common items."""

    def __init__(self, config: Any, dataset: Any) -> None:
        tokens = dataset.field2id_token
        dataset.field2id_token = {**tokens, dataset.uid_field: _in_order(dataset)}
        super().__init__(config, dataset)
        dataset.field2id_token = tokens


def _in_order(dataset: Any) -> np.ndarray:
    from alignrec_recbole.features.item_order import TIE_SEED, seeded_order

    count = len(dataset.field2id_token[dataset.uid_field]) - 1
    order = seeded_order(["[PAD]", *map(str, range(1, count + 1))], TIE_SEED)
    return np.array(["[PAD]", *map(str, order)])


@dataclass(frozen=True)
class Plant:
    """A model, the check that finds it, its verdict, and a twin in which there is nothing."""

    check: str
    planted: Any
    twin: Any
    verdict: str = "leak"
    trainer: Any = None


PLANTS = {
    "positions of numbers": Plant("model-numbers", PositionalCanary, LightGCN),
    "positions of numbers, draws unknown": Plant(
        "model-numbers", ShufflingCanary, ShufflingLightGCN
    ),
    "near users by number": Plant("model-numbers", NearUsersByNumber, DualGNN),
    "held-out rows": Plant("model-held-out-rows", ReadsTheTestRows, Pop),
    "mean of the batch": Plant("model-batches", CentresTheBatch, BPR, "suspicious"),
    "a bonus by number": Plant("model-ties", TiesByNumber, Pop),
    "a sort by number": Plant("model-ties", BPR, BPR, trainer=RanksByNumber),
}


@pytest.fixture
def small() -> Subject:
    """A subject with a row per split; the checks of models do not read it."""
    rows = Rows.of(np.array([0, 0, 0]), np.array([0, 1, 2]), np.array([0, 1, 2]))
    return Subject(DataSpec("small"), rows)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModelUnderTest]:
    """Models that the checks find by name."""
    known: dict[str, ModelUnderTest] = {}
    monkeypatch.setattr(
        testbeds, "model_under_test", lambda name: known.get(name) or model_under_test(name)
    )
    return known


def finding(
    registered: dict[str, ModelUnderTest], small: Subject, check: str, model: Any, trainer: Any
) -> Finding:
    """What a check says about a class."""
    base = next(kind.__name__ for kind in model.__mro__ if kind.__name__ in models.MODELS)
    parts = {"trainer_class": trainer} if trainer else {}
    under_test = replace(model_under_test(base), model_class=model, **parts)
    registered["Planted"] = under_test
    (found,) = BY_NAME[check].run(replace(small, model="Planted"))
    return found


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_model_is_found_and_its_twin_is_clean(
    name: str, registered: dict[str, ModelUnderTest], small: Subject
) -> None:
    plant = PLANTS[name]
    found = finding(registered, small, plant.check, plant.planted, plant.trainer)
    assert found.verdict == plant.verdict
    assert finding(registered, small, plant.check, plant.twin, None).verdict == "clean"


def test_the_canary_is_found_by_name_and_in_no_list(small: Subject) -> None:
    assert "PositionalCanary" not in {entry.name for entry in models.list_models()}
    assert models.resolve("PositionalCanary").is_native
    (found,) = BY_NAME["model-numbers"].run(replace(small, model="PositionalCanary"))
    assert found.verdict == "leak"
    assert found.control == 0
