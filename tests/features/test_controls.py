"""Control features that are made of others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from alignrec_recbole.errors import FeatureError, UnknownNameError
from alignrec_recbole.features.controls import control_features, strata, with_content_hash
from alignrec_recbole.features.derived_names import is_control, parse_control
from alignrec_recbole.features.table import FeatureManifest, ItemFeatures

ITEMS = 400
TOKENS = ["[PAD]", *(f"i{number}" for number in range(ITEMS))]


def made(missing: tuple[int, ...] = (5, 17)) -> ItemFeatures:
    """Rows that name their item, in columns of other scales."""
    values = np.zeros((ITEMS + 1, 3), dtype=np.float32)
    values[1:] = np.arange(1, ITEMS + 1)[:, None] * np.array([1.0, 10.0, -1.0])
    present = np.arange(ITEMS + 1) > 0
    present[list(missing)] = False
    values[~present] = 0
    manifest = FeatureManifest(
        name="mine", modality="audio", encoder="made", settings={}, source="none", items=None,
        shape=(ITEMS, 3), dtype="float32", sha256="0" * 64,
    )  # fmt: skip
    return ItemFeatures(values, present, manifest)


POPULARITY = np.random.default_rng(0).geometric(0.05, ITEMS + 1) - 1
POPULARITY[0] = 0


def control(name: str, real: ItemFeatures | None = None, popularity=POPULARITY) -> ItemFeatures:
    return control_features(name, TOKENS, lambda _: real or made(), popularity)


@pytest.mark.parametrize("kind", ["random", "shuffled", "popularity-shuffled", "constant", "zero"])
def test_a_control_has_the_shape_and_modality_of_what_it_replaces(kind: str) -> None:
    real, found = made(), control(f"{kind}:mine")
    assert found.values.shape == real.values.shape
    assert found.values.dtype == real.values.dtype
    assert found.modality == "audio"
    assert found.manifest.encoder.startswith("control: ")
    assert found.manifest.settings["of_sha256"] == real.manifest.sha256
    assert not found.values[~found.present].any()
    assert np.array_equal(found.present, real.present if kind != "zero" else [False] * (ITEMS + 1))
    again = control(f"{kind}:mine")
    assert found.manifest.sha256 == again.manifest.sha256


def test_rows_are_exchanged_within_strata_of_popularity() -> None:
    real, found = made(), control("popularity-shuffled:mine@3")
    source = np.abs(found.values[:, 2]).astype(int)  # column 2 names the item that a row came from
    assert sorted(source[real.present]) == sorted(np.flatnonzero(real.present))
    moved = 0
    for ids in strata(POPULARITY, real.present):
        assert set(source[ids]) == set(ids)
        assert len(ids) >= 10
        moved += int((source[ids] != ids).sum())
    assert moved > 0.8 * ITEMS
    assert not np.array_equal(found.values, control("popularity-shuffled:mine@4").values)


def test_strata_hold_every_item_once_and_are_ordered() -> None:
    real = made()
    groups = strata(POPULARITY, real.present)
    assert sorted(np.concatenate(groups)) == sorted(np.flatnonzero(real.present))
    for low, high in itertools.pairwise(groups):
        assert POPULARITY[low].max() < POPULARITY[high].min()


def test_strata_begin_at_powers_of_two() -> None:
    counts = np.repeat([0, 1, 2, 3, 4, 7, 8], 10)
    groups = strata(np.r_[0, counts], np.arange(71) > 0)
    found = [sorted(set(counts[ids - 1].tolist())) for ids in groups]
    assert found == [[0], [1], [2, 3], [4, 7], [8]]


@pytest.mark.parametrize("sizes", [(3, 12), (12, 3), (9, 9)])
def test_a_small_stratum_is_joined_with_its_neighbour(sizes: tuple[int, int]) -> None:
    counts = np.repeat([1, 4], sizes)
    (only,) = strata(np.r_[0, counts], np.arange(len(counts) + 1) > 0)
    assert only.tolist() == list(range(1, len(counts) + 1))
    assert len(strata(np.r_[0, np.repeat([1, 4], 10)], np.arange(21) > 0)) == 2


def test_a_few_items_are_one_stratum() -> None:
    present = np.array([False, True, True, True])
    (only,) = strata(np.array([0, 1, 100, 10_000]), present)
    assert only.tolist() == [1, 2, 3]
    assert strata(np.array([0, 1]), np.array([False, False])) == []


def test_constant_and_random_have_the_root_mean_square() -> None:
    real = made()
    expected = np.sqrt(np.square(real.values[real.present], dtype=np.float64).mean())
    constant = control("constant:mine")
    assert np.allclose(constant.values[real.present], expected)
    drawn = control("random:mine@1").values[real.present]
    assert np.sqrt(np.square(drawn).mean()) == pytest.approx(expected, rel=0.1)
    other = made()
    other.manifest.name = "other"
    assert not np.array_equal(control("random:mine@1").values, control("random:x@1", other).values)


def test_the_hash_of_computed_rows_is_of_each_items_row() -> None:
    """Whatever the internal numbers: of the same rows it is the same, of exchanged ones another."""
    real = made()
    order = np.r_[0, 1 + np.random.default_rng(2).permutation(ITEMS)]
    moved = ItemFeatures(real.values[order], real.present[order], real.manifest)
    first, *others = (
        with_content_hash(features, tokens).manifest.sha256
        for features, tokens in (
            (real, TOKENS),
            (moved, [TOKENS[place] for place in order]),
            (moved, TOKENS),
            (real, ["[PAD]", *(f"j{number}" for number in range(ITEMS))]),
        )
    )
    assert others[0] == first
    assert first not in others[1:]
    assert others[1] != others[2]


@pytest.mark.parametrize("kind", ["random", "shuffled", "popularity-shuffled"])
def test_what_is_drawn_follows_the_items_not_their_numbers(kind: str) -> None:
    real = made()
    order = np.r_[0, 1 + np.random.default_rng(2).permutation(ITEMS)]
    moved = ItemFeatures(real.values[order], real.present[order], real.manifest)
    tokens = [TOKENS[place] for place in order]
    found = control_features(f"{kind}:mine@1", tokens, lambda _: moved, POPULARITY[order])
    assert np.array_equal(found.values, control(f"{kind}:mine@1").values[order])


def test_popularity_needs_the_split() -> None:
    with pytest.raises(FeatureError, match="need the training split"):
        control("popularity-shuffled:mine", popularity=None)


@pytest.mark.parametrize(
    "name",
    ["zero:", "constant:mine@2", "zero:mine@1", "random:", "popularity-shuffled:", "shuffled:a@x"],
)
def test_names_that_are_refused(name: str) -> None:
    assert is_control(name)
    with pytest.raises(UnknownNameError, match="Unknown control features"):
        parse_control(name)
