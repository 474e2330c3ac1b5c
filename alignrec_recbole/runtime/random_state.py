"""The states of all random generators of a process: Python's, NumPy's, torch's and CUDA's."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

Word = Annotated[int, Field(ge=0, lt=2**32)]


class NumpyState(BaseModel):
    """NumPy's global generator, which RecBole samples from."""

    model_config = ConfigDict(extra="forbid", strict=True)

    words: list[Word] = Field(min_length=624, max_length=624)
    position: int = Field(ge=0, le=624)  # NumPy itself reads beyond the words if it is larger
    has_gauss: int = Field(ge=0, le=1)
    gauss: float


class RandomStates(BaseModel):
    """All generators as plain values.

    Attributes:
        torch: bytes of the CPU generator, hexadecimal.
        cuda: of each GPU, likewise; empty without a GPU.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Literal[3] = 3  # of Python's generator
    python: list[Word] = Field(min_length=625, max_length=625)
    python_gauss: float | None
    numpy: NumpyState
    torch: str
    cuda: list[str]

    @classmethod
    def now(cls) -> RandomStates:
        """The present states."""
        _, python, python_gauss = random.getstate()
        numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return cls(
            python=list(python),
            python_gauss=python_gauss,
            numpy=NumpyState(
                words=numpy["state"]["key"].tolist(),
                position=numpy["state"]["pos"],
                has_gauss=numpy["has_gauss"],
                gauss=numpy["gauss"],
            ),
            torch=as_hex(torch.get_rng_state()),
            cuda=list(map(as_hex, cuda)),
        )

    def restore(self, device: Any = "cpu") -> None:
        """Set all generators; those of GPUs only for a run on one.

        Raises:
            ValueError, RuntimeError: a state is not one of its generator, or the number of GPUs is
                another.
        """
        python = (self.version, tuple(self.python), self.python_gauss)
        random.Random().setstate(python)  # raises before anything is changed
        torch.Generator().set_state(from_hex(self.torch))
        random.setstate(python)
        part = self.numpy
        np.random.set_state(  # noqa: NPY002
            ("MT19937", np.array(part.words, np.uint32), part.position, part.has_gauss, part.gauss)
        )
        torch.set_rng_state(from_hex(self.torch))
        if torch.device(device).type == "cuda":
            if len(self.cuda) != torch.cuda.device_count():
                raise ValueError(
                    f"states of {len(self.cuda)} GPUs, {torch.cuda.device_count()} here"
                )
            torch.cuda.set_rng_state_all(list(map(from_hex, self.cuda)))


def as_hex(state: torch.Tensor) -> str:
    """The bytes of a torch generator's state as text."""
    return state.cpu().numpy().tobytes().hex()


def from_hex(text: str) -> torch.Tensor:
    """The state behind such a text.

    Raises:
        ValueError: the text is not hexadecimal, or empty.
    """
    data = bytes.fromhex(text)
    if not data:
        raise ValueError("the state of a generator is empty")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Leave every generator as it was, whatever the block draws or seeds.

    >>> _ = torch.manual_seed(1)
    >>> with kept():
    ...     drawn = torch.rand(3)
    >>> bool((torch.rand(3) == drawn).all())
    True
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)
