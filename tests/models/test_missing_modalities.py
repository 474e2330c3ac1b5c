"""MILK and SiBraR where items lack modalities, which no recorded comparison sees: by hand."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
from hand_made_models import build

TEXTS = [[0, 0], [1, 0], [0, 1], [1, 0]]
IMAGES = [[0, 0], [0, 1], [0, 0], [0, 1]]  # item 2 has none
SETS = {"text": TEXTS, "image": IMAGES}
PAIRS = [(1, 1), (2, 2)]
ENVIRONMENTS = torch.tensor([[0.5, 0.5], [0.8, 0.2], [0.2, 0.8]])


def ln_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def milk(**settings):
    model = build("MILK", SETS, PAIRS, missing={"image": [2]}, embedding_size=2, **settings)
    with torch.no_grad():
        model.users[1:] = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
        for layer, bias in zip(model.projections, (0.0, 0.5), strict=True):
            layer.weight.copy_(torch.eye(2))
            layer.bias.fill_(bias)
    model._environments = lambda: ENVIRONMENTS
    return model


def test_milk_averages_what_an_item_has():
    users, items = milk().embeddings()
    assert users[1].tolist() == [1, 2]
    # texts (1, 0) and (0, 1); images (0, 1) and, of item 2, none: not (0.5, 0.5), the bias
    assert items[1:3].tolist() == [[0.75, 0.75], [0, 1]]


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_milk_in_three_environments(weight):
    terms = milk(penalty_weight=weight, align_weight=2.0, reg_weight=0.1).loss_terms(
        torch.tensor([1]), torch.tensor([1]), torch.tensor([2])
    )
    # user (1, 2): texts of items 1 and 2 give 1 and 2, the image of item 1 (0.5, 1.5) gives 3.5;
    # item 1 has half of a mixture of both, item 2 its text in every environment
    losses = [
        -ln_sigmoid(0.5 * (text * 1 + image * 3.5) - 2) for text, image in ENVIRONMENTS.tolist()
    ]
    mean = sum(losses) / 3
    assert terms["bpr"].item() == pytest.approx(sum(losses))
    assert terms["align"].item() == pytest.approx(((1 - 0.5) ** 2 + 1.5**2) / 2)
    squares = (1 + 4) + (0.375**2 + 0.375**2) + 1  # item 1: half of its mean
    assert terms["l2"].item() == pytest.approx(squares / 2)
    if weight:
        variance = sum((one - mean) ** 2 for one in losses) / 2
        assert terms["penalty"].item() == pytest.approx(variance, rel=1e-5)
    assert ("penalty" in terms) == bool(weight)


def test_milk_rotates_what_is_drawn():
    model = build("MILK", {**SETS, "audio": TEXTS}, PAIRS, concentration=0.05)
    torch.manual_seed(1)
    even, *drawn = model._environments()
    assert even.tolist() == pytest.approx([1 / 3] * 3)
    assert [sorted(one.tolist()) for one in drawn] == [sorted(drawn[0].tolist())] * 3
    assert torch.stack(drawn).sum(0).tolist() == pytest.approx([1, 1, 1])


def test_milk_with_one_modality_has_one_environment():
    model = build("MILK", {"text": TEXTS}, PAIRS)
    terms = model.loss_terms(torch.tensor([1]), torch.tensor([1]), torch.tensor([2]))
    assert set(terms) == {"bpr", "l2"}
    assert model._environments().tolist() == [[1]]


def sibrar(**settings):
    model = build("SiBraR", SETS, PAIRS, missing={"image": [2]}, embedding_size=2, **settings)
    with torch.no_grad():
        model.users[1:] = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
        model.items[1:] = torch.tensor([[2.0, 4.0], [6.0, 8.0], [1.0, 3.0]])
        for layer in (*model.projections, model.branch[0], model.branch[2]):
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
    return model


@pytest.mark.parametrize("id_views", ["trained", "all"])
def test_sibrar_averages_the_views_that_an_item_has(id_views):
    _, items = sibrar(id_views=id_views).embeddings()
    assert items[1].tolist() == pytest.approx([(2 + 1 + 0) / 3, (4 + 0 + 1) / 3])
    assert items[2].tolist() == pytest.approx([(6 + 0) / 2, (8 + 1) / 2])
    new = [(1 + 0) / 2, (0 + 1) / 2]  # item 3 has no interactions: text and image
    all_three = [(1 + 1 + 0) / 3, (3 + 0 + 1) / 3]
    assert items[3].tolist() == pytest.approx(new if id_views == "trained" else all_three)


def test_sibrar_draws_what_both_items_have():
    model = sibrar(contrast_weight=0.1, temperature=2.0)
    one, two = torch.tensor([1]), torch.tensor([2])
    for seed in range(20):  # both have ID vectors and texts alone
        torch.manual_seed(seed)
        terms = model.loss_terms(one, one, two)
        # user (1, 2); item 1: (2, 4) + (1, 0), item 2: (6, 8) + (0, 1)
        assert terms["bpr"].item() == pytest.approx(-ln_sigmoid((3 + 8) - (6 + 18)))
        same, crossed = 2.0, (2 * 0 + 4 * 1, 1 * 6 + 0 * 8)
        wanted = sum(-ln_sigmoid((same - other) / 2) for other in crossed)
        assert terms["contrast"].item() == pytest.approx(wanted, rel=1e-5)


def test_sibrar_without_two_common_views():
    model = build("SiBraR", SETS, PAIRS, missing={"text": [1, 2], "image": [2]}, contrast_weight=1)
    one, two = torch.tensor([1]), torch.tensor([2])
    with mock.patch.object(model, "branch", torch.nn.Identity()):
        terms = model.loss_terms(one, one, two)
        user, (right, wrong) = model.users[1], model.items[1:3]
        difference = (2 * (user @ (right - wrong))).item()
    assert terms["bpr"].item() == pytest.approx(-ln_sigmoid(difference), rel=1e-5)
    assert terms["contrast"].item() == 0
