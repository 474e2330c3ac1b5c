"""COHESION's weights of views, and which of its parts learn."""

from __future__ import annotations

import pytest
import torch

from alignrec_recbole.testing.testbed import Testbed


def test_a_view_weighs_less_the_better_it_tells_items_apart(tmp_path):
    model = Testbed("COHESION", tmp_path).build(embedding_size=1).model
    user = torch.tensor([[1.0, 2.0, 1.0]], requires_grad=True)  # three views of one number
    positive, negatives = torch.tensor([[1.0, 1, 0]]), torch.tensor([[0.0, 0, 0], [1, 2, 3]])
    gaps = torch.tensor([[1.0, 2, 0], [0, -2, -3]])
    weight = 1 - torch.softmax(gaps, 1)
    loss = model._balanced_bpr(user, positive, negatives)
    expected = torch.log1p(torch.exp(-(weight * gaps).sum(1))).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    share = torch.sigmoid(-(weight * gaps).sum(1, keepdim=True)) / 2  # weights are constants
    slopes = -(share * weight * (positive - negatives)).sum(0, keepdim=True)
    torch.testing.assert_close(user.grad, slopes)


@pytest.mark.parametrize("learnt", [False, True])
def test_the_view_of_ids_learns_where_it_is_asked_to(tmp_path, learnt):
    fit = Testbed("COHESION", tmp_path).build(train_id_view=learnt)
    before = {name: value.clone() for name, value in fit.model.state_dict().items()}
    fit.model.train()
    terms = fit.model.calculate_loss(fit.batch())
    torch.stack(tuple(terms)).sum().backward()
    fit.trainer.optimizer.step()
    after = fit.model.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved >= {"id_items", "preferences.0", "outer.1.weight"}
    own = {name for name in after if name.startswith(("id_users", "id_layers"))}
    assert own & moved == (own if learnt else set())
