"""Matrices from pickles of others, rebuilt here: no function or class that a pickle names is used.

A pickle is a program. `read_matrix` first looks at every instruction without running any, and then
runs it with names replaced by functions of this file, which accept what `pickle.dump` writes of a
NumPy array or a torch tensor and nothing else. Files of `torch.save` are read by torch with
`weights_only=True`.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from alignrec_recbole.errors import FeatureError

MAX_INSTRUCTIONS = 2000  # a pickled tensor has about fifty
_TORCH_ZIP = b"PK\x03\x04"
_INSTRUCTIONS = {
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2",
    "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "BINBYTES8", "SHORT_BINBYTES",
    "BYTEARRAY8", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "SETITEM",
    "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
    "MEMOIZE", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID",
}  # fmt: skip
_USED_AGAIN = {"BINUNICODE", "SHORT_BINUNICODE", "GLOBAL", "STACK_GLOBAL"}
_STORAGES = {  # torch's names of storages → NumPy's of their numbers
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before its zip format
_DTYPES = {"f2", "f4", "f8"}


def read_matrix(content: bytes, name: str) -> np.ndarray:
    """The matrix in a pickle or a file of `torch.save`, float32 [n, f].

    Args:
        content: of the file.
        name: of the file, for errors.

    Raises:
        FeatureError: the content is anything else, ends early, or has values that are not finite.
    """
    try:
        found = _torch_file(content) if content.startswith(_TORCH_ZIP) else _unpickled(content)
    except _NotAllowed as error:
        raise FeatureError(
            f"{name} is not a pickled matrix.",
            found=str(error),
            expected="a pickled torch tensor or NumPy array and nothing else",
            hint="do not open it by other means: pickles can run programs",
        ) from error
    except Exception as error:  # a pickle can make the interpreter of pickles raise anything
        raise FeatureError(
            f"{name} is not a pickled matrix.",
            found=f"{type(error).__name__}: {error}",
            expected="a whole pickle of a torch tensor or a NumPy array",
        ) from error
    if found.ndim != 2 or 0 in found.shape:
        raise FeatureError(
            f"{name} has the wrong shape.", found=str(found.shape), expected="[items, width]"
        )
    with np.errstate(over="ignore"):  # infinities of float64 are found below
        matrix = np.ascontiguousarray(found, dtype=np.float32)
    finite = np.isfinite(matrix).all(1)
    if not finite.all():
        raise FeatureError(
            f"{name} has values that are not finite.",
            found=f"NaN or infinity in {int((~finite).sum())} rows, first in row "
            f"{int(np.flatnonzero(~finite)[0])}",
            expected="finite numbers within float32",
        )
    return matrix


class _NotAllowed(Exception):
    """An instruction, name or value that a matrix does not need."""


class _Array:
    """A rebuilt array; what a pickle may do to it is to set its state once.

    Attributes:
        value: the array, once its state is set.
    """

    __slots__ = ("value",)

    def __init__(self, value: np.ndarray | None = None) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        """Version, shape, dtype, Fortran order and bytes, as NumPy writes them."""
        if self.value is not None or not isinstance(state, tuple) or len(state) != 5:
            raise _NotAllowed("a state that is not one of a NumPy array")
        _, shape, dtype, fortran, content = state
        self.value = _from_buffer(content, dtype, shape, "F" if fortran else "C").value


class _DType:
    """A NumPy type of numbers by its code; its state is the order of the bytes."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code not in _DTYPES:
            raise _NotAllowed(f"numbers of the type {_shown(code)}, not floating-point ones")
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        """NumPy's state of a type: version and order of the bytes first."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise _NotAllowed("a state that is not one of a NumPy type")
        self.order = order


class _Storage:
    """The numbers of a torch storage."""

    __slots__ = ("name", "numbers")

    def __init__(self, name: str, numbers: np.ndarray) -> None:
        self.name, self.numbers = name, numbers


class _Function:
    """A function that a pickle may call; nothing in it can be changed from a pickle."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _NotAllowed("a state for a function")


def _shown(value: Any) -> str:
    """A whole number, or the beginning of a text; of all else, which may be large, the type."""
    if isinstance(value, str):
        return repr(value[:40])
    return str(value)[:40] if isinstance(value, int) else f"a {type(value).__name__.lstrip('_')}"


