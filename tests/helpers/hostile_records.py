"""Hostile records: one of every protocol, and what a field of a file from anyone may hold."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st
from records import METRICS, record

from alignrec_recbole.runs.record import RunRecord

WORDS = (
    "",
    "..",
    "/etc/passwd",
    "../../x",
    "a/b",
    "a\\b",
    "*",
    "\0",
    "x" * 100_000,
    "\x1b[31mred\x1b[0m",
    "\u202eabc",
    "=cmd|' /C calc'!A0",
    "@SUM(A1)",
    "+1+1",
    "-1-1",
    "\t=1",
    "^^5cinput^^7b/etc/passwd^^7d",
    "a^2~b",
    r"\input{x} & % $ # _ { }",
    "$\\frac{",
    "a|b`c`[d](e)<img src=x>&lt;",
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "a\nb\r\nc",
    "[x]",
    "_x",
    "\u4e2d\u6587 \u00e9",
    "nan",
    "1",
)
NUMBERS = (0, -1, 1, 2, 10**400, 2**63, 1e308, 5e-324, 1e-300, float("nan"), float("inf"), True)
NESTED: Any = {"a": {"b": [{"c": [[[[]]]]}]}}


def records() -> dict[str, RunRecord]:
    """A record of every protocol by its name, with the optional fields set."""
    metrics = dict.fromkeys(METRICS, 0.08)
    point = {"modality": "text", "mask_seed": 0, "metrics": metrics}
    group = {"users": 3.0, "Recall@20": 0.1, "exposure@20": 0.5}
    kinds: dict[str, dict[str, Any]] = {
        "full": {"tuned_on": "a grid", "notes": ["a note"]},
        "zero-shot": {"features": "lsa", "chance": metrics},
        "long-tail": {
            "groups": {
                "history": {"<=3": group, ">=4": group},
                "popularity": {"0": {}, ">=1": group},
            }
        },
        "mask-modality": {
            "features": "lsa",
            "config": {"protocol": {"fill": "zero"}},
            "curve": [{**point, "ratio": 0.0}, {**point, "ratio": 1.0}],
        },
        "diagnostics": {"features": "lsa", "metrics": {"uniformity": -2.0}},
    }
    return {kind: record("BPR", protocol=kind, **more) for kind, more in kinds.items()}


def as_json(made: RunRecord) -> dict[str, Any]:
    """The values in the file of a record."""
    return json.loads(made.model_dump_json())


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to every value inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inner:
        yield (*before, key)
        if isinstance(part, (dict, list)):
            yield from places(part, (*before, key))


def changed(values: dict[str, Any], place: tuple[Any, ...], new: Any, how: str) -> dict[str, Any]:
    """A copy with one value replaced, deleted, renamed or with one more beside it."""
    out = copy.deepcopy(values)
    *way, last = place
    inner: Any = out
    for key in way:
        inner = inner[key]
    if how == "replace":
        inner[last] = new
    elif how == "delete":
        del inner[last]
    elif isinstance(inner, dict):
        inner[str(new)] = inner.pop(last) if how == "rename" else 1
    else:
        inner.append(new)
    return out


ANYTHING = (
    st.sampled_from(WORDS)
    | st.sampled_from(NUMBERS)
    | st.text(max_size=30)
    | st.floats()
    | st.integers()
    | st.sampled_from([None, [], {}, [1], {"a": 1}, NESTED, ["a", None], [[0.1]]])
)
HOW = st.sampled_from(["replace"] * 6 + ["delete", "rename", "add"])


@st.composite
def hostile(draw: st.DrawFn) -> tuple[RunRecord, dict[str, Any]]:
    """A record of some protocol, and its values with one or two of them changed."""
    made = draw(st.sampled_from(list(records().values())))
    values = as_json(made)
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.sampled_from(list(places(values))))
        values = changed(values, place, draw(ANYTHING), draw(HOW))
    return made, values
