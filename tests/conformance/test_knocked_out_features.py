"""Every model with item features trains and ranks on features that say nothing: no NaN anywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alignrec_recbole.features.table import ItemFeatures
from alignrec_recbole.registry import models
from alignrec_recbole.testing.testbed import FittedModel, Testbed

WITH_FEATURES = [name for name, entry in models.MODELS.items() if entry.needs_features]
KINDS = [
    "zero",
    "constant",
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("random", "popularity-shuffled")),
]


@pytest.fixture(scope="session")
def testbeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Testbed]:
    return {name: Testbed(name, tmp_path_factory.mktemp(name)) for name in WITH_FEATURES}


def check_finite(fit: FittedModel) -> None:
    assert np.isfinite(fit.losses).all()
    assert all(torch.isfinite(value).all() for value in fit.model.parameters())
    assert torch.isfinite(fit.scores()[:, 1:]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WITH_FEATURES)
def test_nothing_is_nan(testbeds: dict[str, Testbed], name: str, kind: str) -> None:
    sets = [f"{kind}:{each}" for each in testbeds[name].world.features]
    check_finite(testbeds[name].smoke_fit(features=sets))
    check_finite(testbeds[name].smoke_fit(features=sets[:1]))


@pytest.mark.parametrize("name", WITH_FEATURES)
def test_zero_rows_that_are_not_missing(testbeds: dict[str, Testbed], name: str, monkeypatch):
    """A feature row of zeros whose item has the features all the same."""
    whole = testbeds[name].under_test.dataset_class.open_features

    def zeros(dataset, feature: str) -> ItemFeatures:
        table = whole(dataset, feature)
        return ItemFeatures(np.zeros_like(table.values), table.present, table.manifest)

    monkeypatch.setattr(testbeds[name].under_test.dataset_class, "open_features", zeros)
    check_finite(testbeds[name].fresh_fit(epochs=3))
