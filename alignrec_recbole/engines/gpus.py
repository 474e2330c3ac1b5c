"""One GPU for each child process, where there are several."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Gpus:
    """Deals the GPUs that this process sees: each cell gets the one with the fewest cells.

    Args:
        names: of the GPUs, as CUDA_VISIBLE_DEVICES lists them.
        first: where dealing begins, so that processes of one machine do not all begin with GPU 0.

    >>> gpus = Gpus(["0", "1"])
    >>> with gpus.one("auto") as one, gpus.one("cuda") as other:
    ...     one, other
    ({'CUDA_VISIBLE_DEVICES': '0'}, {'CUDA_VISIBLE_DEVICES': '1'})
    >>> with gpus.one("cpu") as none:
    ...     none
    {}
    """

    def __init__(self, names: Sequence[str], first: int = 0) -> None:
        start = first % len(names) if names else 0
        self.names = [*names[start:], *names[:start]]
        self._cells = [0] * len(self.names)
        self._lock = threading.Lock()

    @contextmanager
    def one(self, device: str) -> Iterator[dict[str, str]]:
        """Inside, a GPU is the cell's: the variable to set; none for other devices."""
        if len(self.names) < 2 or device not in ("auto", "cuda"):
            yield {}
            return
        with self._lock:
            chosen = self._cells.index(min(self._cells))
            self._cells[chosen] += 1
        try:
            yield {VISIBLE: self.names[chosen]}
        finally:
            with self._lock:
                self._cells[chosen] -= 1


def visible_gpus() -> list[str]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES lists them."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
