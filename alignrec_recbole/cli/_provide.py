"""What a command needs and the data folder does not have: described, asked about, fetched."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignrec_recbole.cli._command import as_typed, given_arguments
from alignrec_recbole.data.dataset_paths import (
    data_folders,
    dataset_defaults,
    item_table_names,
    locate_dataset,
)
from alignrec_recbole.data.published import (
    SPLIT,
    PublishedSource,
    raw_folder,
    source_of,
    sources_of,
)
from alignrec_recbole.data.rekeyed_names import origin_of
from alignrec_recbole.encoders.lookup import find_file
from alignrec_recbole.encoders.registry import ENCODERS
from alignrec_recbole.errors import DownloadError, UnknownNameError, printable
from alignrec_recbole.features.derived_names import made_of
from alignrec_recbole.features.published import GROUPS, present_features
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.protocols import READ_LISTS

if TYPE_CHECKING:
    from alignrec_recbole.cli._option_values import RunOptions
    from alignrec_recbole.io.download import PublishedFile

RAW = "raw"  # the source of item texts
IMAGES_FROM = "the image addresses in the metadata, or the folder images of the mirror"
IMAGES_SIZE = "images of some ten kilobytes per item; "


def provide(options: RunOptions) -> None:
    """Fetch what the runs need: with --download at once, in a terminal after a question.

    A re-keyed data set is made of its origin, which is provided for in the same way.

    Raises:
        UnknownNameError: something is absent and may not be fetched; the hint is the command.
        DownloadError: as `fetch_source`.
        DataError, FeatureError, WriteError: as `rekey`.
    """
    if rekeyed := origin_of(options.dataset):
        _provide_rekeyed(options, *rekeyed)
        return
    name = needed_source(options)
    if name is None:
        return
    source, root = source_of(options.dataset, name), data_folders(options.data_path)[0]
    images = _reads_images(options)
    print(described(options.dataset, name, source, root, images=images), file=sys.stderr)
    if not options.download and not _agreed():
        raise UnknownNameError(
            f"Data set {options.dataset!r} is known, but files that this command needs are not "
            "there.",
            found=f"nothing of its source {name!r} in {root / options.dataset}",
            expected="these files, or --download",
            hint=as_typed([*given_arguments(), "--download"]),
        )
    for line in fetch_source(
        options.dataset,
        name,
        root,
        mirror=options.mirror,
        progress=options.progress,
        images=images,
    ):
        print(line, file=sys.stderr)


def _provide_rekeyed(options: RunOptions, origin: str, seed: int) -> None:
    """Make a re-keyed data set, or what it does not have yet, if its origin is there."""
    folders = data_folders(options.data_path)
    there = locate_dataset(options.dataset, folders)
    if there is not None and _has_named_features(options, there):
        return
    if there is None or options.download:
        provide(replace(options, dataset=origin))
    if locate_dataset(origin, folders) is None:
        return
    from alignrec_recbole.cli import _rekey

    for line in _rekey.of(origin, options.data_path, seed).said:
        print(printable(line), file=sys.stderr)


def _has_named_features(options: RunOptions, folder: Path) -> bool:
    """Whether a data set has the features that are named, or items for the encoders named."""
    for name in filter(None, map(made_of, options.features)):  # "" of random
        if name.partition("-")[0] in GROUPS:
            if not present_features(folder, name.partition("-")[0]):
                return False
        elif find_file(name, folder, options.features_path) is None:
            encoder = name.partition(":")[0] in ENCODERS
            if not (encoder and _has_item_table(folder, options.dataset)):
                return False
    if _reads_images(options) and not (folder / "images").is_dir():
        return False
    return bool(options.features) or not _reads_features(options) or _has_features(options, folder)


def needed_source(options: RunOptions) -> str | None:
    """The source that has what the data folder does not; None if nothing is absent or known."""
    sources = sources_of(options.dataset)
    folder = locate_dataset(options.dataset, data_folders(options.data_path))
    named = [made_of(name) for name in options.features]
    for group in GROUPS:
        asked = any(name.partition("-")[0] == group for name in named)
        if asked and group in sources and not (folder and present_features(folder, group)):
            return group
    texts = any(name.partition(":")[0] in ENCODERS for name in named)
    if texts and not (folder and _has_item_table(folder, options.dataset)):
        return RAW if RAW in sources else None  # an archive would not help: it has no texts
    if folder and RAW in sources and _reads_images(options) and _lacks_images(folder):
        return RAW
    if not named and _reads_features(options) and not (folder and _has_features(options, folder)):
        first = next((group for group in GROUPS if group in sources), None)
        if first is not None:
            return first
    if folder is not None and options.download:
        return _not_pinned(options.dataset, sources, folder)
    if folder is not None or not sources:
        return None
    return SPLIT if SPLIT in sources else next(iter(sources))


def _not_pinned(dataset: str, sources: dict[str, PublishedSource], folder: Path) -> str | None:
    """The source whose files were fetched by a process that ended before it pinned them."""
    from alignrec_recbole.io.pins import read_pins

    pins, below = read_pins(folder.parent), raw_folder(folder)
    for name, source in sources.items():
        there = [entry.file for entry in source.entries if (below / entry.file).is_file()]
        if any(f"{dataset}/{below.name}/{file}" not in pins for file in there):
            return name
    return None


def _reads_images(options: RunOptions) -> bool:
    """Whether an encoder that is named reads images, by its model's files where these decide."""
    for name in map(made_of, options.features):
        kind, _, model = name.partition(":")
        entry = ENCODERS.get(kind)
        if entry and entry.takes_model == bool(model) and entry.reads_images(name):
            return True
    return False


