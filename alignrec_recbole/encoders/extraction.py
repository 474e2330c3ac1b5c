"""Item features made on disk: batch by batch, so that a killed run loses one batch at most.

    .NAME-IDENTITY.part/rows.npy    rows of all items, memory-mapped
    .NAME-IDENTITY.part/journal     one JSON line a finished batch, with the checksum of its rows
    NAME.npy, NAME.json             what it becomes in the end

The identity is a hash of the items, the encoder, the plan and the shard: another setting never
continues the work of this one. Memory is bounded by batches, whatever the number of items.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from alignrec_recbole.data.images import REASONS
from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders.base import Batch, ItemEncoder, Plan, make_plan, run_batches
from alignrec_recbole.errors import FeatureError, WriteError
from alignrec_recbole.features.masking import masked_items
from alignrec_recbole.features.table import (
    FeatureManifest,
    FeatureTable,
    load_features,
    save_features,
)

Hide = Literal["text", "image"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One feature file to make.

    Attributes:
        folder: where it goes.
        name: its stem.
        batch_size: items a batch; part of the identity, because rounding depends on it.
        dtype: float32 or float16, of the file.
        workers: processes that decode images.
        shard: (i, n): the i-th of n parts, merged by `merge_shards`.
        hide: the modality that is masked in every item.
        overwrite: replace a finished file of another identity.
        progress: show a bar with items/s and the time left.
    """

    folder: Path
    name: str
    batch_size: int = 32
    dtype: Literal["float32", "float16"] = "float32"
    workers: int = 0
    shard: tuple[int, int] = (1, 1)
    hide: Hide | None = None
    overwrite: bool = False
    progress: bool = True

    @property
    def stem(self) -> str:
        """The name, and which shard of it."""
        number, of = self.shard
        return self.name if of == 1 else f"{self.name}.shard-{number}-of-{of}"

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / f"{self.stem}.npy"


