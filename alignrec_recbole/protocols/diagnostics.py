"""diagnostics: what do the features show before anything is ranked?

Method: figures of the features and the training interactions alone. f̂ are unit vectors (see
`protocols/content.py`); only the I' items with features count.

items covered, interactions covered
    Share of items, and of training interactions, that have features.
duplicates
    Share of items whose feature row equals another item's, bit by bit.
effective rank
    exp of the entropy of σ/Σσ, σ the singular values of F̂ (Roy and Vetterli 2007).
alignment
    Mean ‖f̂_i − f̂_j‖² over pairs of items of one user, every pair of every user once; smaller is
    closer to the users' interactions (Wang and Isola 2020, α = 2; these positive pairs are ours).
uniformity
    log mean exp(−2‖f̂_i − f̂_j‖²) over all pairs i ≠ j (Wang and Isola 2020).
neighbours@20
    Share of an item's 20 most similar items that are also among its 20 nearest by co-interaction,
    |U_i ∩ U_j| / √(|U_i| |U_j|), equals in the fixed order; mean over the items that have 20 of
    both kinds with positive similarity. Chance is about 20/I'. Our definition.
modality gap, pair distance
    ‖mean f̂ᵛ − mean f̂ᵗ‖ and mean ‖f̂ᵛ_i − f̂ᵗ_i‖² of two sets of equal width (a shared space), over
    items that have both (Liang et al. 2022; Wang and Isola's alignment of the two views).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import scipy.sparse as sp
import torch

from alignrec_recbole.evaluation.ranking import BLOCK_BYTES
from alignrec_recbole.features.table import ItemFeatures
from alignrec_recbole.ops.matmul import matmul_nt
from alignrec_recbole.protocols.content import STEP, Content, unit_vectors
from alignrec_recbole.protocols.context import ProtocolContext
from alignrec_recbole.protocols.item_cf import neighbours
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.settings import Settings

NAME = "diagnostics"
VERSION = 1
NEIGHBOURS = 20
ENTRIES = 1 << 22  # of the items' co-interactions in memory at a time


def describe(content: Content, raw: np.ndarray) -> dict[str, float]:
    """All figures of one feature set.

    Args:
        raw: the rows as they are stored [item_num, f], for duplicates.
    """
    vectors = content.vectors.cpu().numpy()
    alive = np.abs(vectors).max(1) > 0
    taken = np.asarray(content.history.sum(0)).ravel()
    out = {
        "items covered": float(alive[1:].mean()),
        "interactions covered": float(taken[alive].sum() / taken.sum()),
    }
    if alive.sum() < 2:
        return out
    unit = vectors[alive]
    out["duplicates"] = duplicates(raw[alive])
    out["effective rank"] = effective_rank(unit)
    out["uniformity"] = uniformity(unit)
    if (value := alignment(content.history, vectors)) is not None:
        out["alignment"] = value
    if (value := neighbour_agreement(content, NEIGHBOURS)) is not None:
        out[f"neighbours@{NEIGHBOURS}"] = value
    return out


def duplicates(rows: np.ndarray) -> float:
    """Share of rows that occur more than once.

    >>> duplicates(np.array([[1.0], [2.0], [1.0], [3.0]]))
    0.5
    """
    rows = np.ascontiguousarray(rows)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, place, count = np.unique(keys, return_inverse=True, return_counts=True)
    return float((count[place] > 1).mean())


def effective_rank(unit: np.ndarray) -> float:
    """exp(−Σ p log p), p = σ/Σσ.

    >>> round(effective_rank(np.eye(3)), 6)
    3.0
    """
    rows = unit.astype(np.float64)
    gram = rows.T @ rows if rows.shape[1] <= len(rows) else rows @ rows.T
    sigma = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None))
    share = sigma / sigma.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def uniformity(unit: np.ndarray) -> float:
    """log of the mean of exp(−2‖x − y‖²) over ordered pairs of different rows, in blocks.

    >>> round(uniformity(np.array([[1.0, 0.0], [0.0, 1.0]])), 6)  # squared distance 2
    -4.0
    """
    rows = torch.from_numpy(np.ascontiguousarray(unit, dtype=np.float32))
    n = len(rows)
    block = max(1, BLOCK_BYTES // (4 * n))
    total = 0.0
    for start in range(0, n, block):
        similar = matmul_nt(rows[start : start + block], rows)
        similar[torch.arange(len(similar)), torch.arange(start, start + len(similar))] = -torch.inf
        total += float(similar.sub_(1).mul_(4).exp_().sum(dtype=torch.float64))
    return float(np.log(total / (n * (n - 1))))


def alignment(history: sp.csr_matrix, vectors: np.ndarray) -> float | None:
    """Mean of ‖f̂_i − f̂_j‖² over pairs i ≠ j of one user's items; None without a pair.

    Σ_{i≠j} f̂_i·f̂_j = ‖Σ f̂_i‖² − Σ‖f̂_i‖², so a user costs as much as a profile.
    """
    alive = sp.csr_matrix(history @ sp.diags(vectors.any(1).astype(np.float32)))
    count = np.asarray(alive.sum(1), dtype=np.float64).ravel()
    squared = 0.0
    block = max(1, BLOCK_BYTES // (4 * vectors.shape[1]))
    for start in range(0, alive.shape[0], block):
        squared += float(np.square(alive[start : start + block] @ vectors, dtype=np.float64).sum())
    pairs = float((count * (count - 1)).sum())
    return 2.0 - 2.0 * (squared - float(count.sum())) / pairs if pairs else None


def neighbour_agreement(content: Content, k: int) -> float | None:
    """Mean share of neighbours by content that are so by co-interaction; None without any."""
    by_taste = co_interaction_neighbours(content.history, content.tie_rank, k)
    by_content = neighbours(content, k)
    by_content.data[:] = 1.0
    both = (np.diff(by_content.indptr) == k) & (np.diff(by_taste.indptr) == k)
    if not both.any():
        return None
    common = np.asarray(by_content.multiply(by_taste).sum(1)).ravel()
    return float(common[both].mean() / k)


def co_interaction_neighbours(
    history: sp.csr_matrix, place: np.ndarray, k: int, *, entries: int = ENTRIES
) -> sp.csr_matrix:
    """Ones at the k other items with the largest |U_i ∩ U_j| / √(|U_i| |U_j|) [item_num, item_num].

    Items with fewer others that share a user have fewer; equals are in the order of `place`.

    Args:
        entries: bound on the counts in memory, beyond those of one item.
    """
    history = sp.csr_matrix(history)
    users_of = sp.csr_matrix(history.T)
    scale = 1 / np.sqrt(np.maximum(np.asarray(history.sum(0), dtype=np.float64).ravel(), 1))
    bound = np.cumsum(users_of.astype(bool) @ np.diff(history.indptr).astype(np.int64))
    ends = [*(np.flatnonzero(np.diff(bound // entries)) + 1), users_of.shape[0]]
    parts = []
    for start, stop in itertools.pairwise([0, *ends]):
        cosine = (users_of[start:stop] @ history).astype(np.float64)
        cosine = sp.csr_matrix(sp.diags(scale[start:stop]) @ cosine @ sp.diags(scale))
        cosine.setdiag(0, start)
        cosine.eliminate_zeros()
        parts.append(_top_rows(cosine, place, k))
    return sp.csr_matrix(sp.vstack(parts))


def _top_rows(matrix: sp.csr_matrix, place: np.ndarray, k: int) -> sp.csr_matrix:
    """Ones at the k largest entries of every row, equals (to 2⁻²⁰) in the fixed order."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((place[matrix.indices], -np.round(matrix.data / STEP), row))
    rank = np.arange(len(order)) - matrix.indptr[row[order]]
    kept = order[rank < k]
    ones = np.ones(len(kept), dtype=np.float32)
    return sp.csr_matrix((ones, (row[kept], matrix.indices[kept])), shape=matrix.shape)


