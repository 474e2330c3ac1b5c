"""Changes on a built model of a reference, where it differs from what ours has to be compared with.

Each names the note in our model's file (D1 …) that says what the reference does and why ours
does not.
"""

from __future__ import annotations

import contextlib
from typing import Any
from unittest import mock

import torch


class _OutOfPlace(torch.Tensor):
    """`a += b` makes a new tensor."""

    def __iadd__(self, other: torch.Tensor) -> torch.Tensor:  # type: ignore[override, misc]
        return self + other


def mend_dualgnn(model: Any, ours: dict[str, Any]) -> None:
    """As many users as ours; text's vectors are not added to the image's (dualgnn.py D1)."""
    model.k = ours["user_k"]
    sizes = {len(users) for users, _ in model.user_graph_dict.values()}
    assert not sizes & set(range(1, model.k)), "MMRec would draw users again"
    if hasattr(model, "v_gcn"):
        forward = model.v_gcn.forward

        def apart(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
            vectors, preference = forward(*arguments)
            return vectors.as_subclass(_OutOfPlace), preference

        model.v_gcn.forward = apart


def mend_mentor(model: Any, ours: dict[str, Any]) -> None:
    """Noisy views of the model's own weights, a masked loss with a gradient (mentor.py D1)."""
    for kind in ("v", "t"):
        for number in (1, 2):
            setattr(model, f"{kind}_gcn_n{number}", getattr(model, f"{kind}_gcn"))
    loss = model.calculate_loss

    def with_gradient(batch: torch.Tensor) -> torch.Tensor:
        dropout = torch.nn.functional.dropout
        with (
            mock.patch("torch.no_grad", contextlib.nullcontext),
            mock.patch("torch.nn.functional.dropout", lambda x, p: dropout(x.detach(), p)),
        ):
            return loss(batch)

    model.calculate_loss = with_gradient


class _Differentiable(torch.Tensor):
    """Its `data` has the tensor's gradient."""

    @property
    def data(self) -> torch.Tensor:  # type: ignore[override]
        return self.as_subclass(torch.Tensor)  # type: ignore[arg-type]


def learn_id_view(model: Any, ours: dict[str, Any]) -> None:
    """A view of IDs with a gradient (cohesion.py D1)."""
    forward = model.id_gcn.forward

    def with_gradient(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        vectors, preference = forward(*arguments)
        return vectors.as_subclass(_Differentiable), preference

    model.id_gcn.forward = with_gradient


class _Attached(torch.Tensor):
    """Stays attached."""

    def detach(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)  # type: ignore[arg-type]


def learn_knowledge(model: Any, ours: dict[str, Any]) -> None:
    """Layers of knowledge with a gradient (rearm.py D1)."""
    for layer in (model.meta_netu, model.meta_neti):
        forward = layer.forward
        layer.forward = lambda rows, own=forward: own(rows).as_subclass(_Attached)
