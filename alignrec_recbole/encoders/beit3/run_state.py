"""The state that a pre-training resumes from, checked before any of it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from alignrec_recbole.errors import FeatureError
from alignrec_recbole.io.opening import open_input
from alignrec_recbole.io.training_state import load_state

MAX_BYTES = 256 << 30
KINDS = ("mlm", "mim")


@dataclass
class Progress:
    """The state of a run beside weights and optimiser."""

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class SavedRun:
    """What a state file holds.

    Attributes:
        identity: all that the run depends on.
        progress: steps and losses so far.
        model, average: tensors by name; no average if none is computed.
        optimizer: its state.
    """

    identity: dict[str, Any]
    progress: Progress
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Tensor] | None


def read_run_state(path: Path) -> SavedRun:
    """The content of `last.pt`.

    Raises:
        FeatureError: the file cannot be read, lacks a part or has values of other types.
    """
    with open_input(path, what="training state", error=FeatureError, max_bytes=MAX_BYTES):
        pass  # a regular file
    try:
        state = load_state(path, ["identity", "progress"])
        out = SavedRun(
            TypeAdapter(dict[str, Any]).validate_python(state["identity"]),
            _progress(state["progress"]),
            state["model"],
            state["optimizer"],
            state["average"],
        )
        for tensors in (out.model, {} if out.average is None else out.average):
            if not all(isinstance(value, Tensor) for value in tensors.values()):
                raise TypeError("a value is no tensor")
        return out
    except ValidationError as error:
        first = error.errors()[0]
        raise damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except Exception as error:  # pickle, zip, JSON and missing keys each have their own
        raise damaged(path, f"{type(error).__name__}: {error}") from error


def _progress(stored: Any) -> Progress:
    TypeAdapter(Progress).validate_json(json.dumps(stored))
    progress = Progress(**stored)
    if progress.step != len(progress.history):
        raise ValueError(f"step {progress.step} with {len(progress.history)} losses")
    if any(not row.keys() >= set(KINDS) for row in progress.history):
        raise ValueError("a step without losses")
    if not progress.validation or any("step" not in row for row in progress.validation):
        raise ValueError("no validation, or one without its step")
    return progress


def check_shapes(path: Path, found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse tensors of other names, shapes or types than a model's, or that are not finite.

    Raises:
        FeatureError: naming the first that differs.
    """
    for name in sorted(found.keys() ^ own.keys()):
        raise damaged(path, f"{name} is {'unknown' if name in found else 'missing'}")
    for name, value in found.items():
        if (value.shape, value.dtype) != (own[name].shape, own[name].dtype):
            raise damaged(path, f"{name} of shape {tuple(value.shape)} and {value.dtype}")
        if not torch.isfinite(value).all():
            raise damaged(path, f"{name} holds NaN or infinity")


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer, state: Any) -> None:
    """Load an optimizer's state whose groups and tensors fit its parameters.

    Raises:
        FeatureError: they do not.
    """
    own = optimizer.state_dict()["param_groups"]
    try:
        for mine, theirs in zip(own, state["param_groups"], strict=True):
            if {**mine, "lr": 0} != {**theirs, "lr": 0}:
                raise ValueError("other groups of parameters")
        optimizer.load_state_dict(state)
        for parameter, values in optimizer.state.items():
            for value in values.values():
                if isinstance(value, Tensor) and value.shape not in ((), parameter.shape):
                    raise ValueError(f"a moment of shape {tuple(value.shape)}")
    except Exception as error:  # torch and missing keys have their own
        raise damaged(path, f"optimizer: {type(error).__name__}: {error}") from error


def damaged(path: Path, found: str) -> FeatureError:
    """The error that a state cannot be continued."""
    return FeatureError(
        f"The training state {path.name} cannot be continued.",
        found=f"{found.strip().splitlines()[0][:160] if found.strip() else '-'}; {path}",
        expected="the file that an interrupted pre-training saved",
        hint=f"delete {path} to start again, or choose another --output",
    )
