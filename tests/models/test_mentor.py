"""MENTOR's masked and noisy views, which its defaults switch off, and its distances."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from alignrec_recbole import losses
from alignrec_recbole.models import mentor
from alignrec_recbole.testing.checks import chance, data, resources, training
from alignrec_recbole.testing.testbed import Testbed, model_under_test

VIEWS = {"mask_weight_f": 1.5, "mask_weight_g": 0.1}


@pytest.fixture
def testbed(tmp_path) -> Testbed:
    under_test = model_under_test("MENTOR")
    return Testbed(replace(under_test, settings={**under_test.settings, **VIEWS}), tmp_path)


@pytest.mark.parametrize(
    "check",
    [
        training.check_gradients,
        data.check_renumbering_is_harmless,
        chance.check_same_seed_equal,
        resources.check_memory_ceiling,
    ],
)
def test_masked_and_noisy_views_pass_the_checks(testbed, check, monkeypatch):
    monkeypatch.setattr(losses, "CONTRAST_BLOCK_ROWS", 128)  # else one block is a small world
    check(testbed)


@pytest.mark.parametrize("term", ["mask", "noise"])
def test_masked_and_noisy_views_train_what_scores_read(testbed, term):
    model = testbed.build().model
    users, positives, negatives = torch.tensor([[1, 2], [3, 4], [5, 6]])
    model.loss_terms(users, positives, negatives)[term].backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("preferences", "projections", "outer", "attention")):
            assert parameter.grad.abs().sum() > 0, name


def test_noise_is_added_after_each_layer_and_drawn_anew(testbed):
    model = testbed.build().model
    start = torch.cat(model._content_start(), 1).detach()
    size = model.settings.embedding_size
    clean = start + model.graph @ start + model.graph @ (model.graph @ start)
    torch.manual_seed(5)
    first, second = (model._noise(start, clean) for _ in range(2))
    assert not torch.allclose(first, second)
    torch.manual_seed(5)
    noise = {
        (kind, layer): torch.nn.functional.normalize(torch.rand(len(start), size), dim=1) / 10
        for kind, layer in itertools.product(range(2), range(2))
    }
    for kind, own in enumerate(start.split(size, 1)):
        one = model.graph @ own
        one = one + torch.sign(one) * noise[kind, 0]
        two = model.graph @ one
        two = two + torch.sign(two) * noise[kind, 1]
        found = (clean + first)[:, kind * size : (kind + 1) * size]
        torch.testing.assert_close(found, own + one + two)


def test_moments_and_gaps_are_those_of_all_numbers_of_a_view():
    generator = torch.Generator().manual_seed(1)
    users, items = (torch.randn(n, 3, 4, generator=generator) + n for n in (5, 8))
    mean, variance = mentor._moments(users, items)
    for view in range(3):
        numbers = torch.cat([users[:, view], items[:, view]])
        torch.testing.assert_close(mean[view], numbers.mean())
        torch.testing.assert_close(variance[view], numbers.var(correction=0))
    assert mentor._gaps(torch.tensor([1.0, 4.0, -2.0])).item() == 3 + 3 + 6
