"""Large products against torch's own, in float32, float64 and bfloat16."""

import copy

import pytest
import torch

from alignrec_recbole import losses
from alignrec_recbole.ops import linear, matmul, onednn
from alignrec_recbole.ops.frozen_matrix import FrozenMatrix
from alignrec_recbole.ops.rows import l2_normalize_rows


def gradients(function, *inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    value = function(*inputs)
    weight = torch.linspace(0.5, 1.5, value.numel()).view_as(value)
    return [value.detach(), *torch.autograd.grad((value * weight).sum(), inputs)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [3, 5000])
def test_linear_is_torchs(dtype, rows):
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*s, dtype=dtype) for s in ((rows, 17), (5, 17), (5,)))
    ours = gradients(linear.linear, x, weight, bias)
    theirs = gradients(torch.nn.functional.linear, x, weight, bias)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bound", [1 << 20, 2 * 17 * 4])  # gathered whole, two rows at a time
def test_linear_of_rows_is_torchs(bound, monkeypatch):
    monkeypatch.setattr(linear, "GATHER_BLOCK_BYTES", bound)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(30, 17), torch.randn(5, 17), torch.randn(5)
    rows = torch.tensor([4, 0, 29, 4, 4])
    ours = gradients(lambda *given: linear.linear(*given, rows), x, weight, bias)
    theirs = gradients(lambda x, w, b: torch.nn.functional.linear(x[rows], w, b), x, weight, bias)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_strided_factors_are_made_dense():
    wide = torch.randn(300, 40)
    part, transposed = wide[:, 3:20], wide[:, 3:20].T
    assert not part.is_contiguous()
    assert not transposed.is_contiguous()
    for matrix in (part, transposed, wide[::2], wide.T):
        dense = onednn.dense(matrix)
        assert dense.is_contiguous() or dense.T.is_contiguous()
        product = matmul.matmul_nt(matrix, matrix)
        torch.testing.assert_close(product, matrix @ matrix.T, rtol=1e-4, atol=1e-4)
    assert onednn.dense(wide.T).data_ptr() == wide.data_ptr()  # no copy where none is needed


@pytest.mark.parametrize("rows", [(250, 350), (350, 250)])
def test_large_factors_that_lie_across_give_the_same(rows):
    left, right, bias = torch.randn(250, rows[0]), torch.randn(250, rows[1]), torch.randn(rows[1])
    assert left.numel() * rows[1] >= matmul._LARGE
    for one, other in [(left.T, right.T), (left.T, right.T.contiguous())]:
        for given in (None, bias):
            product = matmul.matmul_nt(one, other, given)
            expected = left.T @ right + (0 if given is None else given)
            torch.testing.assert_close(product, expected, rtol=1e-4, atol=1e-4)
    product = matmul.matmul_nt(left.T.contiguous(), right.T)
    assert product.is_contiguous()  # tiles of a gradient go to Adam without a copy
    torch.testing.assert_close(product, left.T @ right, rtol=1e-4, atol=1e-4)


