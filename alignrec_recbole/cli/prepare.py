"""`run_benchmark.py prepare`: item tables and images to feature files."""

from __future__ import annotations

import argparse
import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from alignrec_recbole.data import amazon
from alignrec_recbole.data.dataset_paths import data_folders, find_dataset
from alignrec_recbole.data.image_download import HOSTS, RateLimit, fetch_images
from alignrec_recbole.data.items import ItemTable, find_item_table, read_item_table
from alignrec_recbole.encoders.base import ItemEncoder
from alignrec_recbole.encoders.beit3 import checkpoints
from alignrec_recbole.encoders.beit3.encoder import POOLINGS
from alignrec_recbole.encoders.beit3.opening import Beit3Options
from alignrec_recbole.encoders.beit3.tokenizer import MAX_TOKENS
from alignrec_recbole.encoders.extraction import (
    ExtractionSpec,
    extract,
    extract_whole_table,
    merge_shards,
    mix_masked_rows,
    readable_images,
)
from alignrec_recbole.encoders.registry import ENCODER_SYNTAX, find_encoder
from alignrec_recbole.errors import DataError, SettingError
from alignrec_recbole.features.masking import masked_name
from alignrec_recbole.features.table import FeatureTable
from alignrec_recbole.io.files import inside
from alignrec_recbole.runtime import hardware, memory_usage


def parser() -> argparse.ArgumentParser:
    """Options of `run_benchmark.py prepare`."""
    out = argparse.ArgumentParser(
        prog="run_benchmark.py prepare",
        description="Encode a data set's items into FEATURES.npy and its manifest FEATURES.json.",
        epilog="example: run_benchmark.py prepare --dataset shop --encoder beit3 --weights base",
    )
    out.add_argument("--dataset", required=True)
    out.add_argument("--encoder", help=ENCODER_SYNTAX)
    out.add_argument("--data-path", type=Path, help="folder of data sets (or $ALIGNREC_DATA)")
    out.add_argument("--items", type=Path, help="item table (default: the data set's own)")
    out.add_argument("--images", type=Path, help="its images (default: images/ beside the table)")
    out.add_argument("--name", help="of the features (default: the encoder's name)")
    out.add_argument("--output", type=Path, help="default: features/ in the data set's folder")
    out.add_argument("--batch-size", type=_count, default=32)
    out.add_argument(
        "--dtype", choices=["float32", "float16"], default="float32", help="of the file"
    )
    out.add_argument(
        "--workers", type=int, help="processes that decode images (default: cores − 1)"
    )
    out.add_argument("--threads", type=_count, help="default: all cores")
    out.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    out.add_argument("--overwrite", action="store_true", help="replace other features of that name")
    out.add_argument("--quiet", action="store_true", help="no progress bar")

    raw = out.add_argument_group("raw files (Amazon 2014)")
    raw.add_argument("--raw", type=Path, metavar="DIR", help="meta_*, ratings_*, image_features_*")
    raw.add_argument("--no-images", action="store_true", help="do not fetch the images")
    raw.add_argument("--image-hosts", default=",".join(HOSTS), help="that may be asked for them")
    raw.add_argument("--connections", type=_count, default=8)

    parts = out.add_mutually_exclusive_group()
    parts.add_argument("--shard", type=_shard, default=(1, 1), metavar="i/n", help="make one part")
    parts.add_argument("--merge", action="store_true", help="join the parts of all shards")

    beit3 = out.add_argument_group("beit3")
    beit3.add_argument("--weights", help=f"a file, or {', '.join(checkpoints.NAMES)} to fetch it")
    beit3.add_argument("--random-init", action="store_true", help="untrained; tables will say so")
    beit3.add_argument("--size", default="base", help="of random weights: base, large or toy")
    beit3.add_argument("--image-size", type=_count, help="another than the weights', e.g. 384")
    beit3.add_argument("--tokenizer", help="SentencePiece model (default: beside the weights)")
    beit3.add_argument("--max-tokens", type=_count, default=MAX_TOKENS)
    beit3.add_argument("--pooling", choices=POOLINGS, default="cls")
    beit3.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")

    mask = out.add_argument_group("masked variants")
    mask.add_argument("--mask", choices=["image", "text"], help="hide this modality")
    mask.add_argument("--mask-ratio", type=_ratio, default=1.0, help="of this share of the items")
    mask.add_argument("--mask-seed", type=int, default=0)

    export = out.add_argument_group("export")
    export.add_argument("--mmrec", type=Path, metavar="DIR", help="also write MMRec's files there")
    export.add_argument(
        "--mapping", type=Path, help="i_id_mapping.csv, where items are not numbers"
    )
    return out


