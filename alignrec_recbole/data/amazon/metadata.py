"""Items of the metadata, `meta_*.json.gz`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignrec_recbole.data.amazon.lines import ID, ParseStats, literal, read_lines
from alignrec_recbole.data.html_text import is_script, one_line
from alignrec_recbole.errors import DataError


@dataclass
class MetaItem:
    """A line of the metadata; "" for what it does not say."""

    asin: str
    title: str = ""
    brand: str = ""
    categories: str = ""
    description: str = ""
    image_url: str = ""


def read_meta(path: Path, stats: ParseStats | None = None) -> Iterator[MetaItem]:
    """Items of a meta_*.json.gz. A line that is no literal is counted and skipped.

    Raises:
        DataError: the file is missing, is not gzip, ends early or describes no item.
    """
    stats = ParseStats() if stats is None else stats
    for line in read_lines(path, stats):
        entry = literal(line, stats)
        if entry is None:
            continue
        asin = entry.get("asin")
        if not isinstance(asin, str) or not asin.strip():
            stats.bad["no asin"] += 1
            continue
        if not ID.fullmatch(asin.strip()):
            stats.bad["bad asin"] += 1
            continue
        stats.good += 1
        title = one_line(entry.get("title"))
        if is_script(title):
            stats.scripts += 1
            title = ""
        yield MetaItem(
            asin.strip(),
            title,
            one_line(entry.get("brand")),
            _categories(entry.get("categories", entry.get("category"))),
            one_line(entry.get("description")),
            _image_url(entry),
        )
    if not stats.good:
        raise DataError(
            f"{path.name} describes no item.",
            found=", ".join(f"{count} lines {why}" for why, count in stats.bad.items())
            or "no line",
            expected="one item with an asin per line",
            hint="download it again",
        )


def _categories(value: Any) -> str:
    """The first path, as in MMRec; the files of 2018 have one path alone.

    >>> _categories([["Sports", "Cycling"], ["Other"]]), _categories(["Home", "Lamp"])
    ('Sports, Cycling', 'Home, Lamp')
    >>> _categories("x"), _categories([])
    ('', '')
    """
    if not isinstance(value, list | tuple) or not value:
        return ""
    path = value[0] if isinstance(value[0], list | tuple) else value
    return ", ".join(one_line(part) for part in path if isinstance(part, str))


def _image_url(entry: dict[str, Any]) -> str:
    """The address of an item's image: the first of the largest images that the entry names."""
    for key in ("imUrl", "imageURLHighRes", "imageURL"):
        value = entry.get(key)
        named = [value] if isinstance(value, str) else value
        if isinstance(named, list | tuple) and named and (url := one_line(named[0])):
            return url
    return ""
