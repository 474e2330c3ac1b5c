"""Numbers of users and items: mapping files, and the numbers of an existing `NAME.inter`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from alignrec_recbole.data.amazon.lines import number
from alignrec_recbole.data.interactions import ITEM_COLUMNS, USER_COLUMNS
from alignrec_recbole.errors import DataError
from alignrec_recbole.features.mmrec import read_mapping
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.io.opening import open_input
from alignrec_recbole.io.tsv import check_lines, read_cells, read_header

GENERATED_BY_US = "numbered_by"  # a third column marks mapping files written here; MMRec's have two


@dataclass
class IdMapping:
    """Tokens of users and items by their original ids; insertion order is the table's order."""

    users: dict[str, int]
    items: dict[str, int]
    released: bool  # MMRec's own, from its mapping files


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
        given = rows["timestamp"].map(number)
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
