"""Losses as pure functions of tensors, without the large matrices of their formulas.

Where columns are divided among processes (`ops.columns`), vectors are given by their own columns,
and every process returns the whole loss.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alignrec_recbole.ops import columns
from alignrec_recbole.ops.matmul import column_major_is_fast, matmul_nt, product_dtype
from alignrec_recbole.ops.rows import gather_rows, l2_normalize_rows, row_blocks
from alignrec_recbole.ops.topk import top_k


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Mean of −ln σ(positive − negative); scores [b] and [b], equal scores cost ln 2.

    RecBole's and MMRec's BPRLoss is −ln(10⁻¹⁰ + σ): a difference of scores below −18 costs less
    there, at most 23.03, and its gradient vanishes.

    Source: Rendle et al., BPR, UAI 2009.

    >>> bpr(torch.tensor([2.0]), torch.tensor([2.0]))
    tensor(0.6931)
    """
    return F.softplus(negative - positive).mean()


def binary_cross_entropy(positive: Tensor, negative: Tensor) -> Tensor:
    """Mean of −ln σ(positive) − ln(1 − σ(negative)), scores [b] each.

    >>> binary_cross_entropy(torch.tensor([0.0]), torch.tensor([0.0]))
    tensor(1.3863)
    """
    return (F.softplus(-positive) + F.softplus(negative)).mean()


def sampled_softmax(positive: Tensor, negatives: Tensor) -> Tensor:
    """Mean of −ln softmax of the positive among itself and its sampled negatives.

    Args:
        positive: scores [b].
        negatives: scores [b, s].

    >>> sampled_softmax(torch.tensor([0.0]), torch.tensor([[0.0]]))
    tensor(0.6931)
    """
    return (torch.logsumexp(torch.cat([positive[:, None], negatives], 1), 1) - positive).mean()


def l2_norm_penalty(*embeddings: Tensor) -> Tensor:
    """Σ ‖E‖_F / b over the given batches [b, d]: norms not squared, as RecBole's EmbLoss.

    Source: RecBole model/loss.py (require_pow False) and MMRec common/loss.py.

    >>> l2_norm_penalty(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 1.0]]))
    tensor(6.)
    """
    return columns.norms(*embeddings).sum() / embeddings[-1].shape[0]


def l2_squared_penalty(*embeddings: Tensor, divisor: float) -> Tensor:
    """½ Σ ‖E‖² / divisor.

    >>> l2_squared_penalty(torch.tensor([[3.0, 4.0]]), divisor=5)
    tensor(2.5000)
    """
    squares = torch.stack([e.square().sum() for e in embeddings]).sum()
    return columns.total(squares) / (2 * divisor)


def mean_squared_penalty(*embeddings: Tensor) -> Tensor:
    """Σ of the mean squared entry of each batch [n, d].

    >>> mean_squared_penalty(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0]]))
    tensor(9.)
    """
    return torch.stack([e.square().mean() for e in embeddings]).sum()


def cosine_distance(left: Tensor, right: Tensor) -> Tensor:
    """Mean of 1 − cos(left, right) over rows [b, d] (AlignRec's UIA).

    >>> cosine_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
    tensor(1.)
    """
    return (1 - _cosine(left, right)).mean()


def _cosine(left: Tensor, right: Tensor) -> Tensor:
    """Cosine of rows [b, d] and [b, d], as torch's cosine_similarity."""
    if columns.division() is None:
        return F.cosine_similarity(left, right, dim=-1)
    parts = torch.stack([left * right, left.square(), right.square()]).sum(-1)
    product, left_square, right_square = columns.total(parts)
    norm = left_square.clamp(min=1e-16).sqrt() * right_square.clamp(min=1e-16).sqrt()
    return product / norm


DISTINCT_BLOCK_ROWS = 64