def modality_gaps(sets: Mapping[str, ItemFeatures]) -> dict[str, dict[str, float]]:
    """Gap and pair distance of every two sets that have the same width, by "NAME | NAME"."""
    out = {}
    for (name, one), (other, two) in itertools.combinations(sets.items(), 2):
        both = one.present & two.present
        if one.values.shape[1] == two.values.shape[1] and both.any():
            left, right = unit_vectors([one.values[both]]), unit_vectors([two.values[both]])
            out[f"{name} | {other}"] = {
                "modality gap": float(np.linalg.norm(left.mean(0) - right.mean(0))),
                "pair distance": float(np.square(left - right).sum(1).mean()),
            }
    return out


def geometry(
    views: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    pairs: tuple[np.ndarray, np.ndarray],
    features: torch.Tensor,
) -> dict[str, float]:
    """How the vectors of a trained model with several views lie on the sphere.

    Of each view, over unit vectors x̂ of users and items:

    - `alignment`: mean ‖x̂_u − x̂_i‖² over the training pairs; 2 at random, 0 if all collapse;
    - `uniformity users`, `uniformity items`: log mean exp(−2‖x̂ − ŷ‖²); 0 if all collapse
      (Wang and Isola 2020);
    - `rank users`, `rank items`: effective rank (Roy and Vetterli 2007), at most d;
    - `norm items`: mean ‖x_i‖ before the division;
    - `neighbours@20`: mean share of an item's 20 nearest items by the features among its 20 nearest
      in the view; items without features are left out; chance is 20/(I' − 1).

    Of every two views, `A | B neighbours@20`: the same share between them, and `A | B distance`:
    mean ‖â_i − b̂_i‖² over the items, where both have the same width.

    Args:
        views: name → users [U, d] and items [I, d], without PAD.
        pairs: positions of users and items of the training interactions.
        features: [I, f], zero rows where an item has none.
    """
    out: dict[str, float] = {}
    present = features.ne(0).any(1)
    by_content = nearest(features[present], NEIGHBOURS)
    found: dict[str, torch.Tensor] = {}
    for name, (users, items) in views.items():
        one, other = (torch.nn.functional.normalize(part, dim=1) for part in (users, items))
        squared = (one[pairs[0]] - other[pairs[1]]).square().sum(1)
        out[f"{name} alignment"] = float(squared.mean(dtype=torch.float64))
        for side, part in (("users", one), ("items", other)):
            out[f"{name} uniformity {side}"] = uniformity(part.cpu().numpy())
            out[f"{name} rank {side}"] = effective_rank(part.cpu().numpy())
        out[f"{name} norm items"] = float(items.norm(dim=1).mean())
        found[name] = nearest(items[present], NEIGHBOURS)
        out[f"{name} neighbours@{NEIGHBOURS}"] = shared(by_content, found[name])
    for name, second in itertools.combinations(views, 2):
        out[f"{name} | {second} neighbours@{NEIGHBOURS}"] = shared(found[name], found[second])
        left, right = views[name][1], views[second][1]
        if left.shape[1] == right.shape[1]:
            both = (torch.nn.functional.normalize(part, dim=1) for part in (left, right))
            out[f"{name} | {second} distance"] = float(
                (next(both) - next(both)).square().sum(1).mean()
            )
    return out


