"""Losses against their textbook forms."""

import pytest
import torch
import torch.nn.functional as F

from alignrec_recbole import losses

torch.manual_seed(0)
A = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
B = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
WIDE = torch.randn(9, 7, dtype=torch.float64)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("temperature", [0.2, 0.005])
def test_info_nce_is_cross_entropy_of_the_diagonal(normalise, temperature):
    x, y = (F.normalize(A), F.normalize(B)) if normalise else (A, B)
    textbook = F.cross_entropy(x @ y.T / temperature, torch.arange(9))
    ours = losses.info_nce(A, B, temperature, normalise=normalise)
    torch.testing.assert_close(ours, textbook)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (A, B)), torch.autograd.grad(textbook, (A, B)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


IDS = torch.tensor([5, 2, 5, 9, 2, 5, 1, 0, 9])


@pytest.mark.parametrize("normalise", [True, False])
def test_repeated_rows_are_counted_not_computed_again(normalise):
    x, y = A[IDS % 9], B[IDS % 9]
    for found, textbook in (
        (losses.info_nce(x, y, 0.2, normalise=normalise, ids=IDS),
         losses.info_nce(x, y, 0.2, normalise=normalise)),
        (counted_gram(x, WIDE[IDS % 9]), losses.similarity_matrix_distance(x, WIDE[IDS % 9])),
    ):  # fmt: skip
        torch.testing.assert_close(found, textbook)
        for mine, theirs in zip(
            torch.autograd.grad(found, (A, B), retain_graph=True, allow_unused=True),
            torch.autograd.grad(textbook, (A, B), retain_graph=True, allow_unused=True),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs)


def test_distinct_rows_are_filled_up_with_rows_that_do_not_count():
    ids = torch.arange(300) % 100
    first, count = losses.unique_with_counts(ids)
    assert len(first) == len(count) == 128
    assert torch.equal(ids[first[:100]], torch.arange(100))
    assert torch.equal(count, torch.tensor([3.0] * 100 + [0.0] * 28))


def counted_gram(left, right):
    first, count = losses.unique_with_counts(IDS)
    assert (count > 0).sum() == 5
    return losses.similarity_matrix_distance(left[first], right[first], count)


def test_info_nce_survives_large_inner_products():
    assert losses.info_nce(A * 1e4, B * 1e4, 0.2, normalise=False).isfinite()


@pytest.mark.parametrize("temperature", [0.02, 0.01, 0.001])
def test_info_nce_of_cosines_survives_small_temperatures(temperature):
    """e^(1/0.01) is beyond float32."""
    x, y = A.detach().float().requires_grad_(), A.detach().float().flip(0)
    ours = losses.info_nce(x, y, temperature)
    textbook = F.cross_entropy(F.normalize(A) @ F.normalize(A.flip(0)).T / temperature,
                               torch.arange(9))  # fmt: skip
    ids = torch.arange(9)
    pairs = losses.pair_info_nce(x, y, temperature, x_ids=ids, y_ids=ids)
    for found in (ours, pairs):
        torch.testing.assert_close(found.double(), textbook, rtol=1e-4, atol=1e-4)
        assert torch.autograd.grad(found, x)[0].isfinite().all()


def test_gram_distance_is_the_frobenius_norm():
    textbook = (A @ A.T - WIDE @ WIDE.T).norm() / 9
    ours = losses.similarity_matrix_distance(A, WIDE)
    torch.testing.assert_close(ours, textbook)
    torch.testing.assert_close(torch.autograd.grad(ours, A)[0], torch.autograd.grad(textbook, A)[0])


def test_gram_distance_of_equal_matrices_is_zero_with_a_finite_gradient():
    loss = losses.similarity_matrix_distance(A, A.detach())
    assert loss.item() < 1e-6
    assert torch.autograd.grad(loss, A)[0].isfinite().all()


def test_pair_losses_against_log_probabilities():
    right, wrong = torch.randn(5), torch.randn(5, 3)
    torch.testing.assert_close(
        losses.bpr(right[:, None], wrong), -F.logsigmoid(right[:, None] - wrong).mean()
    )
    logits = torch.cat([right[:, None], wrong], 1)
    torch.testing.assert_close(
        losses.sampled_softmax(right, wrong),
        F.cross_entropy(logits, torch.zeros(5, dtype=torch.long)),
    )
    bce = F.binary_cross_entropy_with_logits
    torch.testing.assert_close(
        losses.binary_cross_entropy(right, wrong[:, 0]),
        bce(right, torch.ones(5)) + bce(wrong[:, 0], torch.zeros(5)),
    )


def test_embedding_norms_equal_recbole():
    from recbole.model.loss import EmbLoss

    parts = [torch.randn(6, 3) for _ in range(3)]
    torch.testing.assert_close(losses.l2_norm_penalty(*parts), EmbLoss()(*parts).squeeze())


@pytest.mark.parametrize("bytes_at_once", [1, 1 << 20])
def test_info_nce_table_is_cross_entropy_over_the_table(bytes_at_once, monkeypatch):
    monkeypatch.setattr(losses, "CONTRAST_BLOCK_BYTES", bytes_at_once)
    rows = torch.tensor([8, 0, 3, 3])
    x = A[:4]
    logits = F.normalize(x) @ F.normalize(B).T / 0.2
    textbook = F.cross_entropy(logits, rows, reduction="sum")
    ours = losses.info_nce_all_negatives(x, B, rows, 0.2)
    torch.testing.assert_close(ours, textbook)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (A, B)), torch.autograd.grad(textbook, (A, B)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("temperature", [0.2, 0.01])
def test_pairs_whose_rows_repeat_are_counted_not_computed_again(temperature):
    left, right = torch.tensor([0, 3, 3, 1, 0, 3]), torch.tensor([5, 5, 2, 2, 5, 0])
    textbook = losses.info_nce(A[left], B[right], temperature)
    ours = losses.pair_info_nce(A[left], B[right], temperature, x_ids=left, y_ids=right)
    torch.testing.assert_close(ours, textbook)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (A, B)), torch.autograd.grad(textbook, (A, B)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_repeated_rows_of_a_table_are_counted_not_computed_again():
    rows = torch.tensor([8, 3, 3, 8, 8])
    textbook = losses.info_nce_all_negatives(A[rows], B, rows, 0.2)
    ours = losses.info_nce_all_negatives(A[rows], B, rows, 0.2, ids=rows)
    torch.testing.assert_close(ours, textbook)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (A, B)), torch.autograd.grad(textbook, (A, B)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_masked_cosine_distance_leaves_rows_out():
    mask = torch.arange(9) % 3 > 0
    textbook = losses.cosine_distance(A[mask], B[mask])
    torch.testing.assert_close(losses.masked_cosine_distance(A, B, mask), textbook)
    assert losses.masked_cosine_distance(A, B, torch.zeros(9, dtype=torch.bool)) == 0


def test_a_distance_that_rounds_below_zero_is_zero():
    for seed in range(20):
        same = torch.randn(40, 6, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        distance = losses.similarity_matrix_distance(same, same.detach())
        assert 0 <= distance < 0.05
        assert torch.autograd.grad(distance, same)[0].isfinite().all()


@pytest.mark.parametrize("bytes_at_once", [1, 1 << 20])
def test_bernoulli_divergence_is_the_sum_of_both_divergences(bytes_at_once, monkeypatch):
    monkeypatch.setattr(losses, "DIVERGENCE_BLOCK_BYTES", bytes_at_once)
    left, right = WIDE[:, :4].clone().requires_grad_(), WIDE[:5, 3:].T[:4].T.clone()
    right = torch.cat([right, A.detach()[:4]]).requires_grad_()
    p = torch.distributions.Bernoulli(logits=A @ left.T)
    q = torch.distributions.Bernoulli(logits=A @ right.T)
    kl = torch.distributions.kl_divergence
    textbook = (kl(p, q) + kl(q, p)).mean()
    ours = losses.bernoulli_divergence(A, left, right)
    torch.testing.assert_close(ours, textbook)
    given = A, left, right
    for mine, theirs in zip(
        torch.autograd.grad(3 * ours, given), torch.autograd.grad(3 * textbook, given), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("bytes_at_once", [1, 1 << 20])
@pytest.mark.parametrize("k", [1, 4])
def test_virtual_triplets_equal_the_formula(bytes_at_once, k, monkeypatch):
    monkeypatch.setattr(losses, "VIRTUAL_BLOCK_BYTES", bytes_at_once)
    generator = torch.Generator().manual_seed(k)
    users, items = (
        torch.randn(n, 5, generator=generator, dtype=torch.float64).requires_grad_()
        for n in (7, 11)
    )
    order = (F.normalize(users) @ F.normalize(items).T).argsort(1)
    scores = (users @ items.T).gather(1, order)
    textbook = -torch.log2(torch.sigmoid(scores[:, -k:].mean(1) - scores[:, :k].mean(1))).mean()
    ours = losses.virtual_triplets(users, items, k)
    torch.testing.assert_close(ours, textbook)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (users, items)),
        torch.autograd.grad(textbook, (users, items)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_off_the_cpu_the_scores_of_a_contrast_are_bounded_in_bytes():
    assert losses.contrast_rows(4096, "cuda") >= 4096  # one product, as few launches as can be
    assert losses.contrast_rows(10**6, "cuda") * 4 * 10**6 <= losses.CONTRAST_GPU_BYTES
    assert losses.contrast_rows(10**6, "cpu") == losses.CONTRAST_BLOCK_ROWS
