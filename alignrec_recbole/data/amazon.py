"""The public Amazon 2014 files, as they are downloaded, to an item table, interactions, features.

    meta_*.json.gz           one Python literal (or JSON object) per line
    ratings_*.csv            user,item,rating,timestamp; or reviews_*_5.json.gz
    image_features_*.b       records of a 10-byte ASIN and 4096 float32
    i_id_mapping.csv, u_id_mapping.csv   MMRec's numbers, optional

Everything is read as a stream; lines are parsed as literals and never executed. Features and texts
are joined with a released split by ASIN, through MMRec's mapping.
"""

from __future__ import annotations

import ast
import gzip
import html
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from alignrec_recbole.data.interactions import ITEM_COLUMNS, USER_COLUMNS
from alignrec_recbole.errors import DataError
from alignrec_recbole.features.mmrec import read_mapping
from alignrec_recbole.features.table import FeatureManifest, save_features
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.io.mapped_arrays import create_array
from alignrec_recbole.io.tsv import AS_WRITTEN, check_lines, read_header

CORE = 5  # interactions that every user and item has at least
LONGEST_LINE = 1 << 20  # bytes; the longest real description has some ten thousand
ASIN_BYTES, IMAGE_WIDTH = 10, 4096
TEXT_COLUMNS = ("title", "brand", "categories", "description")
CHUNK = 1 << 20  # rows of a rating file read at a time
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


def read_meta(path: Path, stats: ParseStats | None = None) -> Iterator[MetaItem]:
    """Items of a meta_*.json.gz. A line that is no literal is counted and skipped.

    Raises:
        DataError: the file is missing, is not gzip or ends early.
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
        yield MetaItem(
            asin.strip(),
            _text(entry.get("title")),
            _text(entry.get("brand")),
            _categories(entry.get("categories")),
            _text(entry.get("description")),
            _text(entry.get("imUrl")),
        )


def _lines(path: Path, stats: ParseStats) -> Iterator[bytes]:
    """Lines of a gzip file; longer ones than LONGEST_LINE are counted, never held in memory."""
    try:
        with gzip.open(path, "rb") as handle:
            while line := handle.readline(LONGEST_LINE):
                if line.endswith(b"\n") or len(line) < LONGEST_LINE:
                    if line.strip():
                        yield line
                    continue
                stats.bad["too long"] += 1
                while line and not line.endswith(b"\n"):
                    line = handle.readline(LONGEST_LINE)
    except FileNotFoundError:
        raise DataError(f"There is no {path}.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path.name} is not a whole gzip file.",
            found=f"{type(error).__name__}: {error}, after {stats.good} items",
            expected="the file as it is published",
            hint="download it again",
        ) from error


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


def _text(value: Any) -> str:
    """One line of text: entities decoded, white space and control characters made spaces.

    Halves of a surrogate pair are joined; one alone, which UTF-8 does not have, is replaced.

    >>> _text("Tom &amp; Jerry\\n\\t2"), _text(None), _text(["a", "b"])
    ('Tom & Jerry 2', '', 'a b')
    """
    if isinstance(value, list | tuple):
        value = " ".join(v for v in value if isinstance(v, str))
    if not isinstance(value, str):
        return ""
    value = html.unescape(value).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", value).split())


def _categories(value: Any) -> str:
    """The first path, as in MMRec.

    >>> _categories([["Sports", "Cycling"], ["Other"]]), _categories("x"), _categories([])
    ('Sports, Cycling', '', '')
    """
    first = value[0] if isinstance(value, list | tuple) and value else None
    if not isinstance(first, list | tuple):
        return ""
    return ", ".join(_text(part) for part in first if isinstance(part, str))


def read_interactions(path: Path, stats: ParseStats | None = None) -> Iterator[pd.DataFrame]:
    """Chunks with user, item, rating, timestamp of a ratings_*.csv or reviews_*.json.gz.

    Skipped lines of reviews are counted.

    Raises:
        DataError: the file is missing or has other columns.
    """
    if path.suffix == ".csv":
        names = ["user", "item", "rating", "timestamp"]
        try:
            with pd.read_csv(
                path, header=None, names=names, index_col=False, chunksize=CHUNK,
                dtype={"user": str, "item": str, "rating": float, "timestamp": float},
                keep_default_na=False, na_values={"rating": [""], "timestamp": [""]},
            ) as chunks:  # fmt: skip
                yield from chunks
        except FileNotFoundError:
            raise DataError(f"There is no {path}.") from None
        except (ValueError, pd.errors.ParserError, OSError) as error:
            raise DataError(
                f"{path.name} is not a rating file.",
                found=str(error).splitlines()[0],
                expected="user,item,rating,timestamp in every row, without a header",
            ) from error
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
        rows.append((user, item, entry.get("overall"), entry.get("unixReviewTime")))
        if len(rows) == CHUNK:
            yield pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
            rows = []
    yield pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])


def load_interactions(
    chunks: Iterable[pd.DataFrame], mapping: IdMapping | None, stats: ParseStats | None = None
) -> tuple[pd.DataFrame, IdMapping]:
    """The 5-core of the interactions, users and items numbered by first appearance.

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
        frame = _core(frame)
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
        new, kept = pd.factorize(frame[column])
        frame[column] = new
        numbers.append({all_names[old]: i for i, old in enumerate(kept)})
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


