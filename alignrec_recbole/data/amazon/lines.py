"""Lines of the raw files: one Python literal or JSON object each, parsed and never executed."""

from __future__ import annotations

import ast
import gzip
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from alignrec_recbole.errors import DataError
from alignrec_recbole.io.opening import open_input

LONGEST_LINE = 1 << 20  # bytes; the longest real description has some ten thousand
ID = re.compile(r"[!#-~]{1,100}")  # no white space or quotation mark: ids become cells and names


@dataclass
class ParseStats:
    """Lines that were read and lines that were not, by reason."""

    good: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    scripts: int = 0  # titles that are a script of their page, left empty


def read_lines(path: Path, stats: ParseStats) -> Iterator[bytes]:
    """Lines of a gzip file; longer ones than LONGEST_LINE are counted, never held in memory."""
    with open_input(path) as packed:
        try:
            yield from _whole_lines(gzip.GzipFile(fileobj=packed), stats)  # type: ignore[arg-type]
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path.name} is not a whole gzip file.",
                found=f"{type(error).__name__}: {error}, after {stats.good} items",
                expected="the file as it is published",
                hint="download it again",
            ) from error


def _whole_lines(handle: IO[bytes], stats: ParseStats) -> Iterator[bytes]:
    while line := handle.readline(LONGEST_LINE):
        if line.endswith(b"\n") or len(line) < LONGEST_LINE:
            if line.strip():
                yield line
            continue
        stats.bad["too long"] += 1
        while line and not line.endswith(b"\n"):
            line = handle.readline(LONGEST_LINE)


def literal(line: bytes, stats: ParseStats) -> dict[str, Any] | None:
    """The dictionary of a line; None and counted if it has none."""
    try:
        text = line.decode("utf-8")
        entry = json.loads(text) if text.startswith('{"') else ast.literal_eval(text.strip())
    except UnicodeDecodeError:
        stats.bad["not UTF-8"] += 1
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        stats.bad["not a literal"] += 1
    else:
        if isinstance(entry, dict):
            return entry
        stats.bad["not an object"] += 1
    return None


def number(value: Any) -> float:
    """A number, or NaN for what is none.

    >>> number("4"), number(10**400), number(None), number([1])
    (4.0, nan, nan, nan)
    """
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
