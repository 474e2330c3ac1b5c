"""BEiT-3 weights: read safely, checked name by name, stored as safetensors.

Two layouts are read: torchscale's state dict (the published .pth, with or without the prefix
`beit3.`) and this package's own safetensors, whose header holds the architecture.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional as F

from alignrec_recbole.encoders.beit3.architecture import (
    FIRST_POSITION,
    Architecture,
    Beit3,
    checked_architecture,
)
from alignrec_recbole.encoders.beit3.tensor_files import (
    check_tensors,
    damaged,
    read_pickle,
    read_safetensors,
)
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.io.files import atomic_write, sha256_file

PREFIX = "beit3."  # of the published files
EXPERTS = {"vision": "A", "text": "B"}
HEAD_NAMES = ("mlm_head", "mim_head")
# Heads of other tasks in published files; they are not used.
OTHER_HEADS = re.compile(
    r"(language_head|vision_head|logit_scale|pooler\.(norm|dense)|fc_norm|"
    r"head(\.(0|1|3|norm1|norm2|dense1|dense2))?)(\.(weight|bias))?"
)
LAYERS = "encoder.layers."
CODES = 8192  # of BEiT v2's visual codebook, the published mim_head's width
HEADER = "beit3"  # the one key of the safetensors header: several have no fixed order
MAX_HEADER = 1 << 20  # characters


class Header(BaseModel):
    """What `save` writes beside the tensors; `sha256` is that of the file they were read from."""

    model_config = ConfigDict(extra="allow")

    architecture: Architecture | None = None
    notes: list[str] = []
    origin: Any = None
    sha256: str = ""
    content_sha256: str = ""


def names(sizes: Architecture) -> dict[str, list[str]]:
    """Our parameter → its torchscale tensors (three for q, k and v)."""
    out = {
        "text_embed.weight": ["text_embed.weight"],
        "patch_embed.weight": ["vision_embed.proj.weight"],
        "patch_embed.bias": ["vision_embed.proj.bias"],
        "cls_token": ["vision_embed.cls_token"],
        "mask_token": ["vision_embed.mask_token"],
        "vision_positions": ["encoder.embed_positions.A.weight"],
        "text_positions": ["encoder.embed_positions.B.weight"],
    }
    for modality, letter in EXPERTS.items():
        for kind in ("weight", "bias"):
            for i in range(sizes.num_layers):
                ours, theirs = f"layers.{i}.{modality}", f"encoder.layers.{i}"
                attention = f"{theirs}.self_attn"
                out |= {
                    f"{ours}.attention_norm.{kind}": [
                        f"{theirs}.self_attn_layer_norm.{letter}.{kind}"
                    ],
                    f"{ours}.qkv.{kind}": [
                        f"{attention}.{z}_proj.{letter}.{kind}" for z in ("q", "k", "v")
                    ],
                    f"{ours}.inner_norm.{kind}": [f"{attention}.inner_attn_ln.{letter}.{kind}"],
                    f"{ours}.out.{kind}": [f"{attention}.out_proj.{letter}.{kind}"],
                    f"{ours}.hidden_norm.{kind}": [f"{theirs}.final_layer_norm.{letter}.{kind}"],
                    f"{ours}.fc1.{kind}": [f"{theirs}.ffn.{letter}.fc1.{kind}"],
                    f"{ours}.fc1_norm.{kind}": [f"{theirs}.ffn.{letter}.ffn_layernorm.{kind}"],
                    f"{ours}.fc2.{kind}": [f"{theirs}.ffn.{letter}.fc2.{kind}"],
                }
            if sizes.final_layer_norm:
                out[f"{modality}_norm.{kind}"] = [f"encoder.layer_norm.{letter}.{kind}"]
    for head, exists in (("mlm_head", sizes.mlm), ("mim_head", sizes.mim)):
        if exists:
            out |= {f"{head}.{kind}": [f"{head}.{kind}"] for kind in ("weight", "bias")}
    return out


def from_torchscale(
    state: Mapping[str, Tensor], source: str = "the state dict", num_heads: int | None = None
) -> Beit3:
    """A model from a torchscale state dict; its sizes are read off the tensors.

    Args:
        num_heads: attention heads, which no tensor shows; every published model has width / 64.

    Raises:
        FeatureError: a tensor is missing, unknown or of another shape.
    """
    bare = {key.removeprefix(PREFIX): value for key, value in state.items()}
    sizes = _sizes(bare, source, num_heads)
    wanted = names(sizes)
    used = {name for parts in wanted.values() for name in parts}
    missing = sorted(used - bare.keys())
    unknown = sorted(k for k in bare.keys() - used if not OTHER_HEADS.fullmatch(k))
    if missing or unknown:
        raise FeatureError(
            f"{source} is not a BEiT-3 state dict.",
            found="; ".join(
                f"{len(keys)} {what}, for example {keys[0]}"
                for what, keys in (("missing", missing), ("unknown", unknown))
                if keys
            ),
            expected=f"the {len(used)} tensors of {sizes.num_layers} layers",
            hint="name a published beit3_*.pth or a file written by this package",
        )
    converted = {}
    for ours, parts in wanted.items():
        value = _joined(bare, parts, source)
        if ours in ("cls_token", "mask_token"):
            value = value.flatten()
        elif ours == "patch_embed.weight":
            value = value.flatten(1)
        converted[ours] = value
    return _filled(sizes, converted, source)


def _joined(state: Mapping[str, Tensor], parts: Sequence[str], source: str) -> Tensor:
    """The tensors of these names, one below the other.

    Raises:
        FeatureError: they have rows of different widths.
    """
    other = next((n for n in parts if state[n].shape[1:] != state[parts[0]].shape[1:]), None)
    if other is not None:
        raise FeatureError(
            f"{source} does not fit its architecture.",
            found=f"{other}: {tuple(state[other].shape)}",
            expected=f"rows as {parts[0]} has them: {tuple(state[parts[0]].shape)}",
        )
    return torch.cat([state[name] for name in parts]) if len(parts) > 1 else state[parts[0]]


def to_torchscale(model: Beit3) -> dict[str, Tensor]:
    """The model's tensors under torchscale's names and shapes (without the prefix)."""
    state, sizes = model.state_dict(), model.sizes
    out: dict[str, Tensor] = {}
    for ours, parts in names(sizes).items():
        value = state[ours]
        if ours in ("cls_token", "mask_token"):
            value = value[None, None]
        elif ours == "patch_embed.weight":
            value = value.view(-1, 3, sizes.patch_size, sizes.patch_size)
        out.update(zip(parts, value.chunk(len(parts)), strict=True))
    return out


def _sizes(state: Mapping[str, Tensor], source: str, num_heads: int | None) -> Architecture:
    try:
        vocab_size, width = state["text_embed.weight"].shape
        patch = state["vision_embed.proj.weight"].shape[-1]
        patches = len(state["encoder.embed_positions.A.weight"]) - 1 - FIRST_POSITION
        ffn_dim = len(state["encoder.layers.0.ffn.A.fc1.bias"])
        mim = len(state["mim_head.bias"]) if "mim_head.bias" in state else 0
        return Architecture(
            width=width,
            num_heads=num_heads or max(1, width // 64),
            num_layers=1 + max(int(key.split(".")[2]) for key in state if key.startswith(LAYERS)),
            ffn_dim=ffn_dim,
            image_size=round(patches**0.5) * patch,
            patch_size=patch,
            vocab_size=vocab_size,
            text_positions=len(state["encoder.embed_positions.B.weight"]),
            final_layer_norm="encoder.layer_norm.A.weight" in state,
            mlm="mlm_head.weight" in state,
            mim=mim,
        )
    except (KeyError, ValueError, AttributeError, IndexError) as error:
        some = ", ".join(sorted(state)[:3])
        raise FeatureError(
            f"{source} is not a BEiT-3 state dict.",
            found=f"{type(error).__name__}: {error}; {len(state)} tensors: {some}, …",
            expected="the names that torchscale's BEiT3 module has",
        ) from error


def _filled(sizes: Architecture, state: Mapping[str, Tensor], source: str) -> Beit3:
    with torch.device("meta"):
        model = Beit3(sizes)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    wrong = [
        f"{name}: {tuple(state[name].shape) if name in state else 'missing'}, not {tuple(shape)}"
        for name, shape in shapes.items()
        if name not in state or state[name].shape != shape
    ]
    wrong += [f"{name}: unknown" for name in state.keys() - shapes.keys()]
    if wrong:
        raise FeatureError(
            f"{source} does not fit its architecture.",
            found=f"{len(wrong)} tensors, for example {wrong[0]}",
            expected=", ".join(f"{k} {v}" for k, v in sizes.model_dump().items()),
        )
    floats = {name: value.float().contiguous() for name, value in state.items()}
    model.load_state_dict(floats, strict=True, assign=True)
    return model


def load(path: Path) -> Beit3:
    """A model from a published .pth, a torchscale .safetensors or this package's own.

    Nothing in a .pth is executed: only tensors, plain data and argparse namespaces are accepted.

    Raises:
        FeatureError: the file is missing, damaged, contains other objects, or is not BEiT-3.
    """
    return load_with_header(path)[0]


def load_with_header(path: Path) -> tuple[Beit3, Header]:
    """The model and what `save` noted about it; other files have no notes.

    Raises:
        FeatureError: as `load`.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise FeatureError(
            f"There are no BEiT-3 weights {path}.",
            expected="a .pth or .safetensors file",
            hint="name a file, or a published name, with --weights",
        )
    if path.suffix != ".safetensors":
        state = read_pickle(path)
        return _from_file(path, state), Header()
    state, metadata = read_safetensors(path)
    about = metadata.get(HEADER)
    if about is None:
        return _from_file(path, state), Header()
    check_tensors(path, state)
    try:
        if len(about) > MAX_HEADER:
            raise ValueError(f"a header of {len(about)} characters")
        header = Header.model_validate(json.loads(about))
        if header.architecture is None:
            raise ValueError("a header without an architecture")
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    return _filled(header.architecture, state, path.name), header


