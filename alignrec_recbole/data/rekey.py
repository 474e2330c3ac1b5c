"""The same split under random numbers: users, items, their content and features, re-keyed.

`NAME-rekeyed-SEED/` has the interactions with their labels and all other columns, the item table
with its images and audio files, and the feature files, under numbers that are drawn from the seed
and depend on nothing else but the set of ids. Rows are written in an order that carries nothing
either (`neutral_order`). `rekeyed_users.tsv` and `rekeyed_items.tsv` map the old ids to the new
ones, and the manifest of the split names the origin, the seed and the hashes of both.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from alignrec_recbole.data.cards import split_sha256
from alignrec_recbole.data.dataset_paths import item_table_names
from alignrec_recbole.data.interactions import (
    ITEM_COLUMNS,
    LABEL_COLUMN,
    USER_COLUMNS,
    check_pairs,
    id_tokens,
    split_labels,
)
from alignrec_recbole.data.made_dataset import neutral_order
from alignrec_recbole.data.numbering import number_ids
from alignrec_recbole.data.rekeyed_files import (
    feature_files,
    item_tables,
    row_numbers,
    user_tables,
    write_features,
    write_items,
    write_mapping_of_ids,
    write_users,
)
from alignrec_recbole.data.rekeyed_names import MAX_SEED, origin_of, rekeyed_name
from alignrec_recbole.data.source import ITEM, USER
from alignrec_recbole.data.split_manifest import SUFFIX, Origin, SplitManifest, read_split_manifest
from alignrec_recbole.data.splits import only_later, parts_of
from alignrec_recbole.errors import DataError, SettingError, WriteError
from alignrec_recbole.features.mmrec import read_mapping
from alignrec_recbole.io.files import atomic_write, inside, sha256_file
from alignrec_recbole.io.folders import scratch_folder
from alignrec_recbole.io.names import check_name
from alignrec_recbole.io.tsv import check_lines, read_cells, read_header

USERS, ITEMS = "rekeyed_users.tsv", "rekeyed_items.tsv"
OLD, NEW = "old", "new"


@dataclass(frozen=True)
class Rows:
    """Interactions as they are written: every column as text, and the labels as numbers."""

    header: list[str]
    cells: pd.DataFrame
    user: str
    item: str
    labels: np.ndarray

    def split_sha256(self) -> str:
        """The hash of the split, whatever the order of the rows."""
        rows = zip(self.cells[self.user], self.cells[self.item], self.labels, strict=True)
        return split_sha256(rows)


@dataclass(frozen=True)
class Rekeyed:
    """A re-keyed data set.

    Attributes:
        folder: of it.
        manifest: of its split.
        said: what was done, in sentences for people.
    """

    folder: Path
    manifest: SplitManifest
    said: list[str]


def rekey(folder: Path, name: str, root: Path, seed: int) -> Rekeyed:
    """Write a data set under random numbers to `root/NAME-rekeyed-SEED`, whole or not at all.

    If that is there with the same interactions, it gets the files that it does not have yet, such
    as features that were encoded since.

    Args:
        folder: of the data set, with `NAME.inter` and its labels.
        name: of the data set.
        root: folder of data sets to write to.
        seed: of the numbers.

    Raises:
        SettingError: the seed is out of range.
        DataError: the data set has no split of its own, is damaged, or there is another of the new
            name.
        FeatureError: a feature file does not fit its manifest.
        WriteError: the folder cannot be written to.
    """
    if not 0 <= seed <= MAX_SEED:
        raise SettingError(
            "The seed of new numbers is out of range.", found=str(seed), expected=f"0 to {MAX_SEED}"
        )
    if origin_of(name):
        raise DataError(
            f"Data set {name!r} is re-keyed already.",
            expected="the data set that it was made of",
            hint="choose another seed for that one",
        )
    new_name = rekeyed_name(name, seed)
    target = inside(root, check_name(new_name, "data set", DataError))
    rows = read_rows(folder / f"{name}.inter")
    made = _made(folder, name)
    users, items, last, originals = _ids(folder, name, rows)
    new_users = number_ids(users, "random", (seed, 0))
    new_items = _last_in(number_ids(items, "random", (seed, 1)), last)
    with scratch_folder(target) as scratch:
        numbers = {"u": new_users, "i": new_items}
        said = _write(rows, folder, name, scratch, new_name, numbers, originals)
        manifest = _manifest(rows, folder / f"{name}.inter", made, scratch, new_name, name, seed)
        with atomic_write(scratch / f"{new_name}{SUFFIX}", "w") as handle:
            handle.write(manifest.model_dump_json(indent=2) + "\n")
        _check(rows, scratch, new_name, manifest)
        try:
            os.rename(scratch, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise WriteError(
                    f"{target.name} could not be made.",
                    found=f"{error.strerror} in {target.parent}",
                    expected="a folder this user may write to",
                ) from error
            said = [*_complete(scratch, target, new_name, manifest), *said[1:]]
    return Rekeyed(target, manifest, [f"{new_name}: {said[0]}", *said[1:]])


def read_rows(path: Path) -> Rows:
    """Interactions with a split, in MMRec's or RecBole's layout, every cell as its text.

    Raises:
        DataError: as `read_interactions`, or the file has no split.
    """
    if not os.path.lexists(path):
        raise DataError(
            f"There is no {path.name} to re-key.",
            found=f"nothing at {path}",
            expected="interactions in one file, with a column x_label",
            hint="`import` makes such a file of one file per split",
        )
    header = read_header(path)
    names = {column.partition(":")[0]: column for column in header}
    found = [
        next((names[n] for n in some if n in names), None) for some in (USER_COLUMNS, ITEM_COLUMNS)
    ]
    label = names.get(LABEL_COLUMN)
    if None in found or label is None:
        raise DataError(
            f"{path.name} has no {'split' if label is None else 'users or no items'} to re-key.",
            found=f"columns {', '.join(header)}",
            expected="columns userID (or user_id), itemID (or item_id) and x_label",
            hint="a split that is drawn at each run depends on the order of the rows; `import "
            "--split` writes one with the interactions"
            if label is None
            else "rename the columns",
        )
    user, item = str(found[0]), str(found[1])
    check_lines(path, len(header))
    cells = read_cells(path, header, header)
    for column in (user, item):
        cells[column] = id_tokens(path, column, cells[column])
    check_pairs(path, cells, user, item)
    typed = ":" in label
    labels = split_labels(
        path,
        cells[label].str.strip() if typed else cells[label],
        as_numbers=label.endswith(":float"),
    )
    return Rows(header, cells, user, item, labels)


def read_mapping_back(path: Path) -> dict[str, str]:
    """New id → old id, of `rekeyed_users.tsv` or `rekeyed_items.tsv`.

    Raises:
        DataError: it is damaged.
    """
    header = read_header(path)
    check_lines(path, len(header))
    if header != [OLD, NEW]:
        raise DataError(
            f"{path.name} is no mapping of ids.",
            found=f"columns {', '.join(header)}",
            expected=f"columns {OLD}, {NEW}",
        )
    cells = read_cells(path, header, header)
    back = dict(zip(cells[NEW], cells[OLD], strict=True))
    if len(back) != len(cells) or cells[OLD].nunique() != len(cells):
        raise DataError(f"{path.name} maps an id twice.", expected="every id once")
    return back


def _made(folder: Path, name: str) -> SplitManifest | None:
    """The manifest of the origin's split, if it has one.

    Raises:
        DataError: it is that of other interactions.
    """
    made = read_split_manifest(folder, name)
    if made is not None and made.inter_sha256 != sha256_file(folder / f"{name}.inter"):
        raise DataError(
            f"{name}.inter is not the file that {name}{SUFFIX} describes.",
            found="another SHA-256",
            expected=f"{made.inter_sha256[:12]}…",
            hint=f"restore it, or delete {name}{SUFFIX}: it is then a released split",
        )
    return made


def _ids(
    folder: Path, name: str, rows: Rows
) -> tuple[list[str], list[str], set[str], dict[str, dict[str, int]]]:
    """Users and items of all files, each once, the items of the interactions, and mappings.

    The mappings are those of the source's ids, of users as "u" and of items as "i", that fit.
    """
    known = {str(token) for token in rows.cells[rows.item].unique()}
    users = {str(token) for token in rows.cells[rows.user].unique()}
    items = {*known, *row_numbers(folder, known)}
    for ids in item_tables(folder, name).values():
        items.update(ids)
    for ids in user_tables(folder, name).values():
        users.update(ids)
    for table in feature_files(folder, known):
        items.update(table.items)
    originals = {}
    for kind, tokens in (("u", users), ("i", items)):
        if numbers := _numbers(folder / f"{kind}_id_mapping.csv", tokens):
            tokens.update(map(str, numbers.values()))
            originals[kind] = numbers
    return list(users), list(items), known, originals


def _numbers(path: Path, ids: Collection[str]) -> dict[str, int]:
    """The mapping of the source's ids to the origin's; {} if there is none or it is of others."""
    if not os.path.lexists(path):
        return {}
    numbers = read_mapping(path)
    fits = {str(number) for number in numbers.values()} >= {*ids}
    return numbers if fits else {}


def _last_in(numbers: dict[str, int], items: set[str]) -> dict[str, int]:
    """The numbers with the largest one at one of `items`.

    The number of rows of a feature file without a manifest says which number is the largest.
    """
    (last, largest) = max(numbers.items(), key=lambda entry: entry[1])
    if last not in items:
        other = max(items, key=lambda token: numbers[token])
        numbers = {**numbers, last: numbers[other], other: largest}
    return numbers


def _write(
    rows: Rows,
    folder: Path,
    name: str,
    scratch: Path,
    new_name: str,
    numbers: dict[str, dict[str, int]],
    originals: dict[str, dict[str, int]],
) -> list[str]:
    """Write everything but the manifest; returns what was written, in sentences.

    Args:
        numbers: new numbers of users, "u", and of items, "i".
        originals: mappings of the source's ids, see `_ids`.
    """
    users, items = numbers["u"], numbers["i"]
    user = rows.cells[rows.user].map(users).to_numpy()
    item = rows.cells[rows.item].map(items).to_numpy()
    table = rows.cells.assign(**{rows.user: user, rows.item: item})
    order = neutral_order(user, item, rows.labels)
    write_lines(scratch / f"{new_name}.inter", rows.header, table.iloc[order])
    for file, new in ((USERS, users), (ITEMS, items)):
        pairs = sorted((number, token) for token, number in new.items())
        frame = pd.DataFrame(pairs, columns=[NEW, OLD])[[OLD, NEW]]
        write_lines(scratch / file, [OLD, NEW], frame)
    said = [f"{len(table):,} interactions of {name} under random numbers"]
    said += write_items(folder, name, scratch, new_name, items)
    said += write_users(folder, name, scratch, new_name, users)
    known = {str(token) for token in rows.cells[rows.item].unique()}
    said += write_features(folder, scratch, known, items)
    for kind, original in originals.items():
        file = f"{kind}_id_mapping.csv"
        write_mapping_of_ids(folder / file, scratch / file, original, numbers[kind])
    return said


def write_lines(path: Path, header: Sequence[str], frame: pd.DataFrame) -> None:
    """Write cells as they are, separated by tabs."""
    columns: Iterable[Sequence[object]] = (frame[name].tolist() for name in frame.columns)
    with atomic_write(path, "w") as handle:
        handle.write("\t".join(header) + "\n")
        handle.writelines("\t".join(map(str, row)) + "\n" for row in zip(*columns, strict=True))


def _manifest(
    rows: Rows,
    inter: Path,
    made: SplitManifest | None,
    scratch: Path,
    new_name: str,
    name: str,
    seed: int,
) -> SplitManifest:
    frame = rows.cells[[rows.user, rows.item]].set_axis([USER, ITEM], axis=1)
    written = read_rows(scratch / f"{new_name}.inter")
    return SplitManifest(
        dataset=new_name,
        source={inter.name: sha256_file(inter)},
        numbering="re-keyed",
        split=made.split if made else "released",
        seed=made.seed if made else seed,
        users=frame[USER].nunique(),
        items=frame[ITEM].nunique(),
        interactions=parts_of(rows.labels, len(frame)),
        cuts=made.cuts if made else None,
        only_later=only_later(frame, rows.labels),
        inter_sha256=sha256_file(scratch / f"{new_name}.inter"),
        split_sha256=written.split_sha256(),
        rekeyed=Origin(
            dataset=name,
            seed=seed,
            split_sha256=rows.split_sha256(),
            users_sha256=sha256_file(scratch / USERS),
            items_sha256=sha256_file(scratch / ITEMS),
        ),
    )


def mapped_back(folder: Path, new_name: str) -> Rows:
    """The rows of a re-keyed data set under the ids of its origin.

    Raises:
        DataError: a file is damaged, or the mapping does not have an id.
    """
    rows = read_rows(folder / f"{new_name}.inter")
    cells = rows.cells.copy()
    for file, column in ((USERS, rows.user), (ITEMS, rows.item)):
        cells[column] = cells[column].map(read_mapping_back(folder / file))
        if cells[column].isna().any():
            raise DataError(
                f"{file} does not have every id of {new_name}.inter.",
                found=f"{int(cells[column].isna().sum())} rows with others",
                expected="the file that was written with the interactions",
            )
    return Rows(rows.header, cells, rows.user, rows.item, rows.labels)


def _check(rows: Rows, scratch: Path, new_name: str, manifest: SplitManifest) -> None:
    """Compare what was written, mapped back, with the rows that were read."""
    back = mapped_back(scratch, new_name)
    if manifest.rekeyed is None or back.split_sha256() != manifest.rekeyed.split_sha256:
        raise WriteError(
            f"{new_name}.inter was not written as it should be.",
            found="mapped back, it has other rows",
            expected=f"the {len(rows.cells)} rows that were read",
            hint="is the disk damaged?",
        )


def _complete(scratch: Path, target: Path, new_name: str, manifest: SplitManifest) -> list[str]:
    """Move the files that an earlier re-keying does not have yet to it.

    Raises:
        DataError: what is there is of other interactions, items or users, or its item table does
            not name the images or audio files that would be new.
    """
    there = read_split_manifest(target, new_name) if target.is_dir() else None
    same = there is not None and (there.rekeyed, there.inter_sha256) == (
        manifest.rekeyed,
        manifest.inter_sha256,
    )
    kept = (f"{new_name}.inter", USERS, ITEMS)
    if same:
        same = all(_equal(scratch / file, target / file) for file in kept)
    if not same:
        raise DataError(
            f"There is another {new_name} already.",
            found=f"{target}, not made of these interactions, users and items",
            expected="nothing there, or the result of the same files and seed",
            hint="choose another seed, or move the folder away",
        )
    absent = [
        path
        for path in sorted(scratch.rglob("*"))
        if path.is_file() and not os.path.lexists(target / path.relative_to(scratch))
    ]
    media = [path for path in absent if path.parent.name in ("images", "audio")]
    for name in item_table_names(new_name) if media else ():
        made, there_already = scratch / name, target / name
        if made.exists() and os.path.lexists(there_already) and not _equal(made, there_already):
            raise DataError(
                f"The {name} of {new_name} does not name the files that would be new.",
                found=f"{len(media)} new files, first {media[0].relative_to(scratch)}",
                expected="the table that is written with them",
                hint="move the folder away and re-key again",
            )
    for path in absent:
        place = target / path.relative_to(scratch)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
    return [
        "its interactions were there already"
        + (f"; new: {len(absent)} files" if absent else ", and so was everything else")
    ]


def _equal(one: Path, other: Path) -> bool:
    try:
        return sha256_file(one) == sha256_file(other)
    except OSError:
        return False
