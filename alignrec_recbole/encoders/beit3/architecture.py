"""BEiT-3's multiway transformer: two streams of tokens that are joined in attention only.

    u = LN(x);  a = softmax(q kᵀ / √d_h) v  over both streams;  x ← x + W_o LN(a)
    w = LN(x);  x ← x + W₂ LN(gelu(W₁ w))

Each modality has its own parameters for all but the attention operation (q, k, v in one product).

Followed   the released base and large models (github.com/microsoft/unilm, beit3); agreement with
           torchscale 0.3.0 is measured by `python -m benchmarks.parity.beit3`.
Shapes     image [B, 3, S, S], ids [B, T] → vision rows [B, 1 + patches, d], text rows [B, T, d].
Cost       24 n d² + 4 n² d operations per layer for n tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import AliasChoices, Field, ValidationError, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from alignrec_recbole.encoders.beit3.attention import joint_attention
from alignrec_recbole.errors import SettingError
from alignrec_recbole.settings import Settings

EPS = 1e-5  # of every LayerNorm
FIRST_POSITION = 2  # rows 0 and 1 of both position tables are unused
MAX_IMAGE_SIZE = 1536  # pixels: 9,216 patches
MAX_VOCABULARY = 1 << 20
MAX_PATCHES = 1 << 14


class Architecture(Settings):
    """Sizes of a model; `architecture_for` knows the published ones.

    Files of weights, manifests and pre-training states have some fields under shorter names.
    """

    width: int = Field(gt=0, le=1 << 13)
    num_heads: int = Field(
        gt=0,
        le=1 << 10,
        validation_alias=AliasChoices("num_heads", "heads"),
        serialization_alias="heads",
    )
    num_layers: int = Field(
        gt=0,
        le=128,
        validation_alias=AliasChoices("num_layers", "layers"),
        serialization_alias="layers",
    )
    ffn_dim: int = Field(
        gt=0,
        le=1 << 15,
        validation_alias=AliasChoices("ffn_dim", "hidden"),
        serialization_alias="hidden",
    )
    image_size: int = Field(gt=0, le=MAX_IMAGE_SIZE)
    patch_size: int = Field(default=16, gt=0, le=MAX_IMAGE_SIZE)
    vocab_size: int = Field(
        default=64010,
        gt=4,
        le=MAX_VOCABULARY,
        validation_alias=AliasChoices("vocab_size", "vocabulary"),
        serialization_alias="vocabulary",
    )
    text_positions: int = Field(default=1024, gt=FIRST_POSITION, le=1 << 16)
    final_layer_norm: bool = Field(
        default=True,
        validation_alias=AliasChoices("final_layer_norm", "final_norm"),
        serialization_alias="final_norm",
    )
    mlm: bool = False  # a head that predicts token ids
    mim: int = Field(
        default=0, ge=0, le=1 << 17
    )  # width of the head on patches: codes or target values

    @model_validator(mode="after")
    def _divides(self) -> Architecture:
        if self.width % self.num_heads or self.image_size % self.patch_size:
            raise ValueError("num_heads must divide width, and patch_size image_size")
        if self.patches > MAX_PATCHES:
            raise ValueError(f"an image may have {MAX_PATCHES} patches at most")
        return self

    def stored(self) -> dict[str, Any]:
        """The sizes as they are stored.

        >>> architecture_for("toy").stored()["heads"]
        4
        """
        return self.model_dump(by_alias=True)

    @property
    def grid(self) -> int:
        """Patches per side."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """Patches per image."""
        return self.grid**2

    @property
    def longest_text(self) -> int:
        """Maximum number of tokens of a text."""
        return self.text_positions - FIRST_POSITION


SIZES = {
    "base": {"width": 768, "num_heads": 12, "num_layers": 12, "ffn_dim": 3072},
    "large": {"width": 1024, "num_heads": 16, "num_layers": 24, "ffn_dim": 4096},
    # ours: trains on a CPU in minutes
    "toy": {"width": 128, "num_heads": 4, "num_layers": 4, "ffn_dim": 256, "text_positions": 130},
}


def architecture_for(size: str, image_size: int = 224, **other: int | bool) -> Architecture:
    """The architecture of a published size (base, large) or of toy.

    Raises:
        SettingError: there is no such size, or the values do not fit together.
    """
    if size not in SIZES:
        raise SettingError(f"Unknown BEiT-3 size {size!r}.", found=size, expected=", ".join(SIZES))
    return checked_architecture({**SIZES[size], "image_size": image_size, **other})


def checked_architecture(sizes: Mapping[str, int | bool]) -> Architecture:
    """The architecture of these sizes.

    Raises:
        SettingError: a size is too large, or they do not fit together.
    """
    try:
        return Architecture(**sizes)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingError(
            "BEiT-3 cannot be built with these sizes.",
            found=", ".join(f"{name} {value}" for name, value in sizes.items()),
            expected="; ".join(
                f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in error.errors()
            ),
            hint="correct --image-size or --vocab-size",
        ) from error


@dataclass(frozen=True)
class Beit3Output:
    """Final rows of a batch: `vision` [B, 1 + patches, d] (0 = cls), `text` [B, T, d] (0 = <s>)."""

    vision: Tensor | None
    text: Tensor | None


class ModalityExpert(nn.Module):
    """One modality's parameters of a layer (an expert of the multiway transformer)."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        d, f = sizes.width, sizes.ffn_dim
        self.attention_norm = nn.LayerNorm(d, EPS)
        self.qkv = nn.Linear(d, 3 * d)
        self.inner_norm = nn.LayerNorm(d, EPS)
        self.out = nn.Linear(d, d)
        self.hidden_norm = nn.LayerNorm(d, EPS)
        self.fc1 = nn.Linear(d, f)
        self.fc1_norm = nn.LayerNorm(f, EPS)
        self.fc2 = nn.Linear(f, d)

    def project(self, x: Tensor) -> Tensor:
        """q, k and v [n, 3 d]."""
        return self.qkv(self.attention_norm(x))

    def attended(self, a: Tensor) -> Tensor:
        """The attention branch's output."""
        return self.out(self.inner_norm(a))

    def feed(self, x: Tensor) -> Tensor:
        """The feed-forward branch's output."""
        return self.fc2(self.fc1_norm(F.gelu(self.fc1(self.hidden_norm(x)))))


