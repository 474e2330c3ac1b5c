"""The public Amazon files of 2014 and 2018 to an item table, interactions, features.

    meta_*.json.gz           one Python literal (or JSON object) per line
    ratings_*.csv            see amazon_ratings.py; or reviews_*_5.json.gz
    image_features_*.b       records of a 10-byte ASIN and 4096 float32
    i_id_mapping.csv, u_id_mapping.csv   MMRec's numbers, optional

Everything is read as a stream; lines are parsed as literals and never executed. Features and texts
are joined with a released split by ASIN, through MMRec's mapping.
"""

from __future__ import annotations

import ast
import gzip
import itertools
import json
import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from alignrec_recbole.data.amazon_ratings import CHUNK, USER_FIRST, column_order, read_ratings
from alignrec_recbole.data.cores import k_core
from alignrec_recbole.data.html_text import is_script, one_line
from alignrec_recbole.data.interactions import ITEM_COLUMNS, USER_COLUMNS
from alignrec_recbole.data.numbering import number_ids
from alignrec_recbole.data.split_names import DEFAULT_SEED, Numbering
from alignrec_recbole.errors import DataError
from alignrec_recbole.features.mmrec import read_mapping
from alignrec_recbole.features.table import FeatureManifest, save_features
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.io.mapped_arrays import create_array
from alignrec_recbole.io.opening import open_input
from alignrec_recbole.io.separated import quoted
from alignrec_recbole.io.tsv import check_lines, read_cells, read_header

CORE = 5  # interactions that every user and item has at least
LONGEST_LINE = 1 << 20  # bytes; the longest real description has some ten thousand
ASIN_BYTES, IMAGE_WIDTH = 10, 4096
TEXT_COLUMNS = ("title", "brand", "categories", "description")
SAMPLE = 20_000  # lines of the metadata that decide the order of a rating file's columns
ID = re.compile(r"[!#-~]{1,100}")  # no white space or quotation mark: ids become cells and names
GENERATED_BY_US = "numbered_by"  # a third column marks mapping files written here; MMRec's have two


@dataclass
class MetaItem:
    """A line of the metadata; "" for what it does not say."""

    asin: str
    title: str = ""
    brand: str = ""
    categories: str = ""
    description: str = ""
    image_url: str = ""


@dataclass
class IdMapping:
    """Tokens of users and items by their original ids; insertion order is the table's order."""

    users: dict[str, int]
    items: dict[str, int]
    released: bool  # MMRec's own, from its mapping files


@dataclass
class ParseStats:
    """Lines that were read and lines that were not, by reason."""

    good: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    scripts: int = 0  # titles that are a script of their page, left empty


def read_meta(path: Path, stats: ParseStats | None = None) -> Iterator[MetaItem]:
    """Items of a meta_*.json.gz. A line that is no literal is counted and skipped.

    Raises:
        DataError: the file is missing, is not gzip, ends early or describes no item.
    """
    stats = ParseStats() if stats is None else stats
    for line in _lines(path, stats):
        entry = _literal(line, stats)
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


def _lines(path: Path, stats: ParseStats) -> Iterator[bytes]:
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


def _literal(line: bytes, stats: ParseStats) -> dict[str, Any] | None:
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


def rating_columns(files: dict[str, Path], mapping: IdMapping | None) -> tuple[str, ...]:
    """The order of a rating file's columns, decided by ids of items that are known.

    Raises:
        DataError: as `read_meta` and `column_order`.
    """
    if mapping is not None:
        return column_order(files["interactions"], mapping.items)
    meta = itertools.islice(read_meta(files["meta"]), SAMPLE)
    return column_order(files["interactions"], [item.asin for item in meta])


def read_interactions(
    path: Path, stats: ParseStats | None = None, columns: Sequence[str] = USER_FIRST
) -> Iterator[pd.DataFrame]:
    """Chunks with user, item, rating, timestamp of a ratings_*.csv or reviews_*.json.gz.

    Skipped lines of reviews are counted.

    Args:
        path: the file.
        stats: counts the lines.
        columns: order of a rating file's columns.

    Raises:
        DataError: the file is missing or has other columns.
    """
    if path.suffix == ".csv":
        yield from read_ratings(path, columns)
        return
    stats, rows = ParseStats() if stats is None else stats, []
    for line in _lines(path, stats):
        entry = _literal(line, stats)
        if entry is None:
            continue
        user, item = entry.get("reviewerID"), entry.get("asin")
        if not isinstance(user, str) or not isinstance(item, str):
            stats.bad["no user or item"] += 1
            continue
        if not (ID.fullmatch(user) and ID.fullmatch(item)):
            stats.bad["bad user or item id"] += 1
            continue
        rows.append(
            (user, item, _number(entry.get("overall")), _number(entry.get("unixReviewTime")))
        )
        if len(rows) == CHUNK:
            yield pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
            rows = []
    yield pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])