def unique_with_counts(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The first row of each different id, and how many rows have that id.

    Popular items occur many times in a batch, and losses over all pairs of its rows cost the square
    of their number, so equal rows are computed once and counted. Their number is padded by rows of
    count 0 to a multiple of DISTINCT_BLOCK_ROWS, at most to b: oneDNN prepares for each new shape.
    On a GPU, where counting would make each step wait, every row counts once.

    Args:
        ids: [b].

    Returns:
        Indices of rows [u] and counts [u] in torch's default type, in ascending order of ids.

    >>> unique_with_counts(torch.tensor([7, 3, 7]))
    (tensor([1, 0, 0]), tensor([1., 2., 0.]))
    """
    if ids.device.type != "cpu":
        return torch.arange(len(ids), device=ids.device), torch.ones(len(ids), device=ids.device)
    _, first, count = np.unique(ids.numpy(), return_index=True, return_counts=True)
    filling = min(-len(first) % DISTINCT_BLOCK_ROWS, len(ids) - len(first))
    first, count = np.pad(first, (0, filling)), np.pad(count, (0, filling))
    return torch.from_numpy(first), torch.from_numpy(count).to(torch.get_default_dtype())


CONTRAST_BLOCK_ROWS = 1024  # of the b × b scores on a CPU
CONTRAST_GPU_BYTES = 1 << 30  # of a block of them on a GPU: 16,384 rows with each other, at once


def contrast_rows(others: int, device: torch.device | str, number_bytes: int = 4) -> int:
    """How many rows' scores with so many other rows are in memory at once.

    >>> contrast_rows(4096, "cpu"), contrast_rows(2**20, "cuda")
    (1024, 256)
    """
    if torch.device(device).type == "cpu":
        return CONTRAST_BLOCK_ROWS
    return max(1, CONTRAST_GPU_BYTES // max(1, others * number_bytes))


def _log_totals(
    x: Tensor, y: Tensor, row_count: Tensor, count: Tensor, temperature: float, bounded: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row the logarithm of t_i = Σ_j c_j s_ij, with s_ij = exp(x_i·y_j/τ), and two sums.

    Args:
        x, y: [u, d] and [v, d].
        row_count: how often a row counts [u].
        count: c, how often a row of y counts [v].
        temperature: τ.
        bounded: the scores are at most 1/τ, so that exp cannot overflow.

    Returns:
        ln t [u], Σ_j c_j s_ij y_j / t_i [u, d] and Σ_i r_i s_ij x_i / t_i [d, v], r: row_count.
    """
    within = columns.division()
    dtype = product_dtype(x)
    scaled, y_low = (x / temperature).to(dtype), y.to(dtype)
    counted = (y * count[:, None]).to(dtype).T
    of_x, of_y = torch.empty_like(x), torch.zeros_like(y.T)
    log_total = x.new_empty(len(x))
    mine = columns.own_slice(len(x))  # the rows are divided, too: all of them in one process
    height = contrast_rows(len(y), x.device, x.element_size())
    for block in row_blocks(mine.stop - mine.start, 1, height):
        rows = slice(mine.start + block.start, mine.start + block.stop)
        share = matmul_nt(scaled[rows], y_low)  # [height, v]
        if bounded:
            top = None
        else:
            top = share.max(1).values
            share.sub_(top[:, None])
        total = share.exp_().to(x.dtype) @ count
        log_total[rows] = total.log() if top is None else total.log() + top
        of_x[rows] = matmul_nt(share, counted) / total[:, None]
        weighted = (x[rows] * (row_count[rows] / total)[:, None]).to(dtype)
        of_y += matmul_nt(weighted.T, share.T)
    if within is not None:
        log_total, of_x = (columns.joined(v[mine], 0, len(x), within) for v in (log_total, of_x))
        of_y = columns.summed(of_y, within)
    return log_total, of_x, of_y


class _Contrast(torch.autograd.Function):
    """Mean over rows of logsumexp_j(x·y_j/τ) − x·y/τ; at most `contrast_rows` × b scores.

    A block of rows has its whole softmax, so the gradients are computed with it. Row i counts c_i
    times, b = Σ c: with s_ij = exp(x_i·y_j/τ) and t_i = Σ_j c_j s_ij,
    ∂x_i = c_i (Σ_j c_j s_ij y_j / t_i − y_i)/(bτ), ∂y_j = c_j (Σ_i c_i s_ij x_i / t_i − x_j)/(bτ).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, count: Tensor, temperature: float, bounded: bool
    ) -> Tensor:
        log_total, grad_x, grad_y = _log_totals(x, y, count, count, temperature, bounded)
        diagonal = (x * y).sum(1) / temperature
        batch = count.sum()
        scale = (count / (batch * temperature))[:, None]
        ctx.save_for_backward(grad_x.sub_(y).mul_(scale), grad_y.T.sub(x).mul_(scale))
        return (log_total - diagonal) @ count / batch

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_x, grad_y = ctx.saved_tensors
        return grad_x * gradient, grad_y * gradient, None, None, None


class _MeanLogTotal(torch.autograd.Function):
    """Σ_i r_i ln t_i / Σ r of `_log_totals`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        row_count: Tensor,
        count: Tensor,
        temperature: float,
        bounded: bool,
    ) -> Tensor:
        log_total, of_x, of_y = _log_totals(x, y, row_count, count, temperature, bounded)
        batch = row_count.sum()
        scale = batch * temperature
        ctx.save_for_backward(
            of_x.mul_((row_count / scale)[:, None]), of_y.T.mul((count / scale)[:, None])
        )
        return log_total @ row_count / batch

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_x, grad_y = ctx.saved_tensors
        return grad_x * gradient, grad_y * gradient, None, None, None, None


