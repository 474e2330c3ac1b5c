"""What the scripts that store a comparison share: writing it, and ending in a sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from alignrec_recbole.errors import AlignRecError
from alignrec_recbole.io.files import atomic_write


def store(path: Path, content: dict[str, Any]) -> None:
    """Write a result as JSON, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "w") as handle:
        json.dump(content, handle, indent=1)
        handle.write("\n")


def end(main: Callable[[], int]) -> NoReturn:
    """Run a script and exit with its status, or with 2 and the sentence of an error."""
    try:
        raise SystemExit(main())
    except AlignRecError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
