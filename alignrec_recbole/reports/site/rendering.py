"""Pages from templates: escaped, with one style sheet, one script and nothing from elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignrec_recbole.errors import printable
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.reports.inputs import Inputs, digest_of

TEMPLATES = Path(__file__).parent.parent / "templates"
ASSETS = ("site.css", "site.js")
MAX_SHOWN = 20_000  # characters of one text on a page: a traceback


def write_page(
    folder: Path,
    name: str,
    template: str,
    values: dict[str, Any],
    inputs: Inputs,
    files: Sequence[Path] = (),
) -> Path:
    """Write one page if its values, its files or the code changed; return its path."""
    path = folder / name
    digest = digest_of(name, files, values)
    if not inputs.unchanged(name, digest, [path]):
        root = "../" * name.count("/")
        text = _environment().get_template(template).render(root=root, **values)
        with atomic_write(path, "w") as handle:
            handle.write(text)
        inputs.note(name, digest, [path])
    return path


def write_copy(folder: Path, name: str, source: Path, inputs: Inputs) -> None:
    """Copy a file that pages offer for download, so that the site is whole by itself."""
    path = folder / name
    digest = digest_of(name, [source])
    if not inputs.unchanged(name, digest, [path]):
        with atomic_write(path) as handle:
            handle.write(source.read_bytes())
        inputs.note(name, digest, [path])


def write_assets(folder: Path, inputs: Inputs) -> None:
    """The style sheet and the script."""
    for name in ASSETS:
        write_copy(folder, f"assets/{name}", TEMPLATES / name, inputs)


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )


def _printable(value: Any) -> Any:
    """Text without control characters; HTML of our own as it is."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    if len(value) <= MAX_SHOWN and value.isprintable():  # nearly always
        return value
    return printable(value, MAX_SHOWN)
