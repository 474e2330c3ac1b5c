"""A stand-in for CUDA graphs on a CPU: the operators of a call, run again on the same memory.

As with a CUDA graph, Python does not run again: its numbers stay as they were recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Notes every operator with what it read and what it returned.

    Other than a capture, recording computes: the first replay finds its results there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[tuple[Any, Any, Any, Any]] = []
        self.is_fresh = True
        self.replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operators.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        if self.is_fresh:
            self.is_fresh = False
            return
        for func, args, kwargs, out in self.operators:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    def reset(self) -> None:
        self.operators.clear()


class TapeGraphs:
    """In the place of `captured.CudaGraphs`; `made` are all of a test."""

    made: ClassVar[list[TapeGraphs]] = []

    def __init__(self, device: torch.device) -> None:
        self.tapes: list[Tape] = []
        self.is_working = False
        self.made.append(self)

    @contextmanager
    def working(self) -> Iterator[None]:
        self.is_working = True
        yield
        self.is_working = False

    def record(self, function: Callable[[], None]) -> Tape:
        assert self.is_working
        tape = Tape()
        with tape:
            function()
        self.tapes.append(tape)
        return tape
