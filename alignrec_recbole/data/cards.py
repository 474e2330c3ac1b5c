"""Cards of data sets: where one comes from, under which terms, how it is split, what leaks.

A card is the block `card` of `properties/dataset/NAME.yaml`. Counts are beside it, in `expected`,
and hashes of files in `downloads`. A data set that was made here has the manifest of its split
instead (`made_dataset.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignrec_recbole.data.dataset_paths import dataset_defaults
from alignrec_recbole.errors import DataError

Words = Annotated[str, Field(min_length=1, max_length=2000)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Verdict = Literal["clean", "suspicious", "leak"]  # of an audit, mildest first


class CardAudit(BaseModel):
    """The outcome of a committed audit of the data, `results/shipped/audit/`.

    Attributes:
        files: name → SHA-256 of the interactions that were audited.
        verdict: clean, suspicious or leak.
        not_clean: name → verdict of the checks that are not clean.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    files: Annotated[dict[Words, Sha256], Field(min_length=1)]
    verdict: Verdict
    not_clean: dict[Words, Verdict] = {}

    @property
    def in_short(self) -> str:
        """The verdict, with the checks of the worst kind."""
        worst = [name for name, verdict in self.not_clean.items() if verdict == self.verdict]
        return f"{self.verdict} ({', '.join(worst)})" if worst else self.verdict


class DatasetCard(BaseModel):
    """What is known of a registered data set.

    Attributes:
        source: where the interactions come from.
        address: of the source.
        licence: the terms, or that none are stated; `list datasets` shows what precedes a colon.
        split: how it was made; likewise.
        numbers: how users and items are numbered.
        leaks: name → what is known of it; empty if it was examined and none was found, None if it
            was not examined.
        split_sha256: of the split; see `split_sha256`.
        sha256: of files, by name.
        audit: of the data; None if it was not audited.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: Words
    address: Annotated[str, Field(pattern=r"^https?://\S+$", max_length=2000)]
    licence: Words
    split: Words
    numbers: Words
    leaks: dict[Words, Words] | None = None
    split_sha256: Sha256 | None = None
    sha256: dict[Words, Sha256] = {}
    audit: CardAudit | None = None

    @property
    def leaks_in_short(self) -> str:
        """The names of the leaks."""
        if self.leaks is None:
            return "not examined"
        return ", ".join(self.leaks) or "none found"


def read_card(name: str) -> DatasetCard | None:
    """The card of a registered data set; None if it has none.

    Raises:
        DataError: it has another form.
    """
    found = dataset_defaults(name).get("card")
    if found is None:
        return None
    try:
        return DatasetCard.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise DataError(
            f"The card of data set {name!r} cannot be used.",
            found=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            expected=", ".join(DatasetCard.model_fields),
            hint=f"correct the block `card` of properties/dataset/{name}.yaml",
        ) from error


def split_sha256(rows: Iterable[tuple[object, object, object]]) -> str:
    """SHA-256 of a split, the same for any order of rows and any other columns.

    Args:
        rows: user, item and label (0 train, 1 validation, 2 test) as they are written.

    >>> split_sha256([(1, 2, 0), (0, 2, 1)]) == split_sha256([("0", "2", "1"), ("1", "2", "0")])
    True
    """
    lines = sorted(f"{user}\t{item}\t{label}\n" for user, item, label in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
