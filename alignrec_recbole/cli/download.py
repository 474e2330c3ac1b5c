"""The verb `download`: fetch the published files of a data set."""

from __future__ import annotations

from pathlib import Path

import cloup

from alignrec_recbole.cli import _names, _options
from alignrec_recbole.cli._types import Text
from alignrec_recbole.cli._verb import option, verb


@verb(
    examples=(
        "download --dataset baby",
        "download --dataset sports --source mmrec --rekey 1",
    ),
)
@cloup.option_group(
    "Data set",
    option(
        "--dataset",
        required=True,
        type=Text("name", str, _names.dataset_names),
        metavar="NAME",
        help="Data set (`list datasets`).",
    ),
    option(
        "--source",
        default="",
        metavar="NAME",
        help="split: the interactions. mmrec or mmssl: the split with the features of the "
        "published tables. raw: texts of the items, from Amazon's metadata.  [default: split where "
        "there is one]",
    ),
    option("--images", is_flag=True, help="With --source raw: also the images of the items."),
    _options.rekey("Then also write"),
    _options.data_path(),
    _options.mirror(),
)
@cloup.option_group("Execution", _options.no_progress())
def download(
    dataset: str,
    source: str,
    images: bool,
    rekey: int | None,
    data_path: Path | None,
    mirror: str | None,
    progress: bool,
) -> int:
    """Download, verify and convert a published data set."""
    from alignrec_recbole.data.dataset_paths import check_can_be_downloaded, data_folders

    check_can_be_downloaded(dataset)  # before what imports more
    from alignrec_recbole.cli import _fetch, _needed, _next
    from alignrec_recbole.data.published import SPLIT, source_of, sources_of

    known = sources_of(dataset)
    name = source or (SPLIT if SPLIT in known else next(iter(known), SPLIT))
    root = data_folders(data_path)[0]
    about = _fetch.described(dataset, name, source_of(dataset, name), root, images=images)
    print(about, flush=True)
    said = _fetch.fetch_source(dataset, name, root, mirror=mirror, progress=progress, images=images)
    print("\n".join(said))
    if rekey is not None:
        from alignrec_recbole.cli import _rekey

        return _rekey.run(dataset, data_path, rekey)
    _next.show_first_run(dataset, data_path, content=_needed.has_features(root / dataset, dataset))
    return 0
