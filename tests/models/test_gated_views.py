"""Models of gated views compute all nodes, or only a batch's rows: both give the same."""

from __future__ import annotations

import pytest
import torch

from alignrec_recbole.models._gated_views import GatedPass
from benchmarks.parity import one_epoch

MODELS = ("MGCN", "SMORE", "SOIL", "MSCA", "GUME")
USERS, ITEMS = torch.tensor([3, 7, 3, 60]), torch.tensor([2, 90, 2, 15, 5, 5, 71, 40])


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    """A model of 60 users and 90 items in float64; one that drops out does not here."""
    return one_epoch.build_ours(request.param, ("image", "text"), double=True).eval()


def gradients(model: torch.nn.Module, found: GatedPass) -> list[torch.Tensor]:
    """Of a sum in which every output has another weight."""
    outputs = (found.ids, found.contents(), found.content_view, found.item_content)
    total = sum((out * torch.arange(out.numel()).view_as(out).cos()).sum() for out in outputs)
    given = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    return [g for g in given if g is not None]


def test_the_whole_pass_equals_that_of_the_rows(model: torch.nn.Module) -> None:
    rows = torch.cat([USERS, ITEMS + model.n_users])
    passes = model._forward(USERS, ITEMS), model._whole_forward(rows)
    assert len(rows) < model.n_users + model.n_items, "_forward computes these rows only"
    for name in ("ids", "content_view", "item_content"):
        torch.testing.assert_close(*(getattr(found, name) for found in passes))
    torch.testing.assert_close(*(found.contents() for found in passes))
    one, other = (gradients(model, found) for found in passes)
    torch.testing.assert_close(one, other)


def test_a_batch_of_as_many_rows_as_nodes_is_computed_whole(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    whole = type(model)._whole_forward

    def counted(self: torch.nn.Module, rows: torch.Tensor) -> GatedPass:
        calls.append(len(rows))
        return whole(self, rows)

    monkeypatch.setattr(type(model), "_whole_forward", counted)
    model._forward(USERS, ITEMS)
    assert not calls
    most = model.n_users + model.n_items
    model._forward(USERS.repeat(most)[: most // 3], ITEMS.repeat(most)[: most - most // 3])
    assert calls == [most]
