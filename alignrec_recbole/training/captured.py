"""Training steps that a GPU repeats as one graph, which the host launches at once.

A step of a small model is hundreds of operators, and launching them takes the host longer than the
GPU needs to compute them. With `captured_steps: true` the operators of one step are recorded by
CUDA's graphs: forward, backward, clipping, optimizer and the sums of loss terms. A further step
copies its batch to where the recorded one was and launches the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from alignrec_recbole.errors import SettingError
from alignrec_recbole.ops import columns
from alignrec_recbole.training.steps import Step, Steps, Terms

WARM_UP = 3  # steps before a recording: libraries start, and graphs are copied to the device
LEARNERS = ("adam", "adamw")  # whose steps need no number from the host


class Recording(Protocol):
    """A function whose operators were recorded."""

    def replay(self) -> None:
        """Run them again, on the memory of the recorded run."""

    def reset(self) -> None:
        """Free them."""


class Graphs(Protocol):
    """How a device records."""

    def working(self) -> AbstractContextManager[None]:
        """Inside, steps are made and recorded."""

    def record(self, function: Callable[[], None]) -> Recording:
        """Record the operators of a call, whose results are not computed."""


class CudaGraphs:
    """Records by `torch.cuda.CUDAGraph`, on a stream of its own, as CUDA wants it.

    Each recording has memory of its own. Steps that are not recorded are made on the same stream.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Inside, operators are on this stream; it and the one outside wait for each other."""
        outside = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            yield
        outside.wait_stream(self._stream)

    def record(self, function: Callable[[], None]) -> Recording:
        """As of `Graphs`.

        Raises:
            SettingError: an operator cannot be recorded.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                function()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            first = error.__context__ or error  # the end of a failed recording fails, too
            raise SettingError(
                "A training step cannot be captured: CUDA refused to record one of its operators.",
                found=str(first).partition("\n")[0],
                expected="operators that the host need not wait for",
                hint="--set captured_steps=false",
            ) from error
        return graph


GRAPHS: dict[str, Callable[[torch.device], Graphs]] = {"cuda": CudaGraphs}  # by type of device


def check(model_class: Any, device: str | torch.device, learner: str) -> None:
    """Refuse captured steps where they are not possible.

    Raises:
        SettingError: no GPU, a model, a learner, or several processes.
    """
    kind, within = torch.device(device).type, columns.division()
    reason = getattr(model_class, "capture_refused", "it is not a pairwise model of this package")
    if kind not in GRAPHS:
        problem, found, expected = "need a GPU", f"device {kind}", "--device cuda"
    elif reason:
        name = model_class.__name__
        problem, found = f"are not possible with {name}: {reason}", f"model {name}"
        expected = "another model"
    elif learner.lower() not in LEARNERS:
        problem, found = f"are not possible with the learner {learner}", f"learner = {learner}"
        expected = " or ".join(LEARNERS)
    elif within is not None:
        problem, found = "are made by one process", f"{within.size} processes"
        expected = "one process"
    else:
        return
    raise SettingError(
        f"Captured training steps {problem}.",
        found=f"captured_steps = true, {found}",
        expected=f"{expected}, or captured_steps = false",
    )


def graphs_for(model_class: Any, config: Any) -> Graphs | None:
    """What records the steps of a training; None if they are not to be captured.

    Raises:
        SettingError: see `check`.
    """
    if not config["captured_steps"]:
        return None
    device = torch.device(config["device"])
    check(model_class, device, config["learner"])
    return GRAPHS[device.type](device)


class CapturedSteps(Steps):
    """Records a step after WARM_UP of them and repeats it for batches of the same shape.

    Batches of another shape, such as the last one of an epoch, are run operator by operator, and so
    are the steps after one of the model's `changing_parts` is another: the recording is dropped,
    and made anew after as many steps. All are steps of the training, so the numbers are those of
    `Steps`.

    Args:
        changing_parts: of the model.
        graphs: of the device.
    """

    def __init__(self, changing_parts: Callable[[], tuple[Any, ...]], graphs: Graphs) -> None:
        self._changing_parts, self._graphs = changing_parts, graphs
        self.release()

    def release(self) -> None:
        """Free the recording and its memory."""
        self._drop()
        self._seen: tuple[Any, ...] | None = None
        self._batch: Interaction | None = None  # that the recorded step reads
        self._total: Terms | None = None  # to which it adds

    def _drop(self) -> None:
        recording = getattr(self, "_recording", None)
        if recording is not None:
            recording.reset()
        self._recording: Recording | None = None
        self._warm_up = WARM_UP

    def epoch(self, step: Step, batches: Iterable[Interaction]) -> tuple[Terms, int]:
        """As of `Steps`; the sums are overwritten by the next epoch."""
        count = 0
        with self._graphs.working():
            if self._has_changed():
                self._total = None  # the terms may be others
            elif self._total is not None:
                self._total.values.zero_()
            for batch in batches:
                self._run(step, batch)
                count += 1
        assert self._total is not None
        return self._total, count

    def _has_changed(self) -> bool:
        """Whether a part of the model is another than before; then the recording is dropped."""
        parts = self._changing_parts()
        if parts == self._seen:
            return False
        self._drop()
        self._seen = parts
        return True

    def _run(self, step: Step, batch: Interaction) -> None:
        self._has_changed()
        if self._batch is None:
            given = batch.interaction.items()
            self._batch = Interaction({name: torch.empty_like(ids) for name, ids in given})
        place = self._batch
        if not _same_shapes(batch, place):
            self._add(step, batch)
            return
        for name, ids in batch.interaction.items():
            place[name].copy_(ids)
        if self._recording is None and self._warm_up:
            self._warm_up -= 1
            self._add(step, place)
            return
        if self._recording is None:
            self._recording = self._graphs.record(lambda: self._add(step, place))
        self._recording.replay()

    def _add(self, step: Step, batch: Interaction) -> None:
        """A step, whose loss terms are added to the sums in place."""
        names, values = step(batch)
        if self._total is None:
            self._total = Terms(names, torch.zeros_like(values))
        self._total.values.add_(values)


def _same_shapes(one: Interaction, other: Interaction) -> bool:
    def shapes(batch: Interaction) -> dict[str, Any]:
        tensors: dict[str, Tensor] = batch.interaction
        return {name: (ids.shape, ids.dtype) for name, ids in tensors.items()}

    return shapes(one) == shapes(other)
