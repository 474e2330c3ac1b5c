"""What a tracker is given, and several of them as one that cannot end a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from alignrec_recbole.errors import printable
from alignrec_recbole.runtime import random_state
from alignrec_recbole.tracking import TRACKERS, check_trackers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run before it is trained.

    Attributes:
        name: of the run, for people.
        group: name of the data set.
        folder: where a tracker may write; the trackers of a run share it.
        run_id: the path of the run's files, relative to their folder.
        config: the effective configuration.
    """

    name: str
    group: str
    folder: Path
    run_id: str
    config: dict[str, Any]


@dataclass(frozen=True)
class RunResult:
    """What a finished run found.

    Attributes:
        metrics: of the test split; empty for a grid point.
        valid_metrics: of the best epoch.
        record: the written record.
    """

    metrics: dict[str, float]
    valid_metrics: dict[str, float]
    record: Path


class Tracker(Protocol):
    """Watches one run. An exception ends the tracker, never the run."""

    def start(self, run: RunFacts) -> None:
        """The run begins."""

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """An epoch is over.

        Args:
            number: from 0; after an interruption the earlier ones come first.
            values: loss, loss terms (`loss/NAME`), `seconds`, and `valid/METRIC` if evaluated.
        """

    def energy(self) -> dict[str, Any] | None:
        """What was measured since the start, for the record: `Energy` in `record_fields.py`."""

    def end(self, result: RunResult | None) -> None:
        """The run is over; None if it was interrupted or failed."""


class Trackers:
    """All trackers of a run. One that raises an exception gets one warning and nothing more."""

    def __init__(self, names: Sequence[str]) -> None:
        check_trackers(names)
        self._active: dict[str, Tracker] = {}
        self._sent = 0
        for name in dict.fromkeys(names):
            self._guard(name, partial(self._load, name))

    def _load(self, name: str) -> None:
        self._active[name] = TRACKERS[name].load()()

    @contextmanager
    def watching(self, run: RunFacts) -> Iterator[None]:
        """The run begins, and ends with the block; without a result unless `finish` was called."""
        self._each(lambda tracker: tracker.start(run))
        try:
            yield
        finally:
            self._end(None)

    def epochs(self, history: Sequence[dict[str, Any]], metric: str) -> None:
        """Pass on the epochs of a history that were not passed on yet."""
        for entry in history[self._sent :]:
            values = {"loss": entry["loss"], "seconds": entry["seconds"]}
            if isinstance(losses := entry.get("losses"), dict):
                values |= {f"loss/{name}": value for name, value in losses.items()}
            if entry.get("valid") is not None:
                values[f"valid/{metric}"] = entry["valid"]
            for name, tracker in list(self._active.items()):
                self._guard(name, partial(tracker.epoch, entry["epoch"], values))
        self._sent = len(history)

    def energy(self) -> dict[str, Any] | None:
        """The first measurement of energy that there is."""
        found: list[dict[str, Any]] = []
        self._each(lambda tracker: found.extend(filter(None, [tracker.energy()])))
        return found[0] if found else None

    def finish(self, result: RunResult) -> None:
        """The run is finished."""
        self._end(result)

    def _end(self, result: RunResult | None) -> None:
        self._each(lambda tracker: tracker.end(result))
        self._active = {}

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._active.items()):
            self._guard(name, partial(call, tracker))

    def _guard(self, name: str, call: Callable[[], Any]) -> None:
        """Run a call that draws nothing from the generators of the training."""
        try:
            with random_state.kept():
                call()
        except Exception as error:
            self._active.pop(name, None)
            logger.warning(
                "--track %s: %s; the run goes on without it",
                name,
                printable(f"{type(error).__name__}: {error}", 300),
            )
