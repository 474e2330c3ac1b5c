"""The work of the verbs `prepare` and `merge-shards`: items to feature files."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tabulate import tabulate

from alignrec_recbole.cli._next import show_first_run
from alignrec_recbole.data.dataset_paths import data_folders, find_dataset
from alignrec_recbole.data.items import ItemTable, find_item_table, read_item_table
from alignrec_recbole.encoders.base import EncoderRequest, ItemEncoder
from alignrec_recbole.encoders.extraction import (
    ExtractionSpec,
    extract,
    extract_whole_table,
    merge_shards,
    mix_masked_rows,
    readable_images,
)
from alignrec_recbole.encoders.registry import (
    ENCODER_OPTIONS,
    ENCODER_SYNTAX,
    find_encoder,
    missing_extra,
)
from alignrec_recbole.errors import DataError, SettingError, printable
from alignrec_recbole.features import mmrec
from alignrec_recbole.features.masking import masked_name
from alignrec_recbole.features.table import FeatureTable
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.names import check_name
from alignrec_recbole.runtime import hardware, memory_usage
from alignrec_recbole.runtime.threads import available_cores

if TYPE_CHECKING:
    from alignrec_recbole.cli._option_values import ItemOptions, PrepareOptions


CAPTION_OPTIONS = ("prompt", "precision")  # with --caption they are those of its model


class ItemSource(Protocol):
    """Options that say which items are read."""

    @property
    def dataset(self) -> str:
        """Name of the data set."""

    @property
    def data_path(self) -> Path | None:
        """Folder of data sets."""

    @property
    def items(self) -> Path | None:
        """An item table."""

    @property
    def images(self) -> Path | None:
        """Its images."""


def run(options: PrepareOptions) -> int:
    """Encode the items; prints a summary."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.merge:
        return merge(options)
    if options.encoder is None and options.caption is None:
        raise SettingError(
            "Option --encoder is missing.",
            expected=f"--encoder {ENCODER_SYNTAX}, or --caption MODEL",
        )
    _check_alone("--max-new-tokens", options.max_new_tokens, "--caption MODEL", options.caption)
    _check_alone("--mask-ratio", options.mask_ratio, "--mask image or text", options.mask)
    _check_alone("--mask-seed", options.mask_seed, "--mask image or text", options.mask)
    _check_alone("--mask-seed", options.mask_seed, "--mask-ratio SHARE", options.mask_ratio)
    _check_mapping(options)
    if options.encoder is None:
        _check_captions_alone(options)
    hardware.set_threads(options.threads)
    items = find_items(options)
    if options.caption is not None:
        items = _captioned(options, options.caption, items)
    if options.encoder is None:
        return 0
    folder, name = _output(options), _feature_name(options)
    job = ExtractionSpec(
        folder=folder,
        name=name,
        batch_size=options.batch_size,
        dtype=options.dtype,
        workers=_workers(options),
        shard=options.shard,
        overwrite=options.overwrite,
        progress=options.progress,
    )
    inside(folder, f"{name}.npy")
    entry = find_encoder(options.encoder)
    entry.check_options(_encoder_options(options))
    if missing := entry.missing_packages():
        raise missing_extra(entry.name, f"no package {', '.join(missing)}")
    start = time.perf_counter()
    if entry.kind == "whole_table":
        table = _whole(options, options.encoder, items, job)
    else:
        encoder = _encoder(options, options.encoder, items, job)
        if options.mask:
            table = _masked(options, options.mask, encoder, items, job)
        else:
            table = extract(encoder, items, job)
    _report(table, time.perf_counter() - start)
    _export(options, table)
    if options.shard == (1, 1):
        _show_next(options, table)
    return 0


def _check_captions_alone(options: PrepareOptions) -> None:
    """Refuse options that say how captions are encoded, where they are not."""
    given = {"export_mmrec": options.export_mmrec is not None, "dtype": options.dtype != "float32"}
    for name in [*_encoder_options(options), *(name for name, there in given.items() if there)]:
        option = f"--{name.replace('_', '-')}"
        raise SettingError(
            f"{option} is given without --encoder.",
            found=f"--caption {options.caption}, which is not encoded",
            expected=f"--encoder, which encodes the captions, or no {option}",
        )


