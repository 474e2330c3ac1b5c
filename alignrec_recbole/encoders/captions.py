"""Captions of a table's images as an item table of their own, made once and resumed.

NAME.tsv                        item_id and caption, in the order of the item table
NAME.json                       what made it, from what, and which items have none and why
.NAME-IDENTITY.part/journal     one JSON line per finished batch, with a checksum
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import logging
import os
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm.auto import tqdm

from alignrec_recbole.data.images import whole
from alignrec_recbole.data.items import ItemTable, read_item_table
from alignrec_recbole.encoders.batches import decode_ahead
from alignrec_recbole.encoders.captioner import Captioner
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.io.files import atomic_write, named_write_errors, sha256_file
from alignrec_recbole.io.locks import one_process_only
from alignrec_recbole.io.opening import read_bytes, read_json

MAX_JOURNAL_BYTES = 1 << 30

logger = logging.getLogger(__name__)


class CaptionManifest(BaseModel):
    """What a table of captions is; stored as JSON beside it."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    kind: Literal["captions"] = "captions"
    name: str
    model: str
    settings: dict[str, Any]  # enough to make the captions again
    source: str  # the item table
    items_table_sha256: str
    identity: str  # hash of all that the captions depend on
    images: dict[str, int]  # read, not named, and why others have no caption
    missing: list[str]  # items without a caption
    sha256: str  # of the table


@dataclass(frozen=True)
class CaptionSpec:
    """One table of captions to make.

    Attributes:
        folder: that it is written to.
        name: its stem.
        batch_size: images per batch; part of the identity, because rounding depends on it.
        workers: processes that decode images.
        overwrite: replace finished captions of another identity.
        progress: show a bar.
    """

    folder: Path
    name: str
    batch_size: int = 32
    workers: int = 0
    overwrite: bool = False
    progress: bool = True

    @property
    def path(self) -> Path:
        """The table."""
        return self.folder / f"{self.name}.tsv"


@dataclass
class _Done:
    """What is in the journal: captions and reasons by item index, numbers of batches."""

    captions: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    batches: set[int] = field(default_factory=set)


def write_captions(
    captioner: Captioner, items: ItemTable, spec: CaptionSpec
) -> tuple[ItemTable, CaptionManifest]:
    """Describe the images of a table, resuming an interrupted call; the captions as a table.

    A finished table of the same identity is returned as it is. An item without a readable image has
    an empty caption and is listed as missing.

    Raises:
        FeatureError: captions of another identity are there, or no image can be read.
        WriteError: another process makes the same captions, or the disk is full.
    """
    content = items.content_hash()
    identity = _identity(captioner, content, spec)
    part = spec.folder / f".{spec.name}-{identity[:12]}.part"
    if manifest := _existing(spec, identity, part):
        return read_item_table(spec.path), manifest
    named = [i for i, image in enumerate(items.images) if image is not None]
    batches = [named[k : k + spec.batch_size] for k in range(0, len(named), spec.batch_size)]
    with one_process_only(
        part,
        "lock",
        problem="Another process is making the same captions.",
        hint="wait for it",
    ):
        done = _read_journal(part / "journal", identity, batches)
        _describe(captioner, items, spec, batches, done, part / "journal", identity)
        if not any(done.captions.values()):
            raise FeatureError(
                f"{items.source} has no image that {captioner.name} could describe.",
                found=f"{len(named)} items name an image; {dict(Counter(done.reasons.values()))}",
                expected="image files in images/ beside the table",
            )
        manifest = _write(captioner, items, spec, done, content, identity)
    _remove(part)
    return read_item_table(spec.path), manifest


