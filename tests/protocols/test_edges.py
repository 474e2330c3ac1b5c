"""Edges of the protocols' figures, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from alignrec_recbole.errors import SettingError
from alignrec_recbole.evaluation.ranking import EvalTask, Ranking, find_hits
from alignrec_recbole.protocols.cold_start import ColdStartSettings, simulate
from alignrec_recbole.protocols.diagnostics import co_interaction_neighbours, effective_rank
from alignrec_recbole.protocols.long_tail import by_item
from alignrec_recbole.protocols.mask_modality import MaskSettings
from alignrec_recbole.protocols.robustness import area_under_retention, robustness
from alignrec_recbole.settings import Settings, read_settings


def test_the_area_is_divided_by_the_range_of_the_ratios() -> None:
    points = [(0.0, 0.4), (0.5, 0.2)]  # retention 1 to 0.5 over half of the range: 0.375 / 0.5
    assert area_under_retention(points) == pytest.approx(0.75)
    assert robustness(points).area == pytest.approx(0.75)


def test_rows_of_a_low_rank_have_an_effective_rank() -> None:
    """Eigenvalues of a singular matrix may be below zero by rounding."""
    two = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 2)))[0].T
    unit = np.repeat(two, 20, axis=0)
    assert np.linalg.eigvalsh(unit.T @ unit).min() < 0
    assert effective_rank(unit) == pytest.approx(2, abs=1e-4)


def test_cold_targets_are_of_all_splits() -> None:
    tokens = ["[PAD]", "0", "1", "2", "3"]
    none = np.array([], dtype=np.int64), np.array([], dtype=np.int64)
    every = np.repeat(np.array([1, 2, 3]), 4), np.tile(np.arange(1, 5), 3)
    (cold,) = simulate([every, none, none], tokens, 4, 0.25, 0).cold
    warm = next(item for item in range(1, 5) if item != cold)
    train = np.array([1, 2, 3]), np.array([warm] * 3)
    of_user = [(np.array([user]), np.array([cold])) for user in (1, 2, 3)]
    splits = [tuple(np.concatenate(p) for p in zip(train, of_user[0], strict=True)), *of_user[1:]]
    assert simulate(splits, tokens, 4, 0.25, 0).task.users.tolist() == [1, 2, 3]


@pytest.mark.parametrize("entries", [1, 300, 1 << 22])
def test_neighbours_by_co_interaction_are_those_of_the_whole_matrix(entries: int) -> None:
    """However many rows are formed at a time; item 0 is PAD and item 1 has no user."""
    generator = np.random.default_rng(1)
    taken = (generator.random((40, 30)) < generator.random(30) / 2).astype(np.float32)
    taken[:, :2] = 0
    place = generator.permutation(30)
    cosine = (taken.T @ taken) / np.sqrt(np.outer(*[np.maximum(taken.sum(0), 1)] * 2))
    np.fill_diagonal(cosine, 0)
    wanted = np.zeros((30, 30))
    for item in range(30):
        order = np.lexsort((place, -np.round(cosine[item] * 2**20)))
        wanted[item, [other for other in order if cosine[item, other] > 0][:5]] = 1
    history = sp.csr_matrix(taken)
    found = co_interaction_neighbours(history, place, 5, entries=entries)
    assert np.array_equal(found.toarray(), wanted)
    assert set(np.diff(found.indptr).tolist()) == {0, 5}


@pytest.mark.parametrize(
    ("settings", "key", "lowest"),
    [(ColdStartSettings, "cold_seeds", -2000), (MaskSettings, "mask_seeds", -1000)],
)
def test_seeds_of_drawn_items_are_a_list_that_a_generator_takes(
    settings: type[Settings], key: str, lowest: int
) -> None:
    """PCG64 takes no number below zero, and a record none of more than 64 bits."""
    assert getattr(read_settings({key: [lowest, 7]}, settings, "x"), key) == (lowest, 7)
    for wrong in ([], [0, lowest - 1], [2**63], [True]):
        with pytest.raises(SettingError, match=f"Invalid setting of x: {key}") as caught:
            read_settings({key: wrong}, settings, "x")
        assert f"whole numbers from {lowest}" in caught.value.expected


def test_the_end_of_a_list_is_no_item_of_any_group() -> None:
    """Lists of one and two items, filled up with −1: three places are taken, not four."""
    users, items = np.array([1, 2]), np.array([1, 3])
    task = EvalTask.from_pairs((users, items), [], (3, 4))
    top = np.array([[1, -1], [2, 3]])
    ranking = Ranking(task.users, top, *find_hits(top, task.targets))
    groups = by_item(ranking, task, np.array([0, 0, 5, 50]), [2])
    assert groups["0"]["exposure@2"] == pytest.approx(1 / 3)
    assert groups["4-7"]["exposure@2"] == pytest.approx(1 / 3)
    assert groups[">=32"]["exposure@2"] == pytest.approx(1 / 3)
    assert groups["0"]["Recall@2"] == groups[">=32"]["Recall@2"] == 1
