"""PixelRec and NineRec: pairs in a CSV file, item texts in another, covers named by item.

PixelRec: Pixel200K.csv (item_id,user_id,timestamp), an item table with item_id, title, tag and
description, and covers. NineRec: QB_pair.csv (user,item[,timestamp]), QB_item.csv (item, then
a Chinese and an English title) and QB_cover/. Files of NineRec may be without a header.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

import pandas as pd

from alignrec_recbole.data.formats.collecting import Rows, add_file, read_content
from alignrec_recbole.data.formats.finding import entries, find_one, required
from alignrec_recbole.data.formats.microlens import (
    ITEMS,
    USERS,
    column,
    with_images,
    with_or_without_header,
)
from alignrec_recbole.data.source import ITEM, Source
from alignrec_recbole.io.separated import SeparatedFile

NINEREC_PAIRS = ("user", "item", "timestamp")
NINEREC_TITLES = ("item", "title_zh", "title_en")


def read_pixelrec(folder: Path, bad: Counter[str] | None = None) -> Source:
    """PixelRec's pairs, item table and covers.

    Raises:
        DataError: a file is missing or damaged, or a line cannot be used; with its number.
    """
    names = [n for n in entries(folder) if n.endswith((".csv", ".csv.gz")) and n[0] != "."]
    tables = [n for n in names if "item" in n.lower()]
    pairs = [n for n in names if n not in tables]
    path = required(
        Path(folder) / pairs[0] if len(pairs) == 1 else None, folder, "single CSV file of pairs"
    )
    rows = Rows(bad)
    file = SeparatedFile(path, what="file of pairs", bad=bad)
    add_file(rows, file, "user_id", "item_id", time="timestamp")
    table = find_one(folder, "", tuple(tables[:1]), "items") if tables else None
    return Source(
        path.name.partition(".")[0],
        rows.frame(path),
        (path,),
        _content(table, lambda path: SeparatedFile(path, what="item table"), folder, "cover"),
        notes={"items": table.name if table else "none"},
    )


def read_ninerec(folder: Path, bad: Counter[str] | None = None) -> Source:
    """NineRec's pairs, titles and covers.

    Raises:
        DataError: a file is missing or damaged, or a line cannot be used; with its number.
    """
    found = find_one(folder, "", ("_pair.csv", "_pair.csv.gz"), "pairs")
    path = required(found, folder, "*_pair.csv")
    rows = Rows(bad)
    file = with_or_without_header(path, NINEREC_PAIRS, bad=bad)
    time = "timestamp" if "timestamp" in file.columns else None
    add_file(rows, file, column(file, USERS), column(file, ITEMS), time=time)
    titles = find_one(folder, "", ("_item.csv", "_item.csv.gz"), "titles")
    return Source(
        path.name.removesuffix("_pair.csv"),
        rows.frame(path),
        (path,),
        _content(
            titles, lambda path: with_or_without_header(path, NINEREC_TITLES), folder, "_cover"
        ),
        notes={"titles": titles.name if titles else "none"},
    )


def _content(
    table: Path | None, opened: Callable[[Path], SeparatedFile], folder: Path, covers: str
) -> Callable[[Collection[str]], pd.DataFrame]:
    """How to read texts and covers of items."""

    def read_items(wanted: Collection[str]) -> pd.DataFrame:
        names = [n for n in entries(folder) if covers in n.lower() and (Path(folder) / n).is_dir()]
        place = Path(folder) / names[0] if names else None
        if table is None:
            return with_images(pd.DataFrame({ITEM: []}, dtype=object), place, wanted)
        file = opened(table)
        item = column(file, ITEMS)
        known = ("title", "tag", "description")
        texts = [n for n in file.columns if n != item] if covers == "_cover" else list(known)
        return with_images(read_content(file, item, texts, wanted), place, wanted)

    return read_items