def identity(encoder: ItemEncoder, items: ItemTable, job: Job) -> str:
    """SHA-256 of all that the rows depend on."""
    parts = {
        "items": items.content_hash(),
        "encoder": [encoder.name, encoder.settings],
        "batch_size": job.batch_size,
        "dtype": job.dtype,
        "hide": job.hide,
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def extract(
    encoder: ItemEncoder,
    items: ItemTable,
    job: Job,
    seen_images: np.ndarray | None = None,
) -> FeatureTable:
    """Make the feature file of a job, going on where an earlier call was stopped.

    A finished file of the same identity is returned as it is.

    Args:
        encoder: for single items.
        items: the whole table, whatever the shard.
        job: see there.
        seen_images: bool [n], which items have a readable image; needed to hide them.

    Raises:
        FeatureError: a finished file of another identity is in the way, or nothing is encodable.
        WriteError: another process is at the same work, or the disk is full.
    """
    digest = identity(encoder, items, job)
    done = finished(job.path, digest, job.overwrite)
    if done is not None:
        return done
    plan = make_plan(encoder, items, job.batch_size)
    if job.shard[1] > max(1, len(plan.batches)):
        raise FeatureError(
            "There are more shards than batches.",
            found=f"{job.shard[1]} shards, {len(plan.batches)} batches of {job.batch_size} items",
            expected="a batch for every shard",
            hint="fewer shards, or a smaller --batch-size",
        )
    mine = plan.shard(*job.shard)
    part = job.folder / f".{job.stem}-{digest[:12]}.part"
    with _Store.open(part, len(items.ids), encoder.width, job.dtype, plan) as store:
        todo = [k for k in mine if k not in store.batches]
        total = sum(len(plan.batches[k]) for k in mine)
        before = sum(len(plan.batches[k]) for k in store.batches)
        if before:
            logger.info("%s: going on after %d of %d items", job.stem, before, total)
        with tqdm(
            total=total, initial=before, desc=job.stem, unit="item", disable=not job.progress
        ) as bar:
            for number, batch in zip(
                todo,
                run_batches(
                    encoder,
                    items,
                    plan,
                    todo,
                    workers=job.workers,
                    hide=job.hide,
                    seen_images=seen_images,
                ),
                strict=True,
            ):
                store.add(number, batch)
                bar.update(len(batch.items))
        members = _members(plan, mine, len(items.ids), job.shard)
        _finish(encoder, items, job, digest, plan, store, members)
    shutil.rmtree(part)
    return load_features(job.path)


def _members(plan: Plan, mine: list[int], n: int, shard: tuple[int, int]) -> np.ndarray:
    """The shard's items in table order; those that no batch has are dealt out in turn."""
    planned = np.zeros(n, dtype=bool)
    for batch in plan.batches:
        planned[batch] = True
    rest = np.flatnonzero(~planned)[shard[0] - 1 :: shard[1]]
    return np.sort(np.concatenate([rest, *(plan.batches[k] for k in mine)])).astype(np.int64)


def finished(path: Path, digest: str, overwrite: bool) -> FeatureTable | None:
    """The features at a path, if they are of this identity; None where they are still to be made.

    Raises:
        FeatureError: others are in the way, and may not be overwritten.
    """
    if not path.is_file():
        return None
    try:
        table = load_features(path)
    except FeatureError:
        if overwrite:
            return None
        raise
    if table.manifest.settings.get("identity") == digest:
        logger.info("%s is finished already", path)
        return table
    if overwrite:
        return None
    raise FeatureError(
        f"{path.name} is there and was made from other items or settings.",
        found=f"{table.manifest.encoder}, {table.manifest.shape[0]} rows, in {path.parent}",
        expected="a new name, or a file of this very job",
        hint="pass --name NAME, or --overwrite to replace it",
    )


def _finish(
    encoder: ItemEncoder,
    items: ItemTable,
    job: Job,
    digest: str,
    plan: Plan,
    store: _Store,
    members: np.ndarray,
) -> None:
    text, image = store.has_text, store.has_image
    present = text | image
    if not present[members].any() and job.hide is None and job.shard[1] == 1:
        raise FeatureError(
            f"{items.source} has nothing for the encoder {encoder.name}.",
            found=f"{len(items.ids)} items; images: {dict(store.reasons) or 'none named'}",
            expected="item texts, or image files in images/ beside the table",
        )
    fused = encoder.modality == "fused"

    def tokens(mask: np.ndarray) -> list[str]:
        return [items.ids[i] for i in members[mask[members]]]

    settings = {
        **encoder.settings,
        **plan.facts,
        "batch_size": job.batch_size,
        "items_table_sha256": items.content_hash(),
        "text_columns": items.text_columns,
        "images": {
            "read": int(image[members].sum()),
            "not named": sum(items.images[i] is None for i in members),
            **{reason: store.reasons[reason] for reason in REASONS if store.reasons[reason]},
        },
        "identity": digest,
    }
    if job.hide:
        settings["masked"] = {"modality": job.hide, "ratio": 1.0}
    if job.shard[1] > 1:
        settings["shard"] = list(job.shard)
    whole = len(members) == len(items.ids)
    save_features(
        job.path,
        store.rows if whole else store.rows[members],
        name=job.stem,
        modality=encoder.modality,
        encoder=encoder.name,
        settings=json.loads(json.dumps(settings, default=str)),
        source=items.source,
        items=[items.ids[i] for i in members],
        missing=tokens(~present),
        without_text=tokens(image & ~text) if fused else [],
        without_image=tokens(text & ~image) if fused else [],
        notes=encoder.notes,
    )


class _Store:
    """Rows on disk and the journal of finished batches."""

    def __init__(self, part: Path, n: int, width: int, dtype: str, plan: Plan) -> None:
        self.journal_path, rows = part / "journal", part / "rows.npy"
        self.plan = plan
        self.has_text, self.has_image = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        self.reasons: Counter[str] = Counter()
        self.batches: set[int] = set()
        fresh = not rows.is_file()
        if fresh:  # renamed when complete, so that a killed run leaves no short file
            new = part / "new.npy"
            np.lib.format.open_memmap(new, "w+", dtype=dtype, shape=(n, width)).flush()
            os.replace(new, rows)
        self.rows = np.lib.format.open_memmap(rows, "r+")
        if not fresh:
            self._replay()
        self.journal = open(self.journal_path, "a", encoding="utf-8")  # noqa: SIM115

    @classmethod
    @contextlib.contextmanager
    def open(cls, part: Path, n: int, width: int, dtype: str, plan: Plan) -> Iterator[_Store]:
        """Open or go on with a store; one process at a time."""
        try:
            part.mkdir(parents=True, exist_ok=True)
            lock = open(part / "lock", "w")  # noqa: SIM115
        except OSError as error:
            raise WriteError(
                f"{part.parent} cannot be written to.",
                found=str(error),
                expected="a folder this user may write to",
                hint="pass --output DIR",
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise WriteError(
                    "Another process is making the same features.",
                    found=f"a lock on {part}",
                    expected="one process a shard",
                    hint="wait for it, or give the processes different --shard i/n",
                ) from error
            store = cls(part, n, width, dtype, plan)
            try:
                yield store
            finally:
                store.journal.close()

    def add(self, number: int, batch: Batch) -> None:
        """Rows first, journal second: what the journal names is there."""
        with np.errstate(over="ignore"):
            rows = batch.rows.astype(self.rows.dtype)
        if not np.isfinite(rows).all():
            raise FeatureError(
                "The encoder's rows cannot be kept.",
                found=f"a value of {np.abs(batch.rows).max():.3g} in {self.rows.dtype}",
                expected="finite numbers",
                hint="pass --dtype float32, or another encoder",
            )
        self.rows[batch.items] = rows
        self.rows.flush()
        entry = {
            "batch": number,
            "crc": zlib.crc32(rows.tobytes()),
            "text": np.packbits(batch.has_text).tobytes().hex(),
            "image": np.packbits(batch.has_image).tobytes().hex(),
            "reasons": list(batch.reasons.values()),
        }
        self.journal.write(json.dumps(entry) + "\n")
        self.journal.flush()
        os.fsync(self.journal.fileno())
        self._note(entry)

    def _replay(self) -> None:
        """Take over finished batches; a torn last line and batches of other rows are forgotten."""
        good = []
        lines = self.journal_path.read_text("utf-8").splitlines() if self._has_journal() else []
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
                entry = json.loads(line)
                batch = self.plan.batches[entry["batch"]]
                if zlib.crc32(np.ascontiguousarray(self.rows[batch]).tobytes()) == entry["crc"]:
                    self._note(entry)
                    good.append(line)
        if len(good) < len(lines):
            self.journal_path.write_text("".join(f"{line}\n" for line in good), "utf-8")

    def _has_journal(self) -> bool:
        return self.journal_path.is_file()

    def _note(self, entry: dict[str, Any]) -> None:
        batch = self.plan.batches[entry["batch"]]
        for kind, target in (("text", self.has_text), ("image", self.has_image)):
            bits = np.frombuffer(bytes.fromhex(entry[kind]), dtype=np.uint8)
            target[batch] = np.unpackbits(bits, count=len(batch)).astype(bool)
        self.reasons.update(entry["reasons"])
        self.batches.add(entry["batch"])


def merge_shards(
    folder: Path, name: str, items: ItemTable, overwrite: bool = False
) -> FeatureTable:
    """Join NAME.shard-i-of-n.npy into NAME.npy, in the order of the item table.

    Raises:
        FeatureError: shards are missing or of several jobs, were made from different items or
            settings, or do not hold every item once; or a NAME.npy of other ones is there and may
            not be overwritten.
    """
    found: dict[int, dict[int, Path]] = {}
    for path in folder.glob(f"{name}.shard-*-of-*.npy"):
        if match := re.fullmatch(rf"{re.escape(name)}\.shard-(\d+)-of-(\d+)", path.stem):
            found.setdefault(int(match[2]), {})[int(match[1])] = path
    complete = [of for of, parts in found.items() if parts.keys() >= set(range(1, of + 1))]
    if not complete:
        have = ", ".join(sorted(p.name for parts in found.values() for p in parts.values()))
        raise FeatureError(
            f"The shards of {name!r} are not all there.",
            found=have or f"none in {folder}",
            expected=f"{name}.shard-1-of-n.npy … {name}.shard-n-of-n.npy",
            hint="run the missing ones with --shard i/n",
        )
    if len(complete) > 1:
        raise FeatureError(
            f"There are several sets of shards of {name!r}.",
            found=" and ".join(f"all {of} of {of}" for of in sorted(complete)),
            expected="the shards of one job",
            hint="delete those that are not to be merged",
        )
    of = complete[0]
    tables = [load_features(found[of][i]) for i in range(1, of + 1)]
    first = tables[0].manifest
    ids = items.ids
    place = {item: i for i, item in enumerate(ids)}
    rows = np.concatenate(
        [[place.get(item, -1) for item in t.manifest.items or []] for t in tables]
    ).astype(np.int64)
    same = {(t.manifest.settings["identity"], t.manifest.shape[1]) for t in tables}
    if (old := first.settings["items_table_sha256"]) != (now := items.content_hash()):
        raise FeatureError(
            f"The shards of {name!r} were made from another item table.",
            found=f"items {old[:12]}…",
            expected=f"items {now[:12]}…, as {items.source} is now",
            hint="run the shards again with --overwrite",
        )
    if len(same) > 1 or not np.array_equal(np.sort(rows), np.arange(len(ids))):
        raise FeatureError(
            f"The shards of {name!r} do not belong together.",
            found=f"{len(same)} different jobs, {len(rows)} rows for {len(ids)} items",
            expected="shards of one job that hold every item once",
            hint="delete the shards of the other job and run them again",
        )
    path = folder / f"{name}.npy"
    if done := finished(path, first.settings["identity"], overwrite):
        return done
    part = folder / f".{name}.merging.npy"
    matrix = np.lib.format.open_memmap(
        part, "w+", dtype=first.dtype, shape=(len(ids), first.shape[1])
    )
    start = 0
    for table in tables:
        matrix[rows[start : start + len(table.matrix)]] = table.matrix
        start += len(table.matrix)
    images: Counter[str] = Counter()
    for table in tables:
        images.update(table.manifest.settings["images"])
    settings = {k: v for k, v in first.settings.items() if k != "shard"}

    def joined(kind: str) -> list[str]:
        named = {item for table in tables for item in getattr(table.manifest, kind)}
        return [item for item in ids if item in named]

    save_features(
        path,
        matrix,
        name=name,
        modality=first.modality,
        encoder=first.encoder,
        settings={**settings, "images": dict(images)},
        source=first.source,
        items=list(ids),
        missing=joined("missing"),
        without_text=joined("without_text"),
        without_image=joined("without_image"),
        notes=first.notes,
    )
    part.unlink()
    return load_features(path)


def mix_masked_rows(
    whole: FeatureTable, masked: FeatureTable, path: Path, hide: Hide, ratio: float, seed: int
) -> FeatureTable:
    """Rows of `whole`, those of a masked set of items replaced by `masked`'s.

    Args:
        whole: features of every item as it is.
        masked: the same items, the modality hidden in each.
        path: .npy to write.

    Raises:
        FeatureError: the two do not belong together.
    """
    a, b = whole.manifest, masked.manifest
    if a.items is None or a.items != b.items or a.shape != b.shape or a.dtype != b.dtype:
        raise FeatureError(
            f"{masked.path.name} does not mask {whole.path.name}.",
            found=f"{b.shape[0]} rows of {b.shape[1]} {b.dtype}",
            expected=f"{a.shape[0]} rows of {a.shape[1]} {a.dtype}, the same items in one order",
            hint="make both again with --overwrite",
        )
    chosen = masked_items(["", *a.items], ratio, seed)[1:]
    matrix = np.array(whole.matrix)
    matrix[chosen] = masked.matrix[chosen]

    def either(kind: str) -> list[str]:
        one, other = set(getattr(a, kind)), set(getattr(b, kind))
        picked = zip(a.items or [], chosen, strict=True)
        return [item for item, from_b in picked if item in (other if from_b else one)]

    save_features(
        path,
        matrix,
        name=path.stem,
        modality=a.modality,
        encoder=a.encoder,
        settings={
            **a.settings,
            "masked": {"modality": hide, "ratio": ratio, "seed": seed, "items": int(chosen.sum())},
            "identity": _composed_identity(a, b, ratio, seed),
        },
        source=a.source,
        items=a.items,
        missing=either("missing"),
        without_text=either("without_text"),
        without_image=either("without_image"),
        notes=a.notes,
    )
    return load_features(path)


def _composed_identity(a: FeatureManifest, b: FeatureManifest, ratio: float, seed: int) -> str:
    return hashlib.sha256(f"{a.sha256} {b.sha256} {ratio!r} {seed}".encode()).hexdigest()


def seen_images(table: FeatureTable) -> np.ndarray:
    """bool [n]: the items of a fused feature file that have a readable image."""
    without = {*table.manifest.missing, *table.manifest.without_image}
    return np.array([item not in without for item in table.manifest.items or []], dtype=bool)
