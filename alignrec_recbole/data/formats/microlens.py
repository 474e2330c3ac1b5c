"""MicroLens-50k and -100k: pairs, titles and covers.

    MicroLens-50k_pairs.csv       user,item,timestamp (ms)
    MicroLens-50k_pairs.tsv       user, tab, items in the order of time; in place of the CSV file
    MicroLens-50k_titles.csv      item,title; optional
    MicroLens-100k_title_en.csv   the same without a header
    MicroLens-50k_covers/         ITEM.jpg; optional; also covers/

Ids are text; their numbers have gaps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from alignrec_recbole.data.formats.collecting import Rows, add_file, bad_cell, read_content
from alignrec_recbole.data.formats.finding import entries, find_one, images_by_stem, required
from alignrec_recbole.data.source import IMAGE, ITEM, Source
from alignrec_recbole.errors import DataError
from alignrec_recbole.io.separated import BATCH, SeparatedFile
from alignrec_recbole.io.text_lines import text_lines

TITLES = ("_titles.csv", "_title_en.csv", "_titles.csv.gz", "_title_en.csv.gz")
USERS, ITEMS = ("user", "userID", "user_id"), ("item", "videoID", "item_id")


def read(folder: Path, bad: Counter[str] | None = None) -> Source:
    """The interactions, and titles and covers where the folder has them.

    Raises:
        DataError: a file is missing or damaged, or a line cannot be used; with its number.
    """
    found = find_one(folder, "MicroLens", ("_pairs.csv", "_pairs.csv.gz"), "pairs")
    found = found or find_one(folder, "MicroLens", ("_pairs.tsv", "_pairs.tsv.gz"), "pairs")
    path = required(found, folder, "MicroLens-*_pairs.csv or MicroLens-*_pairs.tsv")
    rows, notes = Rows(bad), {"read": path.name}
    if "_pairs.csv" in path.name:
        file = SeparatedFile(path, what="file of pairs", bad=bad)
        user, item = column(file, USERS), column(file, ITEMS)
        add_file(rows, file, user, item, time="timestamp")
    else:
        _add_histories(rows, path)
        notes["times"] = "none: the file has an order per user alone; *_pairs.csv has times"
    titles = find_one(folder, "MicroLens", TITLES, "titles")
    covers = next((n for n in entries(folder) if n == "covers" or n.endswith("_covers")), None)
    notes |= {"titles": titles.name if titles else "none", "covers": covers or "none"}
    return Source(
        path.name.partition("_")[0],
        rows.frame(path),
        (path,),
        lambda wanted: read_items(titles, Path(folder) / covers if covers else None, wanted),
        notes=notes,
    )


def column(file: SeparatedFile, names: tuple[str, ...]) -> str:
    """The first of some names that is a column of the file.

    Raises:
        DataError: none is.
    """
    found = next((name for name in names if name in file.columns), None)
    if found is None:
        file.require(names[:1])
    return found or names[0]


def with_or_without_header(
    path: Path, names: tuple[str, ...], what: str = "file", bad: Counter[str] | None = None
) -> SeparatedFile:
    """A file whose first line is a header if it names a user or an item column."""
    file = SeparatedFile(path, what=what, bad=bad)
    if {*USERS, *ITEMS} & set(file.columns):
        return file
    return SeparatedFile(path, columns=names[: len(file.columns)], what=what, bad=bad)


def _add_histories(rows: Rows, path: Path) -> None:
    users: list[str] = []
    items: list[str] = []
    lines: list[int] = []

    def add() -> None:
        rows.each_or_all(
            lambda part: rows.add(path, lines[part], users[part], items[part]), len(lines)
        )
        for values in (users, items, lines):
            values.clear()  # type: ignore[attr-defined]

    seen: set[str] = set()
    for number, line in enumerate(text_lines(path, what="file of pairs"), 1):
        if not line.strip():
            continue
        user, tab, rest = line.partition("\t")
        history = rest.split(" ") if rest else []
        if not tab or not history or "\t" in rest or not all(history):
            if rows.bad is not None:
                rows.bad["no history"] += 1
                continue
            raise DataError(
                f"{path.name} has a line that is no history: line {number}.",
                found=repr(line[:80]),
                expected="a user, a tab, and items separated by one blank each",
            )
        if user in seen:
            if rows.bad is not None:
                rows.bad["a second history of a user"] += 1
                continue
            raise bad_cell(path, number, "user id", user, "the user has another line")
        seen.add(user)
        users += [user] * len(history)
        items += history
        lines += [number] * len(history)
        if len(lines) >= BATCH:
            add()
    if lines:
        add()


def read_items(titles: Path | None, covers: Path | None, wanted: Collection[str]) -> pd.DataFrame:
    """Titles and cover files of items.

    Raises:
        DataError: the file of titles is damaged, or the folder of covers cannot be read.
    """
    if titles is None:
        frame = pd.DataFrame({ITEM: sorted(wanted)}, dtype=object)
    else:
        file = with_or_without_header(titles, ("item", "title"), "file of titles")
        frame = read_content(file, column(file, ITEMS), ["title"], wanted)
        file.require(["title"])
    return with_images(frame, covers, wanted)


def with_images(frame: pd.DataFrame, folder: Path | None, wanted: Collection[str]) -> pd.DataFrame:
    """Item content with the image files of a folder, named by their items."""
    if folder is None:
        return frame
    images = images_by_stem(folder, wanted)
    shown = set(frame[ITEM])
    more = pd.DataFrame({ITEM: [item for item in images if item not in shown]}, dtype=object)
    out = pd.concat([frame, more], ignore_index=True).fillna("")
    out[IMAGE] = [str(images.get(item, "")) for item in out[ITEM]]
    return out
