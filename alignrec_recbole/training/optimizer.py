"""Which optimizer trains a model, and its learning rate."""

from __future__ import annotations

from typing import Any

import torch

from alignrec_recbole.errors import SettingError
from alignrec_recbole.ops.optimizers import (
    Adam,
    AdamW,
    Capturable,
    CapturableAdam,
    CapturableAdamW,
    FactoredAdam,
    FactoredAdamW,
)

LEARNERS = ("adam", "adamw")  # ours; RecBole makes every other


def build(
    model: torch.nn.Module,
    learner: str,
    learning_rate: float,
    weight_decay: float,
    *,
    clipped: bool,
    captured: bool,
) -> torch.optim.Optimizer | None:
    """Adam or AdamW of ours by the name `learner`; None for a name that is not ours.

    With `clipped` gradients are formed in full, since their norm is needed; with `captured` a step
    can be part of a CUDA graph. A model without trainable weights has none of ours either.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if learner.lower() not in LEARNERS or not parameters:
        return None
    adamw = learner.lower() == "adamw"
    settings: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
    if not all(p.is_floating_point() for p in parameters):
        return (AdamW if adamw else Adam)(parameters, **settings)
    if captured:
        return (CapturableAdamW if adamw else CapturableAdam)(parameters, **settings)
    if clipped:
        return (AdamW if adamw else Adam)(parameters, fused=True, **settings)
    return (FactoredAdamW if adamw else FactoredAdam)(parameters, **settings)


def check_sparse(model: torch.nn.Module, weight_decay: float) -> None:
    """Refuse sparse_adam for weights whose gradients are dense, and a weight decay with it.

    Raises:
        SettingError: with the first such weight, or the weight decay.
    """
    if weight_decay:
        raise SettingError(
            "The learner sparse_adam has no weight decay.",
            found=f"weight_decay={weight_decay:g}",
            expected="weight_decay=0",
            hint="--set learner=adam",
        )
    sparse = {id(m.weight) for m in model.modules() if getattr(m, "sparse", False)}
    for name, value in model.named_parameters():
        if value.requires_grad and id(value) not in sparse:
            raise SettingError(
                f"The learner sparse_adam cannot train {type(model).__name__}.",
                found=f"a dense gradient of {name}",
                expected="embeddings with sparse gradients alone",
                hint="--set learner=adam",
            )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all parameters the learning rate `rate`."""
    if isinstance(optimizer, Capturable):
        optimizer.set_learning_rate(rate)
        return
    for group in optimizer.param_groups:
        group["lr"] = rate
