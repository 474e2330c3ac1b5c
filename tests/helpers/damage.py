"""Ways to damage files: edits of bytes and of JSON values, and things that are no files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from alignrec_recbole.errors import AlignRecError, printable

T = TypeVar("T")

NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "\x1b[31mx", "x\0y",
    "../../x", "x" * 5000, [], [[]], [None], {}, {"a": 1}, [1, 2, 3], "1", [10**30, 10**30],
)  # fmt: skip


def edited(data: bytes, random: Random) -> bytes:
    """One to four bytes changed, deleted or inserted, or the end cut off."""
    out = bytearray(data)
    for _ in range(random.randint(1, 4)):
        place, kind = random.randrange(len(out) + 1), random.random()
        if kind < 0.4 and place < len(out):
            out[place] ^= 1 << random.randrange(8)
        elif kind < 0.6:
            del out[place : place + random.randint(1, 9)]
        elif kind < 0.8:
            out[place:place] = random.randbytes(random.randint(1, 9))
        elif kind < 0.9:
            del out[place:]
        else:
            out[place:place] = out[: random.randint(1, 40)]
    return bytes(out)


def with_values(value: Any, path: tuple = ()) -> Iterator[tuple[str, Any]]:
    """The JSON value with each of its parts deleted, and replaced by each nasty value."""

    def placed(place: tuple, new: Any, delete: bool = False) -> Any:
        out = json.loads(json.dumps(value))
        inner = out
        for key in place[:-1]:
            inner = inner[key]
        if delete:
            del inner[place[-1]]
        else:
            inner[place[-1]] = new
        return out

    def places(part: Any, at: tuple) -> Iterator[tuple]:
        if isinstance(part, dict):
            for key, inner in part.items():
                yield (*at, key)
                yield from places(inner, (*at, key))
        elif isinstance(part, list) and part:
            yield (*at, 0)
            yield from places(part[0], (*at, 0))

    for place in places(value, ()):
        name = ".".join(map(str, place))
        yield f"{name} deleted", placed(place, None, delete=True)
        for new in NASTY:
            yield f"{name} = {str(new)[:20]!r}", placed(place, new)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


NO_FILES = {
    "a folder": Path.mkdir,
    "a FIFO": _fifo,
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
}


def replace_by(path: Path, kind: str) -> None:
    """Put something that is no file in a file's place."""
    path.unlink(missing_ok=True)
    NO_FILES[kind](path)


def result_or_refusal(work: Callable[[], T], *names: str) -> T | None:
    """The result, or None where an error of this package refuses the input by one of the names."""
    try:
        return work()
    except AlignRecError as error:
        said = str(error)
    assert not names or any(name in said for name in names), said
    assert printable(said, len(said)) == said
    return None
