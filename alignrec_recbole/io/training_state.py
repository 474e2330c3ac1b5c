"""Files that training resumes from: tensors and plain values, written whole and read safely.

`save_state` and `load_state` write and read a file; `save_run` and `read_run` add the identity of
the run, a typed model of the plain values and a digest of all but the numbers in the tensors, which
have the checksums of the archive.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from alignrec_recbole.errors import RecordError
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.io.opening import open_input

SCHEMA_VERSION = 2  # of the files of `save_run`
TEXTS = ("identity", "plain")
REMEDY = "delete {path} to start from the beginning"

P = TypeVar("P", bound=BaseModel)


@dataclass(frozen=True)
class SavedRun(Generic[P]):
    """What a run resumes from."""

    tensors: dict[str, Any]
    plain: P


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

    Nothing in the file is executed. A damaged file raises whatever zipfile, torch or json raise.
    """
    with open_input(path, what="saved state", error=RecordError) as handle:
        _check_archive(handle)
        state = torch.load(handle, map_location=device, weights_only=True)
    return {**state, **{key: json.loads(state[key]) for key in plain}}


def save_run(
    path: Path, tensors: Mapping[str, Any], plain: BaseModel, identity: Mapping[str, Any]
) -> None:
    """Write the state of a run.

    Args:
        tensors: by name; dicts, lists and numbers may be nested with them.
        plain: everything else.
        identity: what distinguishes the run from others, as plain values.

    Raises:
        WriteError: the file cannot be written; an earlier one is unchanged.
    """
    texts = {"identity": dict(identity), "plain": plain.model_dump()}
    seal = {"schema_version": SCHEMA_VERSION, "digest": _digest(tensors, texts)}
    save_state(path, {**seal, **tensors}, texts)


def read_run(
    path: Path,
    plain_class: type[P],
    identity: Mapping[str, Any],
    *,
    device: str | torch.device = "cpu",
    remedy: str = REMEDY,
) -> SavedRun[P]:
    """Read and check the state of a run.

    Args:
        plain_class: model of the plain values.
        identity: that of the run which resumes.
        device: gets the tensors.
        remedy: the error's hint; "{path}" stands for the file.

    Raises:
        RecordError: the file is no regular file, damaged, of an earlier version of this package, or
            of another run.
    """
    path = Path(path)

    def refused(found: str, expected: str) -> RecordError:
        return RecordError(
            f"The saved state {path.name} cannot be resumed.",
            found=found,
            expected=expected,
            hint=remedy.format(path=path),
        )

    try:
        state = load_state(path, (), device)
    except (MemoryError, RecordError):
        raise
    except Exception as error:
        raise refused(first_line(error), "a state that was written whole") from error
    version = state.pop("schema_version", None) if isinstance(state, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:  # it may be a tensor
        raise refused(
            "no identity of the run in it, as earlier versions of this package wrote it",
            f"a state of version {SCHEMA_VERSION}",
        )
    digest = state.pop("digest", None)
    try:
        texts = {name: json.loads(state.pop(name)) for name in TEXTS}
        if not isinstance(digest, str) or digest != _digest(state, texts):
            raise ValueError("the contents do not fit their digest")
        plain = plain_class.model_validate(texts["plain"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise refused(_reason(error), "the values that training saved") from error
    now = json.loads(json.dumps(dict(identity)))
    if texts["identity"] != now:
        raise refused(differences(texts["identity"], now), "the state of this very run")
    return SavedRun(state, plain)


def differences(before: Any, now: Mapping[str, Any]) -> str:
    """What differs between two identities, for an error.

    >>> differences({"seed": 1, "model": "BPR"}, {"seed": 2, "model": "BPR"})
    'seed 1, not 2'
    """
    if not isinstance(before, dict):
        return "no identity of a run"
    keys = [key for key in (*now, *sorted(before.keys() - now)) if before.get(key) != now.get(key)]
    return ", ".join(f"{key} {_short(before.get(key))}, not {_short(now.get(key))}" for key in keys)


def first_line(error: BaseException) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return first_line(error)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}…" if len(text) > 40 else text


def _check_archive(handle: BinaryIO) -> None:
    """Refuse an archive whose parts are compressed or do not have their checksums.

    torch itself reads both; it writes neither.

    Raises:
        ValueError, zipfile.BadZipFile: with the reason.
    """
    with zipfile.ZipFile(handle) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ValueError("compressed parts")
        if (wrong := archive.testzip()) is not None:
            raise ValueError(f"{wrong} does not have its checksum")
    handle.seek(0)


def _digest(tensors: Mapping[str, Any], texts: Mapping[str, Any]) -> str:
    described = repr([_described(dict(tensors)), json.dumps([texts[name] for name in TEXTS])])
    return hashlib.sha256(described.encode("utf-8", "backslashreplace")).hexdigest()


def _described(value: Any) -> Any:
    """Types, shapes and plain values; not the numbers in tensors."""
    if isinstance(value, torch.Tensor):
        return ["tensor", str(value.dtype), list(value.shape)]
    if isinstance(value, dict):
        return [[repr(key), _described(inner)] for key, inner in value.items()]
    if isinstance(value, (list, tuple)):
        return list(map(_described, value))
    return repr(value)
