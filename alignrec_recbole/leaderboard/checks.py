"""What is checked of the records of a leaderboard without running anything.

The files come from anyone: their number and sizes are bounded, links are not followed, and every
record is read as `runs.record.read_record` reads it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from stat import S_ISREG

from alignrec_recbole.data.dataset_paths import dataset_defaults, registered_datasets
from alignrec_recbole.errors import AlignRecError, RecordError, UnknownNameError, printable
from alignrec_recbole.io.files import sha256_of
from alignrec_recbole.io.opening import open_input
from alignrec_recbole.leaderboard.findings import Check, Finding, name_in
from alignrec_recbole.protocols import PROTOCOLS, RANKER_NAMES
from alignrec_recbole.registry.models import resolve
from alignrec_recbole.reports.budgets import budget_of
from alignrec_recbole.reports.grouping import (
    SeedGroup,
    possible_hashes,
    settings_changed,
)
from alignrec_recbole.runs.record import NUMBERS_EPOCH, Run, RunRecord, read_record

FOLDERS = ("runs", "tuning")
MAX_FILES = 20_000
MAX_BYTES = 2 << 30  # of all files together
MAX_VALUES_BYTES = 256 << 20  # of a file of values per user
USER_VALUES = ".users.npz"
SHARES = re.compile(r"(Recall|NDCG|Precision|MAP|MRR|Hit)@(\d+)")
RISING = ("Recall", "Hit")  # metrics that are larger for longer lists
SLACK = 1e-9


def check_folder(folder: Path) -> tuple[list[Run], list[Run], list[Finding]]:
    """The usable records of `runs/`, those of `tuning/`, and what is wrong.

    Raises:
        RecordError: there is no record, or more than is looked at.
    """
    findings: list[Finding] = []
    found: dict[str, list[Run]] = {}
    for kind in FOLDERS:
        found[kind] = list(_read(folder, kind, findings))
    runs = found["runs"]
    if not runs and not findings:
        raise RecordError(
            f"{folder} has no record, so there is nothing to check.",
            found=f"no .json file in {folder / 'runs'}",
            expected="a folder whose runs/ holds records",
        )
    for run in runs:
        findings += [_finding(folder, run, *each) for each in _of_record(run.record)]
    findings += _duplicates(folder, runs)
    findings += _budgets(folder, runs, found["tuning"])
    return runs, found["tuning"], findings


def _read(folder: Path, kind: str, findings: list[Finding]) -> Iterator[Run]:
    """The records of one subfolder; what is no usable record becomes a finding."""
    files = _files(folder, folder / kind)
    records: dict[Path, RunRecord] = {}
    for path, regular in files.items():
        name = path.name
        if not regular:
            findings.append(_of_file(folder, path, "file", "It is a link or no regular file."))
        elif name.endswith(".json"):
            try:
                records[path] = read_record(path)
            except RecordError as error:
                findings.append(_of_file(folder, path, "record", _sentence(error)))
    for path, record in records.items():
        yield Run(path, record)
    for path, regular in files.items():
        if not regular or path.name.endswith(".json"):
            continue
        findings += _beside(folder, path, records)


def _beside(folder: Path, path: Path, records: Mapping[Path, RunRecord]) -> Iterator[Finding]:
    """Findings on a file that is no record: values per user that one names, or something else."""
    stem = path.name.removesuffix(USER_VALUES)
    record = records.get(path.with_name(f"{stem}.json"))
    described = record.per_user if record is not None else None
    if not path.name.endswith(USER_VALUES) or described is None:
        yield _of_file(folder, path, "file", "It is no record, and no record names it.")
        return
    try:
        with open_input(path, error=RecordError, max_bytes=MAX_VALUES_BYTES) as handle:
            digest = sha256_of(handle)
    except RecordError as error:
        yield _of_file(folder, path, "hash", _sentence(error))
        return
    if digest != described["sha256"]:
        problem = f"Its SHA-256 is {digest[:12]}…, in the record {described['sha256'][:12]}…"
        yield _of_file(folder, path, "hash", problem)


def _files(folder: Path, part: Path) -> dict[Path, bool]:
    """Paths in order, and whether each is a regular file; links are not followed.

    Raises:
        RecordError: there are more files or bytes than are looked at.
    """
    out: dict[Path, bool] = {}
    total = 0
    if part.is_symlink():
        return {part: False}
    for parent, folders, names in os.walk(part):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*names, *links):
            path = Path(parent, name)
            status = path.lstat()
            out[path] = S_ISREG(status.st_mode)
            total += status.st_size
        if len(out) > MAX_FILES or total > MAX_BYTES:
            raise RecordError(
                f"{folder} has more than is checked.",
                found=f"more than {MAX_FILES:,} files or {MAX_BYTES >> 30} GiB in {part.name}/",
                expected="a folder of records",
            )
    return dict(sorted(out.items()))


def _of_record(record: RunRecord) -> Iterator[tuple[Check, str]]:
    """Findings on one record by itself."""
    if record.status != "finished" or not record.metrics:
        yield "values", "It has no test metrics of a finished run."
    if record.numbers_epoch != NUMBERS_EPOCH:
        yield (
            "results version",
            f"It is of results version {record.numbers_epoch}, and tables show {NUMBERS_EPOCH}.",
        )
    if record.code.get("dirty"):
        yield "code", "It was made by modified code, which nobody else has."
    yield from _names(record)
    yield from _values(record)


def _names(record: RunRecord) -> Iterator[tuple[Check, str]]:
    if record.protocol not in PROTOCOLS:
        yield "names", f"This version has no protocol {record.protocol!r}."
    if record.model not in (*RANKER_NAMES, "none"):
        try:
            resolve(record.model)
        except UnknownNameError as error:
            yield "names", error.problem
    if record.dataset not in registered_datasets():
        yield "names", f"The data set {record.dataset!r} is not registered (`list datasets`)."
        return
    for key, wanted in (dataset_defaults(record.dataset).get("expected") or {}).items():
        if record.data.get(key) != wanted:
            there = printable(str(record.data.get(key)), 80)
            yield "data", f"{key} is {there}, and {wanted} in the released data set."


def _values(record: RunRecord) -> Iterator[tuple[Check, str]]:
    """Findings on figures that cannot be."""
    for where, metrics in (("test", record.metrics), ("validation", record.valid_metrics)):
        by_name: dict[str, dict[int, float]] = {}
        for name, value in metrics.items():
            match = SHARES.fullmatch(name)
            if match is None:
                continue
            by_name.setdefault(match[1], {})[int(match[2])] = value
            if not -SLACK <= value <= 1 + SLACK:
                yield "values", f"{name} ({where}) is {value:g}, which is not between 0 and 1."
        for name in RISING:
            lengths = sorted(by_name.get(name, {}))
            values = [by_name[name][length] for length in lengths]
            for place in range(1, len(values)):
                if values[place] < values[place - 1] - SLACK:
                    yield (
                        "values",
                        f"{name}@{lengths[place]} ({where}) is below that of a shorter list.",
                    )
    valid = [entry["valid"] for entry in record.history if entry.get("valid") is not None]
    best = record.selection.get("best_score")
    if valid and best is not None and abs(best - max(valid)) > SLACK:
        yield "values", f"Its best validation score is {best:g}, in its history {max(valid):g}."
    if record.history and len(record.history) != record.epochs:
        yield "values", f"It names {record.epochs} epochs, and its history {len(record.history)}."


def _duplicates(folder: Path, runs: Sequence[Run]) -> Iterator[Finding]:
    """Findings on runs that are there twice, and on epochs of another run."""
    first: dict[tuple[str, int], Run] = {}
    epochs: dict[tuple[float, ...], Run] = {}
    for run in runs:
        record = run.record
        key = possible_hashes(record)[-1], record.seed
        other = first.setdefault(key, run)
        if other is not run:
            problem = f"It is the run of {name_in(folder, other.path)}."
            yield _of_file(folder, run.path, "duplicate", problem)
            continue
        if record.protocol != "full" or not record.history:
            continue
        course = tuple(entry["loss"] for entry in record.history)
        other = epochs.setdefault(course, run)
        if other is not run and len(set(course)) > 1:
            problem = (
                f"Its losses are those of {name_in(folder, other.path)}, epoch by epoch, and its "
                "configuration or seed is another."
            )
            yield _of_file(folder, run.path, "copy", problem)


def _budgets(folder: Path, runs: Sequence[Run], tuning: Sequence[Run]) -> Iterator[Finding]:
    """Findings on trained rows whose settings were chosen nobody knows how."""
    for run in runs:
        record = run.record
        if record.protocol != "full":
            continue
        changed = settings_changed(record)
        stored = record.budget
        if stored is not None:
            trials = [t for t in stored["curve"] if t["state"] == "complete"]
            best = max((t["score"] for t in trials if t["score"] is not None), default=None)
            chosen = next(t for t in stored["curve"] if t["trial"] == stored["chosen"])
            if chosen["score"] is None or best is None or chosen["score"] < best - SLACK:
                problem = (
                    f"Trial {stored['chosen']} was chosen, and another one has a better score."
                )
                yield _of_file(folder, run.path, "budget", problem)
        elif record.tuned_on is not None:
            if budget_of(SeedGroup(record.model, (run,)), tuning) is None:
                problem = "Its settings were chosen, and neither it nor tuning/ has the trials."
                yield _of_file(folder, run.path, "budget", problem)
        elif changed:
            problem = (
                f"It has no budget, and settings other than the usual ones: {', '.join(changed)}."
            )
            yield _of_file(folder, run.path, "budget", problem)


def _sentence(error: AlignRecError) -> str:
    found = f" {error.found}" if error.found else ""
    return printable(f"{error.problem}{found}", 600).replace("\n", " ")


def _finding(folder: Path, run: Run, check: Check, problem: str) -> Finding:
    return _of_file(folder, run.path, check, problem)


def _of_file(folder: Path, path: Path, check: Check, problem: str) -> Finding:
    return Finding(path=name_in(folder, path), check=check, problem=printable(problem, 800))
