"""Names from arguments, files and records that become the name of a file or folder."""

from __future__ import annotations

import os

from alignrec_recbole.errors import AlignRecError, SettingError, printable

MAX_NAME_BYTES = 180  # of 255 that file systems allow: suffixes and temporary names are added


def check_name(name: object, what: str, error: type[AlignRecError] = SettingError) -> str:
    """Return a name that is safe as one part of a path; blanks, brackets and Unicode are allowed.

    Args:
        name: the name.
        what: what it names, for the error: "data set".
        error: class of the error.

    Raises:
        error: it is no text, empty, too long, `.` or `..`, starts or ends with a blank, or has a
            path separator, a wildcard (`*`, `?`) or a control character in it.

    >>> check_name("Sports [5-core] \u4e2d", "data set")
    'Sports [5-core] \u4e2d'
    """
    if isinstance(name, str) and not (problem := _problem(name)):
        return name
    raise error(
        f"The name of a {what} cannot be used as a file name.",
        found=printable(repr(name), 120) + (f": {problem}" if isinstance(name, str) else ""),
        expected=f"1 to {MAX_NAME_BYTES} bytes without / \\ * ? or control characters",
    )


def is_safe_name(name: object) -> bool:
    """Whether `check_name` accepts it.

    >>> is_safe_name("lsa@2"), is_safe_name("../lsa"), is_safe_name("*"), is_safe_name(7)
    (True, False, False, False)
    """
    return isinstance(name, str) and not _problem(name)


def _problem(name: str) -> str:
    """Why a name cannot be part of a path; empty if it can."""
    if not name or name in (os.curdir, os.pardir):
        return "empty, or a folder of its own meaning"
    if name != name.strip():
        return "a blank at an end"
    if any(character in "/\\*?" for character in name):
        return "a path separator or a wildcard"
    if printable(name) != name or "\n" in name:
        return "a control character, or too long"
    if len(name.encode("utf-8")) > MAX_NAME_BYTES:
        return f"{len(name.encode('utf-8'))} bytes"
    return ""
