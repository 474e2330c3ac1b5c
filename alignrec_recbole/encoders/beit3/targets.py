"""Targets of masked patches: their pixels, a frozen teacher's row, or a visual code.

BEiT-3 predicts codes of BEiT v2's tokenizer, as `Codes` does given that file. `Pixels` needs no
weights and is the default; `Teacher` predicts rows of a frozen model.

Sources: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022 (pixels normalised
within a patch); Wei et al., "Masked Feature Prediction", CVPR 2022; Peng et al., "BEiT v2", 2022.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from alignrec_recbole.encoders.beit3 import weights
from alignrec_recbole.encoders.beit3.architecture import Architecture, Beit3
from alignrec_recbole.errors import SettingError
from alignrec_recbole.io.files import sha256_file

EPS = 1e-6


class Target(ABC):
    """A target and its loss.

    Attributes:
        width: of the head that predicts it.
        identity: what distinguishes it from others.
        chance: the loss of an untrained head, if that is a known number.
    """

    width: int
    identity: dict[str, Any]
    chance: float | None = None

    @abstractmethod
    def of(self, image: Tensor) -> Tensor:
        """[B, patches, …] from normalised whole images [B, 3, S, S]."""

    @abstractmethod
    def loss(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        """Sum over the patches [m, width] of each one's loss."""

    def to(self, device: str) -> Target:
        """Move its model, if it has one."""
        return self


class Pixels(Target):
    """Pixels of the patch, normalised by its own mean and standard deviation; squared error."""

    def __init__(self, sizes: Architecture) -> None:
        self.width = 3 * sizes.patch_size**2
        self.identity = {"target": "pixels"}
        with torch.device("meta"):
            self._patchify = Beit3(sizes.model_copy(update={"num_layers": 1})).patchify

    def of(self, image: Tensor) -> Tensor:
        """[B, patches, 3·p²]."""
        patches = self._patchify(image.float())
        deviation = (patches.var(-1, keepdim=True) + EPS).sqrt()
        return (patches - patches.mean(-1, keepdim=True)) / deviation

    def loss(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        """Mean over a patch's values, sum over patches."""
        return (predicted.float() - wanted).square().mean(-1).sum()


class Teacher(Target):
    """Patch rows of a frozen model that sees the whole image alone; normalised, smooth L1."""

    def __init__(self, path: Path, sizes: Architecture) -> None:
        self.model = weights.resized(weights.load(path), sizes.image_size).eval()
        self.model.requires_grad_(False)
        if self.model.sizes.patches != sizes.patches:
            raise SettingError(
                "The teacher has another number of patches.",
                found=f"{self.model.sizes.patches} patches",
                expected=f"{sizes.patches}",
            )
        self.width = self.model.sizes.width
        self.identity = {"target": "teacher", "teacher_sha256": sha256_file(path)}

    def of(self, image: Tensor) -> Tensor:
        """[B, patches, d]."""
        with torch.no_grad():
            rows = self.model(image).vision
        return F.layer_norm(rows[:, 1:].float(), (self.width,))

    def loss(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        """Mean over a row's values, sum over patches."""
        return F.smooth_l1_loss(predicted.float(), wanted, reduction="none").mean(-1).sum()

    def to(self, device: str) -> Teacher:
        """Move the teacher."""
        self.model.to(device)
        return self


class Codes(Target):
    """Visual codes of BEiT v2's tokenizer; cross-entropy."""

    def __init__(self, path: Path, sizes: Architecture) -> None:
        from alignrec_recbole.encoders.beit3.vqkd import VisualTokenizer, load_visual_tokenizer

        self.tokenizer: VisualTokenizer = load_visual_tokenizer(path)
        if self.tokenizer.patches != sizes.patches:
            raise SettingError(
                "The visual tokenizer gives another number of codes.",
                found=f"{self.tokenizer.patches} per image",
                expected=f"{sizes.patches}, the patches of the model",
                hint="it was made for 224 pixels: omit --image-size",
            )
        self.width = self.tokenizer.codes
        self.chance = math.log(self.width)
        self.identity = {"target": "codes", "visual_tokenizer_sha256": sha256_file(path)}

    def of(self, image: Tensor) -> Tensor:
        """int64 [B, patches]."""
        return self.tokenizer(image)

    def loss(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        """Sum over patches."""
        return F.cross_entropy(predicted.float(), wanted, reduction="sum")

    def to(self, device: str) -> Codes:
        """Move the tokenizer."""
        self.tokenizer.to(device)
        return self


def make_target(name: str, sizes: Architecture) -> Target:
    """The target that a setting names: pixels, teacher:PATH or codes:PATH.

    Raises:
        SettingError: there is no such target, or it does not fit the model.
        FeatureError: its file cannot be used.
    """
    kind, _, path = name.partition(":")
    if kind == "pixels" and not path:
        return Pixels(sizes)
    if kind == "teacher" and path:
        return Teacher(Path(path), sizes)
    if kind == "codes" and path:
        return Codes(Path(path), sizes)
    raise SettingError(
        f"Unknown target {name!r} for masked patches.",
        expected="pixels, teacher:PATH (a BEiT-3 file) or codes:PATH (BEiT v2's visual tokenizer)",
    )
