"""Trackers: what watches a run while it is made, by name. Nothing large is imported here."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignrec_recbole.errors import MissingDependencyError, UnknownNameError
from alignrec_recbole.io.suggest import suggest


@dataclass(frozen=True)
class TrackerEntry:
    """A tracker, without its code.

    Attributes:
        target: "module:class"; see `base.Tracker`.
        about: what it does, in one line.
        packages: modules that it imports.
        extra: of this package, which installs them; empty if they are there anyway.
    """

    name: str
    target: str
    about: str
    packages: tuple[str, ...] = ()
    extra: str = ""

    @property
    def install(self) -> str:
        """The command that installs its packages."""
        return f"pip install 'alignrec-recbole[{self.extra}]'"

    def missing_packages(self) -> list[str]:
        """Modules that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]

    def check(self) -> None:
        """Check that its packages are installed.

        Raises:
            MissingDependencyError: one is not.
        """
        if absent := self.missing_packages():
            raise MissingDependencyError(
                f"--track {self.name} needs a package that is not installed.",
                found=f"no module {', '.join(absent)}",
                expected=f"the extra {self.extra}",
                hint=self.install,
            )

    def load(self) -> Any:
        """The class, imported."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)


TRACKERS = {
    entry.name: entry
    for entry in (
        TrackerEntry(
            "tensorboard",
            f"{__name__}.to_tensorboard:TensorBoard",
            "curves, configuration and record as event files",
            ("tensorboard",),
        ),
        TrackerEntry(
            "wandb",
            f"{__name__}.to_wandb:WandB",
            "a run of Weights & Biases, offline unless WANDB_MODE says otherwise",
            ("wandb",),
            "wandb",
        ),
        TrackerEntry(
            "mlflow",
            f"{__name__}.to_mlflow:MLflow",
            "a run of MLflow in a local database, or at MLFLOW_TRACKING_URI",
            ("mlflow", "sqlalchemy", "alembic"),
            "mlflow",
        ),
        TrackerEntry(
            "rapl",
            f"{__name__}.energy:Rapl",
            "energy by the counters of the processors (Linux)",
        ),
        TrackerEntry(
            "codecarbon",
            f"{__name__}.energy:CodeCarbon",
            "energy as CodeCarbon measures or estimates it",
            ("codecarbon",),
            "codecarbon",
        ),
    )
}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse names that are no trackers, and trackers whose packages are not installed.

    Raises:
        UnknownNameError, MissingDependencyError: with the nearest name, or the package.
    """
    for name in names:
        if name not in TRACKERS:
            raise UnknownNameError(
                f"Tracker {name!r} is unknown." + suggest(name, TRACKERS),
                expected=", ".join(TRACKERS),
            )
        TRACKERS[name].check()
