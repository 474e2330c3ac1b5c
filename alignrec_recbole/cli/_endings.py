"""How a command ends that was not simply done: an exit status and one line for each reason."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
import traceback

from alignrec_recbole.errors import printable
from alignrec_recbole.runtime import processes

DONE, FAILED, REFUSED = 0, 1, 2
SHOW_TRACEBACK = "ALIGNREC_TRACEBACK"  # environment variable
UNEXPECTED = "Unexpected error, a defect of this program"
_SYSTEM = {  # what the user or the machine can repair
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG,
    errno.ELOOP, errno.EIO, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTDIR,
    errno.EISDIR, errno.ENOENT, errno.EEXIST,
}  # fmt: skip


def flush_output() -> None:
    """Write what is still in the buffer of the standard output; an error is raised now."""
    if sys.stdout is not None:
        sys.stdout.flush()


def escape_what_terminals_cannot_show() -> None:
    """Print characters that the terminal's encoding does not have as escapes."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def end(error: Exception) -> int:
    """Print one line about an error and return the exit status.

    2: the machine or the input cannot serve (memory, disk, nesting); 1: the output was closed, or
    the error is a defect. With ALIGNREC_TRACEBACK set, the traceback is printed first.
    """
    if processes.is_lost_connection(error):
        time.sleep(processes.NOTICED_SECONDS)  # the launcher ends this process before
        return FAILED
    if isinstance(error, BrokenPipeError):  # `| head`: the reader has had enough
        _discard_output()
        return FAILED
    if os.environ.get(SHOW_TRACEBACK):
        traceback.print_exception(error)
    reason = _reason(error)
    if reason is None:
        say(
            f"{UNEXPECTED}: {_named(error)} ({_place(error)}). Please report it with the command; "
            f"{SHOW_TRACEBACK}=1 shows the traceback."
        )
        return FAILED
    _discard_output()
    say(printable(reason))
    return REFUSED


def say(text: str) -> None:
    """Print to the standard error, if it is open; the text is printable.

    One of several processes of a run leaves it to their launcher, which prints one of them.
    """
    if processes.report_failure(text):
        return
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _reason(error: Exception) -> str | None:
    """What the machine or the input lacks; None for a defect."""
    text = str(error)
    first = (text.splitlines() or [""])[0]
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"Out of memory: {first or 'an allocation failed'}"
    if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in text:
        return "Out of memory: torch could not allocate a tensor."
    if isinstance(error, RecursionError):
        return "An input is nested too deeply to be read."
    if isinstance(error, UnicodeEncodeError):
        return f"A character cannot be written in {error.encoding}; PYTHONIOENCODING=utf-8 can."
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        place = error.filename if error.filename is not None else "the output"
        return f"{error.strerror or first}: {place}"
    return None


def _named(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {printable(first, 200)}" if first else type(error).__name__


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "alignrec_recbole" in frame.filename] or frames
    return f"{os.path.basename(own[-1].filename)}, line {own[-1].lineno}" if own else "no place"


def _discard_output() -> None:
    """Let what is still in the buffer of the standard output go nowhere when Python ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