def pair_info_nce(
    x: Tensor,
    y: Tensor,
    temperature: float,
    *,
    x_ids: Tensor,
    y_ids: Tensor,
    whole: bool = False,
) -> Tensor:
    """`info_nce` by cosine of pairs such as users and items, whose rows repeat independently.

    Args:
        x, y: [b, d].
        temperature: τ > 0.
        x_ids, y_ids: [b]; rows of x, and rows of y, that have one id are equal; each is computed
            once and counted.
        whole: x and y have all columns in every process.

    >>> x, y = torch.eye(2)[[0, 0, 1]], torch.eye(2)[[0, 1, 1]]
    >>> ids = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    >>> one, other = info_nce(x, y, 0.5), pair_info_nce(x, y, 0.5, x_ids=ids[0], y_ids=ids[1])
    >>> torch.allclose(one, other)
    True
    """
    (first_x, count_x), (first_y, count_y) = unique_with_counts(x_ids), unique_with_counts(y_ids)
    if not whole:
        x, y = columns.gather(x), columns.gather(y)
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    totals = _MeanLogTotal.apply(
        gather_rows(x, first_x),
        gather_rows(y, first_y),
        count_x.to(x.dtype),
        count_y.to(x.dtype),
        temperature,
        temperature >= 0.02,
    )
    return totals - (x * y).sum(1).mean() / temperature


def info_nce(
    x: Tensor,
    y: Tensor,
    temperature: float,
    *,
    normalise: bool = True,
    ids: Tensor | None = None,
    whole: bool = False,
) -> Tensor:
    """In-batch InfoNCE from x to y: mean of −ln softmax_j(x_i·y_j/τ) at j = i.

    Repeated rows in the batch stay in as negatives.

    Args:
        x, y: [b, d].
        temperature: τ > 0.
        normalise: L2-normalise the rows first (AlignRec's code); False: inner products (its paper).
        ids: [b]; rows of one id are equal, so they are computed once and counted.
        whole: x and y have all columns in every process.

    >>> one = torch.eye(2)
    >>> info_nce(one, one, 1.0)
    tensor(0.3133)
    """
    if ids is None:
        count = x.new_ones(len(x))
    else:
        first, count = unique_with_counts(ids)
        x, y, count = gather_rows(x, first), gather_rows(y, first), count.to(x.dtype)
    if not whole:
        x, y = columns.gather(x), columns.gather(y)
    if normalise:
        x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    return _Contrast.apply(x, y, count, temperature, normalise and temperature >= 0.02)


def similarity_matrix_distance(left: Tensor, right: Tensor, count: Tensor | None = None) -> Tensor:
    """‖L Lᵀ − R Rᵀ‖_F / b without the b × b matrices; `right` is a constant.

    ‖LLᵀ − RRᵀ‖² = ‖LᵀL‖² − 2‖LᵀR‖² + ‖RᵀR‖², summed in float64; only widths d and f matter.

    Args:
        left: [b, d].
        right: [b, f], no gradient flows into it; may be in a lower type already. It is whole in
            every process.
        count: [b]: row i counts c_i times, and b is Σ c; None: every row once. The distance is 0 if
            all are 0.

    >>> similarity_matrix_distance(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]]))
    tensor(0.7071)
    """
    if count is None:
        return _GramDistance.apply(left, right) / len(left)
    root = count.to(left.dtype).sqrt()[:, None]
    return _GramDistance.apply(left * root, right * root) / count.sum().clamp(min=1)