def _number(value: Any) -> float:
    """A number, or NaN for what is none.

    >>> _number("4"), _number(10**400), _number(None), _number([1])
    (4.0, nan, nan, nan)
    """
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def load_interactions(
    chunks: Iterable[pd.DataFrame],
    mapping: IdMapping | None,
    stats: ParseStats | None = None,
    numbering: Numbering = "random",
    seed: int = DEFAULT_SEED,
) -> tuple[pd.DataFrame, IdMapping]:
    """The 5-core of the interactions, users and items numbered as `number_ids` does.

    With a released mapping, its users and items are selected instead, under their numbers. Of the
    rows of a pair the earliest is kept; rows without a timestamp are skipped and counted.

    Raises:
        DataError: no interaction remains.
    """
    stats = ParseStats() if stats is None else stats
    users: dict[str, int] = mapping.users if mapping else {}
    items: dict[str, int] = mapping.items if mapping else {}
    parts = []
    for chunk in chunks:
        times = pd.to_numeric(chunk["timestamp"], errors="coerce")
        has_timestamp = times.abs() < 2**53  # False for NaN
        if not has_timestamp.all():
            stats.bad["no time"] += int((~has_timestamp).sum())
        known = chunk[has_timestamp]
        codes = pd.DataFrame(
            {
                "userID": _codes(known["user"], users, mapping is None),
                "itemID": _codes(known["item"], items, mapping is None),
                "rating": pd.to_numeric(known["rating"], errors="coerce").to_numpy(np.float32),
                "timestamp": times[has_timestamp].to_numpy(np.int64),
            }
        )
        numbered = (codes["userID"] >= 0) & (codes["itemID"] >= 0)
        if mapping is None and not numbered.all():  # otherwise they are only not in its data set
            stats.bad["bad user or item id"] += int((~numbered).sum())
        parts.append(codes[numbered])
    frame = pd.concat(parts, ignore_index=True)
    earliest = frame.sort_values("timestamp", kind="stable").drop_duplicates(["userID", "itemID"])
    frame = earliest.sort_index(ignore_index=True)  # in the file's order again
    if mapping is None:
        enough = k_core(frame["userID"].to_numpy(), frame["itemID"].to_numpy(), CORE, CORE)
        frame = frame[enough].reset_index(drop=True)
    if frame.empty:
        raise DataError(
            "No interactions remain.",
            found="no users and items with five interactions each"
            if mapping is None
            else "no users and items of MMRec's mapping",
            expected="the ratings of one category",
        )
    if mapping is not None:
        return frame, mapping
    names = [list(users), list(items)]
    numbers = []
    for column, all_names in zip(("userID", "itemID"), names, strict=True):
        codes, kept = pd.factorize(frame[column])
        ids = [all_names[old] for old in kept]
        table = number_ids(ids, numbering, seed)
        frame[column] = np.array([table[name] for name in ids])[codes]
        numbers.append(table)
    return frame, IdMapping(numbers[0], numbers[1], released=False)


def _codes(values: pd.Series, table: dict[str, int], grow: bool) -> np.ndarray:
    """Numbers of ids; a new id gets the next number, or −1, as does a value that is no id."""
    local, names = pd.factorize(values)
    if grow:
        numbers = [
            table.setdefault(name, len(table)) if ID.fullmatch(name) else -1 for name in names
        ]
    else:
        numbers = [table.get(name, -1) for name in names]
    return np.array(numbers, dtype=np.int64)[local] if len(names) else np.zeros(0, dtype=np.int64)


def find_id_mapping(folder: Path, being_copied: IdMapping | None = None) -> IdMapping | None:
    """MMRec's mapping files of a folder; None if it has none, or only some that were written here.

    Args:
        folder: of the raw files, or of the data set.
        being_copied: a mapping that an earlier call may have started to write there: where one of
            the two files is absent and the other is a part of it, there is no mapping yet.

    Raises:
        DataError: there is only one, or one is damaged.
    """
    paths = [folder / f"{kind}_id_mapping.csv" for kind in "ui"]
    there = [os.path.lexists(path) and not _generated_by_us(path) for path in paths]
    if not any(there):
        return None
    if not all(there) and being_copied is not None:
        half = [being_copied.users, being_copied.items][there.index(True)]
        if read_mapping(paths[there.index(True)]) == half:
            return None
    if not all(there):
        raise DataError(
            "MMRec's mapping is incomplete.",
            found=f"only {paths[there.index(True)].name}",
            expected="u_id_mapping.csv and i_id_mapping.csv",
        )
    users, items = (read_mapping(path) for path in paths)
    return IdMapping(users, items, released=True)


