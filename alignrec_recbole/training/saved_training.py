"""The plain values of a training that is saved and resumed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from alignrec_recbole.runtime.random_state import RandomStates

Word128 = Annotated[int, Field(ge=0, lt=2**128)]
Seconds = Annotated[FiniteFloat, Field(ge=0)]
STRICT = ConfigDict(extra="forbid", strict=True)


class Epoch(BaseModel):
    """One epoch; `valid` and `evaluate_seconds` where it was evaluated."""

    model_config = STRICT

    epoch: int = Field(ge=0)
    seconds: Seconds
    loss: FiniteFloat
    losses: dict[str, FiniteFloat]
    evaluate_seconds: Seconds | None = None
    valid: FiniteFloat | None = None


class PairsState(BaseModel):
    """The generator of training pairs."""

    model_config = STRICT

    bit_generator: Literal["PCG64"]
    state: dict[Literal["state", "inc"], Word128] = Field(min_length=2)
    has_uint32: int = Field(ge=0, le=1)
    uinteger: int = Field(ge=0, lt=2**32)

    @classmethod
    def of(cls, generator: np.random.Generator) -> PairsState:
        """The present state of a generator."""
        return cls.model_validate(generator.bit_generator.state)


class SavedTraining(BaseModel):
    """A training between two epochs, beside its tensors.

    The best epoch and the number of misses follow from the history, so they are not stored.

    Attributes:
        next_epoch: number of epochs that are done.
        best_result: validation metrics of the best epoch, or None before the first evaluation.
        seconds: of the whole run until now.
        pairs: generator of PairBatches, or None with another loader.
        loader: generator of RecBole's loader, hexadecimal, or None.
    """

    model_config = STRICT

    next_epoch: int = Field(ge=0)
    history: list[Epoch]
    best_result: dict[str, FiniteFloat] | None
    seconds: Seconds
    random: RandomStates
    pairs: PairsState | None
    loader: str | None

    @model_validator(mode="after")
    def _history_is_whole(self) -> SavedTraining:
        if [entry.epoch for entry in self.history] != list(range(self.next_epoch)):
            raise ValueError(f"the history is not that of epochs 0 to {self.next_epoch - 1}")
        return self

    def entries(self) -> list[dict[str, Any]]:
        """The history as the trainer and the record have it."""
        return [entry.model_dump(exclude_none=True) for entry in self.history]
