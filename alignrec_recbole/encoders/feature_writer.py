"""Feature files written block by block, so that a killed run loses one block at most.

    .NAME-IDENTITY.part/rows.npy    rows of all items, memory-mapped, their disk space reserved
    .NAME-IDENTITY.part/journal     one JSON line per finished block, with the checksums of its
                                    rows and of the line with the identity
    NAME.npy, NAME.json             the finished file and its manifest

The identity is a hash of all that the rows depend on: work under other settings is never continued,
and a block whose rows or line are damaged is made again. Memory is bounded by a block, whatever the
number of items.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignrec_recbole.errors import AlignRecError, FeatureError
from alignrec_recbole.features.table import (
    FeatureTable,
    Modality,
    load_features,
    save_features,
)
from alignrec_recbole.io.files import atomic_write, named_write_errors, reserve
from alignrec_recbole.io.locks import one_process_only
from alignrec_recbole.io.mapped_arrays import create_array, open_array
from alignrec_recbole.io.opening import read_bytes

MAX_JOURNAL_BYTES = 1 << 30
FILES = ("rows.npy", "new.npy", "journal", "lock")  # of an unfinished feature file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Content:
    """What items have, by index in their table.

    Attributes:
        has_text, has_image: bool [n].
    """

    has_text: np.ndarray
    has_image: np.ndarray

    @classmethod
    def empty(cls, n: int) -> Content:
        """Nothing yet."""
        return cls(np.zeros(n, dtype=bool), np.zeros(n, dtype=bool))

    @classmethod
    def of(cls, table: FeatureTable, items: Sequence[str]) -> Content:
        """What a feature file says of items in this order."""
        manifest = table.manifest
        missing = set(manifest.missing)
        no_text = missing | set(manifest.without_text)
        no_image = missing | set(manifest.without_image)
        if manifest.modality == "image":
            no_text = set(items)
        elif manifest.modality != "fused":
            no_image = set(items)
        return cls(
            np.array([item not in no_text for item in items], dtype=bool),
            np.array([item not in no_image for item in items], dtype=bool),
        )

    @property
    def present(self) -> np.ndarray:
        """bool [n]: items with a text or an image."""
        return self.has_text | self.has_image


class FeatureWriter:
    """Rows on disk and the journal of finished blocks; see `open`.

    Attributes:
        rows: [n, f], memory-mapped.
        content: of the items in finished blocks.
        reasons: how many images were not used, by reason.
        done: numbers of the finished blocks.
    """

    def __init__(
        self, part: Path, blocks: Sequence[np.ndarray], rows: np.memmap, identity: str
    ) -> None:
        self.part, self.blocks, self.rows, self._identity = part, blocks, rows, identity
        n = len(rows)
        self.content, self.reasons, self.done = Content.empty(n), Counter[str](), set[int]()
        self._finished = False
        self._replay()
        # unbuffered: a line that cannot be written is not written again when the file is closed
        self._journal = open(part / "journal", "ab", buffering=0)  # noqa: SIM115

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        part: Path,
        blocks: Sequence[np.ndarray],
        *,
        n: int,
        f: int,
        dtype: str,
        identity: str,
    ) -> Iterator[FeatureWriter]:
        """Begin or continue the rows [n, f] in the folder `part`; one process at a time.

        Args:
            blocks: item indices of each block; those of finished blocks must not have changed.
            identity: hash of all that the rows depend on.

        Raises:
            FeatureError: something in the folder is no file of an earlier call.
            WriteError: another process has the folder open, it cannot be written to, or the disk
                has no space for all rows.
        """
        finished = False
        with one_process_only(
            part,
            "lock",
            problem="Another process is making the same features.",
            hint="wait for it, or give the processes different --shard i/n",
        ):
            rows = _open_rows(part, n, f, dtype)
            writer = cls(part, blocks, rows, identity)
            del rows
            try:
                yield writer
            finally:
                writer._journal.close()
                finished = writer._finished
                del writer.rows  # closed, so that Windows can delete the file
        if finished:
            _remove(part)

    def add(
        self,
        number: int,
        rows: np.ndarray,
        has_text: np.ndarray,
        has_image: np.ndarray,
        reasons: Iterable[str] = (),
    ) -> None:
        """Write the rows of block `number`, then its journal line: rows in the journal are on disk.

        Raises:
            FeatureError: a value is beyond the file's precision.
        """
        with np.errstate(over="ignore"):
            stored = rows.astype(self.rows.dtype)
        if not np.isfinite(stored).all():
            raise FeatureError(
                f"Encoder output overflows {self.rows.dtype}.",
                found=f"a value of {np.abs(rows).max():.3g}",
                expected="finite numbers",
                hint="pass --dtype float32, or another encoder",
            )
        self.rows[self.blocks[number]] = stored
        entry = {
            "batch": number,
            "crc": zlib.crc32(stored.tobytes()),
            "text": np.packbits(has_text).tobytes().hex(),
            "image": np.packbits(has_image).tobytes().hex(),
            "reasons": list(reasons),
        }
        line = json.dumps({**entry, "check": self._checksum(entry)}).encode() + b"\n"
        with named_write_errors(self.part / "journal"):
            self.rows.flush()
            while line:
                line = line[self._journal.write(line) :]
            os.fsync(self._journal.fileno())
        self._take(entry)

    def finish(
        self,
        path: Path,
        ids: Sequence[str],
        *,
        modality: Modality,
        encoder: str,
        settings: Mapping[str, Any],
        source: str,
        notes: Sequence[str] = (),
        members: np.ndarray | None = None,
    ) -> FeatureTable:
        """Write the feature file with its manifest and open it; the folder `part` is then deleted.

        Args:
            ids: tokens of all n items.
            members: int64 [m], the items that belong into the file; None: all.
        """
        text, image = self.content.has_text, self.content.has_image
        chosen = np.arange(len(ids)) if members is None else members

        def tokens(mask: np.ndarray) -> list[str]:
            return [ids[int(i)] for i in chosen[mask[chosen]]]

        fused = modality == "fused"
        save_features(
            path,
            self.rows if len(chosen) == len(ids) else self.rows[chosen],
            name=path.stem,
            modality=modality,
            encoder=encoder,
            settings=json.loads(json.dumps(dict(settings), default=str)),
            source=source,
            items=[ids[int(i)] for i in chosen],
            missing=tokens(~self.content.present),
            without_text=tokens(image & ~text) if fused else [],
            without_image=tokens(text & ~image) if fused else [],
            notes=notes,
        )
        self._finished = True
        return load_features(path)

    def _replay(self) -> None:
        """Take finished blocks from the journal, without damaged lines and blocks of other rows."""
        path = self.part / "journal"
        if not _is_own_file(path):
            return
        content = read_bytes(path, what="journal", error=FeatureError, max_bytes=MAX_JOURNAL_BYTES)
        lines, good = content.split(b"\n"), []
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, IndexError, TypeError, RecursionError):
                entry = dict(json.loads(line))
                if entry.pop("check") == self._checksum(entry) and self._has_rows(entry):
                    self._take(entry)
                    good.append(line + b"\n")
        if b"".join(good) != content:
            logger.warning(
                "%s: %d damaged lines are made again", path, len(lines) - len(good) - 1 or 1
            )
            with atomic_write(path) as handle:
                handle.write(b"".join(good))

    def _checksum(self, entry: Mapping[str, Any]) -> int:
        """Of a journal line: it belongs to this identity and has not changed."""
        return zlib.crc32(f"{self._identity} {json.dumps(entry)}".encode())

    def _has_rows(self, entry: Mapping[str, Any]) -> bool:
        """Whether the rows of a new block are those that its journal line describes."""
        number = entry["batch"]
        if number in self.done or not 0 <= number < len(self.blocks):
            return False
        return zlib.crc32(self.rows[self.blocks[number]].tobytes()) == entry["crc"]

    def _take(self, entry: Mapping[str, Any]) -> None:
        block = self.blocks[entry["batch"]]
        for key, target in (("text", self.content.has_text), ("image", self.content.has_image)):
            bits = np.frombuffer(bytes.fromhex(entry[key]), dtype=np.uint8)
            target[block] = np.unpackbits(bits, count=len(block)).astype(bool)
        self.reasons.update(entry["reasons"])
        self.done.add(entry["batch"])


def _open_rows(part: Path, n: int, f: int, dtype: str) -> np.memmap:
    """The rows of an earlier call if they are whole and of this shape, else new ones."""
    path = part / "rows.npy"
    if _is_own_file(path):
        try:
            rows = open_array(path, what="rows", error=FeatureError, mode="r+")
        except AlignRecError as error:
            logger.warning("%s is damaged, and its rows are made again: %s", path, error.found)
        else:
            if (rows.shape, rows.dtype) == ((n, f), np.dtype(dtype)):
                reserve(path, path.stat().st_size)
                return rows
            logger.warning("%s has another shape, and its rows are made again", path)
    new = part / "new.npy"  # renamed when complete, so that a killed run leaves no short file
    _is_own_file(new)
    rows = create_array(new, dtype, (n, f))
    rows.flush()
    del rows  # closed, so that Windows can rename it
    if _is_own_file(part / "journal"):
        (part / "journal").unlink()
    os.replace(new, path)
    return open_array(path, what="rows", error=FeatureError, mode="r+")


def _is_own_file(path: Path) -> bool:
    """Whether a file of an earlier call is there.

    Raises:
        FeatureError: something else is, such as a folder or a symbolic link.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISREG(mode):
        return True
    raise FeatureError(
        f"{path.name} of unfinished features is not a regular file.",
        found=str(path),
        expected="the file that an earlier call left, or none",
        hint=f"move or delete {path}; then the same command begins again",
    )


def _remove(part: Path) -> None:
    """Delete the files of an unfinished feature file, and their folder if nothing else is in it."""
    for name in FILES:
        with contextlib.suppress(OSError):
            (part / name).unlink()
    with contextlib.suppress(OSError):
        part.rmdir()
