"""Sizes of files as people write them."""

from __future__ import annotations

import re

SAVE_LIMIT = 512 << 20  # bytes of a table of similarities or scores that a run stores


def file_size(count: int) -> str:
    """Bytes as a person says them.

    >>> file_size(512), file_size(1_083_226), file_size(5 << 30)
    ('512 bytes', '1.1 MB', '5.4 GB')
    """
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


_UNITS = {
    "": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}


def bytes_of(size: str) -> int:
    """A size as a person writes it, in bytes.

    >>> bytes_of("512MiB"), bytes_of("1.5 GB"), bytes_of("100")
    (536870912, 1500000000, 100)

    Raises:
        ValueError: it is no size.
    """
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) ?([kmg]i?b|)", size.strip().lower())
    if match is None:
        raise ValueError(f"{size[:40]!r} is no size, such as 2GB, 512MiB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2]])