def nearest(rows: torch.Tensor, k: int) -> torch.Tensor:
    """Positions of the k other rows with the largest cosine [n, min(k, n − 1)], in blocks.

    >>> nearest(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), 1).ravel()
    tensor([1, 0, 1])
    """
    unit = torch.nn.functional.normalize(rows.float(), dim=1)
    n = len(unit)
    parts = []
    for start in range(0, n, max(1, BLOCK_BYTES // (4 * n))):
        similar = matmul_nt(unit[start : start + max(1, BLOCK_BYTES // (4 * n))], unit)
        own = torch.arange(start, start + len(similar), device=unit.device)
        similar[own - start, own] = -torch.inf
        parts.append(similar.topk(min(k, n - 1), dim=1).indices)
    return torch.cat(parts)


def shared(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean share of the entries of each row of `one` [n, k] that are in that row of `other`.

    >>> shared(torch.tensor([[0, 1], [2, 3]]), torch.tensor([[1, 0], [3, 9]]))
    0.75
    """
    return float((one[:, :, None] == other[:, None, :]).any(2).float().mean())


def run_diagnostics(
    spec: RunSpec, models: Sequence[str], seeds: Sequence[int] | None, overwrite: bool
) -> Iterator[RunRecord]:
    """Figures of the joined features, of every set and of pairs of sets; no model is used."""
    context = ProtocolContext(spec, Settings, NAME)
    run = context.run("none", VERSION, {"neighbours": NEIGHBOURS})
    if record := context.finished(run, overwrite):
        yield record
        return
    feature_sets = context.feature_sets
    groups: dict[str, dict[str, dict[str, float]]] = {}
    rows = np.concatenate([table.values for table in feature_sets.values()], axis=1)
    metrics = describe(context.content(), rows)
    if len(feature_sets) > 1:
        groups["features"] = {
            name: describe(context.content(feature_sets={name: table}), table.values)
            for name, table in feature_sets.items()
        }
    if gaps := modality_gaps(feature_sets):
        groups["pairs"] = gaps
    yield context.write(run, metrics=metrics, groups=groups or None)
