"""A table of planted leaks: each is found by its check, and the same data without it are clean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import planted_leaks as leaks
import pytest
from planted_leaks import World, world

from alignrec_recbole.audit.registry import CHECKS, audit
from alignrec_recbole.audit.report import GROUPS, OF_DATA, AuditReport

Change = Callable[[World], World]


def same(made: World) -> World:
    return made


# leak, check that finds it, verdict, the twin, what is planted into the twin
TABLE: list[tuple[str, str, str, Change, Change]] = [
    ("users numbered by their first item", "numbering-users", "leak", same,
     leaks.users_by_first_item),
    ("users numbered by their first item, from the last", "numbering-users", "leak", same,
     leaks.users_by_first_item_downwards),
    ("users numbered by their first item, read by positions", "numbering-positions", "leak", same,
     leaks.users_by_first_item),
    ("items numbered by their first user", "numbering-items", "leak", same,
     leaks.items_by_first_user),
    ("items numbered by their last user", "numbering-items", "leak", same,
     leaks.items_by_last_user),
    ("items numbered by their first user, read with users", "numbering-both", "leak", same,
     leaks.items_by_first_user),
    ("items of a user next to each other", "numbering-neighbours", "leak", same,
     leaks.items_by_first_user),
    ("rows ordered by item", "order-rows", "leak", leaks.named, leaks.rows_by_item),
    ("rows ordered by user", "order-within-user", "leak", leaks.named, leaks.rows_by_user),
    ("test pairs in training", "split-overlap", "leak", same, leaks.test_row_in_training),
    ("test pairs in validation", "split-overlap", "suspicious", same,
     leaks.test_row_in_validation),
    ("a row twice", "split-repeats", "suspicious", same, leaks.repeated_row),
    ("items of test alone", "split-cold", "suspicious", same, leaks.items_of_test_alone),
    ("training rows from a user's future", "split-time-user", "leak", leaks.by_user_time,
     leaks.few_future_rows),
    ("training rows from everyone's future", "split-time-all", "leak", leaks.by_global_time,
     leaks.few_future_rows),
    ("first rows in test", "split-ends", "suspicious", same, leaks.first_row_in_test),
    ("last rows in test for some users", "split-ends", "suspicious", same,
     leaks.last_row_in_test),
    ("texts under another id", "split-same-text", "leak", leaks.texts, leaks.same_texts),
]  # fmt: skip


def verdict(report: AuditReport, name: str) -> str:
    (check,) = [check for check in report.checks if check.name == name]
    return check.verdict


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_a_planted_leak_is_found_and_its_twin_is_clean(row: tuple) -> None:
    _, name, expected, twin, plant = row
    checks = [check for check in CHECKS if check.name == name]
    clean = twin(world())
    assert verdict(audit(clean.subject(), checks), name) == "clean"
    assert verdict(audit(plant(clean).subject(), checks), name) == expected


def test_images_under_another_id(tmp_path: Path) -> None:
    checks = [check for check in CHECKS if check.name == "split-same-image"]
    for name, make, expected in (("a", leaks.images, "clean"), ("b", leaks.same_images, "leak")):
        folder = tmp_path / name
        folder.mkdir()
        made = make(folder)(world())
        assert verdict(audit(made.subject(), checks), "split-same-image") == expected


@pytest.mark.parametrize("twin", [same, leaks.by_user_time, leaks.named, leaks.texts])
def test_no_check_of_the_data_finds_anything_in_the_twins(twin: Change) -> None:
    report = audit(twin(world()).subject())
    assert [check.name for check in report.checks if check.verdict != "clean"] == []


def test_every_check_of_the_data_has_a_planted_leak() -> None:
    planted = {row[1] for row in TABLE} | {"split-same-image"}
    assert planted == {check.name for check in CHECKS if check.group in OF_DATA}
    assert {check.group for check in CHECKS} <= set(GROUPS)
