"""Where the data sets lie."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from alignrec_recbole.errors import UnknownNameError
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml


def data_folders(data_path: Path | None) -> list[Path]:
    """Folders searched for data sets: --data-path, else $ALIGNREC_DATA, else ./data."""
    if data_path is not None:
        return [Path(data_path)]
    named = os.environ.get("ALIGNREC_DATA")
    return [Path(named)] if named else [Path("data")]


def find_dataset(name: str, data_path: Path | None = None) -> Path:
    """The folder of a data set.

    ml-100k, which ships inside the recbole package, is found there if nowhere else.

    Raises:
        UnknownNameError: with the places searched and the remedies.
    """
    folders = data_folders(data_path)
    for folder in folders:
        path = inside(folder, name)
        if any(path.glob(f"{name}*.inter")):
            return path.resolve()
    if name == "ml-100k":
        shipped = _recbole_examples() / name
        if shipped.is_dir():
            return shipped
    registered = sorted(path.stem for path in (properties_dir() / "dataset").glob("*.yaml"))
    present = sorted(
        {path.parent.name for folder in folders for path in folder.glob("*/*.inter")} | {"ml-100k"}
    )
    near = difflib.get_close_matches(name, {*registered, *present}, n=1)
    hint = f" Did you mean {near[0]!r}?" if near and near[0] != name else ""
    known = name in registered
    published = "downloads" in read_yaml(inside(properties_dir() / "dataset", f"{name}.yaml"))
    raise UnknownNameError(
        f"Data set {name!r} {'is known but its files are not here' if known else 'is unknown'}."
        + hint,
        found=f"no {name}.inter in {', '.join(str(folder / name) for folder in folders)}",
        expected=f"a folder {name}/ with {name}.inter; found here: {', '.join(present)}",
        hint="pass --data-path FOLDER or set ALIGNREC_DATA"
        + (f"; to fetch it: run_benchmark.py download --dataset {name}" if published else ""),
    )


def _recbole_examples() -> Path:
    import recbole

    return Path(recbole.__file__).parent / "dataset_example"