def _generated_by_us(path: Path) -> bool:
    with open_input(path) as handle:
        return handle.readline(1 << 16).rstrip(b"\r\n").endswith(f"\t{GENERATED_BY_US}".encode())


def check_ids(path: Path, frame: pd.DataFrame) -> None:
    """Check that an existing `NAME.inter` uses the user and item numbers of `frame`.

    Its rows must be rows of `frame`; with the same timestamps, if its timestamps are those of the
    raw file at all (released files may have ranks instead).

    Raises:
        DataError: rows do not fit, or the file is not a table of users and items.
    """
    header = read_header(path)
    check_lines(path, len(header))
    names = [column.partition(":")[0] for column in header]
    keys = [next((n for n in some if n in names), None) for some in (USER_COLUMNS, ITEM_COLUMNS)]
    if None in keys:
        raise DataError(
            f"{path.name} has no users or no items.",
            found=f"columns {', '.join(header)}",
            expected=f"one of {', '.join(USER_COLUMNS)} and one of {', '.join(ITEM_COLUMNS)}",
            hint="choose another --dataset, or move the file away",
        )
    if len(set(names)) < len(names):
        raise DataError(
            f"{path.name} names a column twice.",
            found=" | ".join(header),
            expected="every column once",
        )
    rows = read_cells(path, names, [name for name in (*keys, "timestamp") if name in names])
    own = frame[["userID", "itemID", "timestamp"]].astype({"userID": str, "itemID": str})
    own = own.set_axis([*keys, "when"], axis=1)
    rows = rows.merge(own, on=keys, how="left")
    fits = rows["when"].notna()
    if "timestamp" in names:
        given = rows["timestamp"].map(_number)
        if given.isin(frame["timestamp"]).all():
            fits &= given == rows["when"]
    if not fits.all():
        user, item = rows.loc[~fits, keys].iloc[0]
        raise DataError(
            f"The existing {path.name} uses different item ids.",
            found=f"{int((~fits).sum())} of its {len(rows)} rows are not in the raw files under "
            f"these ids, first user {user!r} with item {item!r}",
            expected="the ids that it was made with",
            hint="put its u_id_mapping.csv and i_id_mapping.csv beside the raw files in place of "
            "others, choose another --dataset, or move the file away; a file of an earlier version "
            "is numbered with --numbering appearance",
        )


def write_items(
    meta: Iterable[MetaItem], mapping: IdMapping, path: Path
) -> tuple[dict[str, str], list[str]]:
    """Write `items.tsv`: a row per item of the mapping, in the order of the numbers.

    Of the entries of an item the first is used.

    Returns:
        Image URL by ASIN, and the ASINs without metadata.

    Raises:
        DataError: no entry is of an item of the mapping, or none has a text and there is a table
            already, which then stays.
    """
    found: dict[str, MetaItem] = {}
    for item in meta:
        if item.asin in mapping.items and item.asin not in found:
            found[item.asin] = item
    if not found:
        raise DataError(
            "The metadata and the interactions have no item in common.",
            found=f"{len(mapping.items)} items, for example {next(iter(mapping.items))!r}",
            expected="the ids of items (asin) of the metadata",
            hint="use files of one category; a rating file is user,item,rating,timestamp or "
            "item,user,rating,timestamp",
        )
    if os.path.lexists(path) and not any(
        getattr(item, column) for item in found.values() for column in TEXT_COLUMNS
    ):
        raise DataError(
            f"The existing {path.name} would be replaced by a table without texts.",
            found=f"{len(found)} entries of the metadata, none with {', '.join(TEXT_COLUMNS)}",
            expected="the metadata that the table was made from",
            hint="download the metadata again, or move the table away",
        )
    order = sorted(mapping.items, key=mapping.items.__getitem__)
    with atomic_write(path, "w") as handle:
        handle.write("\t".join(["itemID", "asin", *TEXT_COLUMNS, "image"]) + "\n")
        for asin in order:
            item = found.get(asin, MetaItem(asin))
            cells = [quoted(getattr(item, column)) for column in TEXT_COLUMNS]
            image = image_name(asin) if item.image_url else ""
            row = [str(mapping.items[asin]), asin, *cells, image]
            handle.write("\t".join(row) + "\n")
    urls = {
        asin: found[asin].image_url for asin in order if asin in found and found[asin].image_url
    }
    return urls, [asin for asin in order if asin not in found]


