"""Check a leaderboard: its files and records, and a sample of them run again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from alignrec_recbole.leaderboard.checks import check_folder
from alignrec_recbole.leaderboard.findings import BoardReport, name_in
from alignrec_recbole.leaderboard.sample import Limits, candidates, draw, run_again

MAX_FINDINGS = 1000  # that a report lists


def check_board(
    folder: Path,
    limits: Limits,
    among: Collection[str] | None = None,
    say: Callable[[str], None] = print,
) -> BoardReport:
    """Check every record, and run a sample of the sound ones again.

    Args:
        among: paths under the folder that the sample is drawn from; None: all records.
        say: called with a line per step.

    Raises:
        RecordError: there is no record, or more than is checked.
    """
    runs, tuning, findings = check_folder(folder)
    wrong = {finding.path for finding in findings}
    paths = [name_in(folder, run.path) for run in (*runs, *tuning)]
    unusable = sum(finding.check == "record" for finding in findings)
    sound = [run for run in runs if name_in(folder, run.path) not in wrong]
    possible = candidates(folder, sound, limits) if limits.records else {}
    if among is not None:
        possible = {name: run for name, run in possible.items() if name in among}
    reruns = []
    drawn = draw(list(possible), limits.records, limits.seed)
    for name in drawn:
        say(f"running again: {name}")
        reruns.append(run_again(name, possible[name].record, limits))
    return BoardReport(
        records=len(paths) + unusable,
        sound=sum(name not in wrong for name in paths),
        findings=findings[:MAX_FINDINGS],
        found=len(findings),
        wanted=limits.records,
        sample_seed=limits.seed,
        candidates=len(possible),
        tolerance=limits.tolerance,
        reruns=reruns,
    )