def _core(frame: pd.DataFrame) -> pd.DataFrame:
    """The largest set of rows in which every user and item has at least CORE rows."""
    while len(frame):
        enough = np.ones(len(frame), dtype=bool)
        for column in ("userID", "itemID"):
            degree = np.bincount(frame[column])
            enough &= degree[frame[column]] >= CORE
        if enough.all():
            break
        frame = frame[enough]
    return frame.reset_index(drop=True)


def find_id_mapping(folder: Path) -> IdMapping | None:
    """MMRec's mapping files of a folder; None if it has none, or only some that were written here.

    Raises:
        DataError: there is only one, or one is damaged.
    """
    paths = [folder / f"{kind}_id_mapping.csv" for kind in "ui"]
    there = [path.is_file() and not _generated_by_us(path) for path in paths]
    if not any(there):
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
    with open(path, encoding="utf-8", errors="replace") as handle:
        return handle.readline().rstrip("\n").endswith(f"\t{GENERATED_BY_US}")


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
    rows = pd.read_csv(
        path, sep="\t", header=0, names=names, usecols=lambda name: name in (*keys, "timestamp"),
        index_col=False, dtype=str, encoding="utf-8-sig", **AS_WRITTEN,
    )  # fmt: skip
    own = frame[["userID", "itemID", "timestamp"]].astype({"userID": str, "itemID": str})
    own = own.set_axis([*keys, "when"], axis=1)
    rows = rows.merge(own, on=keys, how="left")
    fits = rows["when"].notna()
    if "timestamp" in names:
        given = pd.to_numeric(rows["timestamp"], errors="coerce")
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
            "others, choose another --dataset, or move the file away",
        )


def write_items(
    meta: Iterable[MetaItem], mapping: IdMapping, path: Path
) -> tuple[dict[str, str], list[str]]:
    """Write `items.tsv`: a row per item of the mapping, in the order of the numbers.

    Returns:
        Image URL by ASIN, and the ASINs without metadata.
    """
    found: dict[str, MetaItem] = {}
    for item in meta:
        if item.asin in mapping.items and item.asin not in found:
            found[item.asin] = item
    order = sorted(mapping.items, key=mapping.items.__getitem__)
    with atomic_write(path, "w") as handle:
        handle.write("\t".join(["itemID", "asin", *TEXT_COLUMNS, "image"]) + "\n")
        for asin in order:
            item = found.get(asin, MetaItem(asin))
            cells = [_cell(getattr(item, column)) for column in TEXT_COLUMNS]
            image = image_name(asin) if item.image_url else ""
            row = [str(mapping.items[asin]), asin, *cells, image]
            handle.write("\t".join(row) + "\n")
    urls = {
        asin: found[asin].image_url for asin in order if asin in found and found[asin].image_url
    }
    return urls, [asin for asin in order if asin not in found]


def _cell(text: str) -> str:
    """A cell that is read back unchanged: one that looks quoted as a whole is quoted again."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return '"' + text.replace('"', '""') + '"'
    return text


def image_name(asin: str) -> str:
    """File name of an item's image; anything but letters and digits is written in hexadecimal.

    >>> image_name("B00001W0DI"), image_name("../x")
    ('B00001W0DI.jpg', '2e2e2f78-x.jpg')
    """
    if re.fullmatch(r"[A-Za-z0-9]+", asin):
        return f"{asin}.jpg"
    return asin.encode().hex() + "-x.jpg"


def write_interactions(frame: pd.DataFrame, path: Path) -> None:
    """Write `NAME.inter` without a split; the harness draws one."""
    with atomic_write(path, "w") as handle:
        frame.to_csv(handle, sep="\t", index=False, lineterminator="\n")


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
        with open(path, "rb") as handle:
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
