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
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml

FOLDER = properties_dir() / "suite"
LATER = {"mask-modality", "long-tail"}  # they read what the protocol `full` left
GROWING = {"long-tail"}  # has more to do whenever there are more rankings


class CellGroup(BaseModel):
    """Models × data sets × features × protocols × seeds with the same settings."""

    model_config = ConfigDict(extra="forbid")

    models: list[str] = []  # empty: the protocols train nothing
    datasets: list[str] = Field(min_length=1)
    features: list[str] = []  # "a,b" is one set of two; empty: the default
    protocols: list[str] = ["full"]
    seeds: list[int] = []
    setting: str | None = None
    epochs: int | None = None
    set: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}  # chosen on validation with the first seed

    def cells(self) -> Iterator[Cell]:
        """One cell a combination; with a grid the seeds stay together, since the first chooses."""
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
        """File name of the status: readable, and one for each command line."""
        digest = hashlib.sha256("\n".join(self.arguments).encode()).hexdigest()[:8]
        return f"{re.sub(r'[^A-Za-z0-9.+-]+', '_', self.name)[:80]}-{digest}"


class Suite(BaseModel):
    """A YAML file of benchmarks/suites."""

    model_config = ConfigDict(extra="forbid")

    output: Path = Path("results")
    cells: list[CellGroup] = Field(min_length=1)

    @cached_property
    def expanded(self) -> list[Cell]:
        """All cells, those that read what others leave last."""
        cells = [cell for group in self.cells for cell in group.cells()]
        return sorted(cells, key=lambda cell: cell.protocol in LATER)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def suite_names() -> list[str]:
    """The suites there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_suite(name: str) -> Suite:
    """Read a suite by name, or one's own from a YAML file.

    Raises:
        UnknownNameError, SettingError: there is no such suite, or its file is wrong.
    """
    path = Path(name) if name.endswith(".yaml") else inside(FOLDER, f"{name}.yaml")
    if not path.is_file():
        raise UnknownNameError(
            f"There is no suite {name!r}.",
            found=name,
            expected=f"one of {', '.join(suite_names())}, or a .yaml file",
        )
    try:
        return Suite.model_validate(read_yaml(path))
    except ValidationError as error:
        raise SettingError(f"Suite {name!r} cannot be read.", found=str(error)) from error
