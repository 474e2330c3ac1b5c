"""`--set key=value` and `--grid key=v1,v2`: parsing, and which model reads which key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from alignrec_recbole.errors import UnknownNameError, printable
from alignrec_recbole.io.yaml_loader import parse_yaml

Pair = tuple[str, Any]


MAX_KEY = 200  # characters of a key
MAX_PARTS = 8  # of a key such as align.cca
_INTERVALS = re.compile(r"[\[(][^\[\]();]*[\])](\s*;\s*[\[(][^\[\]();]*[\])])*")


def assignment(text: str) -> Pair:
    """Parse key=value.

    >>> assignment("learning_rate=1e-3")
    ('learning_rate', 0.001)
    """
    key, separator, value = text.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(part.strip() for part in parts):
        raise ValueError(f"{text!r} is not key=value")
    if len(key) > MAX_KEY or len(parts) > MAX_PARTS:
        raise ValueError(f"the key {printable(key, 40)!r} is too long")
    return key.strip(), scalar(value)


def choices(text: str) -> tuple[str, list[Any]]:
    """Parse key=v1,v2.

    >>> choices("n_layers=1,2")
    ('n_layers', [1, 2])
    """
    key, _ = assignment(f"{text.partition('=')[0]}=" if "=" in text else text)
    return key, [scalar(part) for part in text.partition("=")[2].split(",")]


def scalar(text: str) -> Any:
    """Parse a YAML value; as in RecBole, intervals and one character that is no YAML are text.

    >>> scalar("[5, 10]"), scalar("[5,inf)"), scalar(","), scalar("~")
    ([5, 10], '[5,inf)', ',', None)
    """
    if len(text) == 1 and not text.isalnum() and text != "~":
        return text  # a separator; "#" alone would be a comment, "|" an empty text
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        if _INTERVALS.fullmatch(text.strip()):
            return text.strip()
        reason = str(getattr(error, "problem", None) or error)
        raise ValueError(f"{printable(text, 120)!r} is not a YAML value: {reason}") from None


def for_model(pairs: Iterable[Pair], model: str, models: Sequence[str]) -> list[Pair]:
    """The pairs that concern one of several models: the shared ones, then its own.

    >>> for_model([("EASE.k", 2), ("k", 1), ("Pop.k", 3)], "EASE", ["EASE", "Pop"])
    [('k', 1), ('k', 2)]
    """
    shared, own = [], []
    for key, value in pairs:
        owner, _, rest = key.partition(".")
        if owner not in models:
            shared.append((key, value))
        elif owner == model and rest:
            own.append((rest, value))
    return [*shared, *own]


def check_owners(pairs: Iterable[Pair], models: Sequence[str], known: Iterable[str]) -> None:
    """Refuse `EASE.key=…` where EASE is a model that is not among those to run.

    Args:
        models: the models to run.
        known: all model names.

    Raises:
        UnknownNameError: with the models to run.
    """
    others = set(known) - set(models)
    for key, value in pairs:
        owner, dot, rest = key.partition(".")
        if dot and owner in others:
            raise UnknownNameError(
                f"Setting {key!r} is for a model that is not run.",
                found=f"--set {key}={value}",
                expected=f"{rest} for all models, or one of {', '.join(models) or 'no model'}",
                hint=f"add {owner} to --model",
            )
