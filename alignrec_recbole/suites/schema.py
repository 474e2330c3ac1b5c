"""The YAML schema of a suite."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from alignrec_recbole.errors import SettingError, printable
from alignrec_recbole.io.yaml_loader import read_yaml
from alignrec_recbole.protocols import READ_LISTS
from alignrec_recbole.settings import MAX_TRIALS, check_plain
from alignrec_recbole.suites.names import suite_path

MAX_CELLS = 10_000  # of a suite; each is a process and a file
MAX_SHOWN = 3  # mistakes of a suite in its error
AFTER_TRAINING = {"mask-modality", *READ_LISTS}  # they read records of the protocol `full`
ALWAYS_RERUN = set(READ_LISTS)  # more rankings to analyse after every run


Name = Annotated[str, Field(min_length=1, max_length=1000)]
Key = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^=\s]+$")]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class CellGroup(BaseModel):
    """Models × data sets × feature sets × protocols × seeds with the same settings."""

    model_config = ConfigDict(extra="forbid")

    models: list[Name] = []  # empty: the protocols train nothing
    datasets: list[Name] = Field(min_length=1)
    features: list[Name] = []  # "a,b": both together; empty: the default
    protocols: list[Name] = Field(["full"], min_length=1)
    seeds: list[Seed] = []
    setting: Literal["mmrec", "recbole"] | None = None
    epochs: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    set: dict[Key, Any] = {}
    # selected on validation with the first seed
    grid: dict[Key, Annotated[list[Any], Field(min_length=1)]] = {}

    @field_validator("set", "grid")
    @classmethod
    def _plain_values(cls, values: dict[str, Any]) -> dict[str, Any]:
        for key, value in values.items():
            try:
                check_plain(key, value)
            except SettingError as error:
                raise ValueError(error.found) from None
        if cls.grid_points(values) > MAX_TRIALS:
            raise ValueError(f"more than {MAX_TRIALS:,} points of a grid")
        return values

    @staticmethod
    def grid_points(values: dict[str, Any]) -> int:
        """Number of combinations."""
        return math.prod(len(each) for each in values.values() if isinstance(each, list))

    def count(self) -> int:
        """Number of cells."""
        seeds = 1 if self.grid else len(self.seeds)
        axes = (self.models, self.datasets, self.features, self.protocols)
        return math.prod(max(1, len(axis)) for axis in axes) * max(1, seeds)

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

    def has(self, option: str, wanted: Iterable[str]) -> bool:
        """Whether an option names any of the wanted values; True where none is wanted.

        >>> cell = Cell(arguments=["--model=BPR", "--seeds=1,2"], dataset="toy", protocol="full")
        >>> cell.has("--seeds", ["2", "3"]), cell.has("--model", []), cell.has("--model", ["Pop"])
        (True, True, False)
        """
        names = set(wanted)
        return not names or bool(names & set(self.given(option).split(",")))

    def given(self, option: str) -> str:
        """The value of an option, "" without it.

        >>> Cell(arguments=["--model=BPR"], dataset="toy", protocol="full").given("--model")
        'BPR'
        """
        found = dict(argument.split("=", 1) for argument in self.arguments if "=" in argument)
        return found.get(option, "")

    @property
    def name(self) -> str:
        """The command line without the names of its options."""
        return " ".join(argument.split("=", 1)[-1] for argument in self.arguments)

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

    @field_validator("cells")
    @classmethod
    def _few_enough(cls, groups: list[CellGroup]) -> list[CellGroup]:
        if (count := sum(group.count() for group in groups)) > MAX_CELLS:
            raise ValueError(f"{count:,} cells; at most {MAX_CELLS:,}")
        return groups

    @cached_property
    def expanded(self) -> list[Cell]:
        """All cells; those that read the records of others come last."""
        cells = [cell for group in self.cells for cell in group.cells()]
        return sorted(cells, key=lambda cell: cell.protocol in AFTER_TRAINING)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def read_suite(name: str) -> Suite:
    """Read a suite by name, or from a YAML file of your own.

    Raises:
        UnknownNameError, SettingError: the suite is unknown, or its file is invalid.
    """
    try:
        return Suite.model_validate(read_yaml(suite_path(name)))
    except ValidationError as error:
        mistakes = [
            f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_input=False, include_url=False)
        ]
        more = f" and {len(mistakes) - MAX_SHOWN} more" if len(mistakes) > MAX_SHOWN else ""
        raise SettingError(
            f"Suite {name!r} is not valid.",
            found=printable("; ".join(mistakes[:MAX_SHOWN])) + more,
            expected="cells: a list of groups with datasets and, as far as needed, "
            + ", ".join(key for key in CellGroup.model_fields if key != "datasets"),
        ) from error