def _check_mapping(options: ItemOptions) -> None:
    _check_alone("--mapping", options.mapping, "--export-mmrec DIR", options.export_mmrec)


def _check_alone(option: str, value: object, other: str, other_value: object) -> None:
    """Refuse an option that has an effect only with another one, which is not given.

    Args:
        other: the other option, with a value.
    """
    if value is not None and other_value is None:
        raise SettingError(
            f"{option} is given without {other.split()[0]}.",
            found=f"{option} {value}",
            expected=f"{option} with {other}",
        )


def merge(options: ItemOptions) -> int:
    """Join the parts of all shards; prints a summary."""
    _check_mapping(options)
    folder, items = _output(options), find_items(options)
    name = _feature_name(options)
    inside(folder, f"{name}.npy")
    start = time.perf_counter()
    table = merge_shards(folder, name, items, options.overwrite)
    _report(table, time.perf_counter() - start)
    _export(options, table)
    _show_next(options, table)
    return 0


def _show_next(options: ItemOptions, table: FeatureTable) -> None:
    show_first_run(
        options.dataset,
        options.data_path,
        content=True,
        features=table.path.stem,
        features_path=options.output,
    )


def _feature_name(options: ItemOptions) -> str:
    if options.name is not None:
        return check_name(options.name, "feature set")
    if options.encoder is None:
        raise SettingError("The feature set is not named.", expected="--name or --encoder")
    stem = _stem(options.encoder)
    caption = getattr(options, "caption", None)
    return stem if caption is None else f"{_stem(f'caption:{caption}')}-{stem}"


def _export(options: ItemOptions, table: FeatureTable) -> None:
    if options.export_mmrec:
        mapping = mmrec.read_mapping(options.mapping) if options.mapping else None
        print(mmrec.export(table, options.export_mmrec, mapping))


def find_items(options: ItemSource) -> ItemTable:
    """The item table that --items names, else the data set's own."""
    if options.items is not None:
        return read_item_table(options.items, options.images)
    return find_item_table(_dataset_folder(options), options.dataset)


def _dataset_folder(options: ItemSource) -> Path:
    """A data set's folder; interactions need not be there yet."""
    folder = inside(data_folders(options.data_path)[0], options.dataset)
    check_name(options.dataset, "data set", DataError)
    return folder if folder.is_dir() else find_dataset(options.dataset, options.data_path)


def _output(options: ItemOptions) -> Path:
    if options.output is not None:
        return options.output
    folder = _dataset_folder(options)
    if "site-packages" in folder.parts:
        raise SettingError(
            "Features cannot go into an installed package.",
            found=f"data set {options.dataset!r} of the recbole package",
            expected="--output DIR, and later --features-path DIR",
        )
    return folder / "features"


def _encoder(
    options: PrepareOptions, name: str, items: ItemTable, job: ExtractionSpec
) -> ItemEncoder:
    entry = find_encoder(name)
    request = EncoderRequest(
        name=name,
        device=hardware.choose_device(options.device),
        options=_encoder_options(options),
        items=items,
        fitted=job.folder / job.name,
        progress=job.progress,
    )
    return entry.load().open_encoder(request)


def _encoder_options(options: PrepareOptions) -> dict[str, Any]:
    """The options of encoders that were given."""
    names = [n for n in ENCODER_OPTIONS if options.caption is None or n not in CAPTION_OPTIONS]
    found = {name: getattr(options, name) for name in names}
    return {
        name: value for name, value in found.items() if value is not None and value is not False
    }


def _workers(options: PrepareOptions) -> int:
    return max(0, available_cores() - 1) if options.workers is None else options.workers


