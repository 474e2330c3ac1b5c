"""Errors that say what is wrong, what was found and expected, and what to do."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

MAX_PART = 1200  # characters of one part of an error
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # Unicode categories


def printable(text: str, limit: int = MAX_PART) -> str:
    r"""The text with control characters escaped, and cut after `limit` characters.

    Text from files and arguments may contain terminal escapes, direction marks or lone surrogates;
    printed as they are, they change what a reader sees. Line feeds stay, tabs become blanks.

    >>> print(printable("a\x1b[31mb\u202e\tc"))
    a\x1b[31mb\u202e c
    >>> printable("abcdef", limit=3)
    'abc… (6 characters)'
    """
    shown = text[:limit].replace("\t", " ")
    if not shown.isprintable():
        shown = "".join(c if c == "\n" or not _unprintable(c) else _escaped(c) for c in shown)
    return shown if len(text) <= limit else f"{shown}… ({len(text)} characters)"


def counted(number: int, noun: str) -> str:
    """The number with its noun, which has an s unless the number is one.

    >>> counted(1, "epoch"), counted(1200, "epoch")
    ('1 epoch', '1,200 epochs')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that was there before; None if each is there once.

    >>> first_repeated(["a", "b", "c", "b", "a"])
    'b'
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _unprintable(character: str) -> bool:
    return unicodedata.category(character) in _UNPRINTABLE


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class AlignRecError(Exception):
    """Base of every error this package raises on purpose; its text is safe to print.

    Args:
        problem: one sentence naming the thing that is wrong.
        found: what was found.
        expected: what should have been found.
        hint: what the reader can do about it.

    >>> print(AlignRecError("features do not fit", found="47 rows", expected="48 rows"))
    features do not fit
      found     47 rows
      expected  48 rows
    """

    def __init__(
        self, problem: str, *, found: str = "", expected: str = "", hint: str = ""
    ) -> None:
        problem, found, expected, hint = map(printable, (problem, found, expected, hint))
        self.problem, self.found, self.expected, self.hint = problem, found, expected, hint
        parts = [("found", found), ("expected", expected), ("hint", hint)]
        lines = [problem, *(f"  {label:<9} {text}" for label, text in parts if text)]
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple:
        keywords = {"found": self.found, "expected": self.expected, "hint": self.hint}
        return (_rebuild, (type(self), self.problem, keywords))


def _rebuild(kind: type[AlignRecError], problem: str, keywords: dict[str, str]) -> AlignRecError:
    return kind(problem, **keywords)


class DataError(AlignRecError):
    """Interactions or item tables that cannot be used as they are.

    Attributes:
        bad_line: what is wrong with a line, where the rest of the file can be read; else "".
    """

    bad_line = ""


class FeatureError(AlignRecError):
    """A feature file that does not fit its manifest or the data set."""


class SettingError(AlignRecError):
    """A configuration key or value that is unknown, absent or out of range."""


class UnknownNameError(AlignRecError):
    """The name of no model, data set, feature set or encoder."""


class MissingDependencyError(AlignRecError, ImportError):
    """An optional package that a requested part needs."""

    @classmethod
    def of_extra(cls, problem: str, extra: str, found: str) -> MissingDependencyError:
        """The error that an extra of this package is not installed.

        >>> print(MissingDependencyError.of_extra("An index needs FAISS.", "ann", "no faiss"))
        An index needs FAISS.
          found     no faiss
          expected  the extra 'ann'
          hint      pip install "alignrec-recbole[ann]"
        """
        return cls(
            problem,
            found=found,
            expected=f"the extra {extra!r}",
            hint=f'pip install "alignrec-recbole[{extra}]"',
        )


class ModelError(AlignRecError):
    """A model of RecBole or of a plug-in that cannot be imported, built, trained or ranked."""


class DownloadError(AlignRecError):
    """A published file that could not be fetched or verified."""


class NotEnoughMemoryError(AlignRecError, MemoryError):
    """Work that needs more memory than is free."""


class DivergedError(AlignRecError, ValueError, FloatingPointError):
    """Training or scoring that ended in NaN or infinity."""


class WriteError(AlignRecError, OSError):
    """A file that could not be written; an earlier version of it is unchanged."""


class RecordError(AlignRecError):
    """A run record that cannot be read or must not be overwritten."""


class Interrupted(Exception):
    """A run was asked to stop; its state is saved."""


class Pruned(Exception):
    """A trial was ended early because others were better at the same epoch."""
