"""Generated trials: names and files from outside, at the place where all of them are opened."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from trials import trial

from alignrec_recbole.errors import DataError
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.names import check_name
from alignrec_recbole.io.opening import read_json

NAMES = st.text(max_size=300) | st.sampled_from(["..", "a/../../b", "/etc", "\0", "\ud800", "*"])


@settings(deadline=None, max_examples=150)
@given(NAMES)
def test_a_name_is_safe_or_refused(name: str) -> None:
    with trial("names", name), tempfile.TemporaryDirectory() as folder:
        try:
            path = inside(Path(folder), check_name(name, "data set", DataError))
        except DataError:
            return
        path.write_bytes(b"")
        assert path.parent == Path(folder)


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200) | st.recursive(st.none() | st.floats() | st.text(), st.lists))
def test_json_is_read_or_refused(content: object) -> None:
    with trial("json"), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.json")
        is_bytes = isinstance(content, bytes)
        path.write_bytes(content if is_bytes else json.dumps(content).encode())
        try:
            value = read_json(path)
        except DataError:
            assert is_bytes
        else:
            assert is_bytes or json.dumps(value) == json.dumps(content)
