"""Adam and AdamW: torch's own without its compiler guards, and with factored table gradients.

torch.optim loads torch's compiler to guard its methods against it, which takes nearly two seconds
and 50 MB of every run; nothing here compiles an optimizer. `Adam` and `AdamW` are torch's methods
without these guards: weights and states are the same to the last bit.

`FactoredAdam` and `FactoredAdamW` compute the same for tables whose gradients they collect as
factors (`ops.factored_gradients`), without ever holding such a gradient in full.

`CapturableAdam` and `CapturableAdamW` compute the same from numbers on the device alone, so that a
step can be part of a CUDA graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from alignrec_recbole.ops.factored_gradients import FactoredGradient, ScaledTable, tiles

Class = TypeVar("Class", bound=type[torch.optim.Optimizer])
_GUARDED = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")


def _unguarded(optimizer: Class) -> Class:
    """Give a subclass of torch's optimizer the methods beneath the compiler guards."""
    for name in _GUARDED:
        setattr(optimizer, name, inspect.unwrap(getattr(optimizer, name)))
    step = torch.no_grad()(inspect.unwrap(optimizer.step))
    optimizer.step = optimizer.step_without_hooks = step  # type: ignore
    return optimizer


@_unguarded
class Adam(torch.optim.Adam):
    """torch.optim.Adam."""


@_unguarded
class AdamW(torch.optim.AdamW):
    """torch.optim.AdamW."""


class _FactoredTables:
    """Collects the gradients of large tables as factors and applies them tile by tile.

    From `zero_grad` to `step` every large table has a list `factored_gradient`, to which
    `ops.linear` appends in its backward instead of adding to `.grad`; `step` applies and removes
    it. Gradients of other uses of the table are in `.grad` as always and are added. Outside that
    span, and for tables on a GPU, where each tile would be a launch of its own, gradients are
    formed as usual.

    A table's whole gradient is nowhere to be seen, so clipping, scaling and gradient hooks do not
    reach it: code that needs those uses Adam or AdamW. States are laid out as theirs.

    Args:
        params: as of torch.optim.
        lr, betas, eps, weight_decay: likewise; `fused`, which the tiles need, is always on.
    """

    MIN_TABLE_BYTES = 16 << 20  # smaller tables fit into the cache
    TILE_BYTES = 8 << 20
    update_rule: Callable[..., None]
    step_without_hooks: Callable[[], Any]
    param_groups: list[dict[str, Any]]
    state: Any

    def __init__(self, params: Any, **settings: Any) -> None:
        unsupported = {"amsgrad", "maximize", "capturable", "differentiable"} & {
            name for name, value in settings.items() if value
        }
        if unsupported or settings.get("fused") is False:
            raise ValueError(f"{type(self).__name__} has no {', '.join(unsupported) or 'loops'}")
        super().__init__(params, **{**settings, "fused": True})  # type: ignore[call-arg]

    def large_tables(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """The tables whose gradients are collected, with their parameter group."""
        for group in self.param_groups:
            for table in group["params"]:
                large = table.dim() == 2 and table.nbytes >= self.MIN_TABLE_BYTES
                if large and table.device.type == "cpu":
                    yield table, group

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients and begin to collect those of large tables."""
        super().zero_grad(set_to_none)  # type: ignore[misc]
        for table, _ in self.large_tables():
            table.factored_gradient = []  # type: ignore[attr-defined]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of Adam; the large tables first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for table, group in self.large_tables():
                factors = table.__dict__.pop("factored_gradient", None)
                if factors:
                    self._update(table, group, factors)
        self.step_without_hooks()  # torch wraps `step` itself to call them
        return loss

    def _update(
        self, table: Tensor, group: dict, factors: list[FactoredGradient | ScaledTable]
    ) -> None:
        state = self.state[table]
        if not state:  # as Adam begins
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        before = state["step"].clone()
        beta1, beta2 = group["betas"]
        for block, gradient in tiles(table, factors, self.TILE_BYTES):
            if table.grad is not None:  # of other uses than `ops.linear`
                gradient = gradient + table.grad[block]
            self.update_rule(
                [table[block]],
                [gradient],
                [state["exp_avg"][block]],
                [state["exp_avg_sq"][block]],
                [],
                [state["step"].copy_(before)],
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
        table.grad = None


class FactoredAdam(_FactoredTables, Adam):
    """Adam with factored gradients of large tables; see `_FactoredTables`."""

    update_rule = staticmethod(adam)


class FactoredAdamW(_FactoredTables, AdamW):
    """AdamW with factored gradients of large tables; see `_FactoredTables`."""

    update_rule = staticmethod(adamw)


class Capturable:
    """Reads its learning rate, in float32, from a tensor beside the parameters.

    States are laid out as Adam's, with the learning rate as a number: a training goes on with
    either.

    Args:
        params: as of torch.optim, at least one.
        lr, betas, eps, weight_decay: likewise; `fused` and `capturable` are always on.
    """

    param_groups: list[dict[str, Any]]
    learning_rate: float

    def __init__(self, params: Any, lr: float, **settings: Any) -> None:
        super().__init__(params, lr=lr, fused=True, capturable=True, **settings)  # type: ignore
        device = self.param_groups[0]["params"][0].device
        self._rate = torch.empty((), dtype=torch.float32, device=device)
        self.set_learning_rate(lr)

    def set_learning_rate(self, value: float) -> None:
        """Set it for the next steps, those of a graph included."""
        self.learning_rate = value
        self._rate.fill_(value)
        for group in self.param_groups:
            group.update(lr=self._rate, fused=True, capturable=True)

    def state_dict(self) -> dict[str, Any]:
        """As of Adam."""
        state = super().state_dict()  # type: ignore[misc]
        for group in state["param_groups"]:
            group.update(lr=self.learning_rate, capturable=False)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As of Adam."""
        super().load_state_dict(state)  # type: ignore[misc]
        self.set_learning_rate(float(self.param_groups[0]["lr"]))


class CapturableAdam(Capturable, Adam):
    """Adam that can be part of a CUDA graph; see `Capturable`."""


class CapturableAdamW(Capturable, AdamW):
    """AdamW that can be part of a CUDA graph; see `Capturable`."""
