"""GRCN, MMGCN, DualGNN and BM3 where a recorded comparison can't see them: worked by hand."""

from __future__ import annotations

import math
import types

import numpy as np
import pytest
import torch
from hand_made_models import build

from alignrec_recbole.errors import SettingError
from alignrec_recbole.models.bm3 import BM3
from alignrec_recbole.models.damrs import DAMRS
from alignrec_recbole.testing.testbed import Testbed

AXES = [[0, 0], [1, 0], [0, 1]]


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_round_of_routing_in_grcn_moves_a_user_towards_his_items(rounds):
    model = build("GRCN", {"text": AXES}, [(1, 1), (1, 2)], latent_embedding=2, n_routings=rounds)
    with torch.no_grad():
        model.projections[0].weight.copy_(torch.eye(2))
        model.projections[0].bias.zero_()
        model.users[0][1] = torch.tensor([3.0, 0.0])
    user = np.array([1.0, 0.0])
    for _ in range(rounds):
        first, second = np.exp(user) / np.exp(user).sum()  # softmax of its cosines with both axes
        user = user + np.array([first, second])
        user /= np.linalg.norm(user)
    nodes = model._content(0)
    np.testing.assert_allclose(nodes[1].detach(), user, rtol=1e-6)
    assert nodes[2:].tolist() == [[0, 0], [1, 0], [0, 1]]
    if rounds == 1:  # e / (e + 1) = 0.7311: (1.7311, 0.2689) by its norm
        np.testing.assert_allclose(user, [0.98815, 0.15352], atol=1e-5)


def test_grcn_cuts_an_edge_whose_sender_is_not_trusted():
    model = build("GRCN", {"text": AXES}, [(1, 1), (1, 2)], embedding_size=1, latent_embedding=2)
    with torch.no_grad():
        model.projections[0].weight.copy_(torch.eye(2))
        model.projections[0].bias.zero_()
        model.users[0][1] = torch.tensor([1.0, 1.0])  # equally near to both: a = 1/2
        model.nodes.weight[:] = torch.tensor([[0.0], [1], [0], [1], [-1]])
        model.trust.weight[:] = torch.tensor([[0.0], [2], [0], [4], [-4]])
    users, items = model.embeddings()
    # w: item 1 → user 2, item 2 → user 0, user → item 2 (one sender: a = 1)
    # e' of user 2·1, of items 2·1 and 2·1; e" of user 2·2, of items 2·2
    assert users[1, 0].item() == pytest.approx(1 + 2 + 4)
    assert items[1:, 0].tolist() == pytest.approx([1 + 2 + 4, -1 + 2 + 4])


@pytest.mark.parametrize("trained", [False, True])
def test_mmgcn_trains_its_vectors_only_when_asked(tmp_path, trained):
    testbed = Testbed("MMGCN", tmp_path)
    fit = testbed.build(train_vectors=trained)
    vectors = [fit.model.nodes.weight, *(branch.users for branch in fit.model.branches)]
    before = [table.detach().clone() for table in vectors]
    fit.model.train()
    terms = fit.model.calculate_loss(fit.batch())
    torch.stack(terms).sum().backward()
    fit.trainer.optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, vectors, strict=True)]
    assert moved == [trained] * len(vectors)
    assert len(terms) == 1 + trained


def test_dualgnn_weighs_the_sets_of_a_user_apart():
    sets = {"image": AXES, "text": AXES}
    model = build("DualGNN", sets, [(1, 1), (2, 1), (2, 2)], embedding_size=1, n_layers=0)
    with torch.no_grad():
        model.shares[1:, :, 0] = torch.tensor([[2.0, 3.0], [0.5, 1.0]])
        for table in model.users:
            table[1:] = torch.tensor([[1.0], [-4.0]])  # ±1 as unit vectors
    users, _ = model.embeddings()
    own = [2 + 3, -0.5 - 1]
    assert users[1:, 0].tolist() == pytest.approx([own[0] + own[1], own[1] + own[0]])


def test_dualgnn_counts_each_like_user_once():
    pairs = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)]
    model = build("DualGNN", {"text": AXES}, pairs, user_k=40)
    near, far = math.exp(2) / (math.exp(2) + math.exp(1)), 1 / (math.e + 1)
    expected = [[0, 0, near, far], [0, near, 0, far], [0, 0.5, 0.5, 0]]
    np.testing.assert_allclose(model.user_user.csr.toarray()[1:], expected)


