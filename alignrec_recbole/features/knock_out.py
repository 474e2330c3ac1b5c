"""Which features a run of protocol knock-out was given in place of the real ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alignrec_recbole.settings import Settings

Variant = Literal[
    "real", "alone", "random", "shuffled", "popularity-shuffled", "constant", "zero", "id-only"
]


class KnockOut(Settings):
    """A run's place among the variants of one model; part of its configuration and hash.

    Attributes:
        variant: what the features are; alone: those of one modality; id-only: the model's own twin
            where that is none of the others.
        of: names of the real features.
        id_only: this run is the model's ID-only twin.
        real: configuration hash of the run with the real features; empty for that run.
        draws: permutations of the interventions at test time; 0: none are made.
    """

    variant: Variant
    of: Annotated[tuple[str, ...], Field(min_length=1)]
    id_only: bool = False
    real: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    draws: Annotated[int, Field(ge=0)] = 0
