"""Paired tests between runs, over users and over seeds, with Holm's correction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from alignrec_recbole.errors import RecordError
from alignrec_recbole.reports.grouping import SeedGroup
from alignrec_recbole.runs.lists import read_user_values

Side = Literal["two-sided", "right-sided"]
TESTED_METRICS = ("Recall@20", "NDCG@20")
_Column = tuple[np.ndarray, np.ndarray]  # users and their values [n]
SCIPY_SIDE = {"two-sided": "two-sided", "right-sided": "greater"}


@dataclass(frozen=True)
class Comparison:
    """One target against one baseline, one metric, over users or over seeds.

    Attributes:
        difference: mean of target − baseline over the pairs.
        p, p_holm: None where there is no test; `why` says the reason.
    """

    target: str
    baseline: str
    metric: str
    over: str
    pairs: int
    difference: float | None
    p: float | None
    p_holm: float | None = None
    why: str = ""


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction: the i-th smallest of m times (m − i + 1), made monotone.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    out = np.empty_like(values)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return out


def paired_p(
    target: Sequence[float] | np.ndarray,
    baseline: Sequence[float] | np.ndarray,
    side: Side = "two-sided",
    test: str = "t",
) -> float:
    """p of scipy's paired test; right-sided: that the target is larger. 1 where all pairs agree.

    >>> round(paired_p([3.0, 4.0, 6.0], [2.0, 2.0, 3.0], "right-sided"), 4)
    0.0371
    """
    difference = np.asarray(target, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    if not difference.any():
        return 1.0
    from scipy import stats  # a second of start-up, for reports with something to test only

    paired_test = {"t": stats.ttest_rel, "wilcoxon": stats.wilcoxon}[test]
    return float(paired_test(target, baseline, alternative=SCIPY_SIDE[side]).pvalue)


class UserMeans:
    """Each user's mean of a metric over the seeds of a group.

    Files are read once for the tested metrics, whose values alone are kept; lists are not.

    Args:
        skipped: called for every file that cannot be used; without it, the error is raised.
    """

    def __init__(self, skipped: Callable[[Path, RecordError], None] | None = None) -> None:
        self._values: dict[tuple[tuple[Path, ...], str], list[_Column] | None] = {}
        self._users = np.empty(0, dtype=str)  # most runs of a data set have the same
        self._skipped = skipped
        self._absent: set[tuple[Path, ...]] = set()
        self._damaged: set[tuple[Path, ...]] = set()

    def of(self, group: SeedGroup, metric: str) -> dict[str, float] | None:
        """User token → mean; None if a record's values are not stored beside it.

        Raises:
            RecordError: a file is damaged or not the one that its record describes.
        """
        key = _key(group)
        if (key, metric) not in self._values and key not in self._absent:
            self._read(group, metric)
        stored = self._values.get((key, metric))
        if stored is None:
            return None
        found: dict[str, list[float]] = defaultdict(list)
        for users, values in stored:
            for user, value in zip(users.tolist(), values.tolist(), strict=True):
                found[user].append(value)
        return {user: sum(values) / len(values) for user, values in found.items()}

    def why_none(self, *groups: SeedGroup) -> str:
        """Why there are no values of one of the groups."""
        damaged = any(_key(group) in self._damaged for group in groups)
        return "damaged per-user values" if damaged else "no per-user values beside the record"

    def _read(self, group: SeedGroup, metric: str) -> None:
        """Keep the columns of a metric and of the tested ones."""
        key = _key(group)
        found: dict[str, list[_Column]] = {name: [] for name in (metric, *TESTED_METRICS)}
        for run in group.runs:
            try:
                values = read_user_values(run)
            except RecordError as error:
                if self._skipped is None:
                    raise
                self._skipped(run.path, error)
                self._damaged.add(key)
                values = None
            if values is None:
                self._absent.add(key)
                return
            if not np.array_equal(values.users, self._users):
                self._users = values.users
            for name, columns in found.items():
                if name in values.values:
                    columns.append((self._users, values.values[name]))
        for name, columns in found.items():
            self._values[key, name] = columns if len(columns) == len(group.runs) else None


def _key(group: SeedGroup) -> tuple[Path, ...]:
    return tuple(run.path for run in group.runs)


def compare(
    target: SeedGroup,
    baseline: SeedGroup,
    metric: str,
    side: Side = "two-sided",
    test: str = "t",
    user_means: UserMeans | None = None,
) -> list[Comparison]:
    """Over users (each user's mean over seeds) and over the seeds that both groups have."""
    means = UserMeans() if user_means is None else user_means
    pairs: dict[str, tuple[Mapping | None, Mapping | None]] = {
        "users": (means.of(target, metric), means.of(baseline, metric)),
        "seeds": (target.values(metric), baseline.values(metric)),
    }
    absent = means.why_none(target, baseline)
    return [
        paired(
            Comparison(target.name, baseline.name, metric, over, 0, None, None, why=absent),
            *both,
            side,
            test,
        )
        for over, both in pairs.items()
    ]


def paired(
    entry: Comparison,
    a: Mapping | None,
    b: Mapping | None,
    side: Side = "two-sided",
    test: str = "t",
) -> Comparison:
    """The comparison with its difference and p, or the reason why there is none.

    Args:
        entry: with the reason why values would be absent.
        a, b: user or seed → value, of the target and of the baseline.
    """
    if a is None or b is None:
        return entry
    entry = replace(entry, why="")
    if entry.over == "users" and a.keys() != b.keys():
        return replace(entry, why="other users")
    common = sorted(a.keys() & b.keys())
    pairs = len(common)
    if pairs < 2:
        unit = entry.over.removesuffix("s") if pairs == 1 else entry.over
        return replace(entry, pairs=pairs, why=f"{pairs} common {unit}")
    target, baseline = (np.array([values[key] for key in common]) for values in (a, b))
    differences = target - baseline
    difference = float(differences.mean())
    if difference and np.ptp(differences) <= 1e-12 * abs(difference):  # as of models without seeds
        why = f"the same difference in all {entry.over}"
        return replace(entry, pairs=pairs, difference=difference, why=why)
    p = paired_p(target, baseline, side, test)
    return replace(entry, pairs=pairs, difference=difference, p=p)


def corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """The family with Holm's correction over the entries that were tested."""
    tested = [entry for entry in family if entry.p is not None]
    fixed = dict(zip(map(id, tested), holm([entry.p or 0.0 for entry in tested]), strict=True))
    return [
        replace(entry, p_holm=float(fixed[id(entry)])) if id(entry) in fixed else entry
        for entry in family
    ]
