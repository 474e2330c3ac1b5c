"""What the cards of the start page say of the target and the best baseline."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from records import record, store
from scipy import stats

from alignrec_recbole.reports import build

OURS, OTHER = (0.11, 0.12, 0.125), (0.10, 0.105, 0.12)


def card(output: Path) -> dict[str, str]:
    """The facts of the only card."""
    page = (build.build(output)[-1]).read_text("utf-8")
    found = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page)
    assert len(dict(found)) == len(found)
    return dict(found)


def seeds(output: Path, count: int, users: bool = False) -> None:
    """As many seeds of the target, of the best baseline and of another."""
    rng = np.random.default_rng(0)
    for seed in range(count):
        for model, value in (("AlignRec", OURS[seed]), ("BPR", OTHER[seed]), ("Pop", 0.01)):
            of_users = rng.random(40) * 2 * value if users else None
            store(output, record(model, seed, value), of_users)


def test_p_is_over_users_where_their_values_are_stored(tmp_path: Path) -> None:
    seeds(tmp_path, 2, users=True)
    facts = card(tmp_path)
    assert re.fullmatch(r"(&lt; )?0\.\d{4} over 40 users, after Holm", facts["p"])
    assert facts["Over it"] == "+12.2 %"


def test_p_is_over_three_seeds_where_no_values_of_users_are_stored(tmp_path: Path) -> None:
    seeds(tmp_path, 3)
    facts = card(tmp_path)
    against_best, against_pop = (
        stats.ttest_rel(OURS, other).pvalue for other in (OTHER, (0.01, 0.01, 0.01))
    )
    smaller, larger = sorted((against_best, against_pop))
    corrected = max(2 * smaller, larger) if against_best == larger else 2 * smaller
    assert facts["p"] == f"{corrected:.4f} over 3 seeds, after Holm"
    assert facts["Target"].startswith("AlignRec: 0.1183")
    assert facts["Best baseline"].startswith("BPR: 0.1083")


@pytest.mark.parametrize(("count", "why"), [(1, "1 common seed"), (2, "2 common seeds")])
def test_without_p_the_card_says_why(tmp_path: Path, count: int, why: str) -> None:
    seeds(tmp_path, count)
    assert card(tmp_path)["p"] == f"not available: no per-user values beside the record; {why}"


def test_a_card_of_one_row_compares_nothing(tmp_path: Path) -> None:
    store(tmp_path, record("AlignRec"))
    assert card(tmp_path).keys() == {"Best model", "Runs"}
