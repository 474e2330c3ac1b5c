"""Amazon Reviews 2023: raw reviews and metadata, or a ready split.

    <Cat>.jsonl[.gz]                        reviews: user_id, parent_asin, rating, timestamp (ms)
    <Cat>.{train,valid,test}.csv[.gz]       a ready split, in place of the reviews
    <Cat>.csv[.gz]                          ready ratings without a split, in place of the reviews
    meta_<Cat>.jsonl[.gz]                   metadata by parent_asin; optional

One folder per category; the files may also be in the published folders below it. Items are known by
`parent_asin`: the variants of a product (size, colour) are one item.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alignrec_recbole.data.formats.collecting import Rows, add_file, content_frame
from alignrec_recbole.data.formats.finding import entries, find_one, required
from alignrec_recbole.data.html_text import one_line
from alignrec_recbole.data.source import IMAGE_URL, RATING, TIME, Source, no_items
from alignrec_recbole.errors import DataError
from alignrec_recbole.io.separated import BATCH, SeparatedFile
from alignrec_recbole.io.text_lines import text_lines

TEXTS = ("title", "store", "categories", "features", "description")
PARTS = ("train", "valid", "test")
MAX_TIME = 1 << 53


def read(folder: Path, bad: Counter[str] | None = None) -> Source:
    """Reviews, or a ready split, of one category.

    Raises:
        DataError: a file is missing or damaged, or a line cannot be used; with its number.
    """
    places = _places(folder)
    meta = _find(places, "meta_", (".jsonl", ".jsonl.gz"), "metadata")
    rows = Rows(bad)
    parts = [_find(places, "", (f".{part}.csv", f".{part}.csv.gz"), part) for part in PARTS]
    if any(parts):
        first = _read_split(folder, parts, rows)
        name = "ready split"
    else:
        first = _interactions(places, folder)
        name = "ratings" if ".csv" in first.name else "reviews"
        if name == "ratings":
            _add_ratings(rows, first, None)
        else:
            _add_reviews(rows, first)
    return Source(
        f"Amazon Reviews 2023, {first.name.partition('.')[0]}",
        rows.frame(first),
        tuple(path for path in parts if path) or (first,),
        (lambda wanted: read_items(meta, wanted)) if meta else no_items,
        core=1 if name == "ready split" else 5,
        notes={"read": name, "metadata": meta.name if meta else "none"},
    )


def _places(folder: Path) -> list[Path]:
    """The folder and the published ones below it that exist."""
    below = ("raw/review_categories", "raw/meta_categories", "review_categories", "meta_categories")
    entries(folder)
    return [folder, *(path for name in below if (path := Path(folder) / name).is_dir())]


def _find(places: list[Path], prefix: str, suffixes: tuple[str, ...], what: str) -> Path | None:
    found = [path for place in places if (path := find_one(place, prefix, suffixes, what))]
    return found[0] if found else None


def _interactions(places: list[Path], folder: Path) -> Path:
    for place in places:
        names = [
            name
            for name in entries(place)
            if name.endswith((".jsonl", ".jsonl.gz", ".csv", ".csv.gz"))
            and not name.startswith(("meta_", "."))
        ]
        if len(names) > 1:
            raise DataError(
                f"There are {len(names)} files of reviews or ratings.",
                found=", ".join(names[:5]),
                expected=f"one in {place}",
                hint="use one folder per category",
            )
        if names:
            return place / names[0]
    return required(None, folder, "<Category>.jsonl[.gz] or <Category>.train.csv")


def _read_split(folder: Path, parts: list[Path | None], rows: Rows) -> Path:
    for label, (part, path) in enumerate(zip(PARTS, parts, strict=True)):
        found = required(path, folder, f"<Category>.{part}.csv[.gz]")
        _add_ratings(rows, found, label)
    return next(path for path in parts if path)


def _add_ratings(rows: Rows, path: Path, split: int | None) -> None:
    file = SeparatedFile(path, what="file of ratings", bad=rows.bad)
    add_file(rows, file, "user_id", "parent_asin", time="timestamp", rating="rating", split=split)


def _add_reviews(rows: Rows, path: Path) -> None:
    users: list[str] = []
    items: list[str] = []
    times: list[int] = []
    ratings: list[float] = []
    lines: list[int] = []

    def add() -> None:
        columns = {TIME: np.array(times, np.int64), RATING: np.array(ratings, np.float64)}

        def some(part: slice) -> None:
            few = {name: values[part] for name, values in columns.items()}
            rows.add(path, lines[part], users[part], items[part], **few)

        rows.each_or_all(some, len(lines))

    for number, entry in json_lines(path, "file of reviews", rows.bad):
        user: Any = entry.get("user_id")
        item: Any = entry.get("parent_asin")
        time: Any = entry.get("timestamp", entry.get("sortTimestamp"))  # the latter in older files
        rating: Any = entry.get("rating")
        problem = None
        if type(user) is not str or type(item) is not str:
            problem = _bad_line(path, number, "a text", user_id=user, parent_asin=item)
        elif type(time) is not int or not -MAX_TIME < time < MAX_TIME:
            problem = _bad_line(path, number, "whole milliseconds since 1970", timestamp=time)
        elif type(rating) not in (int, float) or not 0 <= (rating or 0) <= 1000:
            problem = _bad_line(path, number, "a number from 0", rating=rating)
        if problem is not None:
            if rows.bad is None:
                raise problem
            rows.bad[problem.bad_line] += 1
            continue
        users.append(user)
        items.append(item)
        times.append(time)
        ratings.append(float(rating or 0))
        lines.append(number)
        if len(lines) == BATCH:
            add()
            for column in (users, items, times, ratings, lines):
                column.clear()  # type: ignore[attr-defined]
    if lines:
        add()


def _bad_line(path: Path, line: int, expected: str, **values: Any) -> DataError:
    error = DataError(
        f"{path.name} has a line that cannot be used: line {line}.",
        found=", ".join(f"{name} = {value!r}" for name, value in values.items()),
        expected=f"{expected} as {' and '.join(values)}",
        hint="download the file again, or remove the line",
    )
    error.bad_line = f"not {expected}: {' and '.join(values)}"
    return error


def json_lines(
    path: Path, what: str, bad: Counter[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line; blank lines are passed over.

    Args:
        path: the file.
        what: what it is, for errors.
        bad: counts lines that are no JSON object, which are then skipped; None: they are errors.

    Raises:
        DataError: as `text_lines`, or a line is no JSON object.
    """
    decode = json.JSONDecoder().raw_decode
    for number, line in enumerate(text_lines(path, what=what), 1):
        if not line or line.isspace():
            continue
        line = line if line[0] == "{" else line.strip()
        try:
            entry, end = decode(line)
            if end < len(line) and not line[end:].isspace():
                raise ValueError(f"more after the object, at character {end + 1}")
        except (ValueError, RecursionError) as error:
            if bad is not None:
                bad["not JSON"] += 1
                continue
            raise DataError(
                f"{path.name} has a line that is not JSON: line {number}.",
                found=f"{error}: {line[:80]!r}",
                expected="one JSON object per line",
                hint="download the file again, or remove the line",
            ) from error
        if type(entry) is not dict and bad is not None:
            bad["no JSON object"] += 1
            continue
        if type(entry) is not dict:
            raise DataError(
                f"{path.name} has a line that is no JSON object: line {number}.",
                found=f"{line[:80]!r}",
                expected="one JSON object per line",
            )
        yield number, entry


