"""The work of `leaderboard check`: from its options to findings, tables and a status."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from alignrec_recbole.errors import DataError, printable
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.io.opening import read_text
from alignrec_recbole.leaderboard.check import check_board
from alignrec_recbole.leaderboard.findings import BoardReport
from alignrec_recbole.leaderboard.sample import Limits

MAX_LIST_BYTES = 8 << 20
SHOWN = 50  # findings on a terminal; --json has more


def run(
    *,
    folder: Path,
    rerun: int,
    sample_seed: int,
    among: Path | None,
    tolerance: float,
    rerun_seconds: int,
    data_path: Path | None,
    features_path: Path | None,
    device: str,
    json_file: Path | None,
) -> int:
    """Check, print what was found and write it; returns the exit status."""
    limits = Limits(
        records=rerun,
        seconds=float(rerun_seconds),
        tolerance=tolerance,
        seed=sample_seed,
        data_path=data_path,
        features_path=features_path,
        device=device,
    )
    report = check_board(folder, limits, _listed(among), _say)
    if json_file is not None:
        with atomic_write(json_file, "w") as handle:
            json.dump({**report.model_dump(), "passed": report.passed}, handle, indent=1)
            handle.write("\n")
    for line in lines(report):
        print(printable(line, 2000))
    return int(not report.passed)


def lines(report: BoardReport) -> list[str]:
    """What a report says, for the terminal."""
    out = [f"{report.records} records, {report.sound} without a finding"]
    for finding in report.findings[:SHOWN]:
        out += [f"{finding.check}: {finding.path}", f"  {finding.problem}"]
    if report.found > SHOWN:
        out.append(f"… and {report.found - SHOWN} more findings")
    if report.wanted:
        out.append(
            f"{len(report.reruns)} of {report.candidates} records drawn with seed "
            f"{report.sample_seed}; a metric agrees within {report.tolerance:.1%}"
        )
    for again in report.reruns:
        out += [f"{again.state}: {again.path}", f"  {again.reason}"]
    return out


def _listed(path: Path | None) -> set[str] | None:
    """The lines of --among."""
    if path is None:
        return None
    text = read_text(path, what="list of records", max_bytes=MAX_LIST_BYTES, error=DataError)
    return {line.strip() for line in text.splitlines() if line.strip()}


def _say(line: str) -> None:
    print(printable(line, 500), file=sys.stderr)
