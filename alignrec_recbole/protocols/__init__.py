"""Evaluation protocols by name; one file each says formula, candidates, masking and source.

All share Recall, NDCG, Precision and MAP at 5, 10, 20 and 50, over users with a target, and write
run records. `full` is the ordinary one: a trained model ranks all items.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from alignrec_recbole.errors import UnknownNameError

# name → (what it ranks with, the question it answers)
PROTOCOLS: dict[str, tuple[str, str]] = {
    "full": ("models", "how well does a trained model rank all items?"),
    "zero-shot": ("features", "do a user's items look like the next ones?"),
    "item-cf": ("features", "do the features give good item neighbours?"),
    "mask-modality": ("features or models", "what is left when a modality is missing?"),
    "long-tail": ("stored lists", "which users and items gain?"),
    "cold-start": ("features", "are items found that nobody has taken yet?"),
    "diagnostics": ("features", "alignment, uniformity, rank, gap, neighbours, coverage"),
}

USE_MODELS = ("full", "mask-modality", "long-tail", "cold-start")  # --model means something
USE_SEEDS = ("full", "mask-modality")


def check_protocols(names: Sequence[str]) -> None:
    """Refuse names that are no protocol's.

    Raises:
        UnknownNameError: with the nearest name.
    """
    for name in names:
        if name not in PROTOCOLS:
            near = difflib.get_close_matches(name, PROTOCOLS, n=1)
            raise UnknownNameError(
                f"There is no protocol {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""),
                found=name,
                expected=f"one of {', '.join(PROTOCOLS)}",
            )
