"""Typed hyper-parameters: unknown, missing and invalid values are errors."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from alignrec_recbole.errors import SettingError, printable
from alignrec_recbole.io.suggest import suggest

MAX_LAYERS = 64  # of a graph or a network; each is a step's worth of time and memory
MAX_TRIALS = 5_000  # of a search: as many as a record lists


class Settings(BaseModel):
    """Base of a model's hyper-parameters; fields without a default must be in its YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


S = TypeVar("S", bound=Settings)


def read_settings(config: Any, settings_class: type[S], owner: str, source: str = "") -> S:
    """Read the fields of `settings_class` from a configuration and check them.

    No value is converted but a whole number to a float and a list to a tuple: "5", 5.0 and true are
    no whole numbers.

    Args:
        config: a RecBole configuration, or anything with `in` and `[]`.
        settings_class: its fields are read; other keys are ignored.
        owner: model or part that the settings belong to, for the error.
        source: file of the defaults, for the error; default: the model's YAML.

    Raises:
        SettingError: a key is missing or its value is not allowed.
    """
    found = {
        key: tuple(config[key])
        if isinstance(config[key], list) and get_origin(field.annotation) is tuple
        else config[key]
        for key, field in settings_class.model_fields.items()
        if key in config
    }
    try:
        return settings_class.model_validate(found, strict=True)
    except ValidationError as error:
        lines = dict.fromkeys(
            f"{_place(e['loc'], found)}: missing"
            if e["type"] == "missing"
            else f"{_place(e['loc'], found)} = {shown(e['input'])}: {_sentence(e['msg'])}"
            for e in error.errors()
        )
        names = list(dict.fromkeys(str(e["loc"][0]) for e in error.errors()))
        raise SettingError(
            f"Invalid setting of {owner}: {', '.join(names)}.",
            found="; ".join(lines),
            expected=", ".join(
                f"{name} ({field.description or field.annotation})"
                for name, field in settings_class.model_fields.items()
                if name in names
            ),
            hint=f"see {source or f'properties/model/{owner}.yaml'}",
        ) from error


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ")


def _place(location: tuple[str | int, ...], given: Any) -> str:
    """The key that an error is about, with dots; pydantic puts names of types in between."""
    first, *rest = location
    parts, value = [str(first)], given.get(first) if isinstance(given, dict) else None
    for part in rest:
        indexed = isinstance(value, (list, tuple)) and isinstance(part, int)
        if indexed or (isinstance(value, dict) and part in value):
            value = value[part]  # type: ignore[index]
        elif part != rest[-1] or not isinstance(value, dict) or "[" in str(part):
            continue
        parts.append(str(part))
    return ".".join(parts)


MAX_DEPTH = 16  # lists and mappings inside one another
MAX_VALUES = 10_000
MAX_TEXT = 10_000  # characters
_WHOLE = 2**63  # of torch and NumPy


def shown(value: object) -> str:
    """A value in an error: its text, cut and printable."""
    try:
        return printable(repr(value), 120)
    except (RecursionError, ValueError):  # too deep, or a number of thousands of digits
        return f"a {type(value).__name__}"


def check_plain(key: str, value: Any, source: str = "") -> None:
    """Refuse a value that is not made of null, true, false, finite numbers, texts, lists, mappings.

    Args:
        key, value: of a setting.
        source: where it is written, for the error; default: where the command or call says.

    Raises:
        SettingError: another type, NaN, infinity, a whole number beyond 64 bits, or too many or too
            deeply nested values.
    """
    problem, count = "", 0
    level = [value]
    for _ in range(MAX_DEPTH):
        count += len(level)
        if count > MAX_VALUES:
            break
        problem = next(filter(None, map(_not_plain, level)), "")
        level = [inner for each in level for inner in _inside(each)]
        if problem or not level:
            break
    if level and not problem:
        problem = f"more than {MAX_VALUES:,} values, or nested more than {MAX_DEPTH} deep"
    if problem:
        raise SettingError(
            f"The value of setting {key!r} cannot be used.",
            found=f"{key} = {shown(value)}: {problem}",
            expected="null, true, false, finite numbers, texts, and lists and mappings of them",
            hint=f"correct it in {source}" if source else "",
        )


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple)) else []


def _not_plain(value: Any) -> str:
    """What keeps one value, without those inside it, from being plain; empty if nothing does."""
    if value is None or isinstance(value, (bool, list, tuple)):
        return ""
    if isinstance(value, int):
        return "" if -_WHOLE <= value < _WHOLE else "a number beyond 64 bits"
    if isinstance(value, float):
        return "" if math.isfinite(value) else "not finite"
    if isinstance(value, str):
        return "" if len(value) <= MAX_TEXT else "too long"
    if isinstance(value, dict):
        return "" if all(isinstance(key, str) for key in value) else "a key that is no text"
    return f"a {type(value).__name__}"


def check_keys(given: dict[str, Any], known: set[str], owner: str) -> None:
    """Refuse unknown configuration keys.

    Raises:
        SettingError: for the first one, with the nearest known key.
    """
    for key in given:
        if key not in known:
            raise SettingError(
                f"Unknown setting {key!r}." + suggest(key, sorted(known)),
                found=f"{key}={shown(given[key])}",
                expected=f"a key of {owner}, of the trainer or of RecBole",
            )


def nested(
    pairs: Iterable[tuple[str, Any]], before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`before` with the pairs set; `a.b=1` becomes {"a": {"b": 1}}.

    A later value of the same key replaces an earlier one.

    Raises:
        SettingError: a key is given a value and, elsewhere, keys of its own.

    >>> nested([("align.cca", 0.1), ("align.reg", 1), ("k", 3)])
    {'align': {'cca': 0.1, 'reg': 1}, 'k': 3}
    """
    out = copy.deepcopy(dict(before or {}))
    groups: set[str] = set()  # keys that were given keys of their own
    for key, value in pairs:
        *parents, last = key.split(".")
        place: Any = out
        for number, parent in enumerate(parents):
            groups.add(".".join(parents[: number + 1]))
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise _set_twice(parent, f"{key}={value}")
        if key in groups:
            raise _set_twice(key, f"keys of {key}")
        place[last] = value
    return out


def _set_twice(key: str, other: str) -> SettingError:
    return SettingError(
        f"Setting {key!r} is set twice.",
        found=f"a value, and {other}",
        expected=f"{key}=VALUE or {key}.KEY=VALUE, not both",
    )
