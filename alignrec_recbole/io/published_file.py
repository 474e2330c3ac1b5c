"""What a data set's YAML block `downloads` says about its files, checked."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from alignrec_recbole.errors import DownloadError
from alignrec_recbole.io.names import is_safe_name


class PublishedFile(BaseModel):
    """An entry of a data set's YAML block `downloads`.

    Attributes:
        file: name in the data set's folder.
        url: http or https.
        gdrive: file id of Google Drive, instead of a URL.
        sha256: of the content.
        git_blob: git's object id of the content.
        bytes: size of the content; also raises the limit of sizes.
        starts: regular expression of the first bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    file: str
    url: str | None = Field(None, max_length=2000)
    gdrive: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,200}$")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    git_blob: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    bytes: int | None = Field(None, ge=0, le=1 << 50)
    starts: re.Pattern | None = None

    @field_validator("file")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not is_safe_name(name) or name.endswith((".part", ".part.json")):
            raise ValueError(f"{name!r} is not a plain file name, or ends as partial files do")
        return name

    @field_validator("starts", mode="before")
    @classmethod
    def _compiled(cls, pattern: object) -> object:
        return re.compile(pattern) if isinstance(pattern, bytes) else pattern

    @model_validator(mode="after")
    def _one_source(self) -> PublishedFile:
        if (self.url is None) == (self.gdrive is None):
            raise ValueError("needs one of `url` and `gdrive`")
        return self

    @property
    def has_checksum(self) -> bool:
        """Whether another content would be noticed."""
        return bool(self.sha256 or self.git_blob)


def read_entries(downloads: object) -> list[PublishedFile]:
    """Check the entries of a block `downloads`.

    Raises:
        DownloadError: it is no list, or an entry has an unknown key, a wrong value, no source or
            the file name of another one.
    """
    if not isinstance(downloads, list) or not downloads:
        raise DownloadError(
            "The files to download cannot be read.",
            found=f"`downloads` is {type(downloads).__name__}, or empty",
            expected="a list of entries with `file` and `url`",
        )
    entries: list[PublishedFile] = []
    for number, entry in enumerate(downloads, 1):
        try:
            entries.append(PublishedFile.model_validate(entry))
        except (ValidationError, re.error) as error:
            raise DownloadError(
                f"Entry {number} of `downloads` cannot be used.",
                found=_first_problem(error),
                expected="`file`, `url` or `gdrive`; optional: `sha256`, `git_blob`, `bytes`",
            ) from error
    names = [entry.file for entry in entries]
    if len({name.casefold() for name in names}) < len(names):
        raise DownloadError(
            "Two entries of `downloads` have the same file.", found=", ".join(names)
        )
    return entries


def _first_problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]
