"""The manifest `NAME.split.json` beside interactions that were split here, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignrec_recbole._version import __version__
from alignrec_recbole.errors import DataError, printable
from alignrec_recbole.io.opening import is_regular_file, read_bytes

SUFFIX = ".split.json"
MAX_MANIFEST_BYTES = 1 << 20
Numbers = Literal["random", "appearance", "released", "none", "re-keyed"]
Text = Annotated[str, Field(max_length=1000)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Origin(BaseModel):
    """What a re-keyed data set was made of.

    Attributes:
        dataset: its name.
        seed: of the new numbers.
        split_sha256: of its split, under its own ids; see `cards.split_sha256`.
        users_sha256, items_sha256: of the files that map its ids to the new ones.
    """

    model_config = ConfigDict(extra="forbid")

    dataset: Text
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    split_sha256: Sha256
    users_sha256: Sha256
    items_sha256: Sha256


class SplitManifest(BaseModel):
    """How a data set was made.

    Attributes:
        source: files that it was made from, with their SHA-256.
        numbering: random, appearance, released, none where ids are those of the source, or
            re-keyed: released numbers replaced by random ones.
        split: as it is written after `--split`.
        seed: of the numbers and of the split; of a re-keyed data set, of the split alone.
        interactions: of training, validation and test, or of all where there is no split.
        cuts: the times of the split `global-time`: training < V ≤ validation < T ≤ test.
        only_later: users and items without a training interaction, and their interactions.
        skipped: rows of the source that are not there, by reason.
        inter_sha256: of `NAME.inter`.
        split_sha256: see `cards.split_sha256`; of re-keyed data sets.
        rekeyed: the origin of a re-keyed data set.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    dataset: Text
    source: dict[Text, Sha256]
    numbering: Numbers
    split: Text
    seed: int
    users: Count
    items: Count
    interactions: Annotated[list[Count], Field(min_length=1, max_length=3)]
    cuts: tuple[float | int, float | int] | None = None
    only_later: dict[Text, Count]
    skipped: dict[Text, Count] = {}
    inter_sha256: Sha256
    split_sha256: Sha256 | None = None
    rekeyed: Origin | None = None
    made_by: Text = f"alignrec-recbole {__version__}"


def read_split_manifest(folder: Path, name: str) -> SplitManifest | None:
    """The manifest of a data set's folder; None if it has none.

    Raises:
        DataError: it is damaged.
    """
    path = folder / f"{name}{SUFFIX}"
    if not is_regular_file(path):
        return None
    data = read_bytes(path, what="manifest of a split", max_bytes=MAX_MANIFEST_BYTES)
    try:
        return SplitManifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise DataError(
            f"{path.name} is not the manifest of a split.",
            found=printable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 200),
            expected="the file that was written with the interactions",
            hint=f"restore it, or delete it: {name}.inter is then read as a released split",
        ) from error


def split_of_files(folder: Path, name: str, files: Mapping[str, str]) -> dict[str, Any]:
    """How the split of a data set that comes with it was made, for records.

    Args:
        files: name → SHA-256 of the interactions.

    Raises:
        DataError: the manifest is damaged, or describes other interactions.
    """
    made = read_split_manifest(folder, name)
    released = {"kind": "released", "labels": "x_label"}
    if made is None or (made.split == "released" and made.rekeyed is None):
        return released
    file = f"{name}.inter"
    if made.inter_sha256 != files.get(file):
        raise DataError(
            f"{file} is not the file that {name}{SUFFIX} describes.",
            found=f"SHA-256 {str(files.get(file))[:12]}…",
            expected=f"{made.inter_sha256[:12]}…, the split {made.split} of seed {made.seed}",
            hint=f"restore it, or delete {name}{SUFFIX}: it is then a released split",
        )
    drawn = {"kind": "drawn", "split": made.split, "seed": made.seed}
    out: dict[str, Any] = released if made.split == "released" else drawn
    if made.rekeyed is not None:
        out["rekeyed"] = {"dataset": made.rekeyed.dataset, "seed": made.rekeyed.seed}
    return out


def summary(manifest: SplitManifest) -> list[list[object]]:
    """Rows for a terminal: the numbering, the split, and what it leaves without training."""
    later = manifest.only_later
    rows: list[list[object]] = [
        ["numbers", manifest.numbering],
        ["split", manifest.split],
        ["seed", manifest.seed],
        ["training, validation, test" if len(manifest.interactions) > 1 else "interactions",
         ", ".join(map(str, manifest.interactions))],
    ]  # fmt: skip
    if manifest.rekeyed is not None:
        rows.append(["re-keyed from", f"{manifest.rekeyed.dataset}, seed {manifest.rekeyed.seed}"])
    if manifest.cuts is not None:
        rows.append(["cut points in time", ", ".join(map(str, manifest.cuts))])
    for kind in ("user", "item"):
        if later[f"{kind}s"]:
            rows.append(
                [
                    f"{kind}s without a training interaction",
                    f"{later[f'{kind}s']}, with {later[f'{kind}_interactions']} later interactions",
                ]
            )
    return rows
