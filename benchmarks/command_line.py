"""What the scripts that store a comparison share: options, reading, writing, printing, the end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tabulate import tabulate

from alignrec_recbole.errors import AlignRecError
from alignrec_recbole.io.files import atomic_write


def parser(name: str, description: str | None, folder: Path) -> argparse.ArgumentParser:
    """The options --output, --dataset and --folder.

    Args:
        name: of the script.
        description: the first line of this text is shown.
        folder: default of the result's.
    """
    out = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=(description or "").partition("\n")[0]
    )
    out.add_argument("--output", type=Path, required=True, help="folder of the records")
    out.add_argument("--dataset", required=True)
    out.add_argument("--folder", type=Path, default=folder, help="of the result")
    return out


def stored(folder: Path) -> list[dict[str, Any]]:
    """The results of a folder, by data set."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]


def show(header: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    print(tabulate(cells, headers=header, tablefmt="github", disable_numparse=True))


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