def image_name(asin: str) -> str:
    """File name of an item's image; anything but letters and digits is written in hexadecimal.

    >>> image_name("B00001W0DI"), image_name("../x")
    ('B00001W0DI.jpg', '2e2e2f78-x.jpg')
    """
    if re.fullmatch(r"[A-Za-z0-9]+", asin):
        return f"{asin}.jpg"
    return asin.encode().hex() + "-x.jpg"


def write_mapping(mapping: IdMapping, folder: Path) -> None:
    """Write MMRec's two mapping files; a third column marks numbers that were assigned here."""
    mark = ("", "") if mapping.released else (f"\t{GENERATED_BY_US}", "\tprepare")
    for name, key_column, column, table in (
        ("u_id_mapping.csv", "user_id", "userID", mapping.users),
        ("i_id_mapping.csv", "asin", "itemID", mapping.items),
    ):
        with atomic_write(folder / name, "w") as handle:
            handle.write(f"{key_column}\t{column}{mark[0]}\n")
            handle.writelines(f"{key}\t{number}{mark[1]}\n" for key, number in table.items())


def read_image_features(handle: IO[bytes], name: str) -> Iterator[tuple[str, np.ndarray]]:
    """ASIN and float32 [4096] of each record.

    Raises:
        DataError: the file ends inside a record, or a record does not start with an ASIN.
    """
    size = ASIN_BYTES + 4 * IMAGE_WIDTH
    number = 0
    while record := handle.read(size):
        head = record[:ASIN_BYTES]
        if (
            len(record) < size
            or not head.isascii()
            or not head.decode("ascii", "replace").isalnum()
        ):
            raise DataError(
                f"{name} is not a file of image features.",
                found=f"record {number + 1}: {len(record)} bytes, starting {head!r}",
                expected=f"records of {size} bytes, a 10-letter ASIN first",
                hint="download it again",
            )
        number += 1
        yield head.decode("ascii"), np.frombuffer(record, "<f4", offset=ASIN_BYTES)


def write_image_features(
    path: Path, mapping: IdMapping, out: Path, name: str = "image-4096"
) -> FeatureManifest:
    """Write the published 4096-d image features as a feature file.

    Items without one get the mean of the others, as in MMRec; the manifest names them.

    Raises:
        DataError: the file is damaged or has none of the items.
    """
    order = sorted(mapping.items, key=mapping.items.__getitem__)
    part = out.with_name(f".{out.name}.part.npy")
    matrix = create_array(part, np.float32, (len(order), IMAGE_WIDTH))
    total, seen = np.zeros(IMAGE_WIDTH), np.zeros(len(order), dtype=bool)
    place = {asin: i for i, asin in enumerate(order)}
    broken = 0
    try:
        with open_input(path, what="image feature file") as handle:
            for asin, row in read_image_features(handle, path.name):
                i = place.get(asin)
                if i is None or seen[i]:
                    continue
                if not (np.isfinite(row).all() and row.any()):
                    broken += 1
                    continue
                matrix[i] = row
                seen[i] = True
                total += row
        if not seen.any():
            raise DataError(
                f"{path.name} has none of the items.",
                expected="the image features of the same category",
            )
        without = np.flatnonzero(~seen)
        matrix[without] = (total / seen.sum()).astype(np.float32)
        return save_features(
            out,
            matrix,
            name=name,
            modality="image",
            encoder="Amazon 2014 image features (CNN, 4096)",
            settings={
                "absent": "mean of the others, as in MMRec",
                "filled_with_mean": [str(mapping.items[order[i]]) for i in without],
                "not_finite_or_zero": broken,
            },
            source=path.name,
            items=[str(mapping.items[asin]) for asin in order],
            notes=[f"{len(without)} items have the mean vector"] if len(without) else [],
        )
    finally:
        part.unlink(missing_ok=True)


def find_raw(folder: Path) -> dict[str, Path]:
    """The raw files of a folder: meta, interactions and, if there are any, image_features.

    Raises:
        DataError: a required one is missing, or there are two of a kind.
    """
    kinds: dict[str, Sequence[str]] = {
        "meta": ("meta_*.json.gz",),
        "interactions": ("ratings_*.csv", "reviews_*.json.gz"),
        "image_features": ("image_features_*.b",),
    }
    out: dict[str, Path] = {}
    for kind, patterns in kinds.items():
        found = next((f for p in patterns if (f := sorted(folder.glob(p)))), [])
        if len(found) > 1 or (not found and kind != "image_features"):
            raise DataError(
                f"Expected exactly one {' or '.join(patterns)} in {folder}; found {len(found)}.",
                found=", ".join(path.name for path in found) or "none",
                hint="use one folder per category",
            )
        if found:
            out[kind] = found[0]
    return out