def _from_file(path: Path, state: dict[str, Any]) -> Beit3:
    used = {
        key: value
        for key, value in state.items()
        if not OTHER_HEADS.fullmatch(key.removeprefix(PREFIX))
    }
    check_tensors(path, used)
    return from_torchscale(used, path.name)


def content_hash(model: Beit3) -> str:
    """SHA-256 of a model's architecture and weights, as float32."""
    digest = hashlib.sha256(json.dumps(model.sizes.stored(), sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def save(model: Beit3, path: Path, note: Mapping[str, Any] | None = None) -> str:
    """Write a model as safetensors with its architecture; returns the file's SHA-256.

    Equal models and notes give equal bytes.

    Args:
        note: further plain values for the header, such as the origin.
    """
    from safetensors.torch import save as to_bytes

    about = json.dumps({"architecture": model.sizes.stored(), **(note or {})}, sort_keys=True)
    state = {k: v.detach().float().cpu().contiguous() for k, v in model.state_dict().items()}
    with atomic_write(path) as handle:
        handle.write(to_bytes(state, metadata={HEADER: about}))
    return sha256_file(path)


def resized(model: Beit3, image_size: int) -> Beit3:
    """The model for another image size: patch positions interpolated (bicubic), the rest copied.

    Raises:
        SettingError: the size is too large, or no multiple of the patches'.
    """
    if image_size == model.sizes.image_size:
        return model
    sizes = checked_architecture({**model.sizes.model_dump(), "image_size": image_size})
    state = dict(model.state_dict())
    copied = FIRST_POSITION + 1  # unused rows and cls
    table = state["vision_positions"]
    old = table[copied:].T.reshape(1, -1, model.sizes.grid, model.sizes.grid)
    new = F.interpolate(old, size=(sizes.grid, sizes.grid), mode="bicubic", align_corners=False)
    state["vision_positions"] = torch.cat([table[:copied], new.flatten(2)[0].T])
    return _filled(sizes, state, f"the model resized to {image_size}")
