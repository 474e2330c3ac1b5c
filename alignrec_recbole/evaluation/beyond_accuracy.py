"""What recommended lists are like, apart from whether they are right.

Notation: L_u are the first k items of user u's list, n_i the training interactions of item i, U the
users with a training interaction, R = Σ_u |L_u| all places, r_i the places that item i has.

=============  =================================================================================
coverage@k     |∪_u L_u| / number of items (Ge, Delgado-Battenfeld and Jannach, RecSys 2010)
Gini@k         Σ_j (2j − I − 1) r_(j) / (I·R), r_(1) ≤ r_(2) ≤ …, over all I items, those in no
               list too: 0 if all are listed equally often, (I − 1)/I if one item has every place
               (Gini 1912; in recommendation Fleder and Hosanagar, Management Science 2009)
entropy@k      −Σ_i (r_i/R) ln(r_i/R) in nats, over listed items; at most ln I (Shannon 1948)
popularity@k   mean over users of Σ_{i∈L_u} n_i / |L_u| (Yin et al., VLDB 2012)
lift@k         popularity@k ÷ mean over the same users of the mean n_i of their training items,
               minus 1: above 0 the lists are more popular than what the users took themselves
               (ΔGAP of Abdollahpouri et al., RMSE workshop at RecSys 2019); users without training
               items are left out
tail@k         mean over users of |L_u ∩ T| / |L_u|, T the tail: see `tail_of` (APLT of
               Abdollahpouri, Burke and Mobasher, FLAIRS 2019)
EPC@k          expected popularity complement, rank- and relevance-aware: mean over users of
               Σ_j hit_j (1 − n_(j)/|U|) / log₂(j + 1) ÷ Σ_{j≤|L_u|} 1/log₂(j + 1), the novelty of
               what was found (Vargas and Castells, RecSys 2011). Without relevance and discount it
               would be 1 − popularity@k/|U| and say nothing new
ILD@k          intra-list distance by content: mean over users of 1 − cos(f_i, f_j) over the pairs
               i ≠ j of L_u (Smyth and McClave, ICCBR 2001; Ziegler et al., WWW 2005). Items without
               features are left out, and so are users with fewer than two others
=============  =================================================================================

coverage, Gini and entropy are of all lists together, so they depend on the number of users: compare
them within one group of users. The others are means over users. Nothing here is better by itself:
a random ranker has coverage 1, Gini near 0 and an ILD like that of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

HEAD_SHARE = 0.8  # of the training interactions, that the items outside of the tail have
BLOCK_BYTES = 64 << 20  # of sums of content vectors at a time
PER_USER = ("popularity", "tail", "EPC", "ILD")
ALL = ("coverage", "Gini", "entropy", "popularity", "lift", "tail", "EPC", "ILD")


@dataclass(frozen=True)
class Lists:
    """Top-K lists and what is known of their items and users.

    Attributes:
        items: [n, K], positions of items from 1, best first; −1 where a list ends.
        hits: [n, K], True at targets.
        counts: n_i [item_num] in training; position 0 is PAD.
        users: |U|, the users with a training interaction.
        profile: mean n_i of each user's training items [n]; NaN without any.
        tail: bool [item_num]; PAD is in no tail.
        vectors: content [item_num, f], unit or zero rows; None: there is no ILD.
    """

    items: np.ndarray
    hits: np.ndarray
    counts: np.ndarray
    users: int
    profile: np.ndarray
    tail: np.ndarray
    vectors: np.ndarray | None = None

    def of(self, rows: np.ndarray) -> Lists:
        """The lists of some users."""
        return Lists(
            self.items[rows],
            self.hits[rows],
            self.counts,
            self.users,
            self.profile[rows],
            self.tail,
            self.vectors,
        )


def beyond_accuracy(lists: Lists, cutoffs: Sequence[int]) -> dict[str, float]:
    """Every figure at every cut-off, under names like `Gini@20`; those without a value are absent.

    >>> two = Lists(
    ...     items=np.array([[1, 2], [1, 3]]),
    ...     hits=np.array([[True, False], [False, False]]),
    ...     counts=np.array([0, 3, 1, 0]),
    ...     users=4,
    ...     profile=np.array([1.0, 3.0]),
    ...     tail=np.array([False, False, True, True]),
    ... )
    >>> {name: round(value, 4) for name, value in beyond_accuracy(two, [2]).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'coverage@2': 1.0, 'Gini@2': 0.1667, 'entropy@2': 1.0397, 'popularity@2': 1.75,
     'lift@2': -0.125, 'tail@2': 0.5, 'EPC@2': 0.0766}
    """
    return summary(lists, per_user(lists, cutoffs), cutoffs)


def summary(
    lists: Lists, values: dict[str, np.ndarray], cutoffs: Sequence[int]
) -> dict[str, float]:
    """`beyond_accuracy` from values per user that were computed before.

    Args:
        values: what `per_user` gives for these lists.
    """
    out: dict[str, float] = {}
    for name in ALL:
        for k in cutoffs:
            found = _figure(name, k, lists, values)
            if found is not None:
                out[f"{name}@{k}"] = found
    return out


def _figure(name: str, k: int, lists: Lists, values: dict[str, np.ndarray]) -> float | None:
    if name in PER_USER:
        return _mean(values.get(f"{name}@{k}"))
    if name == "lift":
        return lift(values[f"popularity@{k}"], lists.profile)
    places = places_of(lists.items[:, :k], len(lists.counts))
    if not places.any():
        return None
    return {"coverage": coverage, "Gini": gini, "entropy": entropy}[name](places[1:])


def _mean(column: np.ndarray | None) -> float | None:
    if column is None or np.isnan(column).all():
        return None
    return float(np.nanmean(column))


# Of all lists together ---------------------------------------------------------------------------


def places_of(items: np.ndarray, item_num: int) -> np.ndarray:
    """r_i [item_num]: how many of the lists [n, k] have each item.

    >>> places_of(np.array([[1, 2], [1, -1]]), 4)
    array([0, 2, 1, 0])
    """
    return np.bincount(items[items >= 0], minlength=item_num)


def coverage(places: np.ndarray) -> float:
    """Share of items in any list.

    >>> coverage(np.array([4, 0, 1, 0]))
    0.5
    """
    return float((places > 0).mean())


def gini(places: np.ndarray) -> float:
    """Gini coefficient of the places of all items.

    >>> gini(np.array([2, 2])), gini(np.array([0, 0, 0, 8]))
    (0.0, 0.75)
    """
    ordered = np.sort(places).astype(np.float64)
    n = len(ordered)
    return float(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / (n * ordered.sum()))


def entropy(places: np.ndarray) -> float:
    """Entropy of the distribution of places over items, in nats.

    >>> round(entropy(np.array([1, 1, 0, 2])), 4)  # ½ ln 2 + 2 · ¼ ln 4
    1.0397
    """
    share = places[places > 0] / places.sum()
    return float(-(share * np.log(share)).sum())


# Per user ----------------------------------------------------------------------------------------


def per_user(lists: Lists, cutoffs: Sequence[int]) -> dict[str, np.ndarray]:
    """popularity, tail, EPC and ILD of each user [n]; NaN where there is no value."""
    out = {}
    listed = lists.items >= 0
    place = np.where(listed, lists.items, 0)
    popularity = np.where(listed, lists.counts[place], 0).cumsum(1, dtype=np.float64)
    tail = (listed & lists.tail[place]).cumsum(1, dtype=np.float64)
    gain = 1 / np.log2(np.arange(2, lists.items.shape[1] + 2))
    novelty = np.where(lists.hits, 1 - lists.counts[place] / max(lists.users, 1), 0.0) * gain
    sums = {"popularity": popularity, "tail": tail, "EPC": novelty.cumsum(1)}
    lengths = listed.cumsum(1)
    weights = {"EPC": np.where(listed, gain, 0.0).cumsum(1)}
    for name, total in sums.items():
        for k in cutoffs:
            end = min(k, lists.items.shape[1]) - 1
            divisor = weights.get(name, lengths)[:, end]
            out[f"{name}@{k}"] = _ratio(total[:, end], divisor)
    if lists.vectors is not None:
        out |= {f"ILD@{k}": intra_list_distance(lists.items[:, :k], lists.vectors) for k in cutoffs}
    return out


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)


def lift(popularity: np.ndarray, profile: np.ndarray) -> float | None:
    """Mean popularity of the lists over that of the users' training items, minus 1.

    >>> lift(np.array([5.0, 1.0, 9.0]), np.array([3.0, 1.0, np.nan]))
    0.5
    """
    both = ~np.isnan(popularity) & ~np.isnan(profile)
    if not both.any() or not profile[both].sum():
        return None
    return float(popularity[both].mean() / profile[both].mean() - 1)


def intra_list_distance(items: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """ILD of each list [n, k]; NaN for fewer than two items with features. In blocks of users.

    Of m unit vectors Σ_{i≠j} f_i·f_j = ‖Σ f_i‖² − m, so a list costs as much as a sum.

    >>> intra_list_distance(np.array([[1, 2], [1, 1]]), np.array([[0, 0], [1, 0], [0, 1.0]]))
    array([1., 0.])
    """
    alive = np.asarray(vectors.any(1))
    out = np.full(len(items), np.nan)
    for block in _blocks(len(items), vectors.shape[1]):
        part = items[block]
        used = (part >= 0) & alive[np.where(part >= 0, part, 0)]
        row, column = np.nonzero(used)
        chosen = sp.csr_matrix(
            (np.ones(len(row)), (row, part[row, column])), shape=(len(part), len(vectors))
        )
        count = used.sum(1).astype(np.float64)
        squared = np.square(chosen @ vectors, dtype=np.float64).sum(1)
        pairs = count * (count - 1)
        cosine = (squared - count) / np.where(pairs > 0, pairs, 1)
        out[block] = np.where(pairs > 0, 1 - cosine, np.nan)
    return out


def _blocks(rows: int, width: int) -> Iterator[slice]:
    height = max(1, BLOCK_BYTES // (8 * width))
    return (slice(start, start + height) for start in range(0, rows, height))


# Of the data -------------------------------------------------------------------------------------


def tail_of(counts: np.ndarray, place: np.ndarray, head_share: float = HEAD_SHARE) -> np.ndarray:
    """Which items [item_num] are in the tail.

    The head are the most popular items, as few as together have `head_share` of the training
    interactions; all others are the tail.

    Args:
        counts: n_i, PAD first.
        place: a fixed order of the items among equally popular ones.

    >>> tail_of(np.array([0, 8, 1, 1]), np.arange(4))
    array([False, False,  True,  True])
    """
    order = np.lexsort((place, -counts))
    before = counts[order].cumsum() - counts[order]
    tail = np.empty(len(counts), dtype=bool)
    tail[order] = before >= head_share * counts.sum()
    tail[0] = False
    return tail


def profile_popularity(history: sp.csr_matrix, counts: np.ndarray) -> np.ndarray:
    """Mean n_i of the training items of every user [user_num]; NaN without any.

    Args:
        history: ones [user_num, item_num], CSR.
    """
    return _ratio(history @ counts.astype(np.float64), np.diff(history.indptr))
