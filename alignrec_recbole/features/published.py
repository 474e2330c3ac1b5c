"""Names of the features that published tables were made with.

A data set's folder may have them as `features/mmrec-image.npy`, `features/mmrec-text.npy` and so
on; the name of the group, `mmrec`, means all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alignrec_recbole.errors import UnknownNameError
from alignrec_recbole.features.derived_names import is_control, is_filled
from alignrec_recbole.io.opening import is_regular_file

GROUPS = ("mmrec", "mmssl")
MODALITIES = ("image", "text", "audio")
GROUP_KEY = "published"  # of a manifest's settings
CONTENT_KEY = "content_sha256"  # same


def feature_path(folder: Path, group: str, modality: str) -> Path:
    """Where a data set's folder has a modality of a group."""
    return folder / "features" / f"{group}-{modality}.npy"


def present_features(folder: Path, group: str) -> tuple[str, ...]:
    """Names of the features of a group that a data set's folder has."""
    paths = [feature_path(folder, group, modality) for modality in MODALITIES]
    return tuple(path.stem for path in paths if is_regular_file(path))


def default_features(folder: Path, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """The features of a run that names none: the published ones if they are there."""
    found = (present_features(folder, group) for group in GROUPS)
    return next((names for names in found if names), otherwise)


def expanded(names: Iterable[str], folder: Path) -> tuple[str, ...]:
    """Names of features with each group replaced by what the data set's folder has of it.

    A control or filled set of a group, such as `shuffled:GROUP` or `filled-mean:shuffled:GROUP`,
    becomes that of each of its features.

    Raises:
        UnknownNameError: the folder has nothing of a group.
    """
    out: list[str] = []
    for name in names:
        rest = name
        while ":" in rest and (is_control(rest) or is_filled(rest)):
            rest = rest.partition(":")[2]
        before = name.removesuffix(rest)
        group, at, seed = rest.partition("@")
        if group not in GROUPS or (at and not before):
            out.append(name)
            continue
        found = present_features(folder, group)
        if not found:
            raise UnknownNameError(
                f"The published features {group!r} are not in the data set's folder.",
                found=f"no {group}-image.npy or {group}-text.npy in {folder / 'features'}",
                expected=f"the files that `download --source {group}` makes",
                hint=f"run_benchmark.py download --dataset {folder.name} --source {group}",
            )
        out += [f"{before}{each}{at}{seed}" for each in found]
    return tuple(dict.fromkeys(out))


def group_of(feature_files: Mapping[str, Mapping[str, Any]]) -> str:
    """The group whose image and text features a run used and nothing else; "" if another's.

    Args:
        feature_files: name → manifest summary, as in a record.
    """
    settings = [file.get("settings", {}) for file in feature_files.values()]
    groups = {each.get(GROUP_KEY) for each in settings}
    whole = {file.get("modality") for file in feature_files.values()} >= {"image", "text"}
    (group, *others) = groups or {""}
    return str(group) if group in GROUPS and not others and whole else ""
