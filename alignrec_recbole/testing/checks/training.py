"""A training step: its losses, its gradients, and what the host waits for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alignrec_recbole.errors import DivergedError
from alignrec_recbole.testing import host_waits
from alignrec_recbole.testing.checks.exceptions import LOSS_FLOORS, own_settings
from alignrec_recbole.testing.checks.outcomes import must_raise
from alignrec_recbole.testing.testbed import FittedModel, Testbed
from alignrec_recbole.training.trainer import losses_by_name


def check_loss_falls(testbed: Testbed) -> None:
    """The loss is finite, also by part, and ends below half of where it began, above its floor."""
    fit = testbed.fit(**own_settings(testbed.under_test, "check_loss_falls"))
    for entry in fit.trainer.history:
        parts = entry["losses"]
        assert np.isfinite(list(parts.values())).all(), f"epoch {entry['epoch']}: {parts}"
    first, last = fit.losses[0], fit.losses[-1]
    floor, _ = LOSS_FLOORS.get(testbed.under_test.name, (0.0, ""))
    assert last - floor <= 0.5 * (first - floor), f"the loss went from {first:.4f} to {last:.4f}"


def check_nan_is_refused(testbed: Testbed) -> None:
    """A NaN weight ends training with an error, not with a result."""
    fit = testbed.build(epochs=1)
    with torch.no_grad():
        for parameter in fit.model.parameters():
            parameter.fill_(torch.nan)
    must_raise(
        DivergedError,
        lambda: fit.trainer.fit(fit.batches(), None, saved=False, show_progress=False),
        "training went on with a NaN loss",
    )


def total_loss(fit: FittedModel) -> Tensor:
    """The sum of a model's loss terms on a first batch."""
    parts = losses_by_name(fit.model.calculate_loss(fit.batch()))
    return torch.stack([part.reshape(()) for part in parts.values()]).sum()


def check_gradients(testbed: Testbed) -> None:
    """Every parameter gets a finite gradient that is not all zero; what is frozen stays."""
    fit = testbed.build()
    frozen = {
        name: tensor.clone()
        for name, tensor in fit.model.named_buffers()
        if torch.is_tensor(tensor)
    }
    fit.model.train()
    total_loss(fit).backward()
    for name, parameter in fit.model.named_parameters():
        if not parameter.requires_grad:
            frozen[name] = parameter.detach().clone()
            continue
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"
        assert parameter.grad.any(), f"the gradient of {name} is zero"
    fit.trainer.optimizer.step()
    after = {**dict(fit.model.named_buffers()), **dict(fit.model.named_parameters())}
    for name, value in frozen.items():
        assert torch.equal(after[name], value), f"{name} is frozen but a step changed it"


def check_step_waits_for_nothing(testbed: Testbed) -> None:
    """On a GPU the host waits for nothing in a step, or `capture_refused` says why it does."""
    reason = testbed.under_test.model_class.capture_refused
    wait = host_waits.first_wait(testbed.smoke_fit())
    if reason:
        assert wait, f"capture_refused says {reason!r}, but a step waits for nothing"
    else:
        assert not wait, f"a step waits at {wait}"
