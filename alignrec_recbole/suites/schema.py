"""The YAML schema of a suite."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignrec_recbole.errors import SettingError, UnknownNameError
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.suggest import suggest
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml

FOLDER = properties_dir() / "suite"
AFTER_TRAINING = {"mask-modality", "long-tail"}  # they read records of the protocol `full`
ALWAYS_RERUN = {"long-tail"}  # more rankings to analyse after every run


class CellGroup(BaseModel):
    """Models × data sets × feature sets × protocols × seeds with the same settings."""

    model_config = ConfigDict(extra="forbid")

    models: list[str] = []  # empty: the protocols train nothing
    datasets: list[str] = Field(min_length=1)
    features: list[str] = []  # "a,b": both together; empty: the default
    protocols: list[str] = ["full"]
    seeds: list[int] = []
    setting: str | None = None
    epochs: int | None = None
    set: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}  # selected on validation with the first seed

    def cells(self) -> Iterator[Cell]:
        """One cell per combination; with a grid all seeds in one, as the first one selects."""
        seeds = [",".join(map(str, self.seeds))] if self.grid else [str(s) for s in self.seeds]
        for protocol, dataset, model, features, seed in itertools.product(
            self.protocols,
            self.datasets,
            self.models or [""],
            self.features or [""],
            seeds or [""],
        ):
            given = {
                "--model": model,
                "--dataset": dataset,
                "--features": features,
                "--protocol": protocol,
                "--setting": self.setting,
                "--seeds": seed,
                "--epochs": self.epochs,
            }
            arguments = [
                f"{key}={value}" for key, value in given.items() if value not in ("", None)
            ]
            arguments += [f"--set={key}={_plain(value)}" for key, value in self.set.items()]
            arguments += [
                f"--grid={key}={','.join(map(_plain, values))}" for key, values in self.grid.items()
            ]
            yield Cell(arguments=arguments, dataset=dataset, protocol=protocol)


class Cell(BaseModel):
    """One command line."""

    arguments: list[str]
    dataset: str
    protocol: str

    @property
    def name(self) -> str:
        """The command line without the names of its options."""
        return " ".join(argument.split("=", 1)[1] for argument in self.arguments)

    @property
    def stem(self) -> str:
        """File name of the status: readable, and unique per command line."""
        digest = hashlib.sha256("\n".join(self.arguments).encode()).hexdigest()[:8]
        return f"{re.sub(r'[^A-Za-z0-9.+-]+', '_', self.name)[:80]}-{digest}"


class Suite(BaseModel):
    """A YAML file of properties/suite."""

    model_config = ConfigDict(extra="forbid")

    output: Path = Path("results")
    cells: list[CellGroup] = Field(min_length=1)

    @cached_property
    def expanded(self) -> list[Cell]:
        """All cells; those that read the records of others come last."""
        cells = [cell for group in self.cells for cell in group.cells()]
        return sorted(cells, key=lambda cell: cell.protocol in AFTER_TRAINING)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def suite_names() -> list[str]:
    """Names of the suites that are part of the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_suite(name: str) -> Suite:
    """Read a suite by name, or from a YAML file of your own.

    Raises:
        UnknownNameError, SettingError: the suite is unknown, or its file is invalid.
    """
    path = Path(name) if name.endswith(".yaml") else inside(FOLDER, f"{name}.yaml")
    if not path.is_file():
        raise UnknownNameError(
            f"Unknown suite {name!r}." + suggest(name, suite_names()),
            found=name,
            expected=f"one of {', '.join(suite_names())}, or a .yaml file",
        )
    try:
        return Suite.model_validate(read_yaml(path))
    except ValidationError as error:
        raise SettingError(f"Suite {name!r} is not valid.", found=str(error)) from error
