"""Typed hyper-parameters: unknown, missing and invalid values are errors."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from alignrec_recbole.errors import SettingError
from alignrec_recbole.io.suggest import suggest


class Settings(BaseModel):
    """Base of a model's hyper-parameters; fields without a default must be in its YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


def read_settings(config: Any, settings_class: type[S], owner: str, source: str = "") -> S:
    """Read the fields of `settings_class` from a configuration and check them.

    Args:
        config: a RecBole configuration, or anything with `in` and `[]`.
        settings_class: its fields are read; other keys are ignored.
        owner: model or part that the settings belong to, for the error.
        source: file of the defaults, for the error; default: the model's YAML.

    Raises:
        SettingError: a key is missing or its value is not allowed.
    """
    found = {key: config[key] for key in settings_class.model_fields if key in config}
    try:
        return settings_class(**found)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}"
            if e["type"] != "missing"
            else f"{e['loc'][0]}: missing"
            for e in error.errors()
        ]
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


def check_keys(given: dict[str, Any], known: set[str], owner: str) -> None:
    """Refuse unknown configuration keys.

    Raises:
        SettingError: for the first one, with the nearest known key.
    """
    for key in given:
        if key not in known:
            raise SettingError(
                f"Unknown setting {key!r}." + suggest(key, sorted(known)),
                found=f"{key}={given[key]!r}",
                expected=f"a key of {owner}, of the trainer or of RecBole",
            )
