"""Feature files written block by block, so that a killed run loses one block at most.

    .NAME-IDENTITY.part/rows.npy    rows of all items, memory-mapped
    .NAME-IDENTITY.part/journal     one JSON line per finished block, with the checksum of its rows
    NAME.npy, NAME.json             the finished file and its manifest

The identity is a hash of all that the rows depend on: work under other settings is never continued.
Memory is bounded by a block, whatever the number of items.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from alignrec_recbole.errors import FeatureError, WriteError
from alignrec_recbole.features.table import (
    FeatureTable,
    Modality,
    load_features,
    save_features,
)


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

    def __init__(self, part: Path, blocks: Sequence[np.ndarray], n: int, f: int, dtype: str):
        self.part, self.blocks, self._finished = part, blocks, False
        self.content, self.reasons, self.done = Content.empty(n), Counter[str](), set[int]()
        rows = part / "rows.npy"
        begun = rows.is_file()
        if not begun:  # renamed when complete, so that a killed run leaves no short file
            new = part / "new.npy"
            np.lib.format.open_memmap(new, "w+", dtype=dtype, shape=(n, f)).flush()
            os.replace(new, rows)
        self.rows = np.lib.format.open_memmap(rows, "r+")
        if begun:
            self._replay()
        self._journal = open(part / "journal", "a", encoding="utf-8")  # noqa: SIM115

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, part: Path, blocks: Sequence[np.ndarray], *, n: int, f: int, dtype: str
    ) -> Iterator[FeatureWriter]:
        """Begin or continue the rows [n, f] in the folder `part`; one process at a time.

        Args:
            blocks: item indices of each block; those of finished blocks must not have changed.

        Raises:
            WriteError: another process has the folder open, or it cannot be written to.
        """
        lock = FileLock(part / "lock", timeout=0)
        try:
            part.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise WriteError(
                "Another process is making the same features.",
                found=f"a lock on {part}",
                expected="one process per shard",
                hint="wait for it, or give the processes different --shard i/n",
            ) from error
        except OSError as error:
            raise WriteError(
                f"{part.parent} cannot be written to.",
                found=str(error),
                expected="a folder this user may write to",
                hint="pass --output DIR",
            ) from error
        finished = False
        try:
            writer = cls(part, blocks, n, f, dtype)
            try:
                yield writer
            finally:
                writer._journal.close()
                finished = writer._finished
                del writer.rows  # closed, so that Windows can delete the file
        finally:
            lock.release()
        if finished:
            shutil.rmtree(part)

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
        self.rows.flush()
        entry = {
            "batch": number,
            "crc": zlib.crc32(stored.tobytes()),
            "text": np.packbits(has_text).tobytes().hex(),
            "image": np.packbits(has_image).tobytes().hex(),
            "reasons": list(reasons),
        }
        self._journal.write(json.dumps(entry) + "\n")
        self._journal.flush()
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
        """Take finished blocks from the journal, without torn lines and blocks of other rows."""
        path = self.part / "journal"
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        good = []
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
                entry = json.loads(line)
                block = self.blocks[entry["batch"]]
                if zlib.crc32(np.ascontiguousarray(self.rows[block]).tobytes()) == entry["crc"]:
                    self._take(entry)
                    good.append(line)
        if len(good) < len(lines):
            path.write_text("".join(f"{line}\n" for line in good), "utf-8")

    def _take(self, entry: Mapping[str, Any]) -> None:
        block = self.blocks[entry["batch"]]
        for key, target in (("text", self.content.has_text), ("image", self.content.has_image)):
            bits = np.frombuffer(bytes.fromhex(entry[key]), dtype=np.uint8)
            target[block] = np.unpackbits(bits, count=len(block)).astype(bool)
        self.reasons.update(entry["reasons"])
        self.done.add(entry["batch"])