class Layer(nn.Module):
    """The experts of both modalities, joined by attention.

    The streams stay contiguous [B·n, d] matrices: a Linear on a slice of one joint tensor copies
    its weight for every item of the batch.
    """

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.num_heads = sizes.num_heads
        self.vision = ModalityExpert(sizes)
        self.text = ModalityExpert(sizes)

    def forward(
        self,
        streams: list[Tensor],
        modalities: list[str],
        batch: int,
        attention_mask: Tensor | None,
        cls_only: bool = False,
        drop_path_scale: Tensor | None = None,
    ) -> list[Tensor]:
        """One layer on the streams [B·n, d] of these modalities.

        Args:
            cls_only: compute the first row of each stream only, [B, d].
            drop_path_scale: [B, 2], factors of each item's two branches.
        """
        attended, fed = (None, None) if drop_path_scale is None else drop_path_scale.unbind(1)
        parts: list[ModalityExpert] = [getattr(self, name) for name in modalities]
        width = streams[0].shape[1]
        qkv = [
            part.project(x).view(batch, -1, 3, self.num_heads, width // self.num_heads)
            for part, x in zip(parts, streams, strict=True)
        ]
        joined = joint_attention(qkv, attention_mask, cls_only)
        if cls_only:
            streams = [x.view(batch, -1, width)[:, 0] for x in streams]
        out = []
        for part, x, rows in zip(parts, streams, joined, strict=True):
            x = x + _scaled(part.attended(rows), attended)
            out.append(x + _scaled(part.feed(x), fed))
        return out


def _scaled(branch: Tensor, drop_path_scale: Tensor | None) -> Tensor:
    """The branch [B·n, d] times its item's factor [B]."""
    if drop_path_scale is None:
        return branch
    scaled = branch.view(len(drop_path_scale), -1, branch.shape[1]) * drop_path_scale[:, None, None]
    return scaled.to(branch.dtype).view_as(branch)


class Beit3(nn.Module):
    """The backbone and, if the architecture has them, the two prediction heads."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        d = sizes.width
        self.sizes = sizes
        self.text_embed = nn.Embedding(sizes.vocab_size, d)
        self.patch_embed = nn.Linear(3 * sizes.patch_size**2, d)
        self.cls_token = nn.Parameter(torch.zeros(d))
        self.mask_token = nn.Parameter(torch.zeros(d))
        self.vision_positions = nn.Parameter(torch.zeros(sizes.patches + 1 + FIRST_POSITION, d))
        self.text_positions = nn.Parameter(torch.zeros(sizes.text_positions, d))
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.num_layers))
        norm = (lambda: nn.LayerNorm(d, EPS)) if sizes.final_layer_norm else nn.Identity
        self.vision_norm, self.text_norm = norm(), norm()
        self.mlm_head = nn.Linear(d, sizes.vocab_size) if sizes.mlm else None
        self.mim_head = nn.Linear(d, sizes.mim) if sizes.mim else None
        self.gradient_checkpointing = False  # less memory, a second forward pass

    def initialise(self, seed: int) -> Beit3:
        """Weights from N(0, 0.02²); layer l's two output products are divided by √(2l)."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, value in self.named_parameters():
                if name.endswith("norm.weight"):
                    value.fill_(1)
                elif name.endswith("bias"):
                    value.zero_()
                else:
                    drawn = torch.empty(value.shape).normal_(0, 0.02, generator=generator)
                    value.copy_(drawn)
                if name.endswith((".out.weight", ".fc2.weight")):
                    value.div_((2 * (int(name.split(".")[1]) + 1)) ** 0.5)
        return self

    def forward(
        self,
        image: Tensor | None = None,
        ids: Tensor | None = None,
        padding: Tensor | None = None,
        masked_patches: Tensor | None = None,
        cls_only: bool = False,
        drop_path_scale: Tensor | None = None,
    ) -> Beit3Output:
        """Encode images, texts or pairs.

        Args:
            image: [B, 3, S, S], normalised.
            ids: [B, T] token ids, padded on the right.
            padding: bool [B, T], True at padding; None: no padding. The first token of a text is
                never padding.
            masked_patches: bool [B, patches]; these are replaced by the mask token.
            cls_only: return the rows of cls and <s> only, [B, 1, d]; the last layer computes no
                others.
            drop_path_scale: [B, layers, 2], factors of each item's attention and feed-forward
                branches, the same for both modalities (0 drops a branch); None: all are 1.
        """
        streams, modalities = [], []
        first = image if image is not None else ids
        if first is None:
            raise ValueError("neither an image nor a text was given")
        batch = len(first)
        if image is not None:
            streams.append(self._embed_image(image, masked_patches))
            modalities.append("vision")
        if ids is not None:
            streams.append(self._embed_text(ids, padding))
            modalities.append("text")
        attention_mask = self._attention_mask(
            image is not None, padding if ids is not None else None
        )
        for i, layer in enumerate(self.layers):
            last_cls_only = cls_only and i == len(self.layers) - 1
            own = None if drop_path_scale is None else drop_path_scale[:, i]
            given = (streams, modalities, batch, attention_mask, last_cls_only, own)
            if self.gradient_checkpointing and self.training:
                streams = checkpoint(layer, *given, use_reentrant=False)
            else:
                streams = layer(*given)
        rows = {
            name: getattr(self, f"{name}_norm")(x).view(batch, -1, self.sizes.width)
            for name, x in zip(modalities, streams, strict=True)
        }
        return Beit3Output(rows.get("vision"), rows.get("text"))

    def patchify(self, image: Tensor) -> Tensor:
        """Image [B, 3, S, S] → patches [B, patches, 3·p²], row by row."""
        g, p = self.sizes.grid, self.sizes.patch_size
        if image.shape[1:] != (3, g * p, g * p):
            raise ValueError(f"images are {tuple(image.shape[1:])}, not (3, {g * p}, {g * p})")
        patches = image.reshape(len(image), 3, g, p, g, p).permute(0, 2, 4, 1, 3, 5)
        return patches.reshape(len(image), g * g, 3 * p * p)

    def _embed_image(self, image: Tensor, masked: Tensor | None) -> Tensor:
        patches = self.patch_embed(self.patchify(image.to(self.patch_embed.weight.dtype)))
        if masked is not None:
            patches = torch.where(masked[..., None], self.mask_token.to(patches.dtype), patches)
        cls = self.cls_token.to(patches.dtype).expand(len(image), 1, -1)
        rows = torch.cat([cls, patches], 1) + self.vision_positions[FIRST_POSITION:]
        return rows.reshape(-1, self.sizes.width)

    def _embed_text(self, ids: Tensor, padding: Tensor | None) -> Tensor:
        if ids.shape[1] > self.sizes.longest_text:
            raise ValueError(f"{ids.shape[1]} tokens, at most {self.sizes.longest_text}")
        end = FIRST_POSITION + ids.shape[1]
        rows = self.text_embed(ids) + self.text_positions[FIRST_POSITION:end]
        if padding is not None:
            rows = rows.masked_fill(padding[..., None], 0)
        return rows.reshape(-1, self.sizes.width)

    def _attention_mask(self, with_image: bool, padding: Tensor | None) -> Tensor | None:
        """bool [B, 1, 1, N], True where a key may be attended to (SDPA's polarity)."""
        if padding is None:
            return None
        allowed = F.pad(~padding, (self.sizes.patches + 1 if with_image else 0, 0), value=True)
        return allowed[:, None, None, :]