@pytest.mark.parametrize("name", ["FREEDOM", "MMGCF", "PGL"])
def test_each_epoch_has_edges_of_its_own(tmp_path, name):
    model = Testbed(name, tmp_path).build().model
    drawn = []
    for seed in (1, 2, 1):
        model.begin_epoch(torch.Generator().manual_seed(seed))
        drawn.append(model.epoch_graph.csr.toarray())
    assert np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], drawn[1])
    assert np.count_nonzero(drawn[0]) < np.count_nonzero(model.graph.csr.toarray())


def test_pop_ranks_by_training_interactions(tmp_path):
    fit = Testbed("Pop", tmp_path).build()
    counts = np.bincount(fit.pairs("train")[1], minlength=fit.splits[0].item_num)
    assert len(set(counts[1:])) > 1
    order = fit.scores()[0].numpy()
    assert np.array_equal(
        np.sign(np.subtract.outer(order, order)), np.sign(np.subtract.outer(counts, counts))
    )


def test_bm3_drops_a_row_out_once_a_step():
    model = types.SimpleNamespace(settings=types.SimpleNamespace(dropout=0.5))
    rows = torch.tensor([3, 1, 3, 2, 3])
    torch.manual_seed(0)
    target = BM3._target(model, torch.ones(5, 64, requires_grad=True), rows)
    assert not target.requires_grad
    assert torch.equal(target[0], target[2])
    assert torch.equal(target[0], target[4])
    assert not torch.equal(target[0], target[1])
    assert set(target.ravel().tolist()) == {0.0, 2.0}


def test_damrs_weighs_rows_by_what_the_views_say_of_them():
    """Two views, one user of ones; row weights by hand."""
    views = [torch.tensor([[3.0, 4], [1, 0], [-2, 0]]), torch.tensor([[0.0, 2], [0, 1], [0, -9]])]
    users = torch.tensor([[1.0, 1], [-1, -1]])
    place = torch.tensor([0, 1, 2, 2])  # positives of both rows, then negatives
    up, down = DAMRS._row_weights(None, users, views, place)
    s = [1 / (1 + math.exp(-x)) for x in (1.4, 1, -1)]
    first = (s[0] + s[1]) / 2 * math.exp(-2 * (s[0] - s[1]) ** 2 / 2)
    negative = (s[2] * 2 + s[1] * 2) / 4
    assert up.tolist() == pytest.approx([first, s[2]])
    assert s[2] < negative
    assert down.tolist() == [0, 0]
    views[0][1] = torch.tensor([-1.0, 0])  # the views differ about the second positive
    up, down = DAMRS._row_weights(None, users, views, torch.tensor([0, 1, 0, 1]))
    negative = (s[0] + 2 * s[1] + s[2]) / 4
    assert up.tolist() == pytest.approx([first, 0.5 * math.exp(-((s[1] - s[2]) ** 2))])
    assert negative > 0.5
    assert down.tolist() == pytest.approx([0, s[1] - negative])


def test_damrs_takes_several_negatives_as_rows_of_their_own(tmp_path):
    """With the same negative twice, all terms are those of one."""
    model = Testbed("DAMRS", tmp_path).build().model
    users, positives, negatives = torch.tensor([[1, 2, 2], [3, 4, 3], [5, 6, 6]])
    once = model.loss_terms(users, positives, negatives)
    twice = model.loss_terms(users, positives, negatives[:, None].expand(-1, 2))
    for name, value in once.items():
        torch.testing.assert_close(value, twice[name])


def test_soil_normalises_both_orders_of_interest_once_for_users_and_items(tmp_path):
    """Users' contents go over a block of the graph; own items weigh 1 in the second order."""
    fit = Testbed("SOIL", tmp_path).build(second_order_k=1)
    model, n_users = fit.model, fit.model.n_users
    block = model.user_item.csr.toarray()
    np.testing.assert_array_equal(block, model.graph.csr.toarray()[:n_users, n_users:])
    second = 2 * (block - model.interactions.toarray())
    user, item = fit.splits[0].pairs()
    assert (second[user, item] > 0).all()  # own items
    others = second.copy()
    others[user, item] = 0
    assert others.sum() > 0
    assert not others[0].any()
    assert not others[:, 0].any()
    assert np.linalg.eigvalsh(second @ second.T).max() == pytest.approx(1)  # D^-½ A D^-½


def test_soils_second_order_is_bounded(tmp_path):
    with pytest.raises(SettingError, match="second_order_k"):
        Testbed("SOIL", tmp_path).build(second_order_k=10**6)
