"""Tables, plots and a site from stored records; nothing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from alignrec_recbole.reports.inputs import Inputs, digest_of_folder

Side = Literal["two-sided", "right-sided"]


def build(
    output: Path, target: str | None = None, side: Side = "two-sided", test: str = "t"
) -> list[Path]:
    """Write tables, plots and site; return the paths of the tables, the plots and the index.

    Nothing is read or written if records, options and code are those of the previous report; else
    the tables are written again, and of plots and pages those whose records changed.

    Raises:
        RecordError: there is no record, or one is damaged.
    """
    inputs = Inputs(output / "site" / "inputs.json")
    digest = digest_of_folder(output, [target, side, test])
    paths = [output / name for name in inputs.before.get("report", {}).get("paths", [])]
    if paths and inputs.unchanged("report", digest, paths):
        return paths

    from alignrec_recbole.reports.contents import write_report  # what is needed only from here on

    paths = write_report(output, inputs, target, side, test)
    inputs.note("report", digest, paths=[str(path.relative_to(output)) for path in paths])
    inputs.save()
    return paths
