"""Tables, plots and a site from stored records; nothing is run."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from alignrec_recbole.errors import RecordError
from alignrec_recbole.reports.inputs import Inputs, digest_of_folder

Side = Literal["two-sided", "right-sided"]


def build(
    output: Path,
    target: str | None = None,
    side: Side = "two-sided",
    test: str = "t",
    skipped: Callable[[Path, RecordError], None] | None = None,
    width: str = "page",
    figures: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> list[Path]:
    """Write tables, plots and site; return the paths of the tables, the plots and the index.

    Nothing is written if records, options and code are those of the previous report; else the
    tables are written again, and of plots and pages those whose records changed. Files of the
    previous report that this one does not have are deleted.

    Args:
        skipped: called for every file that cannot be used; the report is then made of the others.
            Without it, the error is raised.
        width: of the figures: column (3.3 in) or page (7 in).
        figures: draw these alone, by kind (cost) or name (baby-cost); tables and site stay as
            they are.
        columns: of the first LaTeX table of ranked rows; without them, the usual metrics.

    Raises:
        RecordError: there is no record, or one cannot be used and `skipped` is not given.
        UnknownNameError: no record has the target, none gives a figure, or no table has a column.
    """
    inputs = Inputs(output)
    digest = digest_of_folder(output, [target, side, test, width, *columns])
    if not figures and (paths := inputs.reported(digest)):
        return paths

    from alignrec_recbole.reports import contents  # what is needed only from here on

    unusable: list[Path] = []

    def skip(path: Path, error: RecordError) -> None:
        if skipped is None:
            raise error
        unusable.append(path)
        skipped(path, error)

    with _rare_collections():
        if figures:
            paths = contents.write_figures(output, inputs, target, skip, figures, width)
            inputs.update()
            return paths
        paths = contents.write_report(output, inputs, target, side, test, skip, width, columns)
        inputs.finish("" if unusable else digest, paths)
        return paths


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look for unreachable cycles less often: a tenth of the time, 25 MiB more."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
