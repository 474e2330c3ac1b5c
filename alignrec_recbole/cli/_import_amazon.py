"""The work of the verb `import-amazon`: raw files to a data set's folder."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from alignrec_recbole.cli._next import show_first_run
from alignrec_recbole.data import amazon
from alignrec_recbole.data.dataset_paths import data_folders
from alignrec_recbole.data.image_download import HOSTS, RateLimit, fetch_images
from alignrec_recbole.data.made_dataset import write_dataset
from alignrec_recbole.data.split_manifest import summary
from alignrec_recbole.data.split_names import parse_split
from alignrec_recbole.errors import DataError
from alignrec_recbole.io.files import inside, sha256_file
from alignrec_recbole.io.names import check_name

if TYPE_CHECKING:
    from alignrec_recbole.cli._option_values import ImportOptions


def run(options: ImportOptions) -> None:
    """Write items.tsv, NAME.inter, features and images; prints a summary.

    Raises:
        DataError: a file is missing, damaged or numbered differently.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    split = parse_split(options.split, options.seed)
    files = amazon.find_raw(options.raw)
    folder = inside(data_folders(options.data_path)[0], options.dataset)
    check_name(options.dataset, "data set", DataError)
    given = amazon.find_id_mapping(options.raw)
    there = amazon.find_id_mapping(folder, given)
    if given and there and given != there:
        raise DataError(
            "Two mappings number the items differently.",
            found=f"those in {options.raw} and in {folder}",
            expected="one, or the same in both",
            hint="take away the one that the data set is not numbered by",
        )
    rated = amazon.ParseStats()
    columns: tuple[str, ...] = amazon.USER_FIRST
    if files["interactions"].suffix == ".csv":
        columns = amazon.rating_columns(files, given or there)
    chunks = amazon.read_interactions(files["interactions"], rated, columns)
    frame, numbering = amazon.load_interactions(
        chunks, given or there, rated, options.numbering, options.seed
    )
    inter = folder / f"{options.dataset}.inter"
    if os.path.lexists(inter):
        amazon.check_ids(inter, frame)
    read = amazon.ParseStats()
    meta = amazon.read_meta(files["meta"], read)
    urls, unknown = amazon.write_items(meta, numbering, folder / "items.tsv")
    rows: list[list[Any]] = [
        ["users", len(numbering.users)],
        ["items", len(numbering.items)],
        ["numbered by", "MMRec's mapping" if numbering.released else options.numbering],
        ["interactions", len(frame)],
        *([["columns of the ratings", ",".join(columns)]] if columns != amazon.USER_FIRST else []),
        *([f"ratings left out, {why}", count] for why, count in rated.bad.items()),
        ["metadata lines", read.good],
        *([f"lines {why}", count] for why, count in read.bad.items()),
        *([["titles that are scripts, left empty", read.scripts]] if read.scripts else []),
        ["items without metadata", len(unknown)],
        ["text", ", ".join(amazon.TEXT_COLUMNS)],
    ]
    if os.path.lexists(inter):
        rows.append(["split", f"{inter.name} was there, fits and stays"])
    else:
        made = write_dataset(
            frame.set_axis(["user", "item", "rating", "time"], axis=1),
            inter,
            split,
            numbering="released" if numbering.released else options.numbering,
            source={files["interactions"].name: sha256_file(files["interactions"])},
        )
        rows += summary(made)
    if there is None:
        amazon.write_mapping(numbering, folder)
    if "image_features" in files:
        manifest = amazon.write_image_features(
            files["image_features"], numbering, folder / "features" / "image-4096.npy"
        )
        rows += [["image features", note] for note in manifest.notes or ["one for every item"]]
    if not options.no_images:
        asked = HOSTS if options.image_hosts is None else options.image_hosts.lower().split(",")
        hosts = tuple(host.strip() for host in asked if host.strip())
        named = {amazon.image_name(asin): url for asin, url in urls.items()}
        outcome = fetch_images(
            named,
            folder / "images",
            hosts=hosts,
            rate_limit=RateLimit(connections=options.connections),
            progress=options.progress,
        )
        rows += [[f"images {what}", count] for what, count in sorted(outcome.items())]
    print(tabulate(rows, tablefmt="plain"))
    print(folder)
    show_first_run(options.dataset, options.data_path, content=True)
