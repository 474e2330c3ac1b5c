"""Feature files of an item table: extracted (resumed, in shards, masked), merged and mixed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ValidationError
from tqdm.auto import tqdm

from alignrec_recbole.data.images import REASONS
from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders.base import ItemEncoder
from alignrec_recbole.encoders.batches import Plan, make_plan, run_batches
from alignrec_recbole.encoders.encode import encode_items, encoder_identity, save_encoded
from alignrec_recbole.encoders.feature_writer import Content, FeatureWriter
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.masking import masked_items
from alignrec_recbole.features.table import (
    BLOCK,
    FeatureTable,
    check_manifest_name,
    load_features,
)
from alignrec_recbole.io.opening import is_regular_file

MaskedModality = Literal["text", "image"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractionSpec:
    """One feature file to make.

    Attributes:
        folder: that it is written to.
        name: its stem.
        batch_size: items per batch; part of the identity, because rounding depends on it.
        dtype: float32 or float16, of the file.
        workers: processes that decode images.
        shard: (i, n): the i-th of n parts, to be merged by `merge_shards`.
        mask_modality: the modality that is masked in every item.
        overwrite: replace a finished file of another identity.
        progress: show a bar with items/s and the time left.
    """

    folder: Path
    name: str
    batch_size: int = 32
    dtype: Literal["float32", "float16"] = "float32"
    workers: int = 0
    shard: tuple[int, int] = (1, 1)
    mask_modality: MaskedModality | None = None
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


@dataclass(frozen=True)
class Identity:
    """What a feature file was made from.

    Attributes:
        digest: SHA-256 of all that the rows depend on.
        by_image_size: the same with images by name and size instead of their bytes, as earlier
            versions stored it.
        reads_images: whether the rows depend on images, or on audio files.
        earlier_name: the encoder's name when it computed other rows with the same model.
    """

    digest: str
    by_image_size: str
    reads_images: bool
    earlier_name: str | None = None


def _sha256(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _identity(encoder: ItemEncoder, items: ItemTable, spec: ExtractionSpec) -> Identity:
    reads_files = encoder.decode is not None

    def digest(items_hash: str) -> str:
        return _sha256(
            {
                "items": items_hash,
                "encoder": [encoder.name, encoder.settings],
                "batch_size": spec.batch_size,
                "dtype": spec.dtype,
                "hide": spec.mask_modality,
            }
        )

    now = items.content_hash(images=reads_files)
    earlier = digest(items.name_and_size_hash())
    return Identity(digest(now), earlier, reads_files, encoder.earlier_name)


def existing_output(path: Path, identity: Identity, overwrite: bool) -> FeatureTable | None:
    """The features at a path, if they are of this identity; None if they are to be made.

    Raises:
        FeatureError: other features are there, and may not be overwritten, or a file of something
            else has the name of the manifest.
    """
    if not os.path.lexists(path):
        check_manifest_name(path)
        return None
    try:
        table = load_features(path)
    except FeatureError:
        if overwrite:
            check_manifest_name(path)
            return None
        raise
    found = table.manifest.settings.get("identity")
    earlier = found == identity.by_image_size != identity.digest
    if found == identity.digest or (earlier and not identity.reads_images):
        logger.info("%s is finished already", path)
        return table
    if overwrite:
        return None
    if earlier:
        raise FeatureError(
            f"{path.name} was made by an earlier version, which did not check the images' content.",
            found="an identity that covers names and sizes of the images",
            expected="one that covers their bytes: an image replaced since then may have gone "
            "unnoticed",
            hint="pass --overwrite to encode the items again, or --name NAME to keep both",
        )
    if identity.earlier_name is not None and table.manifest.encoder == identity.earlier_name:
        raise FeatureError(
            f"{path.name} was made by an earlier version, with the mean over the tokens.",
            found=f"{table.manifest.encoder}, {table.manifest.settings.get('pooling')} pooling and "
            "no prompt, whatever the model's files say",
            expected="pooling, prompt and normalisation of the model's own files",
            hint="the file can still be used by its name; pass --overwrite to encode the items "
            "again, or --name NAME to have both",
        )
    raise FeatureError(
        f"{path.name} was made from other items or settings.",
        found=f"{table.manifest.encoder}, {table.manifest.shape[0]} rows, in {path.parent}",
        expected="a new name, or a file of the same items and settings",
        hint="pass --name NAME, or --overwrite to replace it",
    )


def extract(
    encoder: ItemEncoder,
    items: ItemTable,
    spec: ExtractionSpec,
    readable_images: np.ndarray | None = None,
) -> FeatureTable:
    """Make a feature file with an encoder of single items, resuming an interrupted call.

    A finished file of the same identity is returned as it is.

    Args:
        items: the whole table, whatever the shard.
        readable_images: bool [n]; which items have a readable image, needed to mask them.

    Raises:
        FeatureError: a finished file of another identity exists, or nothing can be encoded.
        WriteError: another process makes the same features, or the disk is full.
    """
    items = items.with_files(encoder.media)
    identity = _identity(encoder, items, spec)
    if done := existing_output(spec.path, identity, spec.overwrite):
        return done
    plan = make_plan(encoder, items, spec.batch_size)
    if spec.shard[1] > max(1, len(plan.batches)):
        raise FeatureError(
            f"{spec.shard[1]} shards are more than there are batches.",
            found=f"{len(plan.batches)} batches of {spec.batch_size} items",
            expected="a batch for every shard",
            hint="use fewer shards, or a smaller --batch-size",
        )
    numbers = plan.shard(*spec.shard)
    part = spec.folder / f".{spec.stem}-{identity.digest[:12]}.part"
    n = len(items.ids)
    with FeatureWriter.open(
        part, plan.batches, n=n, f=encoder.width, dtype=spec.dtype, identity=identity.digest
    ) as writer:
        _encode(encoder, items, spec, plan, numbers, writer, readable_images)
        members = _members(plan, numbers, n, spec.shard)
        if spec.shard[1] == 1 and not spec.mask_modality and not writer.content.present.any():
            raise FeatureError(
                f"{items.source} has nothing for the encoder {encoder.name}.",
                found=f"{n} items; images: {dict(writer.reasons) or 'none named'}",
                expected="item texts, or image files in images/ beside the table",
            )
        return writer.finish(
            spec.path,
            items.ids,
            modality=encoder.modality,
            encoder=encoder.name,
            settings=_settings(encoder, items, spec, plan, identity, writer, members),
            source=items.source,
            notes=encoder.notes,
            members=members,
        )


def _encode(
    encoder: ItemEncoder,
    items: ItemTable,
    spec: ExtractionSpec,
    plan: Plan,
    numbers: Sequence[int],
    writer: FeatureWriter,
    readable_images: np.ndarray | None,
) -> None:
    """The batches of these numbers that the writer does not have yet."""
    todo = [k for k in numbers if k not in writer.done]
    total = sum(len(plan.batches[k]) for k in numbers)
    before = sum(len(plan.batches[k]) for k in writer.done)
    if before:
        logger.info("%s: resuming after %d of %d items", spec.stem, before, total)
    batches = run_batches(
        encoder,
        items,
        plan,
        todo,
        workers=spec.workers,
        mask_modality=spec.mask_modality,
        readable_images=readable_images,
    )
    with tqdm(
        total=total, initial=before, desc=spec.stem, unit="item", disable=not spec.progress
    ) as bar:
        for k, batch in zip(todo, batches, strict=True):
            writer.add(k, batch.rows, batch.has_text, batch.has_image, batch.reasons.values())
            bar.update(len(batch.items))


def _members(plan: Plan, numbers: list[int], n: int, shard: tuple[int, int]) -> np.ndarray:
    """The shard's items in table order; items without content are distributed in turn."""
    planned = np.zeros(n, dtype=bool)
    for batch in plan.batches:
        planned[batch] = True
    rest = np.flatnonzero(~planned)[shard[0] - 1 :: shard[1]]
    return np.sort(np.concatenate([rest, *(plan.batches[k] for k in numbers)])).astype(np.int64)


