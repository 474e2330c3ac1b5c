"""Generated trials: texts after --split, manifests of splits, and tables of odd times and ids."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trials import trial

from alignrec_recbole.data.made_dataset import write_dataset
from alignrec_recbole.data.split_manifest import SplitManifest, read_split_manifest
from alignrec_recbole.data.split_names import METHODS, parse_split
from alignrec_recbole.data.splits import draw_labels
from alignrec_recbole.errors import DataError, SettingError

NUMBERS = st.one_of(
    st.sampled_from(["0.8", "0.1", "0", "1", "-1", "", " ", "nan", "inf", "1e999", "1_0", "٣",
                     "0x1", "9" * 30, "9" * 400, "1628643414042"]),
    st.floats().map(str),
    st.integers(-(2**70), 2**70).map(str),
)  # fmt: skip
TEXTS = st.one_of(
    st.builds(
        lambda name, numbers: f"{name}:{','.join(numbers)}",
        st.sampled_from([*METHODS, "user-Random", "global time", ""]),
        st.lists(NUMBERS, max_size=4),
    ),
    st.text(max_size=30),
)


@settings(deadline=None, max_examples=400)
@given(TEXTS)
def test_a_split_is_read_or_refused(text: str) -> None:
    with trial("splits", "option"):
        try:
            split = parse_split(text, 1)
        except SettingError:
            return
        assert parse_split(split.text, 1) == split
        assert all(map(math.isfinite, split.numbers))


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 24 interactions, with its manifest."""
    folder = tmp_path_factory.mktemp("made")
    rows = [(f"u{u}", f"i{i}", u + i) for u in range(4) for i in range(6)]
    frame = pd.DataFrame(rows, columns=["user", "item", "time"])
    write_dataset(frame, folder / "x.inter", parse_split("user-time"), numbering="none", source={})
    return folder


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([*SplitManifest.model_fields, "other"]), VALUES)
def test_a_changed_manifest_is_read_or_refused(made: Path, key: str, value: object) -> None:
    path = made / "x.split.json"
    before = path.read_text("utf-8")
    try:
        with trial("splits", "manifest"):
            path.write_text(json.dumps({**json.loads(before), key: value}), "utf-8")
            with contextlib.suppress(DataError):
                assert isinstance(read_split_manifest(made, "x"), SplitManifest)
    finally:
        path.write_text(before, "utf-8")


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60))
def test_bytes_in_the_place_of_a_manifest_are_refused(made: Path, data: bytes) -> None:
    path = made / "x.split.json"
    before = path.read_bytes()
    try:
        with trial("splits", "bytes"):
            path.write_bytes(data)
            with pytest.raises(DataError, match=r"x\.split\.json"):
                read_split_manifest(made, "x")
    finally:
        path.write_bytes(before)


TIMES = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=True, allow_infinity=True), st.just(0)
)


@settings(deadline=None, max_examples=250)
@given(st.lists(TIMES, min_size=1, max_size=25), st.sampled_from(METHODS), st.data())
def test_odd_times_are_split_or_refused(times: list, method: str, data: st.DataObject) -> None:
    users = data.draw(st.lists(st.sampled_from("abc"), min_size=len(times), max_size=len(times)))
    frame = pd.DataFrame({"user": users, "item": range(len(times)), "time": times})
    with trial("splits", "times"):
        try:
            drawn = draw_labels(frame, parse_split(method, 3))
        except DataError:
            return
        if method == "none":
            assert drawn.labels is None
            return
        assert drawn.labels is not None
        assert set(drawn.labels) == {0, 1, 2}
        if method == "global-time":
            values = frame["time"].to_numpy()
            assert np.isfinite(values).all()
            assert values[drawn.labels == 0].max() < values[drawn.labels == 1].min()
            assert values[drawn.labels == 1].max() < values[drawn.labels == 2].min()
