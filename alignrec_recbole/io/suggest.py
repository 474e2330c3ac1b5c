"""The "Did you mean …?" of errors about unknown names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the nearest known name, to append to an error's first sentence.

    Case is ignored in the comparison. Empty if no known name is close, or if the name is known.

    >>> "Unknown model 'lightgnc'." + suggest("lightgnc", ["BPR", "LightGCN"])
    "Unknown model 'lightgnc'. Did you mean 'LightGCN'?"
    >>> suggest("SASRec", ["BPR"])
    ''
    """
    by_lower_case = {other.lower(): other for other in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    if not nearest or by_lower_case[nearest[0]] == name:
        return ""
    return f" Did you mean {by_lower_case[nearest[0]]!r}?"
