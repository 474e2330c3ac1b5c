"""The generators of Python, NumPy and torch, all three of which RecBole and models draw from."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from alignrec_recbole.runtime.random_state import RandomStates, kept


def drawn() -> list[float]:
    """A number and a normal one from each; NumPy and Python keep a second normal one for later."""
    numbers = [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()]  # noqa: NPY002
    return [*numbers, torch.rand(1).item(), torch.randn(1).item()]


def test_states_are_those_of_all_generators() -> None:
    drawn()
    states = RandomStates.model_validate_json(RandomStates.now().model_dump_json())
    expected = drawn()
    assert not set(drawn()) & set(expected)
    states.restore()
    assert drawn() == expected


def test_a_block_leaves_all_generators_as_they_were() -> None:
    states = RandomStates.now()
    expected = drawn()
    states.restore()
    with pytest.raises(ZeroDivisionError), kept():
        assert drawn() == 1 / 0
    assert drawn() == expected
