"""Large learnt tables, updated tile by tile, move as with formed gradients."""

import pytest
import torch
from torch import nn

from alignrec_recbole.ops import factored_gradients, linear, matmul
from alignrec_recbole.ops.factored_gradients import TableGradients


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(TableGradients, "FROM_BYTES", 0)
    monkeypatch.setattr(TableGradients, "TILE_BYTES", 7 * 24 * 4)  # seven rows; the last has four


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


def trained(use, kind, collect, **options):
    torch.manual_seed(0)
    table = nn.Parameter(torch.randn(32, 24))
    layer = nn.Linear(24, 3)
    optimizer = kind([table, *layer.parameters()], lr=0.1, fused=True, **options)
    gradients = TableGradients(optimizer) if collect else None
    for step in range(4):
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        optimizer.zero_grad()
        with linear.collecting(gradients):
            if step != 2:  # in one step the table is not used, and rests
                use(table, layer).backward()
            else:
                layer(torch.ones(24)).sum().backward()
            assert not collect or table.grad is None or use in (several, rows_twice)
        optimizer.step()
    state = optimizer.state[table]
    return [table, layer.weight, state["exp_avg"], state["exp_avg_sq"]], state["step"]


@pytest.mark.parametrize("use", [product, rows, several, rows_twice])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_tiles_move_a_table_as_a_formed_gradient_does(use, kind, decay):
    tiled, steps = trained(use, kind, collect=True, weight_decay=decay)
    formed, same_steps = trained(use, kind, collect=False, weight_decay=decay)
    assert steps == same_steps == 3
    for mine, other in zip(tiled, formed, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_products_of_rows_come_in_few_shapes(monkeypatch):  # oneDNN keeps what it makes for each
    monkeypatch.setattr(TableGradients, "TILE_BYTES", 100 * 24 * 4)
    heights, times = set(), factored_gradients._times
    monkeypatch.setattr(
        factored_gradients, "_times", lambda g, *rest: (heights.add(len(g)), times(g, *rest))[1]
    )
    table, layer = nn.Parameter(torch.randn(1000, 24)), nn.Linear(24, 3)
    optimizer = torch.optim.Adam([table], fused=True)
    gradients = TableGradients(optimizer)
    for _ in range(20):
        chosen = torch.randint(1000, (300,))
        with linear.collecting(gradients):
            linear.linear(table, layer.weight, layer.bias, chosen).sum().backward()
        optimizer.step()
    assert heights <= {0, 32, 64}
    assert len(heights) >= 2


def test_a_step_that_never_came_leaves_nothing_behind():
    table, layer = nn.Parameter(torch.randn(32, 24)), nn.Linear(24, 3)
    optimizer = torch.optim.Adam([table], fused=True)
    gradients = TableGradients(optimizer)
    with linear.collecting(gradients):
        product(table, layer).backward()
    with linear.collecting(gradients):
        pass
    before = table.detach().clone()
    optimizer.step()
    assert torch.equal(table, before)
    assert not optimizer.state[table]


def test_outside_gradients_are_formed():
    table, layer = nn.Parameter(torch.randn(32, 24)), nn.Linear(24, 3)
    TableGradients(torch.optim.Adam([table], fused=True))
    product(table, layer).backward()
    assert table.grad is not None


def test_small_tables_are_left_to_autograd(monkeypatch):
    monkeypatch.setattr(TableGradients, "FROM_BYTES", 32 * 24 * 4 + 1)
    table = nn.Parameter(torch.randn(32, 24))
    assert table not in TableGradients(torch.optim.Adam([table], fused=True))


@pytest.mark.parametrize("use", [product, rows])
def test_bfloat16_products_are_collected_in_their_type(use):
    torch.manual_seed(0)
    table, layer = nn.Parameter(torch.randn(32, 24)), nn.Linear(24, 3)
    other = nn.Parameter(table.detach().clone())
    optimizers = [torch.optim.Adam([x], lr=0.1, fused=True) for x in (table, other)]
    with matmul.precision(torch.bfloat16):
        with linear.collecting(TableGradients(optimizers[0])):
            use(table, layer).backward()
        use(other, layer).backward()
    for optimizer in optimizers:
        optimizer.step()
    states = [o.state[x]["exp_avg"] for o, x in zip(optimizers, (table, other), strict=True)]
    torch.testing.assert_close(*states, rtol=1e-2, atol=1e-6)
    assert states[0].dtype == torch.float32
