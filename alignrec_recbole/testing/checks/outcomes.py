"""What several checks assert."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alignrec_recbole.errors import AlignRecError
from alignrec_recbole.testing.testbed import FittedModel


def assert_equal_fits(one: FittedModel, other: FittedModel, what: str) -> None:
    """Losses and scores by position are equal bit by bit."""
    assert one.losses == other.losses, f"{what}: losses {one.losses} and {other.losses}"
    difference = (one.scores_by_position() - other.scores_by_position()).abs().max()
    assert difference == 0, f"{what}: scores differ by up to {float(difference):.1e}"


def must_raise(
    kind: type[AlignRecError], action: Callable[[], Any], otherwise: str, naming: str = ""
) -> None:
    """`action` ends in an error of this kind, whose text contains `naming`.

    Args:
        otherwise: what it means if it does not.
    """
    text = None
    try:
        action()
    except kind as error:
        text = str(error)
    assert text is not None, otherwise
    assert naming in text, f"the error does not name {naming}: {text}"
