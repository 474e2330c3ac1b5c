"""Control features, which say nothing about an item: a lower bound for any encoder.

Each replaces the rows of the items that have NAME; the same items stay missing, but for `zero`:

random                    standard normal rows of 384 columns, for all items
random:NAME               normal rows with the width, the modality and the root mean square of NAME
shuffled:NAME             the rows of NAME permuted across items
popularity-shuffled:NAME  the same within strata of equally popular items: what features say about
                          popularity stays
constant:NAME             one row for all, each entry the root mean square of NAME
zero:NAME                 no item has the features

The strata are of training interactions, 0, 1, 2-3, 4-7, 8-15 …; one with fewer than 10 items that
have NAME is joined with the next less popular one. Append `@1`, `@2`, … for another draw of the
first four (default 0).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.derived_names import parse_control
from alignrec_recbole.features.item_order import canonical_order, seeded_order
from alignrec_recbole.features.table import FeatureManifest, ItemFeatures

RANDOM_WIDTH = 384  # that of the default sentence encoder
SMALLEST_STRATUM = 10  # items that can exchange their rows


def control_features(
    name: str,
    tokens: Sequence[str],
    open_features: Callable[[str], ItemFeatures],
    popularity: np.ndarray | None = None,
) -> ItemFeatures:
    """The control features of this name for a data set's items.

    Args:
        name: see `parse_control`.
        tokens: item token by internal id; tokens[0] is PAD.
        open_features: returns the features that are replaced.
        popularity: training interactions by internal id, for popularity-shuffled.

    Raises:
        UnknownNameError: `parse_control` refuses the name.
        FeatureError: popularity is needed, and there is no training split yet.
    """
    kind, source, seed = parse_control(name)
    if not source:
        return _random(name, tokens, seed)
    real = open_features(source)
    if kind == "random":
        return _random_like(name, tokens, seed, real)
    if kind == "shuffled":
        what = "random items"
        return _dealt(name, tokens, seed, real, [seeded_order(tokens, seed)], what)
    if kind == "popularity-shuffled":
        if popularity is None:
            raise FeatureError(
                f"The control features {name!r} need the training split.",
                found="a data set that is not split yet",
                expected="features that are asked for after the data set's build()",
            )
        what = "items of equal popularity"
        order = seeded_order(tokens, seed)
        groups = [order[np.isin(order, each)] for each in strata(popularity, real.present)]
        return _dealt(name, tokens, seed, real, groups, what)
    if kind == "constant":
        values = np.zeros_like(real.values)
        values[real.present] = _root_mean_square(real)
        what = f"one row for all items of {source}"
        return _made(name, tokens, real, values, real.present, what, {})
    nothing = np.zeros_like(real.values), np.zeros_like(real.present)
    return _made(name, tokens, real, *nothing, f"no item has {source}", {})


def strata(popularity: np.ndarray, present: np.ndarray) -> list[np.ndarray]:
    """Internal ids of the items that have features, by their number of training interactions.

    Strata are those of the greatest power of 2 in the number, small ones joined.

    >>> counts = np.array([0, *[1] * 10, 2, *[4] * 12, 5])  # PAD first
    >>> [ids.tolist() for ids in strata(counts, np.arange(25) > 0)]
    [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24]]
    """
    level = np.frexp(popularity.astype(np.float64))[1]  # 0: 0, 1: 1, 2-3: 2, 4-7: 3 …
    found = [np.flatnonzero(present & (level == each)) for each in np.unique(level[present])]
    out: list[np.ndarray] = []
    for ids in found:
        if out and min(len(ids), len(out[-1])) < SMALLEST_STRATUM:
            out[-1] = np.sort(np.concatenate([out[-1], ids]))
        else:
            out.append(ids)
    return out


def _random(name: str, tokens: Sequence[str], seed: int) -> ItemFeatures:
    shape = (len(tokens) - 1, RANDOM_WIDTH)
    values = np.zeros((len(tokens), RANDOM_WIDTH), dtype=np.float32)
    generator = np.random.Generator(np.random.PCG64(seed))
    values[canonical_order(tokens)] = generator.standard_normal(shape, dtype=np.float32)
    manifest = FeatureManifest(
        name=name,
        modality="text",  # counts as text where a protocol needs a modality
        encoder="control: standard normal numbers",
        settings={"draw": seed},
        source="none",
        items=None,
        shape=shape,
        dtype="float32",
        sha256="",
    )
    return with_content_hash(ItemFeatures(values, np.arange(len(tokens)) > 0, manifest), tokens)


def _random_like(name: str, tokens: Sequence[str], seed: int, real: ItemFeatures) -> ItemFeatures:
    generator = np.random.default_rng([seed, zlib.crc32(real.manifest.name.encode())])
    order = canonical_order(tokens)
    drawn = generator.standard_normal((len(order), real.values.shape[1]), dtype=np.float32)
    values = np.zeros_like(real.values)
    values[order] = drawn * _root_mean_square(real)
    values[~real.present] = 0
    what = f"normal numbers in place of {real.manifest.name}"
    return _made(name, tokens, real, values, real.present, what, {"draw": seed})


def _dealt(
    name: str,
    tokens: Sequence[str],
    seed: int,
    real: ItemFeatures,
    groups: Sequence[np.ndarray],
    what: str,
) -> ItemFeatures:
    """Rows permuted among the items of each group that have one; the same items stay missing.

    Args:
        groups: internal ids in a drawn order.
    """
    values, canonical = np.zeros_like(real.values), canonical_order(tokens)
    for drawn in groups:
        items = canonical if len(groups) == 1 else canonical[np.isin(canonical, drawn)]
        values[items[real.present[items]]] = real.values[drawn[real.present[drawn]]]
    dealt = f"rows of {real.manifest.name} dealt to {what}"
    return _made(name, tokens, real, values, real.present, dealt, {"draw": seed})


def _root_mean_square(real: ItemFeatures) -> np.float32:
    rows = real.values[real.present]
    return np.float32(np.sqrt(np.square(rows, dtype=np.float64).mean()) if rows.size else 0.0)


def _made(
    name: str,
    tokens: Sequence[str],
    real: ItemFeatures,
    values: np.ndarray,
    present: np.ndarray,
    what: str,
    settings: dict[str, int],
) -> ItemFeatures:
    manifest = real.manifest.model_copy(
        update={
            "name": name,
            "encoder": f"control: {what}",
            "settings": {**settings, "of_sha256": real.manifest.sha256},
        }
    )
    return with_content_hash(ItemFeatures(values, present, manifest), tokens)


def with_content_hash(features: ItemFeatures, tokens: Sequence[str]) -> ItemFeatures:
    """Features computed in memory, whose manifest then has the SHA-256 of their rows.

    The rows are hashed in the canonical order of the tokens, after the tokens.
    """
    order = canonical_order(tokens)
    digest = hashlib.sha256("\x1f".join(str(tokens[i]) for i in order).encode())
    digest.update(features.values[order].tobytes())
    manifest = features.manifest.model_copy(
        update={"sha256": digest.hexdigest(), "items": None, "items_sha256": None}
    )
    return ItemFeatures(features.values, features.present, manifest)
