"""Where the packaged defaults and the data sets lie."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def properties_dir() -> Path:
    """Folder of the YAML defaults: inside the installed package, or beside it in a checkout."""
    packaged = _PACKAGE / "properties"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "properties"
