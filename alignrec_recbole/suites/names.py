"""Names of suites, and where their files are."""

from __future__ import annotations

import os
from pathlib import Path

from alignrec_recbole.errors import UnknownNameError
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.io.suggest import suggest
from alignrec_recbole.io.yaml_loader import properties_dir

FOLDER = properties_dir() / "suite"


def suite_names() -> list[str]:
    """Names of the suites of the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def suite_path(name: str) -> Path:
    """The file of a suite of the package, or of a .yaml file of your own.

    Raises:
        UnknownNameError: there is none.
    """
    path = Path(name) if name.endswith(".yaml") else inside(FOLDER, f"{name}.yaml")
    if not is_regular_file(path) and not _exists(path):
        raise UnknownNameError(
            f"Unknown suite {name!r}." + suggest(name, suite_names()),
            found=name,
            expected=f"one of {', '.join(suite_names())}, or a .yaml file",
        )
    return path


def _exists(path: Path) -> bool:
    """Whether there is anything at a path, which may be no usable path."""
    try:
        return os.path.lexists(path)
    except ValueError:
        return False
