"""Where a result comes from is recorded as far as it is known; a run never fails for it."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path
from typing import Any

import pytest

from alignrec_recbole.runs import provenance


@pytest.mark.parametrize(
    "failure",
    [
        FileNotFoundError(2, "No such file or directory", "git"),
        PermissionError(13, "Permission denied", "git"),
        subprocess.TimeoutExpired("git", 30),
    ],
)
def test_a_git_that_cannot_be_asked_leaves_the_commit_out_and_is_told_of(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any, **keywords: Any) -> None:
        raise failure

    monkeypatch.setattr(provenance.subprocess, "run", fail)
    monkeypatch.setattr(Path, "exists", lambda self: True)
    with caplog.at_level(logging.WARNING):
        found = provenance.code.__wrapped__()
    assert found["commit"] is None
    assert found["dirty"] is None
    assert found["version"]
    assert "git rev-parse failed" in caplog.text


def test_changes_that_git_did_not_list_are_unknown_and_not_absent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(arguments: list[str], **keywords: Any) -> subprocess.CompletedProcess:
        if "status" in arguments:
            raise subprocess.TimeoutExpired("git", 30)
        return subprocess.CompletedProcess(arguments, 0, "c0ffee\n", "")

    monkeypatch.setattr(provenance.subprocess, "run", answer)
    monkeypatch.setattr(Path, "exists", lambda self: True)
    found = provenance.code.__wrapped__()
    assert (found["commit"], found["dirty"]) == ("c0ffee", None)
    assert "git status failed" in caplog.text


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("mysql://me:sec/ret@host/studies", "mysql:DIR"),
        ("mysql://me:sec@ret=,: \nsecret@host/studies", "mysql:DIR"),
        ("postgresql+psycopg://host/studies?user=me&password=secret", "postgresql+psycopg:DIR"),
        ("dask:tcp://me:secret@host:8786", "dask:tcp:DIR"),
        ("sqlite:////home/me/secret.db", "sqlite:DIR"),
    ],
)
def test_the_command_has_nothing_of_an_address_but_its_scheme(address: str, shown: str) -> None:
    arguments = ["bench", "tune", f"--storage={address}", "--storage", address, "--seeds", "1"]
    told = provenance.command(arguments)
    assert told == f"bench tune --storage={shown} --storage {shown} --seeds 1"


def test_a_path_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.code.__wrapped__()["version"]
    assert provenance.machine("cpu")["threads"] >= 1


def test_a_damaged_package_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> str:
        raise OSError("half removed")

    monkeypatch.setattr(provenance.metadata, "version", fail)
    assert set(provenance.machine("cpu")["versions"].values()) == {None}