class _GramDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        low = right.to(product_dtype(right))
        right_t = low.T if column_major_is_fast(low.dtype) else low.T.contiguous()
        within, whole = columns.division(), left
        if within is not None:
            whole = columns.joined(left, 1, columns.whole_width(left), within)
        own, cross = whole.T @ left, matmul_nt(right_t, left.to(low.dtype).T)  # [d, d], [f, d]
        squared = _square_sum(own) - 2 * _square_sum(cross.to(left.dtype)) + _gram_squares(right_t)
        if within is not None:
            squared = columns.summed(squared, within)
        norm = squared.clamp(min=0).sqrt()
        ctx.save_for_backward(whole, low, own, cross, norm)
        return norm.to(left.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        whole, low, own, cross, norm = ctx.saved_tensors
        inverse = torch.where(norm > 0, 1 / norm, torch.zeros_like(norm))
        scale = (gradient * 2 * inverse).to(whole.dtype)
        return (whole @ own).sub_(matmul_nt(low, cross.T)).mul_(scale), None


SIMILARITY_BLOCK_COLUMNS = 192


def _gram_squares(matrix: Tensor) -> Tensor:
    """‖M Mᵀ‖² of M [f, b] from its upper triangle, in strips of SIMILARITY_BLOCK_COLUMNS.

    Where columns are divided, the strips are too: the results of all processes add up to it.
    """
    within = columns.division()
    total = torch.zeros((), dtype=torch.float64, device=matrix.device)
    width = SIMILARITY_BLOCK_COLUMNS if matrix.device.type == "cpu" else len(matrix)
    for number, rows in enumerate(row_blocks(len(matrix), 1, width)):
        if within is not None and number % within.size != within.rank:
            continue
        strip = matmul_nt(matrix[rows], matrix[rows.start :])
        strip = strip.to(torch.promote_types(strip.dtype, torch.float32))
        total += 2 * _square_sum(strip) - _square_sum(strip[:, :width])
    return total


def _square_sum(matrix: Tensor) -> Tensor:
    return matrix.square().sum(dtype=torch.float64)


def masked_cosine_distance(left: Tensor, right: Tensor, rows: Tensor) -> Tensor:
    """Mean of 1 − cos(left, right) over the rows [b, d] in a mask [b]; 0 if there are none.

    >>> ones, mask = torch.eye(2), torch.tensor([True, False])
    >>> masked_cosine_distance(ones, ones.flip(0), mask)
    tensor(1.)
    """
    distance = (1 - _cosine(left, right)) * rows
    return distance.sum() / rows.sum().clamp(min=1)


DIVERGENCE_BLOCK_BYTES = 16 << 20  # of the scores of a block of rows


class _BernoulliDivergence(torch.autograd.Function):
    """Both gradients of a block of rows are computed with its scores."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
        grad_x, total = torch.empty_like(x), x.new_zeros(())
        grad_left, grad_right = torch.zeros_like(left.T), torch.zeros_like(right.T)
        budget = DIVERGENCE_BLOCK_BYTES if x.device.type == "cpu" else 16 * DIVERGENCE_BLOCK_BYTES
        for rows in row_blocks(len(x), 4 * len(left) * x.element_size(), budget):
            a, b = matmul_nt(x[rows], left), matmul_nt(x[rows], right)
            p, q = torch.sigmoid(a), torch.sigmoid(b)
            a.sub_(b)
            torch.sub(p, q, out=b)  # p − q
            total += (a * b).sum()
            p.mul_(1 - p).mul_(a).add_(b)  # by a: p (1 − p) (a − b) + p − q
            q.mul_(q - 1).mul_(a).sub_(b)  # by b: −q (1 − q) (a − b) − (p − q)
            grad_x[rows] = matmul_nt(p, left.T) + matmul_nt(q, right.T)
            grad_left += matmul_nt(x[rows].T, p.T)
            grad_right += matmul_nt(x[rows].T, q.T)
        scale = 1 / (len(x) * len(left))
        ctx.save_for_backward(*(one.mul_(scale) for one in (grad_x, grad_left.T, grad_right.T)))
        return total * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(one * gradient for one in ctx.saved_tensors)


def bernoulli_divergence(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Mean of KL(p‖q) + KL(q‖p) = (p − q)(a − b) over all pairs of rows, p = σ(a), q = σ(b).

    Args:
        x: [n, d].
        left, right: [m, d]; a = x leftᵀ, b = x rightᵀ.

    >>> one = torch.ones(1, 1)
    >>> bernoulli_divergence(one, one, -one)  # 2 (σ(1) − σ(−1))
    tensor(0.9242)
    """
    return _BernoulliDivergence.apply(x, left, right)


CONTRAST_BLOCK_BYTES = 16 << 20  # of scores with a whole table; more does not fit into the cache


class _TableContrast(torch.autograd.Function):
    """Σ_i c_i (logsumexp_j(x_i·t_j/τ) − x_i·t_r/τ) for unit rows, in blocks of rows."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, table: Tensor, rows: Tensor, count: Tensor, temperature: float
    ) -> Tensor:
        grad_x, grad_table = torch.empty_like(x), torch.zeros_like(table.T)
        total = x.new_zeros(())
        budget = CONTRAST_BLOCK_BYTES if x.device.type == "cpu" else 16 * CONTRAST_BLOCK_BYTES
        for block in row_blocks(len(x), len(table) * x.element_size(), budget):
            share = matmul_nt(x[block] / temperature, table).exp_()  # [height, n]
            sums = share.sum(1, keepdim=True)
            total += sums.log().ravel() @ count[block]
            grad_x[block] = matmul_nt(share, table.T) / sums
            grad_table += matmul_nt((x[block] * (count[block, None] / sums)).T, share.T)
        grad_table = grad_table.T.contiguous()
        own = table[rows]
        total -= (x * own).sum(1) @ count / temperature
        grad_table.index_add_(0, rows, x * count[:, None], alpha=-1)
        grad_x.sub_(own).mul_((count / temperature)[:, None])
        ctx.save_for_backward(grad_x, grad_table.div_(temperature))
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_x, grad_table = ctx.saved_tensors
        return grad_x * gradient, grad_table * gradient, None, None, None


def info_nce_all_negatives(
    x: Tensor, table: Tensor, rows: Tensor, temperature: float, *, ids: Tensor | None = None
) -> Tensor:
    """InfoNCE by cosine from x_i to row r_i of a table whose other rows are all negatives; a sum.

    Args:
        x: [b, d].
        table: [n, d].
        rows: r [b].
        temperature: τ, at least 0.02 (cosines / τ are exponentiated as they are).
        ids: [b]; rows of x with one id, and their r, are equal, so they are computed once and
            counted.

    >>> info_nce_all_negatives(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), 1.0)
    tensor(0.6265)
    """
    count = x.new_ones(len(x))
    if ids is not None:
        first, number = unique_with_counts(ids)
        x, rows, count = gather_rows(x, first), rows[first], number.to(x.dtype)
    x, table = F.normalize(columns.gather(x), dim=1), F.normalize(columns.gather(table), dim=1)
    return _TableContrast.apply(x, table, rows, count, temperature)


VIRTUAL_BLOCK_BYTES = 16 << 20  # of the cosines of a block of users


def virtual_triplets(users: Tensor, items: Tensor, k: int) -> Tensor:
    """Mean over users of −log₂ σ(s⁺ − s⁻), mean scores with the k nearest and k farthest items.

    Near and far are by cosine, and all users and items take part; no gradient flows through the
    choice. The cosines are computed in blocks of users.

    Args:
        users: [n, d].
        items: [m, d].
        k: at most m.

    Source: Xu et al., MDVT, KDD 2025.

    >>> virtual_triplets(torch.tensor([[2.0]]), torch.tensor([[1.0], [-1.0]]), 1)  # log₂(1 + e⁻⁴)
    tensor(0.0262)
    """
    users, items = columns.gather(users), columns.gather(items)
    with torch.no_grad():
        unit = l2_normalize_rows(items)
        near = torch.empty(len(users), k, dtype=torch.int64, device=users.device)
        far = torch.empty_like(near)
        budget = VIRTUAL_BLOCK_BYTES if users.device.type == "cpu" else 16 * VIRTUAL_BLOCK_BYTES
        for block in row_blocks(len(users), 2 * len(items) * users.element_size(), budget):
            cosine = matmul_nt(users[block], unit)  # times the user's norm, which orders nothing
            near[block] = top_k(cosine, k)[1]
            far[block] = top_k(cosine.neg_(), k)[1]
    rows = gather_rows(items, torch.cat([near, far], 1).ravel()).view(len(users), 2, k, -1)
    right, wrong = rows.mean(2).unbind(1)
    return F.softplus((users * (wrong - right)).sum(1)).mean() / math.log(2)
