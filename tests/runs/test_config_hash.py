"""What decides a result is in the hash of a run, and what does not is not."""

from __future__ import annotations

from typing import Any

import pytest

from alignrec_recbole.runs.config_hash import config_hashes, same_data

FILES = {"toy.inter": "a", "toy.item": "b"}
DATA: dict[str, Any] = {"users": 3, "items": 4, "split": {"kind": "released"}, "files": FILES}
MASK = {"modality": "text", "ratio": 0.5, "seed": 0, "fill": "zero"}
RUN: dict[str, Any] = {
    "model": "BPR",
    "dataset": "toy",
    "protocol": "full",
    "config": {"reg_weight": 0.1, "epochs": 5, "seed": 999, "threads": 2, "feature_mask": MASK},
    "data": DATA,
    "feature_files": {"lsa": {"sha256": "c", "items_sha256": "d", "modality": "text"}},
}


def changed(key: str, value: Any) -> dict[str, Any]:
    """The run with another value at a place such as config/epochs."""
    first, _, rest = key.partition("/")
    if not rest:
        return {**RUN, first: value}
    return {**RUN, first: {**RUN[first], rest: value}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "Pop"),
        ("dataset", "shop"),
        ("protocol", "knock-out"),
        ("config/epochs", 6),
        ("config/precision", "bfloat16"),
        ("config/valid_users", 9),
        ("config/feature_mask", {**MASK, "ratio": 0.6}),
        ("data/split", {"kind": "ratio"}),
        ("data/files", {**FILES, "toy.inter": "x"}),
        ("feature_files", {}),
        ("feature_files/lsa", {"sha256": "x", "items_sha256": "d"}),
        ("feature_files/lsa", {"sha256": "c", "items_sha256": "x"}),
        ("feature_files/clip", {"sha256": "e", "items_sha256": "d"}),
    ],
)
def test_what_decides_a_result_is_in_every_form_of_the_hash(key: str, value: Any) -> None:
    assert not set(config_hashes(**changed(key, value))) & set(config_hashes(**RUN))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config/seed", 1000),
        ("config/threads", 8),
        ("config/gpu_id", "3"),
        ("config/feature_mask", {**MASK, "seed": 7}),
        ("config/knn", "exact"),  # as before the setting existed
        ("config/valid_users", None),
        ("feature_files/lsa", {"sha256": "c", "items_sha256": "d", "notes": ["new"]}),
    ],
)
def test_what_decides_no_result_is_in_none(key: str, value: Any) -> None:
    assert config_hashes(**changed(key, value)) == config_hashes(**RUN)


def test_a_file_of_items_is_in_the_hash_of_new_records_and_not_in_that_of_any_age() -> None:
    one, other = (config_hashes(**changed("data/files", {**FILES, "toy.item": x})) for x in "bx")
    assert one[0] != other[0]
    assert one[-1] == other[-1]


@pytest.mark.parametrize(
    ("stored", "present", "same"),
    [
        (DATA, DATA, True),
        ({**DATA, "files": {"toy.inter": "a"}}, DATA, True),  # from before items were hashed
        ({**DATA, "files": {"toy.item": "b"}}, DATA, False),
        ({**DATA, "files": {**FILES, "toy.user": "c"}}, DATA, False),
        ({**DATA, "files": {**FILES, "toy.inter": "x"}}, DATA, False),
        ({**DATA, "files": {**FILES, "toy.item": "x"}}, DATA, False),
        ({**DATA, "items": 5}, DATA, False),
        ({**DATA, "split": {"kind": "ratio"}}, DATA, False),
    ],
    ids=[
        "same",
        "older",
        "no interactions",
        "file gone",
        "interactions",
        "items",
        "count",
        "split",
    ],
)
def test_data_are_the_same_if_every_hashed_file_and_every_count_is(
    stored: dict[str, Any], present: dict[str, Any], same: bool
) -> None:
    assert same_data(stored, present) is same
