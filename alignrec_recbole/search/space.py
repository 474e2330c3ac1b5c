"""Search spaces: which values of which settings are tried, from YAML."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from alignrec_recbole.errors import SettingError, printable
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml
from alignrec_recbole.registry.models import MODELS, plugins
from alignrec_recbole.settings import MAX_TRIALS, check_plain, shown

MAX_PARAMETERS = 50
MAX_CHOICES = 1000  # of one parameter
MAX_POINTS = 100_000  # of a grid
Value = int | float
Point = dict[str, Any]


class Parameter(BaseModel):
    """The values that one setting may take.

    Attributes:
        choices: the values without an order between them; empty for a range.
        low, high: the ends of a range, both included.
        log: whether the logarithm is searched evenly.
        step: distance of neighbouring values from `low`; whole numbers have 1.
        grid: the values of a range that an exhaustive search tries.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    choices: tuple[Any, ...] = ()
    low: Value | None = None
    high: Value | None = None
    log: bool = False
    step: Value | None = None
    grid: tuple[Any, ...] = Field(default=(), max_length=MAX_CHOICES)

    @model_validator(mode="after")
    def _is_one_kind(self) -> Parameter:
        if self.choices:
            return self
        low, high, step = self.low, self.high, self.step
        if low is None or high is None:
            raise ValueError("a range needs low and high")
        if isinstance(low, bool) or isinstance(high, bool):
            raise ValueError("low and high are numbers")
        if low >= high:
            raise ValueError(f"low is {low}, which is not below high, {high}")
        if max(abs(low), abs(high)) >= 2**53:
            raise ValueError("low and high are of a magnitude below 2^53")
        if self.log and low <= 0:
            raise ValueError(f"low is {low}; a logarithmic range begins above 0")
        if self.log and step is not None:
            raise ValueError("log and step exclude each other")
        if step is not None and not 0 < step <= high - low:
            raise ValueError(f"step is {step}, which is not above 0 and at most high - low")
        if self.whole and step is not None and step != int(step):
            raise ValueError("whole numbers have a step that is a whole number")
        outside = [value for value in self.grid if not self.contains(value)]
        if outside:
            raise ValueError(f"grid has {shown(outside[0])}, which the range does not have")
        return self

    def _is_inside(self, value: Any) -> bool:
        assert self.low is not None
        assert self.high is not None
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high

    @property
    def whole(self) -> bool:
        """Whether a range is of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Every choice, or the ends of the range."""
        return self.choices or (self.low, self.high)

    def contains(self, value: Any) -> bool:
        """Whether a search may try a value.

        >>> Parameter(low=1, high=5).contains(2), Parameter(low=1, high=5).contains(0.5)
        (True, False)
        >>> Parameter(low=0.0, high=1.0, step=0.5).contains(0.3)
        False
        """
        if self.choices:
            return json.dumps(value) in map(json.dumps, self.choices)
        if not self._is_inside(value) or (self.whole and value != int(value)):
            return False
        assert self.low is not None
        steps = (value - self.low) / (self.step or 1)
        return self.step is None or (math.isfinite(steps) and abs(steps - round(steps)) < 1e-9)

    @property
    def points(self) -> tuple[Any, ...]:
        """The values that an exhaustive search tries; empty for a range without any."""
        if self.choices or self.grid:
            return self.choices or self.grid
        assert self.low is not None
        assert self.high is not None
        if not self.whole and self.step is None:
            return ()
        if self.log:
            return ()
        step = self.step or 1
        steps = (self.high - self.low) / step * (1 + 1e-12)
        if steps >= MAX_CHOICES:
            return ()
        low, high = Decimal(str(self.low)), Decimal(str(self.high))
        last = float(high - (high - low) % Decimal(str(step)))  # Optuna's; sums may be above it
        return tuple(min(self.low + place * step, last) for place in range(math.floor(steps) + 1))


