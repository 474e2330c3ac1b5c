"""The verb `download`: fetch the published files of a data set."""

from __future__ import annotations

from pathlib import Path

import cloup

from alignrec_recbole.cli import _names, _options
from alignrec_recbole.cli._options import option
from alignrec_recbole.errors import DownloadError


@_options.verb(
    examples=(
        "download --dataset baby",
        "download --dataset sports --data-path data",
    ),
)
@cloup.option_group(
    "Data set",
    option(
        "--dataset",
        required=True,
        type=_options.Text("name", str, _names.dataset_names),
        metavar="NAME",
        help="Data set (`list datasets`).",
    ),
    _options.data_path(),
)
def download(dataset: str, data_path: Path | None) -> int:
    """Download the published files of a data set and verify them."""
    from alignrec_recbole.data.dataset_paths import data_folders, dataset_defaults
    from alignrec_recbole.io.download import fetch_published
    from alignrec_recbole.io.files import inside

    entries = dataset_defaults(dataset).get("downloads")
    if not entries:
        raise DownloadError(
            f"Data set {dataset!r} has no known address.",
            found=f"no 'downloads' in properties/dataset/{dataset}.yaml",
            hint="copy its files into the data folder yourself; see "
            f"properties/dataset/{dataset}.yaml, if it exists",
        )
    folder = inside(data_folders(data_path)[0], dataset)
    paths = fetch_published(entries, folder)
    print(f"{dataset}: {', '.join(path.name for path in paths)} in {folder}")
    return 0
