"""Names of pages, of their files and of the ids in them."""

from __future__ import annotations

import hashlib
import re

from alignrec_recbole.reports.grouping import SeedGroup
from alignrec_recbole.runs.record import Run, record_folder

MAX_SLUG_BYTES = 180  # of 255 that file systems allow
RESERVED = {"content"}  # ids that every page has


def run_page(run: Run) -> str:
    """Path of a run's page in the site."""
    return f"runs/{run_slug(run)}.html"


def run_slug(run: Run) -> str:
    """Name of a run's page: the parts of its record's path, or what is left of them and a hash."""
    record = run.record
    folder = record_folder(record.dataset, record.protocol, record.model)
    return safe("--".join([*folder.parts, run.path.stem]))


def run_title(run: Run, group: SeedGroup | None = None) -> str:
    """What a person calls a run: "AlignRec · minilm · seed 999"."""
    record = run.record
    parts = [group.label if group else record.model]
    parts += [record.features] if record.features != "none" else []
    parts += [record.protocol] if record.protocol != "full" else []
    return " · ".join([*parts, f"seed {record.seed}"])


def safe(whole: str) -> str:
    """A name for a page's file: the whole name, or what is left of it and a hash.

    >>> safe("sports"), safe("a b").startswith("a_b-")
    ('sports', True)
    """
    slug = re.sub(r"[^\w.+-]", "_", whole)
    if slug == whole and len(slug.encode()) <= MAX_SLUG_BYTES:
        return slug
    kept = slug.encode()[: MAX_SLUG_BYTES - 17].decode("utf-8", "ignore")
    return f"{kept}-{hashlib.sha256(whole.encode()).hexdigest()[:16]}"


def unique(name: str, other: str = "-") -> str:
    """A name for an HTML id: letters, digits and `other`; two names never have the same."""
    shown = re.sub(r"\W", other, name)
    if re.fullmatch(r"[\w-]+", name) and name not in RESERVED:
        return shown
    return f"{shown}{other}{hashlib.sha256(name.encode()).hexdigest()[:8]}"
