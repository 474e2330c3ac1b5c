"""Models of any number of modalities with three; a recorded comparison has two at most."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hand_made_models import build

from alignrec_recbole.models._content import ContentRecommender, ModalityFeatures
from alignrec_recbole.models.lgmrec import LGMRec, _Global
from alignrec_recbole.models.rearm import REARM
from alignrec_recbole.registry.components import components
from alignrec_recbole.registry.models import MODELS

KINDS = ("text", "image", "audio")
ONE = {kind: [[0.0], [1.0]] for kind in KINDS}
LEARN = [
    name
    for name, entry in MODELS.items()
    if entry.family == "native"
    and issubclass(kind := components(name).model_class, ContentRecommender)
    and kind.calculate_loss is ContentRecommender.calculate_loss
]


def made(name):
    """A model of 12 users and 16 items that each have all modalities, and the pairs."""
    generator = np.random.default_rng(1)
    pairs = [(u, i) for u in range(1, 13) for i in generator.permutation(16)[:6] + 1]
    sets = {kind: generator.normal(size=(17, 5)) for kind in KINDS}
    for rows in sets.values():
        rows[0] = 0
    torch.manual_seed(0)
    return build(name, sets, pairs, embedding_size=8, train_batch_size=8), pairs


@pytest.mark.parametrize("name", LEARN)
def test_every_parameter_learns_from_three_modalities(name):
    model, pairs = made(name)
    model.train()
    if hasattr(model, "begin_epoch"):
        model.begin_epoch(torch.Generator().manual_seed(0))
    users, items = torch.tensor(pairs[::3]).T
    batch = {model.USER_ID: users, model.ITEM_ID: items, model.NEG_ITEM_ID: items % 16 + 1}
    sum(model.calculate_loss(batch)).backward()
    learnt = {key: value for key, value in model.named_parameters() if value.requires_grad}
    assert learnt
    for key, value in learnt.items():
        assert value.grad is not None, key
        assert value.grad.any(), key


@pytest.mark.parametrize("name", LEARN)
def test_tables_begin_with_zeros_at_pad_alone(name):
    model, _ = made(name)
    tables = 0
    for key, value in model.named_parameters():
        pads = {13: [0], 17: [0], 30: [0, 13]}.get(len(value)) if value.dim() > 1 else None
        if pads is not None:
            used = value.detach().flatten(1).any(1)
            assert used.logical_not().nonzero().ravel().tolist() == pads, key
            tables += 1
    assert tables


def test_weights_of_modalities_are_shared_by_those_of_a_kind():
    for kinds, expected in (
        (("text", "image", "text"), [0.4, 0.2, 0.4]),
        (("image", "text", "audio"), [0.1, 0.8, 0.1]),
        (("text", "text"), [0.5, 0.5]),
        (("image", "audio"), [0.5, 0.5]),
    ):
        found = ModalityFeatures.modality_weights(SimpleNamespace(modalities=kinds), 0.2)
        assert found == pytest.approx(expected)


def test_mgcn_divides_by_one_more_than_its_modalities():
    """C = 3; only what the third view adds to it is preferred: (3 + 6 − 3) / 4."""
    model = build("MGCN", ONE, [(1, 1)], embedding_size=1)
    with torch.no_grad():
        for value in (*model.query.parameters(), *model.preferences.parameters()):
            value.zero_()
        for layer, bias in zip(model.preferences, (-100.0, -100.0, 100.0), strict=True):
            layer.bias.fill_(bias)
    view = model._content_view(torch.ones(1, 1), torch.tensor([[1.0, 2.0, 6.0]]))
    assert view.item() == pytest.approx(1.5)


def test_soil_divides_by_one_more_than_its_modalities():
    """Shares of a third each: ⅔ (1 + 2 + 6) / 4."""
    model = build("SOIL", ONE, [(1, 1)], embedding_size=1)
    with torch.no_grad():
        for value in model.query.parameters():
            value.zero_()
    view = model._content_view(torch.ones(1, 1), torch.tensor([[1.0, 2.0, 6.0]]))
    assert view.item() == pytest.approx(1.5)


def test_gume_compares_every_two_modalities():
    """Means 0, 1 and 3, variances 0: 1 + 3 + 2."""
    model = build("GUME", ONE, [(1, 1)], embedding_size=1)
    assert model._moments(torch.tensor([[0.0, 1.0, 3.0]] * 4)).item() == pytest.approx(6)


def test_an_item_of_rearm_hears_the_mean_of_its_other_modalities():
    """A(q, s) = 10 q + s, and nothing of its own."""
    parts = SimpleNamespace(
        self_attention=[lambda query, source: 0 * query] * 3,
        mutual_attention=[lambda query, source: 10 * query + source] * 3,
        _normed=lambda rows: rows,
    )
    found = REARM._attended(parts, [torch.tensor([[value]]) for value in (1.0, 2.0, 6.0)])
    assert [rows.item() for rows in found] == [1 + 40 + 1, 2 + 35 + 2, 6 + 15 + 6]


def test_lgmrec_contrasts_every_two_modalities():
    generator = torch.Generator().manual_seed(0)
    sets = [_Global(*torch.randn(2, 5, 3, generator=generator)) for _ in KINDS]
    users, items = torch.tensor([[1, 2, 2], [4, 1, 3]])

    def contrast(*chosen):
        parts = SimpleNamespace(settings=SimpleNamespace(temperature=0.2))
        return LGMRec._contrast(parts, chosen, users, items)

    pairs = [contrast(*two) for two in itertools.combinations(sets, 2)]
    torch.testing.assert_close(contrast(*sets), torch.stack(pairs).sum())
