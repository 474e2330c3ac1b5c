"""What can be fetched for a data set: the sources in its YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignrec_recbole.data import dataset_paths
from alignrec_recbole.errors import DownloadError, UnknownNameError
from alignrec_recbole.io.published_file import PublishedFile, read_entries
from alignrec_recbole.io.suggest import suggest

SPLIT = "split"  # the source made of the block `downloads`
RAW = "raw"  # the source of item texts


class PublishedSource(BaseModel):
    """A source of a data set, from the block `sources` of its YAML file.

    Attributes:
        kind: what is done with the files: `files` are used as they are, an `archive` has splits and
            pickled features, `amazon` files are the raw reviews and metadata of 2014.
        about: what they hold.
        files: where they are.
        size: of all files, for people.
        licence: what may be done with them, for people.
        comparable: what a result may be compared with, for people.
        content: modality → hash of the values, where it is known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["files", "archive", "amazon"]
    about: str
    files: list[dict[str, Any]]
    size: str
    licence: str
    comparable: str
    content: dict[str, str] = Field(default_factory=dict)

    @property
    def entries(self) -> list[PublishedFile]:
        """The files, checked."""
        return read_entries(self.files)


def sources_of(dataset: str) -> dict[str, PublishedSource]:
    """The sources of a data set by name; the interactions alone are called `split`.

    Raises:
        DownloadError: a source in the YAML file cannot be used.
    """
    card = dataset_paths.dataset_defaults(dataset)
    found: dict[str, PublishedSource] = {}
    for name, value in card.get("sources", {}).items():
        try:
            found[name] = PublishedSource.model_validate(value)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise DownloadError(
                f"The source {name!r} of data set {dataset!r} cannot be used.",
                found=f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}",
                expected="the keys of properties/dataset/sports.yaml",
            ) from error
    if downloads := card.get("downloads"):
        found[SPLIT] = PublishedSource(
            kind="files",
            about="the interactions of the released split, without features",
            files=downloads,
            size="some megabytes",
            licence="none is stated: for your own use, do not redistribute",
            comparable="published results of models without item features",
        )
    return found


def source_of(dataset: str, name: str) -> PublishedSource:
    """A source of a data set by name.

    Raises:
        DownloadError: nothing of the data set can be fetched.
        UnknownNameError: it has other sources.
    """
    dataset_paths.check_can_be_downloaded(dataset)
    sources = sources_of(dataset)
    if name not in sources:
        raise UnknownNameError(
            f"Data set {dataset!r} has no source {name!r}." + suggest(name, sources),
            found=name,
            expected=", ".join(sources),
        )
    return sources[name]


def raw_folder(folder: Path) -> Path:
    """Where the fetched files of a data set are that are converted."""
    return folder / "downloads"