class Space:
    """The parameters of a search, by setting; `align.cca` is a setting inside another.

    >>> space = Space({"k": Parameter(choices=(5, 10)), "n": Parameter(low=1, high=2)})
    >>> list(space.points())
    [{'k': 5, 'n': 1}, {'k': 5, 'n': 2}, {'k': 10, 'n': 1}, {'k': 10, 'n': 2}]
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self.parameters = dict(parameters)

    @property
    def sha256(self) -> str:
        """Identifies the space."""
        text = json.dumps({k: p.model_dump() for k, p in self.parameters.items()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def size(self) -> int | None:
        """Number of points of an exhaustive search; None if a range has no values to enumerate."""
        counts = [len(parameter.points) for parameter in self.parameters.values()]
        return math.prod(counts) if all(counts) else None

    def points(self) -> Iterator[Point]:
        """All points in a fixed order, the last parameter fastest."""
        names = list(self.parameters)
        for values in itertools.product(*(p.points for p in self.parameters.values())):
            yield dict(zip(names, values, strict=True))

    def check_enumerable(self) -> None:
        """Refuse an exhaustive search of a range without values, or of too many points.

        Raises:
            SettingError: with the first such range.
        """
        for name, parameter in self.parameters.items():
            if not parameter.points:
                raise SettingError(
                    f"The range of {name!r} has no values to enumerate.",
                    found=f"{name}: {shown(parameter.model_dump(exclude_defaults=True))}",
                    expected="a list of values, or a range with grid: [values] or with a step",
                    hint="--sampler tpe or random searches ranges",
                )
        if (self.size or 0) > MAX_POINTS:
            raise SettingError(
                f"The grid has {self.size:,} points.",
                expected=f"at most {MAX_POINTS:,}",
                hint="shorten the lists, or use --sampler random",
            )

    def extremes(self) -> Iterator[Point]:
        """Points that have every choice and both ends of every range at least once."""
        first = {name: parameter.ends[0] for name, parameter in self.parameters.items()}
        yield first
        for name, parameter in self.parameters.items():
            for value in parameter.ends[1:]:
                yield {**first, name: value}


def of_choices(choices: Mapping[str, list[Any]]) -> Space:
    """The space of `--grid`."""
    return Space({key: Parameter.model_construct(choices=tuple(v)) for key, v in choices.items()})


def check_trials(number: int, found: str) -> None:
    """Refuse more trials than the record of a choice holds.

    Raises:
        SettingError: with what asks for them.
    """
    if number > MAX_TRIALS:
        raise SettingError(
            f"A search of {number:,} trials is more than a record holds.",
            found=found,
            expected=f"at most {MAX_TRIALS:,} trials",
            hint="shorten the lists of a grid, or search part of it: tune --sampler random",
        )


def space_path(model: str) -> Path:
    """The file of a model's own space, which may not be there."""
    return inside(properties_dir(), f"search/{model}.yaml")


def raw_space(model: str, file: Path | None = None) -> dict[str, Any]:
    """A model's search space as its file has it.

    Args:
        model: as the registry spells it.
        file: default: the model's own. A file of spaces for several models has one mapping per
            model, by name; every other file is the space of each model.

    Raises:
        SettingError: there is no such file, it is not YAML, or a parameter cannot be searched.
    """
    path = file or space_path(model)
    if not is_regular_file(path):
        raise SettingError(
            f"{model} has no search space."
            if file is None
            else f"There is no search space {str(path)!r}.",
            expected="a YAML file with lines such as reg_weight: {low: 1e-5, high: 0.1, log: true}",
            hint="pass one with --space FILE" if file is None else "",
        )
    given = read_yaml(path)
    models = {*MODELS, *plugins()}
    if given and set(given) <= models:
        if model not in given:
            raise SettingError(
                f"{path.name} has no space of {model}.",
                found=", ".join(sorted(given)),
                expected=f"{model}: with the lines of its space",
            )
        given = given[model]
    parse_space(given, path.name)
    return given


def parse_space(given: Any, name: str) -> Space:
    """The space that a mapping describes: setting → list of values, or mapping of a range.

    Args:
        given: as it was read.
        name: of the file, for errors.

    Raises:
        SettingError: a parameter cannot be searched.

    >>> parse_space({"n_layers": [1, 2]}, "a file").parameters["n_layers"].choices
    (1, 2)
    """
    if not isinstance(given, dict) or not given:
        raise SettingError(
            f"{name} has no parameter to search.",
            found=shown(given),
            expected="lines such as n_layers: [1, 2] or reg_weight: {low: 1e-5, high: 0.1}",
        )
    if len(given) > MAX_PARAMETERS:
        raise SettingError(
            f"{name} has {len(given)} parameters.", expected=f"at most {MAX_PARAMETERS}"
        )
    return Space({key: _parameter(key, value, name) for key, value in given.items()})


def _parameter(key: Any, value: Any, name: str) -> Parameter:
    if not isinstance(key, str) or not key or not all(part.strip() for part in key.split(".")):
        raise SettingError(
            f"{name} has a key that is no name of a setting.", found=shown(key), expected="a name"
        )
    check_plain(key, value, name)
    if isinstance(value, list):
        _check_choices(key, value, name)
        return Parameter(choices=tuple(value))
    if not isinstance(value, dict):
        raise SettingError(
            f"The values of {key!r} in {name} are neither a list nor a range.",
            found=f"{key}: {shown(value)}",
            expected="[v1, v2] or {low: …, high: …, log: true}",
            hint="fix a single value with --set",
        )
    if "choices" in value:
        raise SettingError(
            f"The range of {key!r} in {name} has a key 'choices'.",
            found=f"{key}: {shown(value)}",
            expected=f"{key}: [v1, v2] for a list of values",
        )
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    try:
        return Parameter.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"][:1]))
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingError(
            f"The range of {key!r} in {name} cannot be searched.",
            found=f"{key}: {shown(value)}: " + printable(f"{place}: {reason}" if place else reason),
            expected="{low: number, high: larger one, log: true or step: number, grid: [values]}",
        ) from None


def _check_choices(key: str, values: list[Any], name: str) -> None:
    texts = [json.dumps(value, sort_keys=True) for value in values]
    if not 0 < len(values) <= MAX_CHOICES or len(set(texts)) < len(texts):
        raise SettingError(
            f"The values of {key!r} in {name} cannot be searched.",
            found=shown(values),
            expected=f"1 to {MAX_CHOICES} different values",
        )
