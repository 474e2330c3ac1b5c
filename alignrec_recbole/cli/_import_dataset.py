"""The work of the verb `import`: files of a known format to a data set's folder."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from alignrec_recbole.cli._next import show_first_run
from alignrec_recbole.data.dataset_paths import data_folders
from alignrec_recbole.data.format_names import FORMAT_NAMES
from alignrec_recbole.data.formats import table
from alignrec_recbole.data.formats.registry import FORMATS
from alignrec_recbole.data.image_download import RateLimit, fetch_images
from alignrec_recbole.data.import_folder import Imported, write_source
from alignrec_recbole.data.source import SPLIT, Source
from alignrec_recbole.data.split_manifest import summary
from alignrec_recbole.data.split_names import DEFAULT_SPLIT, parse_split
from alignrec_recbole.errors import DataError, SettingError, printable
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.names import check_name
from alignrec_recbole.io.text_lines import shown_reading

if TYPE_CHECKING:
    from alignrec_recbole.cli._option_values import ImportDatasetOptions


def run(options: ImportDatasetOptions) -> None:
    """Read, filter, number, split and write; prints a summary.

    Raises:
        SettingError: options do not go together.
        DataError: a file is missing or damaged, or the folder has other interactions.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = inside(data_folders(options.data_path)[0], options.dataset)
    check_name(options.dataset, "data set", DataError)
    if options.split is not None:
        parse_split(options.split, options.seed)  # before files are read
    bad = Counter[str]() if options.on_bad_line == "skip" else None
    with shown_reading(options.progress):
        source = _read(options, bad)
    if bad is not None:
        lines = Counter({f"bad lines: {why}": count for why, count in bad.items()})
        source = replace(source, skipped=lines + source.skipped)
    text = options.split or ("released" if SPLIT in source.interactions else DEFAULT_SPLIT)
    read = len(source.interactions)
    with shown_reading(options.progress):
        made = write_source(
            source,
            folder,
            options.dataset,
            parse_split(text, options.seed),
            cores=options.core,
            numbering=options.numbering,
            images=not options.no_images,
        )
    rows: list[list[Any]] = [
        ["source", printable(made.source.name, 100)],
        *([printable(k, 40), printable(v, 200)] for k, v in made.source.notes.items()),
        ["interactions read", read],
        *([f"skipped, {why}", count] for why, count in made.source.skipped.items()),
        ["users", made.manifest.users],
        ["items", made.manifest.items],
        *summary(made.manifest),
        *([f"items with {what}", count] for what, count in made.content.items()),
        *(["features", name] for name in made.features),
    ]
    if made.was_there:
        rows.append(["interactions", "unchanged: the same files and options as before"])
    if made.urls and not options.no_images:
        rows += _fetch(made, folder, options)
    print(tabulate(rows, tablefmt="plain", disable_numparse=True))
    print(folder)
    show_first_run(
        options.dataset,
        options.data_path,
        content=bool(made.features or made.content["texts"]),
        features=",".join(made.features),
    )


def _read(options: ImportDatasetOptions, bad: Counter[str] | None) -> Source:
    name = options.format or ("table" if options.columns else None)
    if name is None:
        raise SettingError(
            "The format of the files is not named.",
            expected=f"--format with one of {', '.join(FORMAT_NAMES)}",
            hint="for a table of your own: --columns user=NAME,item=NAME",
        )
    if name == "table":
        if options.columns is None:
            raise SettingError(
                "The columns of the table are not named.",
                expected="--columns user=NAME,item=NAME and, where there are any, time=NAME, "
                "rating=NAME, split=NAME",
            )
        return table.read(options.path, table.parse_columns(options.columns), options.items, bad)
    for value, flag in ((options.columns, "--columns"), (options.items, "--items")):
        if value is not None:
            raise SettingError(
                f"{flag} is an option of tables alone.",
                found=f"--format {name}",
                expected=f"{name}: {FORMATS[name].files}",
            )
    return FORMATS[name].read(options.path, bad)


def _fetch(made: Imported, folder: Path, options: ImportDatasetOptions) -> list[list[Any]]:
    known = FORMATS[options.format].image_hosts if options.format in FORMATS else ()
    asked = known if options.image_hosts is None else options.image_hosts.lower().split(",")
    hosts = tuple(host.strip() for host in asked if host.strip())
    if not hosts:
        return [["images", "not downloaded: name their hosts with --image-hosts"]]
    outcome = fetch_images(
        made.urls,
        folder / "images",
        hosts=hosts,
        rate_limit=RateLimit(connections=options.connections),
        progress=options.progress,
    )
    return [[f"images {what}", count] for what, count in sorted(outcome.items())]
