"""One and two threads give the same figures up to rounding, for every model of this package."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from recbole.utils import ModelType

from alignrec_recbole.registry import models
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runs.tasks import build_trainer, train_data, valid_task

STEPS = 3


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder, so that the features are encoded once."""
    return tmp_path_factory.mktemp("threads")


def losses_and_ranking(
    model: str, threads: int, output: Path
) -> tuple[dict[str, float], dict[str, float]]:
    """The loss terms of STEPS steps on ml-100k, and the validation metrics after them."""
    features = ("lsa",) if models.resolve(model).needs_features else ()
    prepared = prepare_run(
        RunSpec(
            model,
            "ml-100k",
            features,
            output=output,
            device="cpu",
            progress=False,
            overrides={"threads": threads},
        )
    )
    assert prepared.data.threads.threads == threads
    trainer = build_trainer(prepared, None)
    losses = {}
    if prepared.components.model_class.type != ModelType.TRADITIONAL:
        steps = itertools.islice(train_data(prepared), STEPS)
        losses = trainer._run_epoch(steps, 0)["losses"]
    ranking = trainer.rank(valid_task(prepared), max(trainer.cutoffs))
    return losses, ranking.means(prepared.config["metrics"], trainer.cutoffs)


@pytest.mark.slow
@pytest.mark.parametrize("model", list(models.MODELS))
def test_the_number_of_threads_changes_rounding_only(model: str, output: Path) -> None:
    (one, first), (two, second) = (losses_and_ranking(model, n, output) for n in (1, 2))
    assert one.keys() == two.keys()
    # rounding of the sum of all terms, of which some are a ten-thousandth
    np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(list(second.values()), list(first.values()), atol=1e-3)
