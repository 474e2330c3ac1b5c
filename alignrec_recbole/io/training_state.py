"""Files that training resumes from: tensors and plain values, written whole and read safely."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from alignrec_recbole.io.files import atomic_write


def save_state(path: Path, tensors: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
    """Write one file of tensors (or dicts of them) and, as JSON text, of plain values.

    Plain values are stored as text so that reading needs no pickled objects.

    Raises:
        WriteError: the file cannot be written; an earlier one is unchanged.
    """
    texts = {key: json.dumps(value) for key, value in plain.items()}
    with atomic_write(path) as handle:
        torch.save({**tensors, **texts}, handle)


def load_state(path: Path, plain: Iterable[str], device: str | torch.device = "cpu") -> Any:
    """Read such a file as a dict; the values under the keys `plain` are decoded from JSON.

    Nothing in the file is executed. A damaged file raises whatever torch or json raise.
    """
    state = torch.load(path, map_location=device, weights_only=True)
    return {**state, **{key: json.loads(state[key]) for key in plain}}
