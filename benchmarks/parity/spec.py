"""What a comparison with a reference's code needs to know, and the words that the pairs share."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks.reference import mmrec

WIDTHS = {"text": 32, "image": 48}


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of a parameter, drawn from its name."""
    return np.asarray(np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape) * 0.2)


@dataclass(frozen=True)
class ParitySpec:
    """How a model of ours is compared with MMRec's.

    Attributes:
        tensors: MMRec's parameter → ours; `[users]`, `[items]`, `[nodes]` (both),
            `[1:]` behind ours cut PAD rows.
        theirs: our settings → MMRec's.
        settings: ours in the comparison, so that tuning a default does not move what is recorded.
        fusion: MMRec's parameters that ours has, and MMRec uses, with several modalities only.
        unused: MMRec's parameters that cancel or affect no score and that ours lacks; set to 0
            unless they are feature tables.
        features: cases, by their modalities.
        trainable: the model has a loss.
        scores: MMRec's scores from ours.
        non_parameters: tensors of MMRec's that get gradients but are not parameters.
        code: whose model it is, one of `checkout.SOURCES`.
        adjust: changes on a built model of MMRec, by our settings, what its settings cannot.
        shift: added to all features, so that no two items have a negative cosine.
        reference: name of the reference's class, if it is not ours.
        model: whose name differs from that of the comparison, which has other settings.
        isolated: one user has no interactions.
        scaled: MMRec's parameter → factor of its values.
        drawn: what MMRec draws once on a data set, so that both sides cannot start alike.
    """

    tensors: dict[str, str]
    theirs: Callable[[dict[str, Any]], dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    fusion: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    features: tuple[tuple[str, ...], ...] = (("text", "image"), ("text",), ("image",))
    trainable: bool = True
    scores: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.clone
    non_parameters: tuple[str, ...] = ()
    code: str = mmrec.MARK
    adjust: Callable[[Any, dict[str, Any]], None] = lambda model, ours: None
    reference: str = ""
    model: str = ""
    shift: float = 0.0
    isolated: bool = True
    scaled: dict[str, float] = field(default_factory=dict)
    drawn: str = ""

    def values(self, theirs: str, shape: tuple[int, ...]) -> np.ndarray:
        """The values of MMRec's parameter and of ours."""
        return np.asarray(values(theirs, shape) * self.scaled.get(theirs, 1.0))

    def names(self, kinds: tuple[str, ...]) -> dict[str, str]:
        """`tensors` of a case: `{n}` in ours is the number of the set, `image` and `text` the set.

        Parameters of a set that is not given are left out.
        """
        out = {}
        for theirs, ours in self.tensors.items():
            kind = next((kind for kind in WIDTHS if f"{{{kind}}}" in ours), None)
            if len(kinds) == 1 and theirs in self.fusion:
                continue
            if kind is None:
                out[theirs] = ours
            elif kind in kinds:
                out[theirs] = ours.replace(f"{{{kind}}}", str(kinds.index(kind)))
        return out


def place(address: str, n_users: int, n_items: int) -> tuple[str, Any]:
    """The name of our tensor, and which of its rows are meant, see `ParitySpec.tensors`."""
    name, _, rows = address.partition("[")
    users, items = slice(1, n_users + 1), slice(n_users + 2, None)
    every = torch.arange(n_users + n_items + 2)
    meant = {
        "": ...,
        "1:]": slice(1, None),
        "users]": users,
        "items]": items,
        "nodes]": torch.cat([every[users], every[items]]),
    }
    return name, meant[rows]


def same(*names: str, **renamed: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Settings under the same name, and ours=theirs under another."""

    def choose(ours: dict[str, Any]) -> dict[str, Any]:
        return {
            **{name: ours[name] for name in ("embedding_size", *names)},
            **{theirs: ours[name] for name, theirs in renamed.items()},
        }

    return choose


NODES = {
    "user_embedding.weight": "nodes.weight[users]",
    "item_id_embedding.weight": "nodes.weight[items]",
}

TABLES = {
    "image_embedding.weight": "tables.set{image}[1:]",
    "text_embedding.weight": "tables.set{text}[1:]",
}
PROJECTIONS = {
    f"{kind}_trs.{part}": f"projections.{{{kind}}}.{part}"
    for kind in ("image", "text")
    for part in ("weight", "bias")
}


def layers(**renamed: str) -> dict[str, str]:
    """Weight and bias of linear layers, theirs=ours with `__` for a point."""
    return {
        f"{theirs.replace('__', '.')}.{part}": f"{ours}.{part}"
        for theirs, ours in renamed.items()
        for part in ("weight", "bias")
    }
