"""Tensors from files of others: nothing is executed, and memory is bounded by the file's size."""

from __future__ import annotations

import argparse
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignrec_recbole.errors import FeatureError
from alignrec_recbole.io.opening import open_input

MAX_BYTES = 64 << 30
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SHARED = 2  # times the file's size: tensors that share memory are stored once
SLACK = 1 << 20  # bytes


def read_pickle(path: Path) -> dict[str, Any]:
    """The dict in a .pth; only tensors, plain data and argparse namespaces are accepted.

    A dict under the key `model` or `module` is returned in place of the one around it.

    Raises:
        FeatureError: the file is missing or damaged, or holds something else or compressed data.
    """
    path = Path(path)
    with open_input(path, what="weights", error=FeatureError, max_bytes=MAX_BYTES) as handle:
        size = os.fstat(handle.fileno()).st_size
        try:
            if zipfile.is_zipfile(handle):
                held = sum(entry.file_size for entry in zipfile.ZipFile(handle).infolist())
                if held > size:
                    raise ValueError(f"{held} bytes of content in {size} bytes")
            handle.seek(0)
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(handle, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle, zip and torch each have their own
            raise damaged(path, error) from error
    for key in ("model", "module", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise damaged(path, TypeError("not a dict of tensors"))
    return content


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a .safetensors and its header.

    Raises:
        FeatureError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    with open_input(path, what="weights", error=FeatureError, max_bytes=MAX_BYTES):
        pass  # a regular file
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise damaged(path, error) from error


def check_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Refuse what is no plain tensor of finite numbers that the file really holds.

    Raises:
        FeatureError: an entry is no tensor, sparse, quantized, without data, of another type than
            floating-point numbers, repeats memory, or has values that are not finite.
    """
    held = SHARED * Path(path).stat().st_size + SLACK
    for name, value in tensors.items():
        if problem := _problem(value):
            raise damaged(path, ValueError(f"{name} is {problem}"))
        held -= value.numel() * value.element_size()
        if held < 0:
            raise damaged(path, ValueError(f"{name} is larger than the file"))
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise damaged(path, ValueError(f"{name} holds NaN or infinity"))


def _problem(value: Any) -> str:
    """What makes a value unusable as a weight; empty if nothing does."""
    if not isinstance(value, Tensor):
        return f"{type(value).__name__}, not a tensor"
    if value.is_quantized or value.is_nested or value.layout != torch.strided:
        return "a sparse, nested or quantized tensor"
    if value.is_meta:
        return "a tensor without data"
    if value.dtype not in DTYPES:
        return f"of type {value.dtype}, not floating-point numbers"
    return ""


def damaged(path: Path, error: Exception) -> FeatureError:
    """The error that a file cannot be used as weights."""
    first = (str(error).strip() or "-").splitlines()[0][:200]
    return FeatureError(
        f"{Path(path).name} cannot be read as weights.",
        found=f"{type(error).__name__}: {first}",
        expected="tensors of finite numbers under names, and nothing that would have to be "
        "executed",
        hint="fetch the file again and compare its sha256 with the publisher's",
    )