def _lacks_images(folder: Path) -> bool:
    """Whether the item table was made here from raw files whose images were not asked for."""
    from alignrec_recbole.data.amazon import texts as amazon_texts

    made_here = any(raw_folder(folder).glob("meta_*.json.gz"))
    return (
        made_here
        and is_regular_file(folder / "items.tsv")
        and not amazon_texts.images_asked(folder)
    )


def _reads_features(options: RunOptions) -> bool:
    from alignrec_recbole.registry.models import resolve

    protocols = set(options.protocol) - {"full", *READ_LISTS}
    return bool(protocols) or any(resolve(name).needs_features for name in options.model)


def _has_features(options: RunOptions, folder: Path) -> bool:
    """Whether a run that names no features finds some: published ones, or items to encode."""
    published = any(present_features(folder, group) for group in GROUPS)
    return published or _has_item_table(folder, options.dataset)


def _has_item_table(folder: Path, dataset: str) -> bool:
    return any(os.path.lexists(folder / name) for name in item_table_names(dataset))


def described(
    dataset: str, name: str, source: PublishedSource, root: Path, *, images: bool = False
) -> str:
    """What would be fetched: content, size, addresses, licence and what it is good for."""
    entries = [*_split_entries(dataset, source, root), *source.entries]
    rows = [
        ("what", source.about),
        *(("from", entry.url or f"Google Drive {entry.gdrive}") for entry in entries),
        *([("from", IMAGES_FROM)] if images else []),
        ("size", f"{source.size}; {IMAGES_SIZE if images else ''}{_free(root)}"),
        ("into", str(root / dataset)),
        ("licence", source.licence),
        ("compare", source.comparable),
    ]
    lines = [f"  {label:<9} {text}" for label, text in rows]
    return printable("\n".join([f"{dataset} ({name})", *lines]), 8000)


def _split_entries(dataset: str, source: PublishedSource, root: Path) -> list[PublishedFile]:
    """The interactions that a source of texts belongs to, if they are not there."""
    if source.kind != "amazon" or locate_dataset(dataset, [root]) is not None:
        return []
    return source_of(dataset, SPLIT).entries


def _free(root: Path) -> str:
    there = next((path for path in (root, *root.absolute().parents) if path.is_dir()), None)
    return "" if there is None else f"{shutil.disk_usage(there).free / 1e9:.1f} GB are free"


def _agreed() -> bool:
    """Ask; False where nobody can answer."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return click.confirm("Download this now?", err=True)


def fetch_source(
    dataset: str,
    name: str,
    root: Path,
    *,
    mirror: str | None,
    progress: bool,
    images: bool = False,
) -> list[str]:
    """Fetch, verify and convert a source of a data set, one process at a time.

    Args:
        dataset: its name.
        name: of the source.
        root: folder of the data sets.
        mirror: as in `fetch_pinned`.
        progress: show bars.
        images: also fetch the images of the items, which the source `raw` knows.

    Returns:
        What was found, in sentences for people.

    Raises:
        DownloadError, DataError, FeatureError, WriteError: what is wrong with which file; files
            that have arrived stay.
    """
    from alignrec_recbole.io.locks import one_process_only
    from alignrec_recbole.io.pins import chosen_mirror, fetch_pinned, remember

    source = source_of(dataset, name)
    if images and source.kind != "amazon":
        raise DownloadError(
            f"The source {name!r} of data set {dataset!r} has no images.",
            expected=f"--images with --source {RAW}",
        )
    folder = inside(root, dataset)
    into = folder if source.kind == "files" else raw_folder(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise DownloadError(f"{folder} is not a folder.", found="a file of this name")
    with one_process_only(
        folder,
        ".download.lock",
        problem=f"Data set {dataset!r} is being fetched by another process.",
        hint="wait for that process, then run the same command again",
        option="--data-path",
    ):
        if split := _split_entries(dataset, source, root):
            remember(root, fetch_pinned(split, folder, root, mirror=mirror, progress=progress))
        files = fetch_pinned(source.entries, into, root, mirror=mirror, progress=progress)
        said, urls = _converted(dataset, name, source, folder, [file.path for file in files])
        remember(root, files)
        if images:
            from alignrec_recbole.data.amazon import texts as amazon_texts

            said += amazon_texts.fetch(
                urls, folder, mirror=chosen_mirror(mirror), progress=progress
            )
    return [printable(line) for line in said]


def _converted(
    dataset: str, name: str, source: PublishedSource, folder: Path, paths: list[Path]
) -> tuple[list[str], dict[str, str]]:
    """Make the files of a data set from those that were fetched.

    Returns:
        What was found, in sentences, and the addresses of images by file name.
    """
    if source.kind == "files":
        return [f"{dataset}: {', '.join(path.name for path in paths)} in {folder}"], {}
    if source.kind == "amazon":
        from alignrec_recbole.data.amazon import texts as amazon_texts

        return amazon_texts.convert(folder, dataset, paths[0].parent)
    from alignrec_recbole.data import published_archive
    from alignrec_recbole.data.cards import read_card

    card = read_card(dataset)
    said = published_archive.convert(
        paths[0],
        folder,
        dataset,
        name,
        expected=dataset_defaults(dataset).get("expected", {}),
        split_hash=card.split_sha256 if card else None,
        content=source.content,
        url=source.entries[0].url or "",
    )
    return said, {}
