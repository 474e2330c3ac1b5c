"""Hostile records: one of every protocol, and what a field of a file from anyone may hold."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
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


# By hand -----------------------------------------------------------------------------------------


def replaced(**changes: Any) -> Callable[[Path], None]:
    """Fields of the file have other values, the path is as before."""

    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def other(made: RunRecord) -> Callable[[Path], None]:
    """A valid record of another run in the place of this one."""
    return lambda path: path.write_text(made.model_dump_json()) and None


def written(content: bytes) -> Callable[[Path], None]:
    """Other content."""
    return lambda path: path.write_bytes(content) and None


def special(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Something else in the place of the file."""

    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def sparse(path: Path) -> None:
    """A file of 200 MB."""
    with path.open("wb") as handle:
        handle.truncate(200 << 20)


DAMAGED: dict[str, Callable[[Path], None]] = {
    "empty": written(b""),
    "cut off": lambda path: written(path.read_bytes()[:100])(path),
    "not UTF-8": written(b"\xff\xfe{}"),
    "not an object": written(b"[]"),
    "nested 100,000 deep": written(b"[" * 100_000),
    "config nested deeply": lambda path: written(
        path.read_bytes().replace(
            b'"config": {', b'"config": {"a": ' + b"[" * 99 + b"]" * 99 + b","
        )
    )(path),
    "NaN in a metric": replaced(metrics={"Recall@20": math.nan}),
    "infinity in the configuration": replaced(config={"reg_weight": math.inf}),
    "an integer of 5,000 digits": written(b'{"seed": ' + b"9" * 5000 + b"}"),
    "200 MB": special(sparse),
    "a folder": special(lambda path: path.mkdir()),
    "a FIFO": special(lambda path: os.mkfifo(path)),
    "a loop of links": special(lambda path: path.symlink_to(path.name)),
    "a link to a device": special(lambda path: path.symlink_to("/dev/zero")),
    "unreadable name in a link": special(lambda path: path.symlink_to("x" * 250 + ".json")),
    "another model's": other(record("LightGCN")),
    "another seed's": other(record("BPR", 1000)),
    "another configuration's": other(record("BPR", config={"reg_weight": 0.5})),
    "of another data set": other(record("BPR", dataset="other")),
    "of another protocol": other(record("BPR", protocol="zero-shot")),
    "of another setting": other(record("BPR", setting="recbole")),
    "another hash": replaced(config_sha256="1" * 64),
    "a hash that only begins alike": lambda path: replaced(
        config_sha256=json.loads(path.read_text())["config_sha256"][:8] + "0" * 56
    )(path),
    "another configuration under the old hash": replaced(config={"reg_weight": 0.7}),
    "other data under the old hash": replaced(data={"split": {}, "files": {"x.inter": "0" * 64}}),
    "seconds empty": replaced(seconds={}),
    "seconds of text": replaced(seconds={"train_epoch": "a", "total": 1.0}),
    "setting unknown": replaced(setting="zz"),
    "seed of 400 digits": replaced(seed=10**400),
    "seed a boolean": replaced(seed=True),
    "seed a text": replaced(seed="999"),
    "device a list": replaced(machine={"device": ["cpu"]}),
    "selection empty": replaced(selection={}),
    "history of texts": replaced(history=["a"]),
    "history with texts as scores": replaced(
        history=[{"epoch": 0, "seconds": 1.0, "loss": 1.0, "valid": "a"}]
    ),
    "history without epochs": replaced(history=[{"seconds": 1.0, "loss": 1.0}]),
    "data files a list": replaced(data={"split": {}, "files": []}),
    "memory of 400 digits": replaced(peak_rss_bytes=10**400),
    "chance garbage": replaced(chance={"Recall@20": "a"}),
    "a metric that overflows": replaced(metrics={"Recall@20": 1e300}),
    "a metric name of 100,000 letters": replaced(metrics={"x" * 100_000: 0.1}),
    "a metric name with an escape": replaced(metrics={"\x1b[31m": 0.1}),
    "a model of 100,000 letters": replaced(model="x" * 100_000),
    "an absolute data set": replaced(dataset="/tmp/x"),
    "a data set above": replaced(dataset="../x"),
    "a protocol with a slash": replaced(protocol="a/b"),
    "per-user values elsewhere": replaced(per_user={"file": "../../x.npz", "sha256": "0" * 64}),
    "per-user values absolute": replaced(per_user={"file": "/etc/passwd", "sha256": "0" * 64}),
    "an unknown field": replaced(extra=1),
    "features that no file has": replaced(features="lsa"),
    "long-tail without groups": replaced(protocol="long-tail"),
    "mask-modality without a curve": replaced(protocol="mask-modality"),
}
