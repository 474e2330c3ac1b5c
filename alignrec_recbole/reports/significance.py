"""Paired tests between runs, over users and over seeds, with Holm's correction."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from alignrec_recbole.errors import RecordError
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.reports.grouping import Group
from alignrec_recbole.runs.record import Run

Side = Literal["two-sided", "right-sided"]
TESTS = {"t": stats.ttest_rel, "wilcoxon": stats.wilcoxon}
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
    return float(TESTS[test](target, baseline, alternative=SCIPY_SIDE[side]).pvalue)


def per_user(run: Run, metric: str) -> pd.Series | None:
    """A metric by user token, or None where the values are not beside the record.

    Raises:
        RecordError: the file is not the one the record describes.
    """
    described = run.record.per_user
    path = run.path.parent / described["file"] if described else None
    if described is None or path is None or not path.is_file():
        return None
    if sha256_file(path) != described["sha256"]:
        raise RecordError(
            f"{path.name} is not the file that its record describes.",
            found="another sha256",
            expected=described["sha256"][:12] + "…",
            hint="run the model again with --overwrite, or delete the file",
        )
    try:
        with np.load(path, allow_pickle=False) as stored:
            return pd.Series(stored[metric], index=stored["users"])
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise RecordError(
            f"{path.name} has no usable per-user values.",
            found=str(error),
            expected=f"arrays 'users' and {metric!r}",
            hint="run the model again with --overwrite",
        ) from error


def compare(
    target: Group, baseline: Group, metric: str, side: Side = "two-sided", test: str = "t"
) -> list[Comparison]:
    """Over users (each user's mean over seeds) and over the seeds both have."""
    return [
        _tested(target, baseline, metric, over, *columns, side, test)
        for over, columns in (
            ("users", (_user_means(target, metric), _user_means(baseline, metric))),
            ("seeds", (target.values(metric), baseline.values(metric))),
        )
    ]


def _user_means(group: Group, metric: str) -> pd.Series | None:
    columns = [per_user(run, metric) for run in group.runs]
    if any(column is None for column in columns):
        return None
    return pd.concat(columns).groupby(level=0).mean()


def _tested(
    target: Group,
    baseline: Group,
    metric: str,
    over: str,
    a: pd.Series | None,
    b: pd.Series | None,
    side: Side,
    test: str,
) -> Comparison:
    names = (target.name, baseline.name, metric, over)
    if a is None or b is None:
        return Comparison(*names, 0, None, None, why="no per-user values beside the record")
    if over == "users" and set(a.index) != set(b.index):
        return Comparison(*names, 0, None, None, why="other users")
    both = pd.concat([a, b], axis=1, join="inner", keys=["target", "baseline"])
    if len(both) < 2:
        why = f"{len(both)} common {over.removesuffix('s')}{'s' * (len(both) != 1)}"
        return Comparison(*names, len(both), None, None, why=why)
    differences = (both["target"] - both["baseline"]).to_numpy()
    difference = float(differences.mean())
    if difference and np.ptp(differences) <= 1e-12 * abs(difference):  # as of models without seeds
        why = f"the same difference in all {over}"
        return Comparison(*names, len(both), difference, None, why=why)
    p = paired_p(both["target"].to_numpy(), both["baseline"].to_numpy(), side, test)
    return Comparison(*names, len(both), difference, p)


def corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """The family with Holm's correction over those that were tested."""
    tested = [entry for entry in family if entry.p is not None]
    fixed = dict(zip(map(id, tested), holm([entry.p or 0.0 for entry in tested]), strict=True))
    return [
        replace(entry, p_holm=float(fixed[id(entry)])) if id(entry) in fixed else entry
        for entry in family
    ]
