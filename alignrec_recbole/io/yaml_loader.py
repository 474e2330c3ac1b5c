"""YAML files of defaults, read safely and with RecBole's idea of a number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from alignrec_recbole.errors import SettingError

_PACKAGE = Path(__file__).resolve().parents[1]


class _Loader(yaml.SafeLoader):
    """SafeLoader that takes 1e-4 for a number, as RecBole does and YAML 1.1 does not."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)


def properties_dir() -> Path:
    """Folder of the YAML defaults: inside the installed package, or beside it in a checkout."""
    packaged = _PACKAGE / "properties"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "properties"


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a file; empty if there is no such file or nothing in it.

    Raises:
        SettingError: the file is not YAML, or no mapping.
    """
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.load(text, Loader=_Loader) or {}  # a SafeLoader: plain values only
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"{path.name} is not valid YAML.", found=str(error)) from error
    if not isinstance(values, dict):
        raise SettingError(
            f"{path.name} is not a mapping.",
            found=type(values).__name__,
            expected="lines of key: value",
        )
    return values
