"""Evaluation protocols by name.

Each has one module whose docstring says what it asks, its method, formula, metric, chance level and
source. All write run records. This module imports none of them, so that names and questions can be
listed without torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignrec_recbole.errors import SettingError, UnknownNameError
from alignrec_recbole.io.suggest import suggest


@dataclass(frozen=True)
class Protocol:
    """One protocol, without its code.

    Attributes:
        question: what it answers, in one sentence.
        trains: whether a model is trained: always, never, or if --model names one.
        target: "module:function" of what runs it: (spec, models, seeds, overwrite) → records.
        uses_models: whether --model means something.
        uses_seeds: whether --seeds and --epochs mean something.
        reads_lists: whether it reads the stored lists of other runs and ranks nothing itself.
    """

    name: str
    question: str
    trains: str
    target: str
    uses_models: bool = False
    uses_seeds: bool = False
    reads_lists: bool = False

    @property
    def module(self) -> str:
        """Name of the module whose docstring describes it."""
        return f"{__name__}.{self.name.replace('-', '_')}"

    def load(self) -> Any:
        """The function, imported."""
        module, _, function = self.target.partition(":")
        return getattr(importlib.import_module(module), function)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "full",
            "How well does a trained model rank all items?",
            "always",
            f"{__name__}.full:run_full",
            uses_models=True,
            uses_seeds=True,
        ),
        Protocol(
            "zero-shot",
            "Do the items that a user interacts with next resemble the earlier ones?",
            "never",
            f"{__name__}.rankers:run_ranker",
        ),
        Protocol(
            "item-cf",
            "Are items with similar features good neighbours for collaborative filtering?",
            "never",
            f"{__name__}.rankers:run_ranker",
        ),
        Protocol(
            "mask-modality",
            "How much ranking quality remains when a modality is missing?",
            "if --model names a model",
            f"{__name__}.mask_modality:run_mask_modality",
            uses_models=True,
            uses_seeds=True,
        ),
        Protocol(
            "knock-out",
            "How much of a model's lead over its ID-only twin does content explain?",
            "always",
            f"{__name__}.knock_out:run_knock_out",
            uses_models=True,
            uses_seeds=True,
        ),
        Protocol(
            "long-tail",
            "Which users and items gain: those with few or with many interactions?",
            "never (it reads stored lists)",
            f"{__name__}.long_tail:run_long_tail",
            uses_models=True,
            reads_lists=True,
        ),
        Protocol(
            "beyond-accuracy",
            "What are the recommended lists like, apart from whether they are right?",
            "never (it reads stored lists)",
            f"{__name__}.beyond_accuracy:run_beyond_accuracy",
            uses_models=True,
            reads_lists=True,
        ),
        Protocol(
            "cold-start",
            "Are items without any training interaction found by their content?",
            "never",
            f"{__name__}.cold_start:run_cold_start",
            uses_models=True,
        ),
        Protocol(
            "diagnostics",
            "What do the features show before anything is ranked?",
            "never",
            f"{__name__}.diagnostics:run_diagnostics",
        ),
    )
}
RANKER_NAMES = ("zero-shot", "item-cf")  # rank without training; other protocols use them too
USE_MODELS = tuple(name for name, protocol in PROTOCOLS.items() if protocol.uses_models)
READ_LISTS = tuple(name for name, protocol in PROTOCOLS.items() if protocol.reads_lists)
USE_SEEDS = tuple(name for name, protocol in PROTOCOLS.items() if protocol.uses_seeds)
_SAVED = ("full", "mask-modality")  # protocols that make runs of protocol full, which keep models
_USERS = {  # option → protocols that use it
    "model": USE_MODELS,
    "seeds": USE_SEEDS,
    "epochs": USE_SEEDS,
    "track": ("full", "mask-modality", "knock-out"),  # protocols that make runs of models
    "engine": ("full",),
    "jobs": ("full",),
    "save": _SAVED,
    "save_limit": _SAVED,
}
_TRAINING = ("epochs", "track", "save", "save_limit")  # options of runs of models alone


def check_protocols(names: Sequence[str]) -> None:
    """Refuse names that no protocol has.

    Raises:
        UnknownNameError: with the nearest name.
    """
    for name in names:
        if name not in PROTOCOLS:
            raise UnknownNameError(
                f"Unknown protocol {name!r}.{suggest(name, PROTOCOLS)}",
                found=name,
                expected=f"one of {', '.join(PROTOCOLS)}",
            )


def check_option(
    protocols: Sequence[str], models: Sequence[str], name: str, shown: str, found: str
) -> None:
    """Refuse an option that none of the protocols uses.

    Args:
        models: models and rankers, as --model names them.
        name: one of `RunOptions`.
        shown: the option as the caller calls it.
        found: how it was given.

    Raises:
        SettingError: with the protocols that use it.
    """
    users = _USERS[name]
    used_by = [protocol for protocol in protocols if protocol in users]
    if not used_by:
        raise SettingError(
            f"Protocol {','.join(protocols)} does not use {shown}.",
            found=found,
            expected=f"{shown} with {' or '.join(users)}",
        )
    trains = trained_models(models) or any(PROTOCOLS[one].trains == "always" for one in used_by)
    if name in _TRAINING and not trains:
        raise SettingError(
            f"Protocol {','.join(used_by)} uses {shown} only where it trains a model.",
            found=found,
            expected=f"{shown} with a model that is trained",
        )


def trained_models(names: Sequence[str]) -> list[str]:
    """Those of --model that are trained, not rankers.

    >>> trained_models(["zero-shot", "BPR"])
    ['BPR']
    """
    return [name for name in names if name not in RANKER_NAMES]


def check_use(protocol: str, models: Sequence[str], seeds: Sequence[int] | None) -> None:
    """Refuse models and seeds that a protocol does not use.

    Raises:
        SettingError: with what the protocol uses.
    """
    described = PROTOCOLS[protocol]
    trained = trained_models(models)
    if seeds is not None and not (described.uses_seeds and trained):
        raise SettingError(
            f"Protocol {protocol!r} draws nothing from --seeds.",
            found=f"--seeds {','.join(map(str, seeds))}",
            expected="--seeds with a model that is trained",
        )
    if protocol == "knock-out" and not trained:
        raise SettingError(
            f"Protocol {protocol!r} needs a model.",
            found=f"--model {','.join(models)}" if models else "no --model",
            expected="--model M[,M…], of models that need item features",
        )
    takes_rankers = protocol == "cold-start"
    refused = trained if takes_rankers else [] if described.uses_models else models
    if refused:
        rankers = f"--model {' or '.join(RANKER_NAMES)}, or none"
        raise SettingError(
            f"Protocol {protocol!r} trains no model.",
            found=f"--model {','.join(refused)}",
            expected=rankers if takes_rankers else "no --model",
        )
