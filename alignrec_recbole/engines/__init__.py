"""Engines: where cells are run, by name. Nothing large is imported here.

A cell is one run, or one command line of a suite: a JSON value that a child process is given (see
`base.Work`). Every engine starts the same child processes; they differ in the machines.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignrec_recbole.errors import MissingDependencyError, SettingError, UnknownNameError
from alignrec_recbole.io.suggest import suggest

if TYPE_CHECKING:
    from alignrec_recbole.engines.base import Engine

DEFAULT = "local"


@dataclass(frozen=True)
class EngineEntry:
    """An engine, without its code.

    Attributes:
        target: "module:function"; called with the number of jobs and the address.
        about: what it does, in one line.
        packages: modules that it imports.
        extra: of this package, which installs them; empty if none is needed.
        has_address: whether `NAME:ADDRESS` is allowed.
    """

    name: str
    target: str
    about: str
    packages: tuple[str, ...] = ()
    extra: str = ""
    has_address: bool = False

    def missing_packages(self) -> list[str]:
        """Modules that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]

    def load(self) -> Any:
        """The function, imported."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)


ENGINES = {
    entry.name: entry
    for entry in (
        EngineEntry(
            "local", f"{__name__}.local:LocalEngine", "processes of this machine, --jobs at a time"
        ),
        EngineEntry(
            "dask",
            f"{__name__}.on_dask:connect",
            "the Dask workers of a scheduler, or --jobs of its own on this machine",
            ("distributed",),
            "dask",
            has_address=True,
        ),
        EngineEntry(
            "slurm",
            f"{__name__}.on_slurm:submit_workers",
            "Dask workers in --jobs jobs of SLURM",
            ("distributed", "dask_jobqueue"),
            "slurm",
        ),
    )
}


def check_engine(text: str, jobs: int | None = None) -> tuple[EngineEntry, str]:
    """The engine of `NAME` or `NAME:ADDRESS`, and the address.

    Args:
        jobs: the number of cells at a time that the user gave, if any.

    Raises:
        UnknownNameError, SettingError, MissingDependencyError: with the nearest name, the form or
            the package.

    >>> check_engine("local")[0].about
    'processes of this machine, --jobs at a time'
    """
    name, colon, address = text.partition(":")
    if name not in ENGINES:
        raise UnknownNameError(
            f"Engine {name!r} is unknown." + suggest(name, ENGINES),
            expected=", ".join(ENGINES),
        )
    entry = ENGINES[name]
    if colon and not (entry.has_address and address):
        raise SettingError(
            f"Engine {text!r} cannot be used.",
            found=f"address {address!r}",
            expected=f"{name}:ADDRESS" if entry.has_address else f"{name} without an address",
        )
    if address and jobs is not None:
        raise SettingError(
            "--jobs has no effect with the address of a scheduler.",
            found=f"--jobs {jobs} with --engine {text}",
            expected="as many cells at a time as the workers there have threads",
            hint="leave --jobs out; `dask worker --nthreads N` says how many a worker runs",
        )
    if absent := entry.missing_packages():
        raise MissingDependencyError.of_extra(
            f"--engine {name} needs a package that is not installed.",
            entry.extra,
            f"no module {', '.join(absent)}",
        )
    return entry, address


def open_engine(text: str, jobs: int) -> Engine:
    """The engine of `NAME` or `NAME:ADDRESS`, to be entered with `with`.

    Args:
        jobs: cells at a time; an engine with an address follows its workers instead.

    Raises:
        AlignRecError: see `check_engine`; or the engine's own, such as no answer at the address.
    """
    entry, address = check_engine(text)
    engine: Engine = entry.load()(jobs, address) if entry.has_address else entry.load()(jobs)
    return engine
