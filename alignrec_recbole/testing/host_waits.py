"""Whether a training step has operators that the host waits for, found without a GPU.

A step is made on torch's meta device, whose tensors have shapes and no values. It takes the
branches of a GPU, and an operator that needs a value on the host, returns a shape that depends on
values, or reads a tensor of the host shows itself. A CUDA graph can hold none of these.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alignrec_recbole.ops.optimizers import CapturableAdam
from alignrec_recbole.testing.testbed import FittedModel

DEVICE = "meta"
_WAIT_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_MASKED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
_MADE_OF_NUMBERS = "aten::lift_fresh"  # torch.tensor(…, device=…): a copy from the host
_WITHOUT_META = "aten::_fused_adam_"  # changes its arguments and returns nothing


class HostWait(Exception):
    """A step has an operator that the host waits for."""


class WithoutWaits(TorchDispatchMode):
    """Raises HostWait at the first operator that a CUDA graph cannot hold.

    Args:
        copies: tensors of the host may be read, as in first steps, which copy graphs to the device.
    """

    def __init__(self, *, copies: bool) -> None:
        super().__init__()
        self.copies = copies

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if reason := _reason_to_wait(func, name, args, kwargs or {}):
            raise HostWait(f"{name}: {reason}")
        given = (args, kwargs)
        out = None if name == _WITHOUT_META else func(*args, **(kwargs or {}))
        if not self.copies:
            if name == _MADE_OF_NUMBERS:
                raise HostWait(f"{name}: a tensor is made of numbers of the host")
            for leaf in tree_leaves((given, out)):
                if isinstance(leaf, Tensor) and leaf.device.type != DEVICE:
                    raise HostWait(f"{name}: a tensor of the host, {list(leaf.shape)}")
        return out


def _reason_to_wait(func: Any, name: str, args: Any, kwargs: Any) -> str:
    if name in _MASKED:
        masks = [
            leaf
            for leaf in tree_leaves(args[1])
            if isinstance(leaf, Tensor) and leaf.dtype in (torch.bool, torch.uint8)
        ]
        return "rows are chosen by a mask" if masks else ""
    if name == "aten::repeat_interleave" and kwargs.get("output_size") is not None:
        return ""
    if _WAIT_TAGS.isdisjoint(func.tags):
        return ""
    return "the host needs a value, or a shape that depends on values"


def first_wait(fit: FittedModel) -> str:
    """The first operator of a step that the host waits for; empty if there is none.

    The step is the trainer's, gradients are clipped, and the optimizer is that of captured steps;
    it is made in both types of large products. Before it, another one copies to the device what
    stays there.

    Args:
        fit: a model that was trained for an epoch at least.
    """
    trainer, batch = copy.copy(fit.trainer), fit.batch()
    trainer.model = copy.deepcopy(fit.model).to(DEVICE).train()
    trainer.optimizer = _optimizer(trainer.model)
    trainer.clip_grad_norm = {"max_norm": 1.0}
    on_device = Interaction({name: ids.to(DEVICE) for name, ids in batch.interaction.items()})
    try:
        for precision in (None, torch.bfloat16):
            trainer.precision = precision
            for copies in (True, False):
                with WithoutWaits(copies=copies):
                    trainer._step(on_device)
    except HostWait as wait:
        return str(wait)
    return ""


def _optimizer(model: Any) -> CapturableAdam:
    """As after a first step: that one asks which device it is."""
    optimizer = CapturableAdam([p for p in model.parameters() if p.requires_grad], lr=0.001)
    for group in optimizer.param_groups:
        for table in group["params"]:
            optimizer.state[table] = {
                "step": torch.zeros((), device=DEVICE),
                "exp_avg": torch.zeros_like(table),
                "exp_avg_sq": torch.zeros_like(table),
            }
    return optimizer
