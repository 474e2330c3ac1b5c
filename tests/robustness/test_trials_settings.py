"""Generated trials: every setting of RecBole with odd values is read or refused in a sentence."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trials import trial

from alignrec_recbole.cli._overrides import assignment, choices, scalar
from alignrec_recbole.data.dataset_paths import find_dataset
from alignrec_recbole.errors import AlignRecError
from alignrec_recbole.registry.components import components
from alignrec_recbole.runs.effective_config import run_settings
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.settings import nested
from alignrec_recbole.testing.synthetic import make_blocks
from alignrec_recbole.training.recbole_settings import HONOURED, REFUSED

ODD = {
    "null": None, "true": True, "minus one": -1, "zero": 0, "a float": 0.5, "10^30": 10**30,
    "NaN": float("nan"), "infinity": float("inf"), "a word": "x", "no text": "",
    "a path": "../../x",
    "a list": ["a"], "a list of lists": [[1]], "no list": [], "a mapping": {"a": "b"},
    "keys of numbers": {1: 2}, "a date": datetime.date(2020, 1, 1), "bytes": b"a", "a set": {"a"},
    "an array": np.zeros(3), "code": "__import__('os').system('true')", "escapes": "\x1b[31m",
    "a long text": "x" * 20_000, "deep": eval("[" * 60 + "]" * 60), "digits": 10**5000,
    "a surrogate": "\udcff", "100,000 values": [0] * 100_000,
}  # fmt: skip
NEVER = ("NaN", "infinity", "keys of numbers", "a date", "bytes", "a set", "an array", "digits",
         "10^30", "deep", "a long text", "100,000 values")  # fmt: skip
OURS = ("precision", "threads", "split_seed", "setting", "lr_decay", "zero_rows_missing",
        "embedding_size", "reg_weight", "n_layers")  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_blocks(users=6, items=6, cold=1).write(folder)
    return folder


@pytest.mark.parametrize("key", [*HONOURED, *REFUSED, *OURS])
def test_an_odd_value_is_read_or_refused(key: str, data: Path) -> None:
    parts, folder = components("LightGCN"), find_dataset("block_world", data)
    for name, value in ODD.items():
        with trial("settings", f"{key}: {name}"):
            spec = RunSpec("LightGCN", "block_world", data_path=data, overrides={key: value})
            try:
                run_settings(spec, parts, folder)
            except AlignRecError as error:
                refused = str(error)
            else:
                refused = ""
            assert refused or (name not in NEVER and key not in REFUSED), "accepted"
            assert not refused or key in refused
            assert len(refused) < 4000
            assert refused.replace("\n", "").isprintable()


ACCEPTED = [
    (key, name)
    for key in ("eval_args", "load_col", "unload_col", "val_interval", "USER_ID_FIELD",
                "benchmark_filename", "field_separator", "rm_dup_inter", "topk")
    for name in ("null", "a mapping", "a word", "a list", "zero")
]  # fmt: skip


@pytest.mark.parametrize(("key", "name"), ACCEPTED)
def test_what_passes_the_types_meets_the_data(
    key: str, name: str, data: Path, tmp_path: Path
) -> None:
    with trial("settings", f"{key}: {name}, with data"):
        made = RunSpec("BPR", "block_world", data_path=data, output=tmp_path,
                       overrides={key: ODD[name]})  # fmt: skip
        try:
            found = prepare_run(made).splits
        except AlignRecError as error:
            assert len(str(error)) < 4000  # noqa: PT017
        else:
            assert len(found) == 3


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=40) | st.text("[](){},:;'\"=.|>&*!-#%@~ \n1ae", max_size=12))
def test_the_text_after_the_sign_of_equality_is_a_value_or_refused(text: str) -> None:
    with trial("settings", repr(text)):
        for read in (scalar, assignment, choices):
            try:
                read(f"k={text}" if read is not scalar else text)
            except ValueError as error:
                assert len(str(error)) < 1000  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "value"),
    [("[5,inf)", "[5,inf)"), ("(1,5]", "(1,5]"), ("[1,2);[5,9)", "[1,2);[5,9)"), (",", ","),
     ("|", "|"), (";", ";"), (":", ":"), ("#", "#"), (">", ">"), ("~", None), ("[1, 2]", [1, 2]),
     ("2020-01-31", "2020-01-31"), ("1e-3", 0.001), ("7", 7)],
)  # fmt: skip
def test_values_are_texts_as_in_recbole(text: str, value: object) -> None:
    with trial("settings", text):
        assert scalar(text) == value


@pytest.mark.parametrize(
    "pairs", [[("a", 1), ("a.b", 2)], [("a.b", 2), ("a", 1)], [("a.b.c", 1), ("a.b", 2)]]
)
def test_a_key_has_a_value_or_keys(pairs: list) -> None:
    with trial("settings", str(pairs)), pytest.raises(AlignRecError, match="set twice"):
        nested(pairs)


@pytest.mark.parametrize("key", ["", ".", "a..b", ".a", "a.", "x" * 300, ".".join("a" * 5000)])
def test_a_key_that_is_none(key: str) -> None:
    with trial("settings", key[:20]), pytest.raises(ValueError, match=r"key"):
        assignment(f"{key}=1")
