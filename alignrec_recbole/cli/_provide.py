"""What a command needs and the data folder does not have: described, asked about, fetched."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from alignrec_recbole.cli._command import as_typed, given_arguments
from alignrec_recbole.data.dataset_paths import can_be_downloaded, data_folders, locate_dataset
from alignrec_recbole.data.rekeyed_names import origin_of
from alignrec_recbole.errors import UnknownNameError, printable

if TYPE_CHECKING:
    from alignrec_recbole.cli._option_values import RunOptions


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
    if not can_be_downloaded(options.dataset):
        return
    from alignrec_recbole.cli import _fetch, _needed
    from alignrec_recbole.data.published import source_of

    name = _needed.needed_source(options)
    if name is None:
        return
    source, root = source_of(options.dataset, name), data_folders(options.data_path)[0]
    images = _needed.reads_images(options)
    print(_fetch.described(options.dataset, name, source, root, images=images), file=sys.stderr)
    if not options.download and not _agreed():
        raise UnknownNameError(
            f"Data set {options.dataset!r} is known, but files that this command needs are not "
            "there.",
            found=f"nothing of its source {name!r} in {root / options.dataset}",
            expected="these files, or --download",
            hint=as_typed([*given_arguments(), "--download"]),
        )
    for line in _fetch.fetch_source(
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
    from alignrec_recbole.cli import _needed

    folders = data_folders(options.data_path)
    there = locate_dataset(options.dataset, folders)
    if there is not None and _needed.has_named_features(options, there):
        return
    if there is None or options.download:
        provide(replace(options, dataset=origin))
    if locate_dataset(origin, folders) is None:
        return
    from alignrec_recbole.cli import _rekey

    for line in _rekey.of(origin, options.data_path, seed).said:
        print(printable(line), file=sys.stderr)


def _agreed() -> bool:
    """Ask; False where nobody can answer."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return click.confirm("Download this now?", err=True)
