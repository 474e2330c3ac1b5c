"""Matrices and item ids as Python users have them: arrays, tensors, data frames, lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alignrec_recbole.errors import FeatureError


def as_matrix(name: str, given: Any, items: Sequence[str]) -> np.ndarray:
    """A matrix of float16 or float32, [items, width].

    Args:
        name: of the features, for errors.
        given: array, tensor on any device, data frame, or list of rows.
        items: token of each row; a data frame that is indexed by them has them in this order.

    Raises:
        FeatureError: it holds something other than real numbers, has another shape, or its index
            has the items in another order.

    >>> as_matrix("mine", [[1, 2], [3, 4]], ["a", "b"]).dtype
    dtype('float32')
    """
    matrix = _as_array(name, given)
    if matrix.dtype.kind not in "fiub":
        raise _not_numbers(name, given, f"values of type {matrix.dtype}")
    if matrix.ndim != 2 or len(matrix) != len(items):
        raise FeatureError(
            f"Features {name!r} do not fit their items.",
            found=f"a matrix of shape {matrix.shape}",
            expected=f"[{len(items)}, width]",
        )
    _check_index(name, given, items)
    if matrix.dtype not in (np.float16, np.float32):
        with np.errstate(over="ignore"):  # infinite values are refused with their item
            matrix = matrix.astype(np.float32)
    return np.ascontiguousarray(matrix)


def _as_array(name: str, given: Any) -> np.ndarray:
    try:
        if hasattr(given, "detach"):  # a tensor; torch need not be imported for this
            given = given.detach().cpu()
            if "bfloat16" in str(given.dtype):
                given = given.float()  # numpy has no such type
            return np.asarray(given.numpy())
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _not_numbers(name, given, str(error).splitlines()[0]) from error


def _not_numbers(name: str, given: Any, found: str) -> FeatureError:
    return FeatureError(
        f"Features {name!r} are not a matrix of numbers.",
        found=f"{type(given).__name__}: {found}",
        expected="an array, a tensor, a data frame or a list of rows, all numbers, rows of one "
        "length",
        hint="leave out columns of ids and words",
    )


def _check_index(name: str, given: Any, items: Sequence[str]) -> None:
    """Refuse a data frame whose index has the items in another order.

    The index that pandas makes where none is given numbers the rows and names no items.
    """
    index = getattr(given, "index", None)
    if index is None or callable(index):  # of a list it is a method
        return
    if type(index).__name__ == "RangeIndex" and index.name is None:
        return
    tokens = [str(token) for token in index]
    if tokens != list(items) and set(tokens) == set(items):
        place = next(i for i, token in enumerate(tokens) if token != items[i])
        raise FeatureError(
            f"The data frame of features {name!r} has its items in another order.",
            found=f"row {place + 1} is item {tokens[place]!r} in its index and {items[place]!r} in "
            "items",
            expected="one order",
            hint="set the index to the items, or pass matrix.to_numpy() if the rows are in their "
            "order",
        )


def as_tokens(name: str, what: str, given: Any) -> list[str]:
    """Ids of items as text; whole numbers are written in digits.

    Raises:
        FeatureError: there is something else among them, or the text is one id and no list.

    >>> as_tokens("mine", "items", [3, "sku-4"])
    ['3', 'sku-4']
    """
    tokens = [] if isinstance(given, (str, bytes)) else list(given)
    wrong = next((token for token in tokens if not _is_token(token)), None)
    if isinstance(given, (str, bytes)) or wrong is not None:
        shown = given if wrong is None else wrong
        raise FeatureError(
            f"Features {name!r} have {what} that are no list of ids.",
            found=f"{type(shown).__name__} {shown!r}",
            expected="a list of ids, each text or a whole number",
        )
    return [str(token) for token in tokens]


def _is_token(token: Any) -> bool:
    whole = isinstance(token, (int, np.integer)) and not isinstance(token, bool)
    return isinstance(token, str) or whole