def read_items(path: Path, wanted: Collection[str]) -> pd.DataFrame:
    """Texts and image address of items, of the first line of each.

    Raises:
        DataError: a line is no JSON object, or names no item.
    """
    wanted, found = set(wanted), {}
    for number, entry in json_lines(path, "file of metadata"):
        item = entry.get("parent_asin")
        if type(item) is not str or not item.strip():
            raise _bad_line(path, number, "a text", parent_asin=item)
        token = item.strip()
        if token in wanted and token not in found:
            texts = [
                one_line(entry.get("title")),
                one_line(entry.get("store")),
                ", ".join(_texts(entry.get("categories"))),
                " ".join(_texts(entry.get("features"))),
                " ".join(_texts(entry.get("description"))),
            ]
            found[token] = [*texts, image_url(entry.get("images"))]
    return content_frame(found, [*TEXTS, IMAGE_URL])


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for each in values if (text := one_line(each))]


def image_url(images: Any) -> str:
    """The address of the main image, else of the first: large, else hi_res, else thumb.

    >>> image_url([{"large": None, "hi_res": "https://h/1.jpg", "variant": "MAIN"}])
    'https://h/1.jpg'
    >>> image_url([]), image_url(None), image_url([7])
    ('', '', '')
    """
    named = [image for image in images if isinstance(image, dict)] if type(images) is list else []
    named.sort(key=lambda image: image.get("variant") != "MAIN")
    for image in named:
        for size in ("large", "hi_res", "thumb"):
            if isinstance(image.get(size), str) and (url := one_line(image[size])):
                return url
    return ""
