"""Settings of the pre-training."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from alignrec_recbole.settings import Settings

logger = logging.getLogger(__name__)

LARGE = 10**6  # larger counts and weights are mistakes
Beta = Annotated[float, Field(ge=0, lt=1)]


class PretrainSettings(Settings):
    """How to pre-train; recorded in the weights. Sources beside the defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # epochs, learning rate, warm-up, decay, betas: BEiT-3's intermediate tuning
    epochs: int = Field(default=5, gt=0, le=LARGE, description="epochs")
    batch_size: int = Field(
        default=256, gt=0, le=LARGE, description="items per step, over all processes"
    )
    micro_batch: int = Field(default=32, gt=0, le=LARGE, description="items per forward pass")
    learning_rate: float = Field(
        default=3e-5, ge=0, le=10, description="peak learning rate of AdamW"
    )
    warmup_epochs: float = Field(
        default=1.0, ge=0, le=LARGE, description="epochs of linear warm-up"
    )
    weight_decay: float = Field(default=0.05, ge=0, le=10, description="weight decay of AdamW")
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), description="betas of AdamW")
    layer_decay: float = Field(
        default=0.95, gt=0, le=1, description="factor of the learning rate per layer, downwards"
    )
    # clipping and mask ratios (of pairs): BEiT-3's pre-training
    clip_norm: float = Field(
        default=3.0, gt=0, le=LARGE, description="largest norm of the gradient"
    )
    text_mask: float = Field(default=0.5, gt=0, lt=1, description="share of tokens masked")
    image_mask: float = Field(default=0.4, gt=0, lt=1, description="share of patches masked")
    crop: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="smallest area of random crops, half of them mirrored; 1: whole images",
    )
    mim_weight: float = Field(
        default=1.0, ge=0, le=LARGE, description="weight of the image loss"
    )  # λ
    mode: Literal["separate", "joint"] = Field(
        default="separate", description="mask text and image in separate passes, or jointly"
    )
    target: str = Field(
        default="pixels", description="prediction target: pixels, teacher:PATH or codes:PATH"
    )
    drop_path: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="stochastic depth of the last layer; linear from 0",
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="decay of a moving average of the weights",
    )
    freeze_layers: int = Field(
        default=0, ge=0, le=128, description="first layers that are not trained"
    )
    freeze_embeddings: bool = Field(default=False, description="do not train the embeddings")
    recompute: bool = Field(
        default=False, description="gradient checkpointing: less memory, more time"
    )
    bfloat16: bool = Field(default=False, description="autocast to bfloat16")
    validation: float = Field(default=0.1, gt=0, lt=1, description="share of items held out")
    seed: int = Field(
        default=0, ge=0, lt=1 << 63, description="seed of initial heads, masks and order"
    )
    save_every: int = Field(default=200, gt=0, le=LARGE, description="steps between saved states")
