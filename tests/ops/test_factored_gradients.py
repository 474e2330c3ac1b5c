"""Large learnt tables updated tile by tile move as they do with formed gradients."""

import pytest
import torch
from torch import nn

from alignrec_recbole.ops import factored_gradients, linear, matmul, optimizers
from alignrec_recbole.ops.optimizers import FactoredAdam, FactoredAdamW

KINDS = {FactoredAdam: torch.optim.Adam, FactoredAdamW: torch.optim.AdamW}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    for kind in KINDS:
        monkeypatch.setattr(kind, "MIN_TABLE_BYTES", 0)
        monkeypatch.setattr(kind, "TILE_BYTES", 7 * 24 * 4)  # seven rows; the last tile has four


ROWS = torch.tensor([31, 0, 5, 5, 6, 7, 30, 31])


def product(table, layer):
    return linear.linear(table, layer.weight, layer.bias).sigmoid().sum()


def rows(table, layer):
    return linear.linear(table, layer.weight, layer.bias, ROWS).sigmoid().sum()


def several(table, layer):  # products, rows, and a use that autograd alone sees
    return product(table, layer) * rows(table, layer) + product(2 * table, layer).square()


def rows_twice(table, layer):  # no whole product; other rows, and a use that autograd alone sees
    other = linear.linear(table, 2 * layer.weight, layer.bias, ROWS[2:6] - 4).sigmoid().sum()
    return rows(table, layer) * other + table.square().sum()


def trained(use, kind, *, saved_after=None, **options):
    """Table, weight, state and steps after four steps; optionally through a state of torch's."""
    torch.manual_seed(0)
    table = nn.Parameter(torch.randn(32, 24))
    layer = nn.Linear(24, 3)
    parameters = [table, *layer.parameters()]
    made = KINDS[kind] if saved_after is not None else kind
    optimizer = made(parameters, lr=0.1, fused=True, **options)
    for step in range(4):
        if step == saved_after:
            state = optimizer.state_dict()
            optimizer = kind(parameters, lr=0.5)
            optimizer.load_state_dict(state)
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        optimizer.zero_grad()
        if step != 2:  # in one step the table is not used, and stays as it is
            use(table, layer).backward()
        else:
            layer(torch.ones(24)).sum().backward()
        if isinstance(optimizer, FactoredAdam | FactoredAdamW):
            assert table.grad is None or use in (several, rows_twice)
        optimizer.step()
        assert not hasattr(table, "factored_gradient")
    state = optimizer.state[table]
    return [table, layer.weight, state["exp_avg"], state["exp_avg_sq"]], state["step"]


@pytest.mark.parametrize("use", [product, rows, several, rows_twice])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_tiles_move_a_table_as_a_formed_gradient_does(use, kind, decay):
    tiled, steps = trained(use, kind, weight_decay=decay)
    formed, same_steps = trained(use, KINDS[kind], weight_decay=decay)
    assert steps == same_steps == 3
    for mine, other in zip(tiled, formed, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_torchs_optimizer_is_continued(kind):
    continued, steps = trained(several, kind, saved_after=1)
    formed, same_steps = trained(several, KINDS[kind])
    assert steps == same_steps
    for mine, other in zip(continued, formed, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_products_of_rows_come_in_few_shapes(monkeypatch):  # oneDNN prepares for each new one
    monkeypatch.setattr(FactoredAdam, "TILE_BYTES", 100 * 24 * 4)
    heights, times = set(), factored_gradients._times
    monkeypatch.setattr(
        factored_gradients, "_times", lambda g, *rest: (heights.add(len(g)), times(g, *rest))[1]
    )
    table, layer = nn.Parameter(torch.randn(1000, 24)), nn.Linear(24, 3)
    optimizer = FactoredAdam([table])
    for _ in range(20):
        optimizer.zero_grad()
        chosen = torch.randint(1000, (300,))
        linear.linear(table, layer.weight, layer.bias, chosen).sum().backward()
        optimizer.step()
    assert heights <= {0, 32, 64}
    assert len(heights) >= 2


def test_gradients_of_a_step_that_was_not_made_are_dropped():
    table, layer = nn.Parameter(torch.randn(32, 24)), nn.Linear(24, 3)
    optimizer = FactoredAdam([table])
    optimizer.zero_grad()
    product(table, layer).backward()
    optimizer.zero_grad()
    before = table.detach().clone()
    optimizer.step()
    assert torch.equal(table, before)
    assert not optimizer.state[table]


def test_before_zero_grad_and_after_step_gradients_are_formed():
    table, layer = nn.Parameter(torch.randn(32, 24)), nn.Linear(24, 3)
    optimizer = FactoredAdam([table])
    product(table, layer).backward()
    assert table.grad is not None
    optimizer.zero_grad()
    assert table.grad is None
    optimizer.step()
    product(table, layer).backward()
    assert table.grad is not None


def test_gradients_accumulate_over_backwards_as_formed_ones_do():
    found = []
    for kind in (FactoredAdam, torch.optim.Adam):
        torch.manual_seed(0)
        table, layer = nn.Parameter(torch.randn(32, 24)), nn.Linear(24, 3)
        optimizer = kind([table], lr=0.1)
        optimizer.zero_grad()
        product(table, layer).backward()
        rows(table, layer).backward()
        optimizer.step()
        found.append(table)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_small_tables_are_left_to_autograd(monkeypatch):
    monkeypatch.setattr(FactoredAdam, "MIN_TABLE_BYTES", 32 * 24 * 4 + 1)
    optimizer = FactoredAdam([nn.Parameter(torch.randn(32, 24))])
    assert not list(optimizer.large_tables())


@pytest.mark.parametrize("option", [{"amsgrad": True}, {"maximize": True}, {"fused": False}])
def test_options_that_tiles_do_not_have_are_refused(option):
    with pytest.raises(ValueError, match="FactoredAdam"):
        FactoredAdam([nn.Parameter(torch.randn(2, 2))], **option)


def test_a_step_hook_is_called_once_a_step():
    optimizers.Adam([nn.Parameter(torch.zeros(1))])  # torch wraps its `step`, too
    table, calls = nn.Parameter(torch.randn(4, 4)), []
    optimizer = FactoredAdam([table])
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    optimizer.zero_grad()
    optimizer.step()
    assert calls == [1]


@pytest.mark.parametrize("use", [product, rows])
def test_bfloat16_products_are_collected_in_their_type(use):
    torch.manual_seed(0)
    table, layer = nn.Parameter(torch.randn(32, 24)), nn.Linear(24, 3)
    other = nn.Parameter(table.detach().clone())
    optimizers_ = [
        kind([x], lr=0.1, fused=True)
        for kind, x in ((FactoredAdam, table), (torch.optim.Adam, other))
    ]
    with matmul.precision(torch.bfloat16):
        for optimizer, x in zip(optimizers_, (table, other), strict=True):
            optimizer.zero_grad()
            use(x, layer).backward()
            optimizer.step()
    states = [o.state[x]["exp_avg"] for o, x in zip(optimizers_, (table, other), strict=True)]
    torch.testing.assert_close(*states, rtol=1e-2, atol=1e-6)
    assert states[0].dtype == torch.float32