def _captioned(options: PrepareOptions, model: str, items: ItemTable) -> ItemTable:
    """The items with captions of their images as texts; prints a summary."""
    from alignrec_recbole.encoders.captioner import MAX_NEW_TOKENS, Captioner
    from alignrec_recbole.encoders.captions import CaptionSpec, write_captions

    if options.shard != (1, 1) or options.mask:
        raise SettingError(
            "--caption cannot be combined with --shard or --mask.",
            found="a part of the items; captions are made of all images at once",
            expected="--caption alone; then --items CAPTIONS.tsv with the other option",
        )
    name = _stem(f"caption:{model}")
    if options.encoder is None and options.name is not None:
        name = check_name(options.name, "captions")
    spec = CaptionSpec(
        folder=options.output or _output(options).with_name("captions"),
        name=name,
        batch_size=options.batch_size,
        workers=_workers(options),
        overwrite=options.overwrite,
        progress=options.progress,
    )
    inside(spec.folder, f"{name}.tsv")
    start = time.perf_counter()
    captioner = Captioner(
        model,
        hardware.choose_device(options.device),
        options.prompt,
        options.max_new_tokens or MAX_NEW_TOKENS,
        options.precision == "bfloat16",
    )
    table, manifest = write_captions(captioner, items, spec)
    seconds = time.perf_counter() - start
    rows: list[list[Any]] = [
        ["captions", len(table.ids) - len(manifest.missing)],
        ["without caption", len(manifest.missing)],
        *([f"images {what}", count] for what, count in manifest.images.items()),
        ["seconds", f"{seconds:.1f} ({len(table.ids) / seconds:.1f} items/s)"],
        ["peak memory", f"{memory_usage.peak_rss_bytes() / 2**20:.0f} MiB"],
    ]
    print(tabulate(rows, tablefmt="plain"))
    print(printable(str(spec.path)))
    return table


def _masked(
    options: PrepareOptions,
    modality: Literal["image", "text"],
    encoder: ItemEncoder,
    items: ItemTable,
    job: ExtractionSpec,
) -> FeatureTable:
    """A masked variant: one pass with everything masked, shared by all ratios and seeds."""
    if job.shard != (1, 1):
        raise SettingError("--mask cannot be combined with --shard.", expected="--mask alone")
    whole = extract(encoder, items, job)
    hidden = replace(job, name=masked_name(job.name, modality), mask_modality=modality)
    seen = readable_images(whole) if encoder.masks_images else None
    masked = extract(encoder, items, hidden, seen)
    ratio = 1.0 if options.mask_ratio is None else options.mask_ratio
    seed = options.mask_seed or 0
    if ratio == 1:
        return masked
    path = job.folder / f"{hidden.name}-{ratio:g}-s{seed}.npy"
    return mix_masked_rows(whole, masked, path, modality, ratio, seed)


def _whole(
    options: PrepareOptions, name: str, items: ItemTable, job: ExtractionSpec
) -> FeatureTable:
    if options.mask or job.shard != (1, 1):
        raise SettingError(
            f"Encoder {name!r} cannot be used with --{'mask' if options.mask else 'shard'}.",
            found="an encoder that is fitted on all items",
            expected="an encoder of single items (`list encoders`)",
        )
    return extract_whole_table(name, items, job)


def _report(table: FeatureTable, seconds: float) -> None:
    manifest = table.manifest
    n = manifest.shape[0]
    files = "audio files" if manifest.modality == "audio" else "images"
    rows: list[list[Any]] = [
        ["items", n],
        ["width", f"{manifest.shape[1]} {manifest.dtype}"],
        ["without image", len(manifest.without_image)],
        ["without text", len(manifest.without_text)],
        ["without both" if manifest.modality == "fused" else "missing", len(manifest.missing)],
        *([f"{files} {what}", n] for what, n in manifest.settings.get("images", {}).items()),
        *(["note", printable(note)] for note in manifest.notes),
        ["seconds", f"{seconds:.1f} ({n / seconds:.1f} items/s)"],
        ["peak memory", f"{memory_usage.peak_rss_bytes() / 2**20:.0f} MiB"],
        ["sha256", manifest.sha256[:16]],
    ]
    print(tabulate(rows, tablefmt="plain"))
    print(printable(str(table.path)))


def _stem(encoder: str) -> str:
    kind, _, model = encoder.partition(":")
    short = Path(model).name if model else ""
    mark = hashlib.sha256(model.encode()).hexdigest()[:6] if model else ""
    return "-".join(part for part in (kind, short, mark) if part)