def test_a_packed_factor_gives_the_same_and_is_packed_once(monkeypatch):
    torch.manual_seed(0)
    right, left = torch.randn(70, 12), torch.randn(40, 12)
    factor, pack, calls, packs = FrozenMatrix(), onednn.pack, [], onednn.available()
    monkeypatch.setattr(onednn, "pack", lambda *a: (calls.append(a), pack(*a))[1])
    for rows in (left, left[:3], left[:, ::2].repeat(1, 2), left[:1]):
        torch.testing.assert_close(factor.matmul_nt(rows, right), rows @ right.T)
    assert len(calls) == packs
    other = torch.randn(12, 50).T
    torch.testing.assert_close(factor.matmul_nt(left, other), left @ other.T)
    torch.testing.assert_close(copy.deepcopy(factor).matmul_nt(left, right), left @ right.T)
    double = left.double(), right.double()
    torch.testing.assert_close(factor.matmul_nt(*double), double[0] @ double[1].T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_linears_give_the_same(dtype, bias):
    torch.manual_seed(0)
    inner = torch.nn.Sequential(torch.nn.Linear(12, 7, bias), torch.nn.Tanh())
    model = torch.nn.Sequential(inner, torch.nn.Linear(7, 4)).to(dtype).requires_grad_(False)
    x = torch.randn(3, 5, 12, dtype=dtype)
    expected = model(x)
    matmul.prepack_linears(model)
    matmul.prepack_linears(model)  # what is packed stays
    exact = 2e-2 if dtype == torch.bfloat16 else 1e-5
    for given in (x, x.transpose(0, 1).contiguous().transpose(0, 1)):
        torch.testing.assert_close(model(given), expected, rtol=exact, atol=exact)
    packed = sum(isinstance(m, matmul.PrepackedLinear) for m in model.modules())
    assert packed == (2 if onednn.available(dtype) else 0)
    assert packed == 0 or dtype != torch.float64


def test_only_plain_linears_are_packed():
    class Scaled(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = torch.nn.Sequential(Scaled(3, 2), torch.nn.MultiheadAttention(4, 2))
    matmul.prepack_linears(model)
    assert isinstance(model[0], Scaled)
    assert isinstance(model[1].out_proj.weight, torch.nn.Parameter)


def test_a_constant_factor_is_rounded_once_and_changes_no_bit():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(40, 17), torch.randn(5, 17), torch.randn(5)
    table = FrozenMatrix()
    assert table.rounded(x) is x
    with matmul.precision(torch.bfloat16):
        low = table.rounded(x)
        assert table.rounded(x) is low
        assert table.rounded(x.clone()) is not low
        learnt = x.clone().requires_grad_()
        assert table.rounded(learnt) is learnt
        once = gradients(lambda w, b: linear.linear(low, w, b), weight, bias)
        each = gradients(lambda w, b: linear.linear(x, w, b), weight, bias)
    for mine, other in zip(once, each, strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, other)


@pytest.mark.parametrize("bound", [0, 1 << 20])  # without and with the transpose
@pytest.mark.parametrize("kind", [None, torch.bfloat16])
def test_a_constant_factor_gives_linear_and_its_gradients(kind, bound, monkeypatch):
    monkeypatch.setattr(FrozenMatrix, "MAX_TRANSPOSED_BYTES", bound)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(300, 17), torch.randn(5, 17), torch.randn(5)
    factor = FrozenMatrix()
    with matmul.precision(kind):
        theirs = gradients(lambda w, b: linear.linear(x, w, b), weight, bias)
        for _ in range(2):
            ours = gradients(lambda w, b: factor.linear(x, w, b), weight, bias)
            for mine, other in zip(ours, theirs, strict=True):
                assert mine.dtype == torch.float32
                loose = 1e-5 if kind is None else 1e-2
                torch.testing.assert_close(mine, other, rtol=loose, atol=loose * other.norm())
        assert ("transposed" in factor._forms) == (bound > 0)
        wider = torch.cat([x, x])  # another table: what was kept is not used for it
        twice = gradients(lambda w, b: factor.linear(wider, w, b), weight, bias)
        expected = gradients(lambda w, b: linear.linear(wider, w, b), weight, bias)
        for mine, other in zip(twice, expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=loose, atol=loose * other.norm())


def test_a_learnt_factor_gets_its_gradient():
    x, weight = torch.randn(4, 3, requires_grad=True), torch.randn(2, 3)
    factor = FrozenMatrix()
    factor.linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(4, 3))
    assert not factor._forms


def test_frozen_input_gets_no_gradient():
    x, weight, bias = torch.randn(4, 3), torch.randn(2, 3, requires_grad=True), torch.zeros(2)
    linear.linear(x, weight, bias).sum().backward()
    assert x.grad is None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(2, 3))


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (linear.linear, ((300, 40), (8, 40), (8,))),
        (lambda x, y: losses.info_nce(x, y, 0.2), ((300, 8), (300, 8))),
        (lambda x, y: losses.info_nce(x, y, 0.2, normalise=False), ((300, 8), (300, 8))),
        (lambda x: losses.similarity_matrix_distance(
            x, torch.linspace(-1, 1, 300 * 200).view(300, 200)),
         ((300, 8),)),
    ],
)  # fmt: skip
def test_bfloat16_costs_at_most_two_percent(function, shapes):
    torch.manual_seed(1)
    inputs = [torch.randn(*shape) for shape in shapes]
    exact = gradients(function, *inputs)
    with matmul.precision(torch.bfloat16):
        rough = gradients(function, *inputs)
    differs = False
    for mine, other in zip(rough, exact, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - other).norm() <= 0.02 * other.norm()
        differs = differs or not torch.equal(mine, other)
    assert differs  # bfloat16 was really used


