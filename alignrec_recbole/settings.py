"""Typed hyper-parameters: a misspelt, absent or impossible value is an error, never None."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from alignrec_recbole.errors import SettingError


class Settings(BaseModel):
    """Base of a model's hyper-parameters; fields without a default must be in its YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


def read_settings(config: Any, kind: type[S], owner: str, source: str = "") -> S:
    """Take a model's hyper-parameters out of a RecBole configuration, checked.

    Args:
        config: anything with `in` and `[]`.
        kind: the settings to take.
        owner: who reads them, for the error.
        source: file of the defaults; default: the owner's.

    Raises:
        SettingError: a key is absent or its value is not allowed.
    """
    found = {key: config[key] for key in kind.model_fields if key in config}
    try:
        return kind(**found)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}"
            if e["type"] != "missing"
            else f"{e['loc'][0]}: absent"
            for e in error.errors()
        ]
        raise SettingError(
            f"{owner} cannot use its settings.",
            found="; ".join(lines),
            expected=", ".join(
                f"{name} ({field.description or field.annotation})"
                for name, field in kind.model_fields.items()
                if any(line.startswith(name) for line in lines)
            ),
            hint=f"see {source or f'properties/model/{owner}.yaml'}",
        ) from error


def check_keys(given: dict[str, Any], known: set[str], owner: str) -> None:
    """Refuse configuration keys that nothing reads.

    Raises:
        SettingError: with the nearest known key.
    """
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=1)
            raise SettingError(
                f"Nothing reads the setting {key!r}."
                + (f" Did you mean {near[0]!r}?" if near else ""),
                found=f"{key}={given[key]!r}",
                expected=f"a key of {owner}, of the trainer or of RecBole",
            )
