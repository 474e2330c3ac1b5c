"""Broken feature files and manifests."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bad_input import (
    Bad,
    Place,
    arguments,
    check_refused,
    content,
    manifest,
    matrix,
    numbered,
    row,
    whole,
)

from alignrec_recbole.cli.main import main
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.table import align, load_features, save_features

CASES = [
    Bad(
        "truncated .npy",
        content("image.npy", lambda b: b[:-100]),
        "FeatureError",
        ("image.npy", "3100 bytes", "complete"),
    ),
    Bad(
        "empty .npy", content("image.npy", lambda b: b""), "FeatureError", ("image.npy", "0 bytes")
    ),
    Bad(
        ".npy of pickled objects",
        matrix(lambda m: np.array([{"a": 1}], dtype=object), declared=False),
        "FeatureError",
        ("image.npy", "without pickle"),
    ),
    Bad(
        "a pickle called .npy",
        content("image.npy", lambda b: pickle.dumps([1.0])),
        "FeatureError",
        ("image.npy", "without pickle"),
    ),
    Bad(
        "changed since the manifest",
        matrix(lambda m: m + 1, declared=False),
        "FeatureError",
        ("image.npy has changed", "sha256"),
    ),
    Bad(
        "reordered ids",
        manifest(items=lambda items: items[::-1]),
        "FeatureError",
        ("image.json have changed", "24 items"),
    ),
    Bad(
        "a header that is no Python",
        content("image.npy", lambda b: b.replace(b"'descr'", b"'descr ")),
        "FeatureError",
        ("image.npy is not a readable .npy", "numpy.save"),
    ),
    Bad(
        "ids twice",
        manifest(items=lambda items: [items[0], *items[:-1]]),
        "FeatureError",
        ("image.json names an item twice", "1 repeated", "'i"),
    ),
    Bad(
        "other ids",
        manifest(items=lambda items: [f"x{i}" for i in items], items_sha256=None),
        "FeatureError",
        ("image.npy has no row for 24 of the data set's 24 items", "'i"),
    ),
    Bad(
        "too few ids",
        manifest(items=lambda items: items[:-1]),
        "FeatureError",
        ("image.json names the wrong number", "23 items", "24"),
    ),
    Bad(
        "missing items nobody knows",
        manifest(missing=["nobody"]),
        "FeatureError",
        ("image.json", "1 of them", "'nobody'"),
    ),
    Bad(
        "manifest cut off",
        content("image.json", lambda b: b[:60]),
        "FeatureError",
        ("image.json is not a feature manifest", "JSON"),
    ),
    Bad(
        "manifest with a misspelt key",
        manifest(encodr="x"),
        "FeatureError",
        ("image.json", "encodr"),
    ),
    Bad(
        "manifest of a later schema",
        manifest(schema_version=2),
        "FeatureError",
        ("image.json", "schema_version", "1"),
    ),
    Bad(
        "too few rows",
        matrix(lambda m: m[:-1]),
        "FeatureError",
        ("image.json", "24 items", "23"),
    ),
    Bad(
        "too many rows",
        matrix(lambda m: np.concatenate([m, m[:1]]), declared=False),
        "FeatureError",
        ("image.npy", "(25, 32)", "(24, 32)"),
    ),
    Bad(
        "another precision",
        matrix(lambda m: m.astype(np.float64)),
        "FeatureError",
        ("image.npy", "float64", "float32"),
    ),
    Bad(
        "one dimension",
        matrix(lambda m: m[:, 0], declared=False),
        "FeatureError",
        ("image.npy", "(24,)", "[items, width]"),
    ),
    Bad(
        "whole numbers",
        matrix(lambda m: m.astype(np.int64), declared=False),
        "FeatureError",
        ("image.npy", "int64", "float32"),
    ),
    Bad("NaN row", matrix(row(np.nan)), "FeatureError", ("image.npy", "1 rows", "'i", "finite")),
    Bad("Inf row", matrix(row(np.inf)), "FeatureError", ("image.npy", "1 rows", "'i", "finite")),
    Bad(
        "zero row, not declared missing",
        matrix(row(0)),
        "FeatureError",
        ("image.npy", "1 zero rows", "'i", "missing"),
    ),
    Bad(
        "values of a missing item",
        manifest(missing=lambda _: ["i07"]),
        "FeatureError",
        ("image.npy", "1 rows", "'i07'"),
    ),
    Bad(
        "no manifest, ids are names",
        lambda place: (place.data / "image.json").unlink(),
        "FeatureError",
        ("image.npy has no manifest", "'i", "image.json"),
    ),
    Bad(
        "no manifest, a row too few",
        numbered(19),
        "FeatureError",
        (".npy does not have one row", "19 rows", "20"),
    ),
    Bad(
        "no manifest, a row too many",
        numbered(21),
        "FeatureError",
        (".npy does not have one row", "21 rows", "20"),
    ),
    Bad(
        "ids that overflow",
        numbered(20, last="99999999999999999999999"),
        "FeatureError",
        ("has no manifest", "'99999999999999999999999'"),
    ),
    Bad(
        "ids with leading zeros",
        numbered(20, last="07"),
        "FeatureError",
        ("has no manifest", "'07'"),
    ),
    Bad(
        "features nobody knows",
        whole,
        "UnknownNameError",
        ("'imag'", "Did you mean 'image'?", "--features-path"),
        features="imag",
    ),
    Bad(
        "features outside their folder",
        whole,
        "DataError",
        ("'../image.npy' leads out of its folder",),
        features="../image",
    ),
    Bad(
        "features path nowhere",
        whole,
        "FeatureError",
        ("nowhere", "--features-path"),
        ("--features-path", "{root}/nowhere"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused(place: Place, case: Bad, capsys: pytest.CaptureFixture[str]) -> None:
    check_refused(place, case, capsys)


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_the_base_of_all_cases_is_whole(place: Place) -> None:
    assert main(arguments(place)) == 0


def test_a_zero_row_that_is_declared_missing_is_read(place: Place) -> None:
    table = load_features(place.data / "image.npy")
    matrix(row(0))(place)
    manifest(missing=[table.manifest.items[3]])(place)
    assert main(arguments(place)) == 0


def test_zero_rows_are_missing_items_where_that_is_asked_for(tmp_path: Path) -> None:
    """A file without a manifest, whose rows are in the order of the numbers."""
    np.save(tmp_path / "text.npy", np.float32([[1, 2], [0, 0], [3, 4]]))
    table = load_features(tmp_path / "text.npy")
    found = align(table, ["[PAD]", "2", "1", "0"], zero_rows_missing=True)
    assert found.values.tolist() == [[0, 0], [3, 4], [0, 0], [1, 2]]
    assert found.present.tolist() == [False, True, False, True]
    with pytest.raises(FeatureError, match="zero rows that are not declared missing"):
        align(table, ["[PAD]", "2", "1", "0"])


@pytest.mark.parametrize(
    ("values", "items", "missing", "says"),
    [
        (np.ones((3, 2)), ["a", "b"], [], r"do not fit their items.*\(3, 2\)"),
        (np.ones(3), ["a", "b", "c"], [], r"do not fit their items.*\(3,\)"),
        (np.array([[1.0], [np.nan]]), ["a", "b"], [], "1 rows, for example item 'b'"),
        (np.array([[1.0], [0.0]]), ["a", "b"], [], "1 zero rows, for example item 'b'"),
        (np.array([[1.0], [2.0]]), ["a", "b"], ["b"], "declared missing.*item 'b'"),
        (np.ones((2, 1)), ["a", "a"], [], "names an item twice.*item 'a'"),
        (np.ones((2, 1)), ["a", "b"], ["z"], "in the list 'missing'.*'z'"),
        (np.array([[1.0], [0.0]]), ["a", "b"], ["b", "b"], "in the list 'missing'.*1 repeated"),
    ],
)
def test_features_that_cannot_be_saved(tmp_path: Path, values, items, missing, says) -> None:
    path = tmp_path / "x.npy"
    with pytest.raises(FeatureError, match=f"(?s){says}"):
        save_features(
            path,
            values,
            name="x",
            modality="text",
            encoder="test",
            settings={},
            source="test",
            items=items,
            missing=missing,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["without_text", "without_image"])
def test_a_good_file_is_not_replaced_by_one_that_cannot_be_read(tmp_path: Path, key: str) -> None:
    path = tmp_path / "x.npy"
    write = partial(
        save_features, path, np.ones((2, 1)), name="x", modality="fused", encoder="test",
        settings={}, source="test", items=["a", "b"],
    )  # fmt: skip
    write()
    before = path.read_bytes(), path.with_suffix(".json").read_bytes()
    with pytest.raises(FeatureError, match=f"(?s)in the list '{key}'.*'q'"):
        write(**{key: ["q"]})
    assert (path.read_bytes(), path.with_suffix(".json").read_bytes()) == before
