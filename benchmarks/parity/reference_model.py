"""The reference's side of a comparison: its model, with given values in its parameters."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.parity.pairs import PAIRS, reference_of
from benchmarks.parity.spec import TABLES
from benchmarks.reference import mmrec, rearm

Values = Callable[[str, str, torch.Tensor], torch.Tensor | None]


@dataclass(frozen=True)
class ReferenceModel:
    """A model of the reference's code.

    Attributes:
        model: MMRec's, or REARM's with the same methods.
        compared: its tensors that ours has, by its names.
        unused: the others, which cancel or affect no score.
    """

    model: Any
    compared: dict[str, torch.Tensor]
    unused: dict[str, torch.Tensor]


@contextlib.contextmanager
def opened(
    reference: Path,
    name: str,
    settings: dict[str, Any],
    features: dict[str, np.ndarray],
    interactions: Any,
    values: Values,
    places: list[np.ndarray] | None = None,
) -> Iterator[ReferenceModel]:
    """Build the reference's model; what ours lacks is 0, feature tables are the features.

    Args:
        reference: a checkout of the code.
        name: of the comparison.
        settings: ours, with our `train_batch_size`.
        features: text, image: [I, f].
        interactions: a scipy matrix [U, I].
        values: what a parameter gets, by its name, by ours (`ParitySpec.tensors`) and what its own
            code drew; None: our settings do not build it.
        places: of the users and of the items among equals, by their numbers; default: in order.
    """
    pair, theirs = PAIRS[name], PAIRS[name].theirs(settings)
    if pair.code == rearm.MARK:
        building = rearm.built(reference, theirs, features, interactions, places)
    else:
        theirs = {"train_batch_size": settings["train_batch_size"], **theirs}
        kind = reference_of(name)
        building = mmrec.built(reference, kind, theirs, features, interactions, pair.code, places)
    with building as model:
        pair.adjust(model, settings)
        names = pair.names(tuple(features))
        every = {n: p for n, p in model.named_parameters() if p.requires_grad}
        every |= {n: operator.attrgetter(n)(model) for n in pair.non_parameters if n in names}
        unused = {
            n: p for n, p in every.items() if n not in names and n in pair.fusion + pair.unused
        }
        compared = {n: p for n, p in every.items() if n not in unused}
        assert set(compared) == set(names), (
            f"parameters without a partner: {set(compared) ^ set(names)}"
        )
        with torch.no_grad():
            for their, our in names.items():
                if not our.startswith("tables."):
                    value = values(their, our, compared[their])
                    compared[their].copy_(torch.zeros(()) if value is None else value)
            for other in unused:
                if other not in TABLES:  # these share the features' memory
                    unused[other].zero_()
        yield ReferenceModel(model, compared, unused)