def _settings(
    encoder: ItemEncoder,
    items: ItemTable,
    spec: ExtractionSpec,
    plan: Plan,
    identity: Identity,
    writer: FeatureWriter,
    members: np.ndarray,
) -> dict[str, Any]:
    reasons = writer.reasons
    settings = {
        **encoder.settings,
        **plan.stats,
        "batch_size": spec.batch_size,
        "items_table_sha256": items.content_hash(images=identity.reads_images),
        "text_columns": items.text_columns,
        "images": _in_order(  # or audio files
            {
                "read": int(writer.content.has_image[members].sum()),
                "not named": sum(items.images[i] is None for i in members),
                **{reason: count for reason, count in reasons.items() if count},
            }
        ),
        "identity": identity.digest,
    }
    if spec.mask_modality:
        settings["masked"] = {"modality": spec.mask_modality, "ratio": 1.0}
    if spec.shard[1] > 1:
        settings["shard"] = list(spec.shard)
    return settings


def _in_order(images: Mapping[str, int]) -> dict[str, int]:
    """How many images were read, not named and not used, by reason."""
    first = ("read", "not named")
    others = sorted((reason for reason in images if reason not in first), key=_rank)
    return {what: images[what] for what in (*first, *others) if what in images}


def _rank(reason: str) -> tuple[int, str]:
    """Reasons of images in the order of REASONS, then those of audio files alone."""
    return REASONS.index(reason) if reason in REASONS else len(REASONS), reason