def run(options: argparse.Namespace) -> int:
    """Make the features that the options name; prints what came of it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.raw is not None:
        _raw(options)
        if options.encoder is None:
            return 0
    if options.encoder is None:
        raise SettingError("No encoder was named.", expected=f"--encoder {ENCODER_SYNTAX}")
    hardware.set_threads(options.threads)
    folder, items = _output(options), find_items(options)
    name = options.name or _stem(options.encoder)
    job = ExtractionSpec(
        folder=folder,
        name=name,
        batch_size=options.batch_size,
        dtype=options.dtype,
        workers=max(0, hardware.available_cores() - 1)
        if options.workers is None
        else options.workers,
        shard=options.shard,
        overwrite=options.overwrite,
        progress=not options.quiet,
    )
    inside(folder, f"{name}.npy")
    start = time.perf_counter()
    if options.merge:
        table = merge_shards(folder, name, items, options.overwrite)
    elif find_encoder(options.encoder).kind == "whole_table":
        table = _whole(options, items, job)
    else:
        encoder = _encoder(options, items, job)
        table = (
            _masked(options, encoder, items, job) if options.mask else extract(encoder, items, job)
        )
    _report(table, time.perf_counter() - start)
    if options.mmrec:
        from alignrec_recbole.features import mmrec

        mapping = mmrec.read_mapping(options.mapping) if options.mapping else None
        print(mmrec.export(table, options.mmrec, mapping))
    return 0


def _raw(options: argparse.Namespace) -> None:
    """Turn raw files into a data set's folder: items.tsv, NAME.inter, features, images."""
    files = amazon.find_raw(options.raw)
    folder = inside(data_folders(options.data_path)[0], options.dataset)
    given, there = amazon.find_id_mapping(options.raw), amazon.find_id_mapping(folder)
    if given and there and given != there:
        raise DataError(
            "Two mappings number the items differently.",
            found=f"those in {options.raw} and in {folder}",
            expected="one, or the same in both",
            hint="take away the one that the data set is not numbered by",
        )
    rated = amazon.ParseStats()
    chunks = amazon.read_interactions(files["interactions"], rated)
    frame, numbering = amazon.load_interactions(chunks, given or there, rated)
    inter = folder / f"{options.dataset}.inter"
    if inter.exists():
        amazon.check_ids(inter, frame)
    read = amazon.ParseStats()
    meta = amazon.read_meta(files["meta"], read)
    urls, unknown = amazon.write_items(meta, numbering, folder / "items.tsv")
    rows: list[list[Any]] = [
        ["users", len(numbering.users)],
        ["items", len(numbering.items)],
        ["numbered by", "MMRec's mapping" if numbering.released else "5-core, first appearance"],
        ["interactions", len(frame)],
        *([f"ratings left out, {why}", count] for why, count in rated.bad.items()),
        ["metadata lines", read.good],
        *([f"lines {why}", count] for why, count in read.bad.items()),
        ["items without metadata", len(unknown)],
        ["text", ", ".join(amazon.TEXT_COLUMNS)],
    ]
    if inter.exists():
        rows.append(["split", f"{inter.name} was there, fits and stays"])
    else:
        amazon.write_interactions(frame, inter)
    if there is None:
        amazon.write_mapping(numbering, folder)
    if "image_features" in files:
        manifest = amazon.write_image_features(
            files["image_features"], numbering, folder / "features" / "image-4096.npy"
        )
        rows += [["image features", note] for note in manifest.notes or ["one for every item"]]
    if not options.no_images:
        named = {amazon.image_name(asin): url for asin, url in urls.items()}
        outcome = fetch_images(
            named,
            folder / "images",
            hosts=tuple(h.strip().lower() for h in options.image_hosts.split(",") if h.strip()),
            polite=RateLimit(connections=options.connections),
            progress=not options.quiet,
        )
        rows += [[f"images {what}", count] for what, count in sorted(outcome.items())]
    print(tabulate(rows, tablefmt="plain"))
    print(folder)


