"""Draw a split: the label of each interaction (see `split_names.py` for the methods)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from alignrec_recbole.data.source import ITEM, SPLIT, TIME, USER
from alignrec_recbole.data.split_names import WITH_TIMES, Split, shown
from alignrec_recbole.errors import DataError

TRAIN, VALID, TEST = 0, 1, 2
ROUNDING = 1e-9  # 0.29 · 100 is 28.999999999999996


@dataclass(frozen=True)
class Labels:
    """The result of a split.

    Attributes:
        labels: 0, 1 or 2 per interaction; None for the method `none`.
        cuts: the times V and T of `global-time`, in the unit of the data.
        only_later: users and items without a training interaction, and their interactions.
    """

    labels: np.ndarray | None
    cuts: tuple[float, float] | None
    only_later: dict[str, int]


def draw_labels(frame: pd.DataFrame, split: Split) -> Labels:
    """Label each interaction.

    Args:
        frame: interactions in the common form (`source.py`), every pair once; with `time` for the
            methods by time, with `split` for `released`.
        split: how.

    Raises:
        DataError: there are no times or labels, a time is missing, or a part would be empty.
    """
    if split.method == "none":
        return Labels(None, None, only_later(frame, np.zeros(len(frame), np.int64)))
    if split.method == "released" and SPLIT not in frame:
        raise DataError(
            "The split 'released' needs labels, and the source has none.",
            expected="a column x_label, or one file per part",
            hint="choose another --split, such as user-random",
        )
    if split.method in WITH_TIMES:
        _check_times(frame, split)
    cuts = None
    if split.method == "released":
        labels = frame[SPLIT].to_numpy(np.int64)
    elif split.method == "global-time":
        cuts = _cut_points(frame[TIME].to_numpy(), split)
        times = frame[TIME].to_numpy()
        labels = np.where(times >= cuts[1], TEST, np.where(times >= cuts[0], VALID, TRAIN))
    else:
        labels = _per_user(frame, split)
    _check_parts(frame, labels, split, cuts)
    return Labels(labels, cuts, only_later(frame, labels))


def _per_user(frame: pd.DataFrame, split: Split) -> np.ndarray:
    """Labels of the methods that split each user's interactions."""
    user, item = sorted_codes(frame[USER]), sorted_codes(frame[ITEM])
    by_tokens = np.lexsort((item, user))
    chance = np.empty(len(frame))
    chance[by_tokens] = np.random.default_rng(split.seed).random(len(frame))
    times = np.zeros(len(frame)) if split.method == "user-random" else frame[TIME].to_numpy()
    order = np.lexsort((chance, times, user))
    sizes = np.bincount(user)
    rank = np.arange(len(frame)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    train, valid, _ = _sizes(sizes, split)
    of_row = user[order]
    labels = np.empty(len(frame), dtype=np.int64)
    labels[order] = np.where(
        rank < train[of_row], TRAIN, np.where(rank < (train + valid)[of_row], VALID, TEST)
    )
    return labels


def sorted_codes(tokens: pd.Series) -> np.ndarray:
    """Where each row's token is in the alphabetical order of the tokens.

    >>> sorted_codes(pd.Series(["b", "a", "b"])).tolist()
    [1, 0, 1]
    """
    codes, names = pd.factorize(tokens)
    places = np.empty(len(names), dtype=np.int64)
    places[np.argsort([str(name) for name in names], kind="stable")] = np.arange(len(names))
    return places[codes]


def _sizes(sizes: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test interactions of users with so many in all."""
    if split.method == "leave-last-out":
        test = (sizes >= 2).astype(np.int64)
        valid = (sizes >= 3).astype(np.int64)
        return sizes - valid - test, valid, test
    _, *shares = split.numbers
    valid, test = (np.floor(share * sizes + ROUNDING).astype(np.int64) for share in shares)
    train = sizes - valid - test
    for part in (test, valid):
        one = (train > 1) & (part == 0)
        part += one
        train -= one
    return train, valid, test


def _cut_points(times: np.ndarray, split: Split) -> tuple[float, float]:
    """The times V and T; of shares, the times of the interactions at these places in time."""
    first, second = split.numbers
    if not 0 < second < 1:
        return first, second
    ordered = np.sort(times)
    places = [math.floor(share * len(ordered) + ROUNDING) for share in (first, second)]
    return ordered[places[0]].item(), ordered[places[1]].item()


def only_later(frame: pd.DataFrame, labels: np.ndarray) -> dict[str, int]:
    """Users and items without a training interaction, and their interactions."""
    out: dict[str, int] = {}
    for column in (USER, ITEM):
        codes, names = pd.factorize(frame[column])
        later = np.bincount(codes, labels == TRAIN, minlength=len(names)) == 0
        out[f"{column}s"] = int(later.sum())
        out[f"{column}_interactions"] = int(later[codes].sum())
    return out


def _check_times(frame: pd.DataFrame, split: Split) -> None:
    if TIME not in frame:
        raise DataError(
            f"The split {split.method!r} needs times, and the source has none.",
            expected="a time for every interaction",
            hint="name their column, or choose another --split, such as user-random",
        )
    times = frame[TIME].to_numpy()
    if times.dtype.kind not in "iuf" or not np.isfinite(times).all():
        odd = int((~np.isfinite(pd.to_numeric(frame[TIME], errors="coerce"))).sum())
        raise DataError(
            f"The split {split.method!r} needs a time for every interaction.",
            found=f"{odd} of {len(frame)} interactions without a finite number",
            expected="a number for each",
            hint="choose another --split, such as user-random",
        )


def _check_parts(
    frame: pd.DataFrame, labels: np.ndarray, split: Split, cuts: tuple[float, float] | None
) -> None:
    """Refuse a split with a part in which nobody can be ranked."""
    user, _ = pd.factorize(frame[USER])
    trained = np.bincount(user, labels == TRAIN)[user] > 0
    ranked = np.bincount(labels[trained], minlength=3)
    if ranked.all():
        return
    sizes = np.bincount(labels, minlength=3)
    found = (
        f"{sizes[TRAIN]} training, {sizes[VALID]} validation and {sizes[TEST]} test interactions"
    )
    if sizes.all():
        found += f"; of users with a training interaction {ranked[VALID]} and {ranked[TEST]}"
    if cuts is not None:
        found += (
            f" for the cut points {shown(cuts[0])} and {shown(cuts[1])}; "
            f"times from {frame[TIME].min()} to {frame[TIME].max()}"
        )
    raise DataError(
        f"The split {split.text!r} leaves a part empty.",
        found=found,
        expected="interactions of users with a training interaction in every part",
        hint="choose other numbers, or another --split",
    )


def parts_of(labels: np.ndarray | None, rows: int) -> list[int]:
    """Interactions per part; one number where there are no labels."""
    return [rows] if labels is None else np.bincount(labels, minlength=3).tolist()
