"""The verb `download`: fetch the published files of a data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def download_parser() -> argparse.ArgumentParser:
    """Options of `run_benchmark.py download`."""
    out = argparse.ArgumentParser(
        prog="run_benchmark.py download", description="Fetch the published files of a data set."
    )
    out.add_argument("--dataset", required=True)
    out.add_argument(
        "--data-path", type=Path, help="folder of data sets (or $ALIGNREC_DATA, ./data)"
    )
    return out


def _download(options: argparse.Namespace) -> int:
    from alignrec_recbole.data.dataset_paths import data_folders
    from alignrec_recbole.errors import DownloadError
    from alignrec_recbole.io.download import fetch_published
    from alignrec_recbole.io.files import inside
    from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml

    path = inside(properties_dir() / "dataset", f"{options.dataset}.yaml")
    entries = read_yaml(path).get("downloads")
    if not entries:
        raise DownloadError(
            f"No address is known for data set {options.dataset!r}.",
            found=f"no 'downloads' in properties/dataset/{options.dataset}.yaml",
            hint="put the files there yourself"
            + (f"; {path.name} says more of them" if path.is_file() else ""),
        )
    folder = inside(data_folders(options.data_path)[0], options.dataset)
    fetch_published(entries, folder)
    print(f"{options.dataset}: {', '.join(e['file'] for e in entries)} in {folder}")
    return 0
