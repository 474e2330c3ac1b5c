"""Describe and fetch a published source of a data set."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from alignrec_recbole.data.dataset_paths import dataset_defaults, locate_dataset
from alignrec_recbole.data.published import RAW, SPLIT, PublishedSource, raw_folder, source_of
from alignrec_recbole.errors import DownloadError, printable
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.published_file import PublishedFile

IMAGES_FROM = "the image addresses in the metadata, or the folder images of the mirror"
IMAGES_SIZE = "images of some ten kilobytes per item; "


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
