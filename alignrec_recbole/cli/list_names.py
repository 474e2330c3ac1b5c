"""The verb `list`: names that options accept, with one line about each."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import cloup

from alignrec_recbole.cli import _options
from alignrec_recbole.cli._verb import verb
from alignrec_recbole.compat.patching import package_spec
from alignrec_recbole.errors import DataError, printable
from alignrec_recbole.io.opening import is_regular_file, read_text

if TYPE_CHECKING:
    from alignrec_recbole.data.cards import DatasetCard
    from alignrec_recbole.registry.models import ModelEntry

SOURCES = {
    "native": "this package",
    "plugin": "plug-in",
    "recbole": "RecBole",
    "recbole-gnn": "RecBole-GNN",
}

AUDITS = Path("results", "audit")  # where `audit` writes by default
NOT_AUDITED = "not audited"
MAX_SOURCE = 1 << 20  # bytes of a model's file
MAX_PRINTED = 1 << 20  # characters of a cell
NARROWEST = 16  # columns of a cell that is wrapped
BETWEEN = 2  # columns between cells
_BLOCK = re.MULTILINE | re.DOTALL

Table = tuple[list[str], list[list[object]]]  # headers, rows


def models(data_path: Path | None) -> Table:
    """Models of this package, of plug-ins, RecBole and RecBole-GNN."""
    from alignrec_recbole.registry.models import list_models

    rows: list[list[object]] = [
        [
            entry.name,
            SOURCES[entry.family],
            "required" if entry.needs_features else "",
            _about_model(entry),
        ]
        for entry in list_models()
    ]
    return ["model", "from", "features", "description"], rows


def datasets(data_path: Path | None) -> Table:
    """Registered data sets and those in the data folders, with their cards in short."""
    from alignrec_recbole.data import dataset_paths

    folders = dataset_paths.data_folders(data_path)
    registered = dataset_paths.registered_datasets()
    rows: list[list[object]] = []
    for name in [*registered, *sorted({*dataset_paths.present_datasets(folders)} - {*registered})]:
        place = dataset_paths.locate_dataset(name, folders)
        remedy = "download" if dataset_paths.can_be_downloaded(name) else "missing"
        about = _first_comment("dataset", name) if name in registered else "your own"
        rows.append([name, place or remedy, *_card(name, place), about])
    return ["data set", "files", "split", "licence", "known leaks", "audit", "description"], rows


def _card(name: str, place: Path | None) -> list[object]:
    """The split, the licence, the known leaks and the verdict of the audit of a data set."""
    from alignrec_recbole.data.cards import read_card
    from alignrec_recbole.data.split_manifest import read_split_manifest

    card, made, split = read_card(name), None, ""
    if place is not None:
        try:
            made = read_split_manifest(place, name)
        except DataError as error:
            split = str(error).splitlines()[0]
    audit = _verdict(card, name, place)
    licence = card.licence.partition(":")[0] if card else ""
    if made is not None and made.rekeyed is not None:
        origin = read_card(made.rekeyed.dataset)
        licence = origin.licence.partition(":")[0] if origin else ""
        what = f"{made.split}, of {made.rekeyed.dataset}, re-keyed with seed {made.rekeyed.seed}"
        return [what, licence, "none by numbers", audit]
    if made is None or made.split == "released":
        leaks = card.leaks_in_short if card else "not examined"
        return [split or (card.split.partition(":")[0] if card else ""), licence, leaks, audit]
    leaks = "user and item numbers" if made.numbering == "appearance" else "none by numbers"
    return [f"{made.split}, seed {made.seed}", licence, leaks, audit]


def _verdict(card: DatasetCard | None, name: str, place: Path | None) -> str:
    """What the audit of these files found: that of the card, else one in results/audit."""
    from alignrec_recbole.data.dataset_paths import interaction_files, split_files
    from alignrec_recbole.io.files import sha256_file

    known = card.audit if card else None
    if place is None:
        return known.in_short if known else NOT_AUDITED
    paths = [*interaction_files(place, name), *split_files(place, name)]
    files = {path.name: sha256_file(path) for path in paths if is_regular_file(path)}
    if known and known.files.items() <= files.items():
        return known.in_short
    return _stored_verdict(files) if AUDITS.is_dir() else NOT_AUDITED


def _stored_verdict(files: dict[str, str]) -> str:
    """The verdict of the first report in results/audit that is about these files."""
    from alignrec_recbole.audit.report import OF_DATA, read_audits, worst
    from alignrec_recbole.data.cards import CardAudit

    for _, report in read_audits(AUDITS, lambda path, error: None):
        if report.data["files"] and report.data["files"].items() <= files.items():
            checks = {check.name: check.verdict for check in report.not_clean(OF_DATA)}
            found = CardAudit(files=files, verdict=worst(checks.values()), not_clean=checks)
            return found.in_short
    return NOT_AUDITED


def encoders(data_path: Path | None) -> Table:
    """Encoders of item content."""
    from alignrec_recbole.encoders.registry import ENCODERS

    rows: list[list[object]] = [
        [
            entry.syntax,
            entry.modality,
            entry.width,
            entry.extra or "",
            entry.licence,
            entry.downloads,
            "" if not entry.missing_packages() else entry.install,
            entry.description,
        ]
        for entry in ENCODERS.values()
    ]
    return [
        "encoder", "modality", "width", "extra", "licence", "downloads", "to install",
        "description",
    ], rows  # fmt: skip


def protocols(data_path: Path | None) -> Table:
    """Evaluation protocols."""
    from alignrec_recbole.protocols import PROTOCOLS

    return ["protocol", "trains", "question"], [
        [p.name, p.trains, p.question] for p in PROTOCOLS.values()
    ]


def suites(data_path: Path | None) -> Table:
    """Suites of the package."""
    from alignrec_recbole.suites.names import suite_names
    from alignrec_recbole.suites.schema import read_suite

    rows: list[list[object]] = [
        [name, len(read_suite(name).expanded), _first_comment("suite", name)]
        for name in suite_names()
    ]
    return ["suite", "cells", "description"], rows


def metrics(data_path: Path | None) -> Table:
    """Ranking metrics."""
    from alignrec_recbole.evaluation.metrics import METRICS

    rows: list[list[object]] = [
        [f"{name}@K", (function.__doc__ or "").splitlines()[0]]
        for name, function in METRICS.items()
    ]
    return ["metric", "per user"], rows


def trackers(data_path: Path | None) -> Table:
    """Trackers of runs."""
    from alignrec_recbole.tracking import TRACKERS

    return ["tracker", "to install", "description"], [
        [entry.name, entry.install if entry.missing_packages() else "", entry.about]
        for entry in TRACKERS.values()
    ]


def published(data_path: Path | None) -> Table:
    """Published settings of models on data sets."""
    from alignrec_recbole.registry.published import published_models, published_of

    rows: list[list[object]] = [
        [
            model,
            dataset,
            " ".join(f"{key}={value}" for key, value in found.settings.items()),
            found.source,
        ]
        for model in published_models()
        for dataset, found in published_of(model).items()
    ]
    return ["model", "data set", "settings", "source"], rows


KINDS: dict[str, Callable[[Path | None], Table]] = {
    function.__name__: function
    for function in (models, datasets, encoders, protocols, suites, metrics, trackers, published)
}


@verb(name="list", examples=("list models", "list datasets --data-path data"))
@cloup.argument("kind", type=click.Choice(list(KINDS)), help="What to list.")
@_options.data_path()
def list_names(kind: str, data_path: Path | None) -> int:
    """List models, data sets, encoders, protocols and more.

    In a terminal, wide columns are wrapped to its width.
    """
    from tabulate import tabulate

    headers, rows = KINDS[kind](data_path)
    cells = [[printable(str(cell), limit=MAX_PRINTED) for cell in row] for row in rows]
    widths: list[int | None] = [None] * len(headers)
    if sys.stdout is not None and sys.stdout.isatty():
        widths = fitted(headers, cells, shutil.get_terminal_size().columns)
    print(tabulate(cells, headers, tablefmt="simple", maxcolwidths=widths))
    return 0


def fitted(headers: list[str], rows: list[list[str]], columns: int) -> list[int | None]:
    """Widths at which a table fits: the widest columns are narrowed, to NARROWEST at the least.

    >>> fitted(["name", "about"], [["a" * 8, "b" * 90]], 60), fitted(["a", "b"], [["", ""]], 60)
    ([8, 50], [3, 3])
    """
    least = [len(header) + BETWEEN for header in headers]  # tabulate's own
    widths = [max(width, *map(len, column)) for width, *column in zip(least, *rows, strict=True)]
    left = columns - BETWEEN * (len(widths) - 1)
    while sum(widths) > left:
        widest = max(range(len(widths)), key=lambda n: widths[n] * (widths[n] > least[n]))
        if widths[widest] <= max(NARROWEST, least[widest]):
            break
        widths[widest] -= 1
    return [*widths]


def _about_model(entry: ModelEntry) -> str:
    """The first sentence about a model in its source, read without importing it."""
    module, _, name = entry.target.partition(":")
    top, *parts = module.split(".")
    spec, text = None, ""
    with contextlib.suppress(ImportError, ValueError):  # a plug-in's name may be anything
        spec = package_spec(top)
    with contextlib.suppress(DataError, ValueError):  # a plug-in's file may be anything
        folder = ((spec and spec.submodule_search_locations) or [top])[0]
        path = Path(folder, *parts).with_suffix(".py")
        text = read_text(path, max_bytes=MAX_SOURCE)
    if entry.family == "native":
        found = re.match(r'"""[\w-]+: (.+)', text)
    else:
        found = re.search(
            rf'^class {re.escape(name)}\b[^\n]*:\s+r?"""(.+?)(?:\.\s|\n\s*\n|""")', text, _BLOCK
        )
    if found is None:
        return f"class {entry.target}"
    words = " ".join(found[1].split()).rstrip(".")
    return words[:1].upper() + words[1:]


def _first_comment(kind: str, name: str) -> str:
    """The first sentence of a YAML file's opening comment."""
    from alignrec_recbole.io.yaml_loader import properties_dir

    text = (properties_dir() / kind / f"{name}.yaml").read_text("utf-8")
    comment = re.match(r"(?:#.*\n)*", text)
    words = " ".join(line.strip("# ") for line in (comment[0] if comment else "").splitlines())
    return re.split(r"(?<=[a-z)\d][.?]) ", words)[0]
