"""The energy of a run: counters of the processor (RAPL), or CodeCarbon's estimate."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from alignrec_recbole.errors import DataError
from alignrec_recbole.tracking.base import RunFacts, RunResult

POWERCAP = Path("/sys/class/powercap")
SAMPLE_EVERY = 30.0  # seconds; a counter of 262 kJ starts again after 11 minutes at 400 W
JOULES_PER_KWH = 3.6e6


class Counter:
    """One RAPL counter in microjoules, which starts again at its maximum.

    Args:
        folder: of the zone, with `energy_uj` and `max_energy_range_uj`.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self._size = int((folder / "max_energy_range_uj").read_text("ascii")) + 1
        self._last = self._read()
        self._total = 0

    def _read(self) -> int:
        return int(self._file.read_text("ascii"))

    def joules(self) -> float:
        """Since the start; to be read at least once per round of the counter."""
        now = self._read()
        self._total += (now - self._last) % self._size
        self._last = now
        return self._total / 1e6


def counters(powercap: Path) -> list[Counter]:
    """Counters of the processor packages and of their memory, which no package includes.

    Raises:
        DataError: there is none, or this user may not read them.
    """
    found = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text("ascii").strip()
            if name == "dram" or name.startswith("package"):
                found.append(Counter(zone))
        except (OSError, ValueError) as error:
            raise DataError(
                f"The energy counter {zone.name} cannot be read.",
                found=str(error),
                expected=f"{zone / 'energy_uj'}, readable by this user",
                hint="ask the administrator for the permission, or use --track codecarbon",
            ) from error
    if not found:
        raise DataError(
            "This machine shows no energy counters.",
            found=f"no intel-rapl zone in {powercap}",
            expected="a processor with RAPL, and Linux that shows it",
            hint="use --track codecarbon, which estimates",
        )
    return found


class Rapl:
    """Sums the counters from the start to the end of a run."""

    def start(self, run: RunFacts) -> None:
        """Begin to sample.

        Raises:
            DataError: see `counters`.
        """
        self._counters = counters(POWERCAP)
        self._begun = time.perf_counter()
        self._over, self._lock = threading.Event(), threading.Lock()
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_EVERY):
            self._joules()

    def _joules(self) -> float:
        with self._lock:
            return sum(counter.joules() for counter in self._counters)

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Nothing to do."""

    def energy(self) -> dict[str, Any]:
        """Of all processors and their memory, other programs included."""
        return {
            "joules": self._joules(),
            "seconds": time.perf_counter() - self._begun,
            "source": "RAPL counters of the whole machine: processors and memory",
        }

    def end(self, result: RunResult | None) -> None:
        """Stop sampling."""
        self._over.set()


class CodeCarbon:
    """CodeCarbon's measurement or, without counters, its estimate; nothing is sent or written."""

    def start(self, run: RunFacts) -> None:
        """Begin to measure."""
        from codecarbon import OfflineEmissionsTracker

        self._begun = time.perf_counter()
        self._tracker = OfflineEmissionsTracker(
            country_iso_code="USA",  # of the emissions, which are not used
            save_to_file=False,
            log_level="error",
            allow_multiple_runs=True,
            tracking_mode="machine",
        )
        self._tracker.start()
        self._running = True

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Nothing to do."""

    def energy(self) -> dict[str, Any] | None:
        """What was measured until now; the measurement ends."""
        self.end(None)
        data = self._tracker.final_emissions_data
        if not data.energy_consumed > 0:
            return None
        return {
            "joules": data.energy_consumed * JOULES_PER_KWH,
            "seconds": time.perf_counter() - self._begun,
            "source": f"CodeCarbon, {data.cpu_model or 'processor unknown'}",
        }

    def end(self, result: RunResult | None) -> None:
        """End the measurement."""
        if self._running:
            self._running = False
            self._tracker.stop()
