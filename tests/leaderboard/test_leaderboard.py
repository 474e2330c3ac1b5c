"""`leaderboard check`: sound records pass, altered ones are found, and a sample is run again."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from records import store
from trials import check_answered, check_refused, run_verb, trial

from alignrec_recbole.engines import child
from alignrec_recbole.leaderboard import checks, sample
from alignrec_recbole.leaderboard.check import check_board
from alignrec_recbole.leaderboard.findings import BoardReport
from alignrec_recbole.leaderboard.sample import Limits, compared, run_again
from alignrec_recbole.runs.config_hash import config_hashes
from alignrec_recbole.runs.record import RunRecord, read_record, read_runs
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec

SHIPPED = Path(__file__).resolve().parents[2] / "results" / "shipped"
LIMITS = Limits(records=0, seconds=600, tolerance=0.05)


def shipped(model: str, seed: int = 999) -> RunRecord:
    """A committed record of ml-100k, which comes with RecBole."""
    paths = sorted((SHIPPED / "runs" / "ml-100k" / model).glob(f"*-s{seed}.json"))
    return read_record(paths[0])


def changed(record: RunRecord, **fields: Any) -> RunRecord:
    """The record with other content and the hash of that content."""
    made = record.model_copy(update=fields)
    identity = ("model", "dataset", "protocol", "config", "data", "feature_files")
    digest = config_hashes(**{key: getattr(made, key) for key in identity})[0]
    update = {"config_sha256": digest, "per_user": None, "weights": None}
    return made.model_copy(update=update)


def board(folder: Path, *records: RunRecord) -> Path:
    for record in records:
        store(folder, record.model_copy(update={"per_user": None, "weights": None}))
    return folder


def found(report: BoardReport) -> list[str]:
    return [finding.check for finding in report.findings]


def test_sound_records_pass(tmp_path: Path) -> None:
    folder = board(tmp_path, *(shipped(model) for model in ("EASE", "Pop", "BPR", "LightGCN")))
    report = check_board(folder, LIMITS)
    assert (report.records, report.sound, report.findings) == (4, 4, [])
    assert report.passed
    answer = run_verb("leaderboard", "check", folder, "--json", tmp_path / "board.json")
    assert (answer.status, answer.output) == (0, "4 records, 4 without a finding\n")
    stored = json.loads((tmp_path / "board.json").read_text())
    assert stored.pop("passed") is True
    assert BoardReport.model_validate(stored) == report


def _metrics(**values: float) -> Callable[[RunRecord], RunRecord]:
    return lambda r: changed(
        r, metrics={**r.metrics, **{k.replace("_", "@"): v for k, v in values.items()}}
    )


def _budget(*scores: float, chosen: int) -> Callable[[RunRecord], RunRecord]:
    curve = [
        {"trial": place, "state": "complete", "score": score, "best": max(scores[: place + 1]),
         "epochs": 3, "seconds": 1.0, "parameters": {"reg_weight": 0.1 * place}}
        for place, score in enumerate(scores)
    ]  # fmt: skip
    stored = {
        "study": "s", "sampler": "grid", "space_sha256": "0" * 64, "chosen_on": "Recall@20",
        "limit": {}, "trials": len(curve), "epochs": 3 * len(curve), "seconds": 2.0,
        "chosen": chosen, "curve": curve,
    }  # fmt: skip
    return lambda r: changed(r, budget=stored, tuned_on="tuned")


ALTERED: dict[str, tuple[Callable[[RunRecord], RunRecord], str, str]] = {
    "above-1": (_metrics(Recall_20=1.5, Recall_50=1.5), "values", "between 0 and 1"),
    "falling": (_metrics(Recall_20=0.0001), "values", "Recall@20 (test) is below"),
    "no-metrics": (lambda r: changed(r, metrics={}), "values", "no test metrics"),
    "best-score": (
        lambda r: changed(r, selection={**r.selection, "best_score": 0.9}),
        "values",
        "best validation score is 0.9",
    ),
    "epochs": (lambda r: changed(r, epochs=r.epochs + 1), "values", "epochs"),
    "failed": (lambda r: changed(r, status="failed"), "values", "finished"),
    "modified-code": (
        lambda r: changed(r, code={**r.code, "dirty": True}),
        "code",
        "modified code",
    ),
    "old": (lambda r: changed(r, numbers_epoch=0), "results version", "results version 0"),
    "model": (lambda r: changed(r, model="BPRX"), "names", "'BPRX'"),
    "data-set": (lambda r: changed(r, dataset="mine"), "names", "'mine' is not registered"),
    "protocol": (lambda r: changed(r, protocol="best-of"), "names", "'best-of'"),
    "counts": (lambda r: changed(r, data={**r.data, "users": 5}), "data", "users is 5"),
    "no-budget": (
        lambda r: changed(r, config={**r.config, "reg_weight": 0.123}),
        "budget",
        "reg_weight=0.123",
    ),
    "no-trials": (
        lambda r: changed(r, tuned_on="tuned on validation, seed 999: reg_weight in [0.1, 1]"),
        "budget",
        "neither it nor tuning/ has the trials",
    ),
    "worse-trial": (_budget(0.2, 0.1, chosen=1), "budget", "Trial 1 was chosen"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_record_is_found(tmp_path: Path, name: str) -> None:
    alter, check, words = ALTERED[name]
    base = shipped("BPR")
    with trial("leaderboard", name):
        folder = board(tmp_path, alter(base))
        report = check_board(folder, LIMITS)
        assert check in found(report), report.findings
        assert any(words in f.problem for f in report.findings), report.findings
        assert report.sound == 0
        assert not report.passed


def test_a_budget_of_the_best_trial_passes(tmp_path: Path) -> None:
    made = _budget(0.2, 0.3, chosen=1)(shipped("BPR"))
    assert check_board(board(tmp_path, made), LIMITS).passed


def test_what_the_reader_refuses_is_a_finding(tmp_path: Path) -> None:
    folder = board(tmp_path, shipped("EASE"), shipped("Pop"))
    ease, pop = sorted((folder / "runs").rglob("*.json"))
    text = json.loads(ease.read_text())
    text["config"]["reg_weight"] = 1.0
    ease.write_text(json.dumps(text))
    pop.write_text("{")
    report = check_board(folder, LIMITS)
    assert found(report) == ["record", "record"]
    assert "its hash is not that of its configuration" in report.findings[0].problem
    assert (report.records, report.sound) == (2, 0)


def test_duplicates_and_copies(tmp_path: Path) -> None:
    base = shipped("BPR")
    other = changed(base, seed=5, config={**base.config, "seed": 5})
    newer, _ = checks.possible_hashes(base)
    assert newer != base.config_sha256, "two names of one run"
    older = base.model_copy(update={"config_sha256": newer})
    report = check_board(board(tmp_path, base, other, older), LIMITS)
    assert sorted(found(report)) == ["copy", "duplicate"]
    assert all("BPR/none-recbole" in finding.problem for finding in report.findings)


def test_a_folder_behind_a_link_is_not_read(tmp_path: Path) -> None:
    there = board(tmp_path / "there", shipped("EASE"))
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "runs").symlink_to(there / "runs")
    report = check_board(tmp_path / "board", LIMITS)
    assert (found(report), report.records) == (["file"], 0)


def test_other_files_are_found_and_links_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"key": "hunter2"}')
    folder = board(tmp_path / "board", shipped("EASE"))
    place = folder / "runs" / "ml-100k" / "EASE"
    (place / "link.json").symlink_to(secret)
    (place / "more").symlink_to(tmp_path)
    (place / "run.sh").write_text("rm -rf /")
    os.mkfifo(place / "pipe.json")
    report = check_board(folder, LIMITS)
    assert found(report) == ["file"] * 4
    assert "hunter2" not in report.model_dump_json()


def test_values_per_user_are_hashed(tmp_path: Path) -> None:
    base = shipped("EASE")
    path = store(tmp_path, base.model_copy(update={"weights": None}), None)
    described = base.per_user
    assert described is not None
    (path.parent / described["file"]).write_bytes(b"other")
    report = check_board(tmp_path, LIMITS)
    assert found(report) == ["hash"]


def test_a_folder_of_nothing_and_one_of_too_much_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_refused(run_verb("leaderboard", "check", tmp_path), "has no record", kind="RecordError")
    board(tmp_path, shipped("EASE"), shipped("Pop"))
    monkeypatch.setattr(checks, "MAX_FILES", 1)
    check_refused(run_verb("leaderboard", "check", tmp_path), "has more than is checked")


# Runs made again ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_record_is_run_again_in_a_process_of_its_own(tmp_path: Path) -> None:
    folder = board(tmp_path, shipped("EASE"), shipped("Pop"))
    answer = run_verb(
        "leaderboard", "check", folder, "--rerun", 1, "--sample-seed", 1, "--tolerance", 0.001
    )
    check_answered(answer)
    assert answer.status == 0, answer
    assert "1 of 2 records drawn with seed 1; a metric agrees within 0.1%" in answer.output
    assert "agrees: runs/ml-100k/" in answer.output
    assert not [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "_in_a_process", lambda spec, seconds: run_one(spec))


def test_other_figures_differ(tmp_path: Path, in_this_process: None) -> None:
    base = shipped("EASE")
    better = {name: value * 1.1 for name, value in base.metrics.items()}
    folder = board(tmp_path, base.model_copy(update={"metrics": better}))
    report = check_board(folder, Limits(records=3, seconds=600, tolerance=0.05), say=str)
    (again,) = report.reruns
    assert again.state == "differs"
    assert "9.09%" in again.reason, "0.1 of 1.1"
    assert not report.passed
    wide = check_board(folder, Limits(records=3, seconds=600, tolerance=0.1), say=str)
    assert wide.passed


def test_the_sample_is_of_the_listed_records(tmp_path: Path, in_this_process: None) -> None:
    folder = board(tmp_path, shipped("EASE"), shipped("Pop"))
    listed = tmp_path / "new.txt"
    name = next((folder / "runs").rglob("Pop/*.json")).relative_to(folder).as_posix()
    listed.write_text(f"README.md\n{name}\n")
    answer = run_verb("leaderboard", "check", folder, "--rerun", 5, "--among", listed)
    assert answer.status == 0, answer
    assert "1 of 1 records" in answer.output
    assert f"agrees: {name}" in answer.output


HOSTILE: dict[str, Callable[[RunRecord], RunRecord]] = {
    "remote-model": lambda r: changed(
        r, features="st:someone/model", feature_files={"st:someone/model": {"sha256": "0" * 64}}
    ),
    "other-folder": lambda r: changed(
        r, features="../../x", feature_files={"../../x": {"sha256": "0" * 64}}
    ),
    "path": lambda r: changed(r, config={**r.config, "features_path": "/etc"}),
    "checkpoints": lambda r: changed(r, config={**r.config, "checkpoint_dir": "/etc"}),
    "word": lambda r: changed(
        r, model="BPR", config={**shipped("BPR").config, "reg_weight": "f()"}
    ),
    "huge": lambda r: changed(r, config={**r.config, "topk": [10**9]}),
    "nested": lambda r: changed(r, config={**r.config, "eval_args": {"split": {"LS": "x"}}}),
    "unknown": lambda r: changed(r, config={**r.config, "hook": "os.system"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_records_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("it was run")

    monkeypatch.setattr(sample, "_in_a_process", refuse)
    made = HOSTILE[name](shipped("CEASE" if name in ("remote-model", "other-folder") else "EASE"))
    with trial("leaderboard", name):
        again = run_again("r.json", made, Limits(records=1, seconds=60, tolerance=0.05))
        assert again.state == "not run again"
        assert again.reason
        assert "\n" not in again.reason


@pytest.mark.slow
def test_text_for_a_setting_of_recbole_is_not_evaluated(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    base = shipped("EASE")
    made = changed(base, config={**base.config, "reg_weight": code})
    again = run_again("r.json", made, Limits(records=1, seconds=600, tolerance=0.05))
    assert again.state == "not run again"
    assert not marker.exists()


def test_a_run_that_does_not_end_is_ended_at_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of an epoch, where a run notes that it is to stop and goes on."""
    busy = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    monkeypatch.setattr(child, "COMMAND", ("-c", busy))
    began = time.monotonic()
    with pytest.raises(sample.Late):
        sample._in_a_process(RunSpec("EASE", "ml-100k", output=tmp_path), 0.5)
    assert time.monotonic() < began + 30  # not the sixty seconds


def test_the_command_of_a_record_is_not_used(tmp_path: Path, in_this_process: None) -> None:
    marker = tmp_path / "marker"
    made = shipped("Pop").model_copy(update={"command": f"x; touch {marker}"})
    again = run_again("r.json", made, Limits(records=1, seconds=600, tolerance=0.05))
    assert again.state == "agrees"
    assert not marker.exists()


def test_a_metric_that_the_run_has_not_differs() -> None:
    base = shipped("EASE")
    more = base.model_copy(update={"metrics": {**base.metrics, "Luck@20": 1.0}})
    assert compared("x", more, base, 1.0, 0.0).state == "differs"
    assert compared("x", base, more, 0.0, 0.0).state == "agrees"


def test_the_folder_of_this_repository(tmp_path: Path) -> None:
    """Its records, if there are any, are sound."""
    folder = SHIPPED.parent / "leaderboard"
    assert (folder / "README.md").is_file()
    if read_runs(folder / "runs"):
        shutil.copytree(folder, tmp_path / "copy")
        assert check_board(tmp_path / "copy", LIMITS).passed
