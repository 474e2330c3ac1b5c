"""REARM where a recorded comparison cannot see it: what learns, other numbers of modalities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alignrec_recbole.models import rearm
from alignrec_recbole.testing.testbed import Testbed


def step(fit):
    """The loss terms of one step, and the names of the parameters that it moved."""
    before = {name: value.clone() for name, value in fit.model.state_dict().items()}
    fit.model.train()
    terms = fit.model.calculate_loss(fit.batch())
    torch.stack(tuple(terms)).sum().backward()
    fit.trainer.optimizer.step()
    after = fit.model.state_dict()
    return terms, {name for name, value in after.items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("learnt", [False, True])
def test_layers_of_knowledge_learn_where_they_are_asked_to(tmp_path, learnt):
    fit = Testbed("REARM", tmp_path).build(train_knowledge=learnt)
    _, moved = step(fit)
    assert moved >= {"nodes.weight", "tables.set0", "users.0", "user_maps.left.0.weight"}
    own = {f"{side}_maps.knowledge.{part}" for side in ("user", "item")
           for part in ("weight", "bias")}  # fmt: skip
    assert own & moved == (own if learnt else set())


def test_with_constant_features_users_have_the_mean_of_their_items(tmp_path):
    """The same scores as with tables of users, none of which exists."""
    testbed = Testbed("REARM", tmp_path)
    trained, constant = (testbed.build(train_features=flag) for flag in (True, False))
    assert not len(constant.model.users)
    state = trained.model.state_dict()
    constant.model.load_state_dict({name: state[name] for name in constant.model.state_dict()})
    torch.testing.assert_close(constant.scores(), trained.scores(), rtol=1e-4, atol=1e-5)
    _, moved = step(constant)
    assert "user_projections.0.weight" in moved


def test_one_modality_has_nothing_to_compare(tmp_path):
    fit = Testbed("REARM", tmp_path).build(features=["text"])
    assert not len(fit.model.mutual_attention)
    terms, _ = step(fit)
    assert terms._fields == ("bpr",)


def test_modalities_that_say_the_same_of_different_columns_do_not_overlap(tmp_path):
    model = Testbed("REARM", tmp_path).build(embedding_size=2).model
    ids, one = torch.zeros(4, 2), torch.tensor([[3.0, 0], [-3, 0], [3, 0], [-3, 0]])
    other = torch.tensor([[0.0, 2], [0, 2], [0, -2], [0, -2]])
    apart = model._overlap(torch.cat([ids, one, other], 1)).item()
    assert apart == pytest.approx(0, abs=1e-12)  # some processors round the product of the columns
    same = model._overlap(torch.cat([ids, one, one + 7], 1)).item()  # Σ ±1 · ±1 = 4 in one of four
    assert same == pytest.approx(4**2 / 4, rel=1e-5)


def test_a_node_that_is_often_in_a_batch_is_contrasted_once(tmp_path):
    model = Testbed("REARM", tmp_path).build().model
    rows = torch.randn(5, 3 * model.settings.embedding_size)
    ids = torch.tensor([7, 3, 7, 9, 3])
    rows[2], rows[4] = rows[0], rows[1]
    torch.testing.assert_close(
        model._contrast(rows, ids), model._contrast(rows[[1, 3, 0]], ids[[1, 3, 0]])
    )


def test_a_graph_of_weight_0_is_not_searched(tmp_path, monkeypatch):
    searched, search = [], rearm.cosine_graph

    def noted(table, *arguments, **keywords):
        searched.append(len(table))
        return search(table, *arguments, **keywords)

    monkeypatch.setattr(rearm, "cosine_graph", noted)
    fit = Testbed("REARM", tmp_path).build(mm_image_weight=0.0, user_co_weight=1.0)
    assert searched == [fit.model.n_items]
    rows = np.asarray(fit.model.user_graph.csr.sum(1)).ravel()
    np.testing.assert_allclose(rows[1:], 1)  # of common items alone
