"""Whether a column of times has times."""

from __future__ import annotations

import numpy as np

from alignrec_recbole.audit.definition import NotApplicable
from alignrec_recbole.audit.rows import Rows
from alignrec_recbole.audit.subject import Subject


def real_times(subject: Subject) -> np.ndarray:
    """The time of each row.

    Raises:
        NotApplicable: there are none, or the column holds something else.
    """
    rows = subject.rows
    if rows.times is None and rows.time_column:
        raise NotApplicable(f"the column {rows.time_column} has values that are no finite numbers")
    if rows.times is None:
        raise NotApplicable("the interactions have no column of times")
    if reason := placeholder(rows):
        raise NotApplicable(f"the column {rows.time_column} {reason}, no times")
    return rows.times


def placeholder(rows: Rows) -> str:
    """What a column of times holds instead; empty if it may be times.

    >>> rows = Rows.of([1, 1, 2], [1, 2, 1], [0, 1, 2], times=[1, 0, 0])
    >>> placeholder(rows)
    "holds the position of a row among its user's"
    """
    times = rows.times
    assert times is not None
    if len(times) and (times == times[0]).all():
        return f"holds {times[0]:g} in every row"
    if len(times) > 2 and len(np.unique(np.diff(times))) == 1:
        return "holds the number of the row in the file"
    sizes = np.bincount(rows.users, minlength=rows.user_num)
    ordered = times[np.lexsort((times, rows.users))]
    position = np.arange(len(times)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    if len(np.unique(ordered - position)) == 1:
        return "holds the position of a row among its user's"
    return ""
