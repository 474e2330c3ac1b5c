"""YAML read safely and with RecBole's idea of a number: 1e-4 and 1.5e4 are numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from alignrec_recbole.errors import SettingError

_PACKAGE = Path(__file__).resolve().parents[1]


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 and 1.5e4 as numbers, as RecBole does and YAML 1.1 does not."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> Any:
    """The value that a YAML text denotes.

    >>> parse_yaml("[1e-4, 1.5e4, -2E3, .5e1]"), parse_yaml("1e-4x"), parse_yaml("e5")
    ([0.0001, 15000.0, -2000.0, 5.0], '1e-4x', 'e5')

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, Loader=_Loader)  # a SafeLoader: plain values only


def properties_dir() -> Path:
    """Folder of the YAML defaults: inside the installed package, or beside it in a checkout."""
    packaged = _PACKAGE / "properties"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "properties"


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a file; empty if the file is missing or empty.

    Raises:
        SettingError: the file is not YAML, or no mapping.
    """
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        values = parse_yaml(text) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"{path.name} is not valid YAML.", found=str(error)) from error
    if not isinstance(values, dict):
        raise SettingError(
            f"{path.name} is not a mapping.",
            found=type(values).__name__,
            expected="lines of key: value",
        )
    return values
