"""The published formats by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from alignrec_recbole.data.formats import amazon2023, hm, microlens, mmssl, westlake
from alignrec_recbole.data.image_download import HOSTS
from alignrec_recbole.data.source import Source


class Reader(Protocol):
    """Reads a folder."""

    def __call__(self, folder: Path, bad: Counter[str] | None = None) -> Source:
        """What the folder has; `bad` counts lines that are skipped, None: they are errors."""


@dataclass(frozen=True)
class Format:
    """A published format.

    Attributes:
        read: its reader.
        files: what the folder contains, for help and errors.
        image_hosts: hosts that addresses of its images lead to.
    """

    read: Reader
    files: str
    image_hosts: tuple[str, ...] = ()


FORMATS: dict[str, Format] = {
    "amazon2023": Format(
        amazon2023.read, "<Cat>.jsonl[.gz] or <Cat>.{train,valid,test}.csv, meta_<Cat>.jsonl[.gz]",
        image_hosts=HOSTS,
    ),
    "microlens": Format(
        microlens.read, "MicroLens-*_pairs.csv, *_titles.csv or *_title_en.csv, *_covers/"
    ),
    "mmssl": Format(mmssl.read, "5-core/{train,val,test}.json, image_feat.npy, text_feat.npy"),
    "hm": Format(hm.read, "transactions_train.csv, articles.csv, images/"),
    "pixelrec": Format(westlake.read_pixelrec, "Pixel*.csv, item table, covers/"),
    "ninerec": Format(westlake.read_ninerec, "*_pair.csv, *_item.csv, *_cover/"),
}  # fmt: skip
