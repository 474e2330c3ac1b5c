"""Evaluation protocols by name; one file each says formula, candidates, masking and source.

All share Recall, NDCG, Precision and MAP at 5, 10, 20 and 50, over users with a target, and write
run records. `full` is the ordinary one: a trained model ranks all items.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from alignrec_recbole.errors import SettingError, UnknownNameError

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
RANKER_NAMES = ("zero-shot", "item-cf")  # rank by features alone; `rankers.RANKERS` holds them


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


def check_use(protocol: str, models: Sequence[str], seeds: Sequence[int] | None) -> None:
    """Refuse models and seeds that a protocol (any but full) does not use.

    Raises:
        SettingError: with what the protocol uses.
    """
    trained = [name for name in models if name not in RANKER_NAMES]
    if seeds is not None and not (protocol == "mask-modality" and trained):
        raise SettingError(
            f"Protocol {protocol!r} draws nothing from --seeds.",
            found=f"--seeds {','.join(map(str, seeds))}",
            expected="--seeds with a model that is trained",
        )
    takes_rankers = protocol == "cold-start"
    if protocol not in ("long-tail", "mask-modality") and (trained if takes_rankers else models):
        raise SettingError(
            f"Protocol {protocol!r} trains no model.",
            found=f"--model {','.join(trained or models)}",
            expected=f"--model {' or '.join(RANKER_NAMES)}, or none"
            if takes_rankers
            else "no --model",
        )