def _counts(values: Any) -> tuple[int, ...]:
    """A tuple of a few non-negative whole numbers."""
    good = isinstance(values, tuple) and len(values) <= 8
    if not good or not all(type(value) is int and 0 <= value < 1 << 48 for value in values):
        raise _NotAllowed(f"{_shown(values)} in the place of a shape")
    return values


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    if not isinstance(content, bytes | bytearray) or not isinstance(dtype, _DType):
        raise _NotAllowed("an array without bytes or without a type")
    kind = np.dtype(dtype.order.replace("|", "<") + dtype.code)
    if math.prod(_counts(shape)) * kind.itemsize != len(content):
        raise _NotAllowed(f"{len(content):,} bytes for an array of shape {shape}")
    return _Array(np.frombuffer(content, kind).reshape(shape, order="F" if order == "F" else "C"))


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Array:
    if not isinstance(storage, _Storage):
        raise _NotAllowed("a tensor without a storage")
    (start,), shape, steps = _counts((offset,)), _counts(size), _counts(stride)
    numbers = storage.numbers
    last = start + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    if 0 not in shape and last >= len(numbers):
        raise _NotAllowed(f"a tensor of shape {shape} in a storage of {len(numbers):,} numbers")
    if math.prod(shape) > max(1, len(numbers)):
        raise _NotAllowed(f"a tensor of shape {shape} that repeats its numbers")
    view = np.lib.stride_tricks.as_strided(
        numbers[start:], shape, [step * numbers.itemsize for step in steps], writeable=False
    )
    if storage.name == "BFloat16Storage":
        view = (view.astype(np.uint32) << 16).view(np.float32)
    return _Array(view)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _encode(text: Any, encoding: Any) -> bytes:
    """Bytes as protocol 2 writes them: as a text of their values."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _NotAllowed(f"a text in the encoding {_shown(encoding)}")
    return text.encode("latin1")


def _load_storage(content: Any) -> _Storage:
    """A storage as torch pickles it: five small pickles, the number of values, the values."""
    if not isinstance(content, bytes | bytearray):
        raise _NotAllowed("a storage without bytes")
    rest = memoryview(content)
    parts = []
    for _ in range(5):
        end = _checked(rest[: 1 << 14].tobytes())
        parts.append(_Unpickler(io.BytesIO(rest[:end])).load())
        rest = rest[end:]
    magic, _, system, (kind, name, _, _, count, *_), _ = parts
    known = isinstance(name, str) and name in _STORAGES
    if magic != _LEGACY_MAGIC or kind != "storage" or not known:
        raise _NotAllowed(f"a storage of the kind {_shown(name)}")
    if not system.get("little_endian"):
        raise _NotAllowed("a storage with the most significant byte first")
    dtype = np.dtype(_STORAGES[name])
    if int.from_bytes(rest[:8], "little") != count or len(rest) != 8 + count * dtype.itemsize:
        raise _NotAllowed(f"{len(rest):,} bytes for {_shown(count)} numbers")
    return _Storage(name, np.frombuffer(rest[8:], dtype))


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _load_storage,
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _reconstruct,
    **{
        (f"numpy.{core}.{module}", function): ours
        for core in ("core", "_core")
        for module, function, ours in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    """An interpreter of pickles that knows the names above only."""

    def find_class(self, module: str, name: str) -> Any:
        """A function of this file, or the name of a storage."""
        if module == "torch" and name in _STORAGES:
            return name
        try:
            return _Function(_NAMES[module, name])
        except KeyError:
            raise _NotAllowed(f"a call of {module}.{name}") from None

    def persistent_load(self, identity: Any) -> Any:
        """The description of a storage whose numbers follow."""
        if not isinstance(identity, tuple) or len(identity) < 5:
            raise _NotAllowed("a reference to something outside of it")
        return identity


def _checked(content: bytes) -> int:
    """The length of the pickle that a text begins with, after a look at its instructions.

    What a matrix uses again are texts and names. Of tuples that each hold the one before twice,
    hash and text take twice as long with every level.
    """
    again: dict[int, bool] = {}  # number of an entry → whether it may be used again
    before = ""
    for count, (instruction, argument, _position) in enumerate(pickletools.genops(content)):
        name = instruction.name
        if name not in _INSTRUCTIONS:
            raise _NotAllowed(f"the instruction {name}")
        if count >= MAX_INSTRUCTIONS:
            raise _NotAllowed(f"more than {MAX_INSTRUCTIONS} instructions")
        # the interpreter allocates a table as long as the largest number of an entry
        if name in ("BINPUT", "LONG_BINPUT") and (argument or 0) > MAX_INSTRUCTIONS:
            raise _NotAllowed(f"an entry number {argument}")
        if name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            again[len(again) if name == "MEMOIZE" else int(argument or 0)] = before in _USED_AGAIN
        if name in ("BINGET", "LONG_BINGET") and not again.get(int(argument or 0)):
            raise _NotAllowed("a value, neither text nor name, that is used again")
        before = name
    return int(_position or 0) + 1


def _unpickled(content: bytes) -> np.ndarray:
    end = _checked(content)
    if end != len(content):
        raise _NotAllowed(f"{len(content) - end:,} bytes after its end")
    found = _Unpickler(io.BytesIO(content)).load()
    if not isinstance(found, _Array) or found.value is None:
        raise _NotAllowed(f"a value of type {type(found).__name__.lstrip('_')}")
    return found.value


def _torch_file(content: bytes) -> np.ndarray:
    """The tensor in a file of torch.save; its members are stored, so none can unpack to more."""
    import torch

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members: Sequence[zipfile.ZipInfo] = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise _NotAllowed("compressed members")
        if sum(member.file_size for member in members) > len(content):
            raise _NotAllowed("members that overlap")
        for member in members:
            if member.filename.lower().endswith("data.pkl"):  # as torch looks for it
                _checked(archive.read(member))
    found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(found, torch.Tensor) or not found.is_floating_point():
        raise _NotAllowed(f"a value of type {type(found).__name__}")
    if found.layout != torch.strided or found.numel() * found.element_size() > len(content):
        raise _NotAllowed("a tensor that is sparse or repeats its numbers")
    return found.detach().to(torch.float32).numpy()