def extract_whole_table(name: str, items: ItemTable, spec: ExtractionSpec) -> FeatureTable:
    """Make a feature file with an encoder that needs all items at once, such as lsa.

    Raises:
        FeatureError: a finished file of another identity exists.
    """
    encoder = encoder_identity(name, items)
    now, earlier = items.content_hash(images=False), items.name_and_size_hash()
    identity = Identity(
        _sha256([encoder, now, spec.dtype]), _sha256([encoder, earlier, spec.dtype]), False
    )
    if done := existing_output(spec.path, identity, spec.overwrite):
        return done
    encoded = encode_items(name, items, progress=spec.progress)
    stored = replace(encoded, matrix=encoded.matrix.astype(spec.dtype))
    return save_encoded(spec.path, stored, items, spec.name, identity=identity.digest)


def merge_shards(
    folder: Path, name: str, items: ItemTable, overwrite: bool = False
) -> FeatureTable:
    """Join NAME.shard-i-of-n.npy into NAME.npy, in the order of the item table.

    Raises:
        FeatureError: shards are missing or of different settings, were made from another item
            table, or do not hold every item once; or a NAME.npy of others exists and may not be
            overwritten.
    """
    tables = [load_features(path) for path in _find_shards(folder, name)]
    first = tables[0].manifest
    reads_images = first.modality != "text"
    items = items.with_files("audio" if first.modality == "audio" else "image")
    shards = [_shard_settings(table) for table in tables]
    _check_item_table(name, shards, items, reads_images)
    blocks = _check_rows(name, tables, shards, items)
    identity = Identity(shards[0].identity, shards[0].identity, reads_images)
    path = folder / f"{name}.npy"
    if done := existing_output(path, identity, overwrite):
        return done
    images: Counter[str] = Counter()
    for shard in shards:
        images.update(shard.images)
    settings = {k: v for k, v in first.settings.items() if k != "shard"}
    digest = _digest_of_files(tables)
    part = folder / f".{name}-{digest[:12]}.part"
    n, f = len(items.ids), first.shape[1]
    with FeatureWriter.open(part, blocks, n=n, f=f, dtype=first.dtype, identity=digest) as writer:
        _copy_rows(tables, writer)
        return writer.finish(
            path,
            items.ids,
            modality=first.modality,
            encoder=first.encoder,
            settings={**settings, "images": _in_order(images)},
            source=first.source,
            notes=first.notes,
        )


def _find_shards(folder: Path, name: str) -> list[Path]:
    """The shards 1 … n of the only complete set."""
    found: dict[int, dict[int, Path]] = {}
    number = "([1-9][0-9]{0,5})"
    pattern = re.compile(rf"{re.escape(name)}\.shard-{number}-of-{number}\.npy")
    with contextlib.suppress(OSError):  # no folder: no shards
        for path in folder.iterdir():
            if match := pattern.fullmatch(path.name):
                found.setdefault(int(match[2]), {})[int(match[1])] = path
    complete = sorted(
        of
        for of, parts in found.items()
        if len(parts) >= of and parts.keys() >= set(range(1, of + 1))
    )
    if not complete:
        have = ", ".join(sorted(p.name for parts in found.values() for p in parts.values()))
        raise FeatureError(
            f"Shards of {name!r} are missing.",
            found=have or f"none in {folder}",
            expected=f"{name}.shard-1-of-n.npy … {name}.shard-n-of-n.npy",
            hint="run the missing ones with --shard i/n",
        )
    if len(complete) > 1:
        raise FeatureError(
            f"There are several sets of shards of {name!r}.",
            found=" and ".join(f"all {of} of {of}" for of in complete),
            expected="one set",
            hint="delete those that are not to be merged",
        )
    return [found[complete[0]][i] for i in range(1, complete[0] + 1)]


class ShardSettings(BaseModel):
    """What `extract` wrote into a shard's manifest and merging needs."""

    identity: str
    items_table_sha256: str
    images: dict[str, int]


