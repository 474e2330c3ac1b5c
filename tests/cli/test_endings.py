"""Every way a command can end: an exit status and one line, never a traceback."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from trials import trial

from alignrec_recbole.cli import _endings
from alignrec_recbole.cli import main as main_module

ROOT = Path(__file__).resolve().parents[2]


def ends(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def fail(*given: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(main_module.program, "main", fail)
    return main_module.main(["list", "models"])


ENDINGS = [
    (MemoryError(), 2, "Out of memory"),
    (torch.OutOfMemoryError("CUDA out of memory"), 2, "Out of memory: CUDA"),
    (
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate"),
        2,
        "Out of memory: torch",
    ),
    (RecursionError("maximum recursion depth"), 2, "nested too deeply"),
    (UnicodeEncodeError("ascii", "ä", 0, 1, "ordinal"), 2, "cannot be written in ascii"),
    (KeyError("zz"), 1, "Unexpected error, a defect of this program: KeyError: 'zz'"),
    (ValueError("a\x1b[31mb"), 1, r"ValueError: a\x1b[31mb"),
    (RuntimeError(), 1, "RuntimeError (main.py"),
    (KeyboardInterrupt(), 130, "Stopped"),
    *(
        (OSError(number, os.strerror(number), "/place"), 2, f"{os.strerror(number)}: /place")
        for number in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP)
    ),
]


@pytest.mark.parametrize(("error", "status", "words"), ENDINGS, ids=lambda each: repr(each)[:40])
def test_an_error_at_the_top_is_one_line(
    error: BaseException,
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with trial("endings", repr(error)):
        assert ends(error, monkeypatch) == status
        said = capsys.readouterr().err
        assert words in said
        assert "Traceback" not in said
        assert status == 130 or said.count("\n") == 1


def test_the_traceback_of_a_defect_is_shown_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(_endings.SHOW_TRACEBACK, "1")
    assert ends(KeyError("zz"), monkeypatch) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def command(*arguments: str, **options: Any) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_benchmark.py"), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with trial("endings", "closed pipe"):
        process = command("list", "models", stdout=writer)
        os.close(writer)
        assert process.communicate()[1] == ""
        assert process.returncode == _endings.FAILED


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_output_is_one_line() -> None:
    with trial("endings", "/dev/full"), open("/dev/full", "w") as full:
        process = command("list", "models", stdout=full)
        assert process.communicate()[1] == "No space left on device: the output\n"
        assert process.returncode == 2


def test_a_closed_output_is_no_error() -> None:
    with trial("endings", "closed output"):
        process = command("list", "models", preexec_fn=lambda: os.close(1))
        said = process.communicate()[1]
        assert "Traceback" not in said
        assert process.returncode in (0, 1, 2)


def test_a_terminal_without_unicode_is_no_error() -> None:
    with trial("endings", "ascii"):
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        process = command("--help", stdout=subprocess.PIPE, env=environment)
        output, said = process.communicate()
        assert process.returncode == 0, said
        assert "--model M[,M" in output


@pytest.mark.parametrize("delay", [0.02, 0.2, 0.5, 1.0])
def test_ctrl_c_at_any_moment_is_no_traceback(delay: float) -> None:
    """From the start of Python to the end of a verb; before Python listens, the signal ends it."""
    with trial("endings", f"Ctrl-C after {delay} s"):
        process = command("doctor", stdout=subprocess.DEVNULL)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
        assert process.returncode in (0, 1, 130, -signal.SIGINT), said
        if process.returncode != -signal.SIGINT and delay > 0.1:
            assert "Traceback" not in said


@pytest.mark.parametrize("option", ["--output", "--data-path", "--features-path"])
@pytest.mark.parametrize("name", ["a\0b", "o" * 300, "loop", "loop/inside"])
def test_a_path_that_no_file_system_has_is_a_usage_error(
    option: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with trial("endings", f"{option} {name!r}"):
        assert main_module.main(["--model", "BPR", "--dataset", "ml-100k", option, name]) == 2
        assert "cannot be used" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["loop"]
