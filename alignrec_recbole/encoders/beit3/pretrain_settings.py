"""Settings of the pre-training."""

from __future__ import annotations

import logging
from typing import Literal

from pydantic import Field

from alignrec_recbole.settings import Settings

logger = logging.getLogger(__name__)


class PretrainSettings(Settings):
    """How to pre-train; recorded in the weights. Sources beside the defaults."""

    epochs: int = Field(default=5, gt=0)  # BEiT-3's intermediate tuning
    batch_size: int = Field(default=256, gt=0)  # items a step, over all processes
    micro_batch: int = Field(default=32, gt=0)  # items a forward pass
    learning_rate: float = Field(default=3e-5, ge=0)  # BEiT-3's intermediate tuning
    warmup_epochs: float = Field(default=1.0, ge=0)  # same
    weight_decay: float = Field(default=0.05, ge=0)  # same
    betas: tuple[float, float] = (0.9, 0.999)  # same
    layer_decay: float = Field(default=0.95, gt=0, le=1)  # same
    clip_norm: float = Field(default=3.0, gt=0)  # BEiT-3's pre-training
    text_mask: float = Field(default=0.5, gt=0, lt=1)  # same, of pairs
    image_mask: float = Field(default=0.4, gt=0, lt=1)  # same
    crop: float = Field(default=1.0, gt=0, le=1)  # least area of random crops, mirrored by halves
    mim_weight: float = Field(default=1.0, ge=0)  # λ
    mode: Literal["separate", "joint"] = "separate"
    target: str = "pixels"
    drop_path: float = Field(default=0.0, ge=0, lt=1)  # of the last layer, from 0 at the first
    ema: float | None = Field(default=None, gt=0, lt=1)
    freeze_layers: int = Field(default=0, ge=0)  # the first so many
    freeze_embeddings: bool = False
    recompute: bool = False  # gradient checkpointing
    bfloat16: bool = False  # autocast
    validation: float = Field(default=0.1, gt=0, lt=1)  # share of the items held out
    seed: int = Field(default=0, ge=0)
    save_every: int = Field(default=200, gt=0)  # steps