def _identity(captioner: Captioner, content: str, spec: CaptionSpec) -> str:
    made_from = {
        "items": content,
        "model": [captioner.name, captioner.settings],
        "batch_size": spec.batch_size,
    }
    text = json.dumps(made_from, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _existing(spec: CaptionSpec, identity: str, part: Path) -> CaptionManifest | None:
    """The manifest of the captions at the path, if they are of this identity and unchanged."""
    path = spec.path.with_suffix(".json")
    _check_manifest_name(spec, path)
    if not os.path.lexists(spec.path):
        return None
    if not os.path.lexists(path) and part.is_dir():  # a call was killed between the two files
        return None
    try:
        manifest = CaptionManifest.model_validate(
            read_json(path, what="manifest of captions", error=FeatureError)
        )
    except (FeatureError, ValidationError) as error:
        if spec.overwrite:
            return None
        raise _other(spec, "a table without a readable manifest of captions") from error
    if manifest.identity == identity and manifest.sha256 == sha256_file(spec.path):
        logger.info("%s is finished already", spec.path)
        return manifest
    if spec.overwrite:
        return None
    raise _other(spec, f"captions by {manifest.model}, or a table that was changed since")


def _check_manifest_name(spec: CaptionSpec, path: Path) -> None:
    """Refuse captions whose manifest would replace a file of something else, or join features.

    A manifest that is damaged, beside its captions alone, may be replaced.
    """
    features = os.path.lexists(spec.path.with_suffix(".npy"))
    if not os.path.lexists(path) and not features:
        return
    try:
        CaptionManifest.model_validate(
            read_json(path, what="manifest of captions", error=FeatureError)
        )
    except (FeatureError, ValidationError) as error:
        if os.path.lexists(spec.path) and not features:
            return
        raise FeatureError(
            f"The captions {spec.name!r} would have the name of another file.",
            found=f"{spec.name}.npy, features" if features else f"{path.name}, in {spec.folder}",
            expected=f"no {path.name}, or the manifest of {spec.path.name}",
            hint="pass --name NAME, or move the file",
        ) from error


def _other(spec: CaptionSpec, found: str) -> FeatureError:
    return FeatureError(
        f"{spec.path.name} was made from other items or settings.",
        found=f"{found}, in {spec.folder}",
        expected="a new name, or captions of the same items and settings",
        hint="pass --name NAME, or --overwrite to replace it",
    )


def _describe(
    captioner: Captioner,
    items: ItemTable,
    spec: CaptionSpec,
    batches: list[list[int]],
    done: _Done,
    path: Path,
    identity: str,
) -> None:
    """The batches that the journal does not have yet."""
    todo = [k for k in range(len(batches)) if k not in done.batches]
    total, before = sum(map(len, batches)), sum(len(batches[k]) for k in done.batches)
    if before:
        logger.info("%s: resuming after %d of %d images", spec.name, before, total)
    decoded = decode_ahead(
        whole, [[items.images[i] for i in batches[k]] for k in todo], spec.workers
    )
    bar = tqdm(total=total, initial=before, desc=spec.name, unit="image", disable=not spec.progress)
    with bar, named_write_errors(path), open(path, "ab", buffering=0) as journal:
        for k, found in zip(todo, decoded, strict=True):
            readable = [(i, d.pixels) for i, d in zip(batches[k], found, strict=True)]
            there = [(i, pixels) for i, pixels in readable if pixels is not None]
            said = _said(captioner, [pixels for _, pixels in there])
            entry = {
                "batch": k,
                "captions": dict(zip((str(i) for i, _ in there), said, strict=True)),
                "reasons": {
                    str(i): d.reason for i, d in zip(batches[k], found, strict=True) if d.reason
                },
            }
            line = json.dumps({**entry, "check": _checksum(entry, identity)}).encode() + b"\n"
            while line:
                line = line[journal.write(line) :]
            os.fsync(journal.fileno())
            _take(entry, done)
            bar.update(len(batches[k]))


def _said(captioner: Captioner, images: list[np.ndarray]) -> list[str]:
    if not images:
        return []
    try:
        return captioner.captions(images)
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise FeatureError(
            f"The model {captioner.name} failed on a batch of {len(images)} images.",
            found=f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}",
            expected="a model whose processor and sizes belong together, and enough memory",
            hint="use the complete model, or a smaller --batch-size",
        ) from error


def _checksum(entry: Mapping[str, Any], identity: str) -> int:
    return zlib.crc32(f"{identity} {json.dumps(entry)}".encode())


def _take(entry: Mapping[str, Any], done: _Done) -> None:
    done.captions.update({int(i): text for i, text in entry["captions"].items()})
    done.reasons.update({int(i): reason for i, reason in entry["reasons"].items()})
    done.batches.add(entry["batch"])


def _read_journal(path: Path, identity: str, batches: list[list[int]]) -> _Done:
    """The undamaged lines of an earlier call; others are removed, and made again."""
    done = _Done()
    if not os.path.lexists(path):
        return done
    content = read_bytes(path, what="journal", error=FeatureError, max_bytes=MAX_JOURNAL_BYTES)
    good = []
    for line in content.split(b"\n"):
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            entry = dict(json.loads(line))
            right = entry.pop("check") == _checksum(entry, identity)
            if right and entry["batch"] in range(len(batches)):
                _take(entry, done)
                good.append(line + b"\n")
    if b"".join(good) != content:
        logger.warning("%s: damaged lines are made again", path)
        with atomic_write(path) as handle:
            handle.write(b"".join(good))
    return done


def _write(
    captioner: Captioner,
    items: ItemTable,
    spec: CaptionSpec,
    done: _Done,
    content: str,
    identity: str,
) -> CaptionManifest:
    """The table, then its manifest."""
    text = io.StringIO()
    rows = csv.writer(text, delimiter="\t", lineterminator="\n")
    rows.writerow(["item_id", "caption"])
    rows.writerows([item, done.captions.get(i, "")] for i, item in enumerate(items.ids))
    data = text.getvalue().encode()
    manifest = CaptionManifest(
        name=spec.name,
        model=captioner.name,
        settings={**captioner.settings, "batch_size": spec.batch_size},
        source=items.source,
        items_table_sha256=content,
        identity=identity,
        images={
            "read": len(done.captions),
            "not named": sum(image is None for image in items.images),
            **dict(sorted(Counter(done.reasons.values()).items())),
        },
        missing=[item for i, item in enumerate(items.ids) if not done.captions.get(i)],
        sha256=hashlib.sha256(data).hexdigest(),
    )
    with contextlib.suppress(FileNotFoundError):  # never a manifest beside another table
        if spec.overwrite:
            spec.path.with_suffix(".json").unlink()
    with atomic_write(spec.path) as handle:
        handle.write(data)
    with atomic_write(spec.path.with_suffix(".json")) as handle:
        handle.write((manifest.model_dump_json(indent=1) + "\n").encode())
    return manifest


def _remove(part: Path) -> None:
    """Delete the files of unfinished captions, and their folder if nothing else is in it."""
    for name in ("journal", "lock"):
        with contextlib.suppress(OSError):
            (part / name).unlink()
    with contextlib.suppress(OSError):
        part.rmdir()