def test_float64_and_what_lies_outside_stay_exact():
    x = torch.randn(8, 4, dtype=torch.float64)
    with matmul.precision(torch.bfloat16):
        torch.testing.assert_close(linear.linear(x, x, x[:, 0]), x @ x.T + x[:, 0])
        with matmul.precision(None):
            assert matmul.product_dtype(torch.ones(1)) == torch.float32
    assert matmul.product_dtype(torch.ones(1)) == torch.float32


@pytest.mark.parametrize("normalise", [True, False])
def test_blocks_of_the_contrastive_loss_do_not_show(monkeypatch, normalise):
    torch.manual_seed(2)
    x, y = torch.randn(37, 6), torch.randn(37, 6)

    def loss(a, b):
        return losses.info_nce(a, b, 0.3, normalise=normalise)

    whole = gradients(loss, x, y)
    monkeypatch.setattr(losses, "CONTRAST_BLOCK_ROWS", 10)
    for mine, other in zip(gradients(loss, x, y), whole, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_strips_of_the_gram_matrix_do_not_show():
    torch.manual_seed(3)
    left, right = torch.randn(20, 4), torch.randn(20, 2 * losses.SIMILARITY_BLOCK_COLUMNS + 7)
    direct = (left @ left.T - right @ right.T).norm() / 20
    torch.testing.assert_close(losses.similarity_matrix_distance(left, right), direct)


@pytest.mark.parametrize("shape", [(50, 7), (9, 3, 5)])
def test_unit_rows_are_torchs_but_for_zero_rows(shape):
    torch.manual_seed(0)
    x = torch.randn(*shape, dtype=torch.float64)
    ours = gradients(l2_normalize_rows, x)
    theirs = gradients(lambda x: torch.nn.functional.normalize(x, dim=-1), x)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)
    x[2] = 0
    unit, gradient = gradients(l2_normalize_rows, x)
    assert not unit[2].any()
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient[3:], ours[1][3:])


@pytest.mark.parametrize("learnt", [False, True])
def test_more_rows_than_the_table_has_are_products_of_the_whole_table(learnt, monkeypatch):
    table = torch.randn(6, 5, requires_grad=learnt)
    weight, bias = torch.randn(3, 5, requires_grad=True), torch.randn(3, requires_grad=True)
    rows = torch.tensor([4, 1, 4, 0, 5, 4, 2, 1])
    wanted = [tensor for tensor in (table, weight, bias) if tensor.requires_grad]
    found = []
    for product in (linear.linear, FrozenMatrix().linear):
        out = product(table, weight, bias, rows)
        weights = torch.arange(out.numel()).view_as(out).cos()
        found.append((out, *torch.autograd.grad((out * weights).sum(), wanted)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)

    def refuse(*arguments, **keywords):
        assert arguments[3:] in ((), (None,)), "rows of the table were gathered"
        assert keywords.get("rows") is None
        return linear.linear(*arguments, **keywords)

    monkeypatch.setattr("alignrec_recbole.ops.frozen_matrix.linear", refuse)
    FrozenMatrix().linear(table, weight, bias, rows)