def _shard_settings(table: FeatureTable) -> ShardSettings:
    try:
        return ShardSettings.model_validate(table.manifest.settings)
    except ValidationError as error:
        first = error.errors()[0]
        path = table.path.with_suffix(".json")
        raise FeatureError(
            f"The manifest of the shard {table.path.name} is incomplete.",
            found=f"settings.{'.'.join(map(str, first['loc']))}: {first['msg']}"
            if is_regular_file(path)
            else f"no {path.name}",
            expected="the manifest that `prepare --shard` wrote",
            hint=f"make the shard again, after deleting {table.path}",
        ) from error


def _check_item_table(
    name: str, shards: Sequence[ShardSettings], items: ItemTable, reads_images: bool
) -> None:
    """Refuse shards of another item table."""
    now = items.content_hash(images=reads_images)
    allowed = {now} if reads_images else {now, items.name_and_size_hash()}
    for shard in shards:
        found = shard.items_table_sha256
        if found not in allowed:
            earlier = found == items.name_and_size_hash()
            raise FeatureError(
                f"The shards of {name!r} were made from another item table.",
                found=f"items {found[:12]}…"
                + (", a hash that did not cover the bytes of images" if earlier else ""),
                expected=f"items {now[:12]}…, as {items.source} is now",
                hint="run the shards again with --overwrite",
            )


def _check_rows(
    name: str,
    tables: Sequence[FeatureTable],
    shards: Sequence[ShardSettings],
    items: ItemTable,
) -> list[np.ndarray]:
    """The item indices of each shard's rows; refuses shards that are not parts of one file."""
    index = {item: i for i, item in enumerate(items.ids)}
    rows = [
        np.array([index.get(item, -1) for item in table.manifest.items or []], dtype=np.int64)
        for table in tables
    ]
    same = {
        (shard.identity, table.manifest.shape[1], table.manifest.dtype, table.manifest.modality)
        for table, shard in zip(tables, shards, strict=True)
    }
    joined = np.concatenate(rows)
    if len(same) > 1 or not np.array_equal(np.sort(joined), np.arange(len(items.ids))):
        raise FeatureError(
            f"The shards of {name!r} do not belong together.",
            found=f"{len(same)} different settings, {len(joined)} rows for {len(items.ids)} items",
            expected="shards of the same settings that hold every item once",
            hint="delete the shards of other settings and run them again",
        )
    return [block[start : start + BLOCK] for block in rows for start in range(0, len(block), BLOCK)]


def _copy_rows(tables: Sequence[FeatureTable], writer: FeatureWriter) -> None:
    """All rows of the shards, in blocks."""
    number = 0
    for table in tables:
        content = Content.of(table, table.manifest.items or [])
        for start in range(0, len(table.matrix), BLOCK):
            rows = slice(start, start + BLOCK)
            if number not in writer.done:
                writer.add(
                    number, table.matrix[rows], content.has_text[rows], content.has_image[rows]
                )
            number += 1


def _digest_of_files(tables: Sequence[FeatureTable]) -> str:
    return _sha256([table.manifest.sha256 for table in tables])


def mix_masked_rows(
    whole: FeatureTable,
    masked: FeatureTable,
    path: Path,
    modality: MaskedModality,
    ratio: float,
    seed: int,
) -> FeatureTable:
    """Rows of `whole`, those of the masked items replaced by `masked`'s.

    Args:
        whole: features of every item as it is.
        masked: the same items, the modality masked in each.
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
    identity = hashlib.sha256(f"{a.sha256} {b.sha256} {ratio!r} {seed}".encode()).hexdigest()
    blocks = [np.flatnonzero(~chosen), np.flatnonzero(chosen)]
    part = path.parent / f".{path.stem}-{identity[:12]}.part"
    n, f = a.shape
    with FeatureWriter.open(part, blocks, n=n, f=f, dtype=a.dtype, identity=identity) as writer:
        for number, table in enumerate((whole, masked)):
            content, rows = Content.of(table, a.items), blocks[number]
            writer.add(number, table.matrix[rows], content.has_text[rows], content.has_image[rows])
        return writer.finish(
            path,
            a.items,
            modality=a.modality,
            encoder=a.encoder,
            settings={
                **a.settings,
                "masked": {
                    "modality": modality, "ratio": ratio, "seed": seed, "items": int(chosen.sum()),
                },
                "identity": identity,
            },
            source=a.source,
            notes=a.notes,
        )  # fmt: skip


def readable_images(table: FeatureTable) -> np.ndarray:
    """bool [n]: the items of a fused feature file that have a readable image."""
    return Content.of(table, table.manifest.items or []).has_image