def find_items(options: argparse.Namespace) -> ItemTable:
    """The item table that --items names, else the data set's own."""
    if options.items is not None:
        return read_item_table(options.items, options.images)
    return find_item_table(_dataset_folder(options), options.dataset)


def _dataset_folder(options: argparse.Namespace) -> Path:
    """A data set's folder; interactions need not be there yet."""
    folder = inside(data_folders(options.data_path)[0], options.dataset)
    return folder if folder.is_dir() else find_dataset(options.dataset, options.data_path)


def _output(options: argparse.Namespace) -> Path:
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


def _encoder(options: argparse.Namespace, items: ItemTable, job: ExtractionSpec) -> ItemEncoder:
    device = hardware.choose_device(options.device)
    entry = find_encoder(options.encoder)
    if not entry.by_name:
        chosen = Beit3Options(
            **{field.name: getattr(options, field.name) for field in fields(Beit3Options)}
        )
        tokenizer = job.folder / f"{job.name}.spm"
        return entry.load().open_encoder(
            chosen, items.texts, tokenizer, device, progress=job.progress
        )
    if options.weights or options.random_init:
        raise SettingError(
            f"The encoder {options.encoder!r} has weights of its own.",
            found="--weights or --random-init",
            expected="these with --encoder beit3",
        )
    return entry.load().open_encoder(options.encoder, device)


def _masked(
    options: argparse.Namespace, encoder: ItemEncoder, items: ItemTable, job: ExtractionSpec
) -> FeatureTable:
    """A masked variant: one pass with everything masked, shared by all ratios and seeds."""
    if job.shard != (1, 1):
        raise SettingError("Masked variants are not sharded.", expected="--mask without --shard")
    whole = extract(encoder, items, job)
    hidden = replace(job, name=masked_name(job.name, options.mask), mask_modality=options.mask)
    seen = readable_images(whole) if encoder.masks_images else None
    masked = extract(encoder, items, hidden, seen)
    if options.mask_ratio == 1:
        return masked
    stem = f"{hidden.name}-{options.mask_ratio:g}-s{options.mask_seed}"
    path = job.folder / f"{stem}.npy"
    return mix_masked_rows(whole, masked, path, options.mask, options.mask_ratio, options.mask_seed)


def _whole(options: argparse.Namespace, items: ItemTable, job: ExtractionSpec) -> FeatureTable:
    if options.mask or job.shard != (1, 1):
        raise SettingError(
            f"{options.encoder} needs all items at once.",
            found="--mask or --shard",
            expected="an encoder of single items",
        )
    return extract_whole_table(options.encoder, items, job)


def _report(table: FeatureTable, seconds: float) -> None:
    manifest = table.manifest
    n = manifest.shape[0]
    rows: list[list[Any]] = [
        ["items", n],
        ["width", f"{manifest.shape[1]} {manifest.dtype}"],
        ["without image", len(manifest.without_image)],
        ["without text", len(manifest.without_text)],
        ["without both" if manifest.modality == "fused" else "absent", len(manifest.missing)],
        *([f"images {what}", count] for what, count in manifest.settings.get("images", {}).items()),
        *(["note", note] for note in manifest.notes),
        ["seconds", f"{seconds:.1f} ({n / seconds:.1f} items/s)"],
        ["peak memory", f"{memory_usage.peak_rss_bytes() / 2**20:.0f} MiB"],
        ["sha256", manifest.sha256[:16]],
    ]
    print(tabulate(rows, tablefmt="plain"))
    print(table.path)


def _stem(encoder: str) -> str:
    kind, _, model = encoder.partition(":")
    short = Path(model).name if model else ""
    mark = hashlib.sha256(model.encode()).hexdigest()[:6] if model else ""
    return "-".join(part for part in (kind, short, mark) if part)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _ratio(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def _shard(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    good = slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)
    if not good:
        raise argparse.ArgumentTypeError(f"{text!r} is not i/n with 1 ≤ i ≤ n, such as 2/4")
    return int(number), int(of)


def main(arguments: Sequence[str]) -> int:
    """Parse and run."""
    return run(parser().parse_args(arguments))
