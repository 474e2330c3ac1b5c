"""Errors that say what is wrong, what was found and expected, and what to do."""

from __future__ import annotations


class AlignRecError(Exception):
    """Base of every error this package raises on purpose.

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
    """Interactions or item tables that cannot be used as they are."""


class FeatureError(AlignRecError):
    """A feature file that does not fit its manifest or the data set."""


class SettingError(AlignRecError):
    """A configuration key or value that is unknown, absent or out of range."""


class UnknownNameError(AlignRecError):
    """The name of no model, data set, feature set or encoder."""


class MissingDependencyError(AlignRecError, ImportError):
    """An optional package that a requested part needs."""


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
