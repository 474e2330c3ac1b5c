"""The memory that training will need, from the sizes of a built model, checked beforehand."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.overrides import TorchFunctionMode

from alignrec_recbole import losses
from alignrec_recbole.errors import NotEnoughMemoryError
from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.runtime import control_groups, processes
from alignrec_recbole.settings import shown

MOMENTS = {"adam": 2, "adamw": 2, "adagrad": 1, "rmsprop": 1, "sgd": 0, "sparse_adam": 2}
NODE_TABLES = 6  # of the size of the longest table, in memory at once in a step with a graph
SCORE_COPIES = 3  # of the scores of a batch with itself, in memory at once in a contrastive loss
PROCESS_BYTES = 512 << 20  # a process with torch and RecBole, before it has any data
TABLE_COPIES = 11  # of all tables: weights, gradient, moments, best weights and those of a step
RANKING_BYTES = 256 << 20  # blocks of scores and their top items


def training_bytes(
    model: Any, learner: str, batch_size: int, device: torch.device | str = "cpu"
) -> dict[str, int]:
    """Bytes that training will allocate beyond the built model, by purpose.

    Parameters need a gradient (counted also where FactoredAdam does not form it), the optimizer's
    moments and the copy of the best weights; a step needs a few copies of the longest table and,
    where a loss contrasts the rows of a batch, of their scores (`contrast_bytes`). For a table that
    is not trained a second form, of its size at most, may be cached (FrozenMatrix).

    >>> model = torch.nn.Embedding(1000, 64)
    >>> training_bytes(model, "adam", 2048)["optimizer"]
    512000
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    size = sum(p.nbytes for p in trained)
    state = sum(value.nbytes for value in model.state_dict().values())
    named = model.state_dict().keys()
    constant = [b for name, b in model.named_buffers() if name not in named and b.dim() == 2]
    tables = [(len(p), p.nbytes) for p in trained if p.dim() == 2]
    table = max(tables, default=(0, 0))[1]
    contrasts = 0
    if not hasattr(model, "contrasts_batch"):  # of RecBole: all scores may be one matrix
        contrasts = SCORE_COPIES * 4 * batch_size**2
    elif model.contrasts_batch:
        contrasts = contrast_bytes(batch_size, device)
    return {
        "gradients": size,
        "optimizer": MOMENTS.get(learner.lower(), 2) * size,
        "best weights": state,
        "constant tables": sum(b.nbytes for b in constant if b.is_floating_point()),
        "step": NODE_TABLES * table + contrasts,
        "ranking": RANKING_BYTES,
    }


def contrast_bytes(batch_size: int, device: torch.device | str = "cpu") -> int:
    """Bytes of the scores of a batch with itself, which `losses` computes in blocks of rows.

    >>> contrast_bytes(2048), contrast_bytes(1 << 20, "cuda") >> 30
    (25165824, 3)
    """
    rows = min(batch_size, losses.contrast_rows(batch_size, device))
    return SCORE_COPIES * 4 * rows * batch_size


def run_bytes(numbers: int, batch_size: int) -> int:
    """Bytes of a whole run in a process of its own, before its model is built.

    Args:
        numbers: in the tables of users, items and features; all are taken to be trained.
        batch_size: training pairs per step.

    >>> run_bytes(598_592, 2048) >> 20
    817
    """
    step = 4 * TABLE_COPIES * numbers + contrast_bytes(batch_size)
    return PROCESS_BYTES + RANKING_BYTES + step


def available_bytes(device: torch.device | str = "cpu") -> int:
    """Memory that this process can still allocate: on the machine, and within its control group.

    The groups around it count, too: of a container, of a job or of a service.
    """
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = psutil.virtual_memory().available
    for controller, limit, used in _MEMORY_FILES:
        for group in control_groups.own_and_around(controller):
            with contextlib.suppress(OSError, ValueError, KeyError):  # "max" is no number
                statistics = dict(
                    line.split() for line in (group / "memory.stat").read_text().splitlines()
                )
                inactive = statistics.get("total_inactive_file") or statistics["inactive_file"]
                in_use = int((group / used).read_text()) - int(inactive)
                free = min(free, max(int((group / limit).read_text()) - in_use, 0))
    return free


_MEMORY_FILES = (  # controller, limit, use
    ("", "memory.max", "memory.current"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


READ_COPIES = 3  # of the interactions' file: the least that was measured, rounded down
RANKED_BYTES = 44  # per user and list place: item, hit, and the values of the metrics


class _BoundedTables(TorchFunctionMode):
    """Refuses a new tensor that is larger than the memory that is free, before it is allocated."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _FACTORIES:
            sizes = kwargs.get("size", args)
            if sizes and isinstance(sizes[0], (tuple, list)):
                sizes = sizes[0]
            whole = [size for size in sizes if isinstance(size, int)]
            check_bytes(self.what, math.prod(whole) * 4, f"a table of {shown(whole)} numbers")
        return func(*args, **kwargs)


_FACTORIES = {"empty", "zeros", "ones", "rand", "randn", "full"}


def bounded_tables(what: str) -> TorchFunctionMode:
    """Within it, tensors that would not fit in memory are refused before they are allocated.

    Args:
        what: what is being built, for the error: "AlignRec".

    Raises:
        NotEnoughMemoryError: from the code that asks for such a tensor.
    """
    return _BoundedTables(what)


SIZES_FROM = (
    "lower the settings that the size comes from: embedding_size, topk, "
    "train_batch_size, train_neg_sample_args.sample_num"
)


def check_bytes(
    what: str,
    needed: int,
    parts: str,
    device: torch.device | str = "cpu",
    hint: str = SIZES_FROM,
) -> None:
    """Refuse work that does not fit in memory.

    Raises:
        NotEnoughMemoryError: with what is needed and what is free.
    """
    free = available_bytes(device)
    if needed > free:
        raise NotEnoughMemoryError(
            f"{what} would need {needed / 2**30:,.1f} GiB.",
            found=f"{free / 2**30:.1f} GiB free on {torch.device(device).type}",
            expected=f"room for {parts}",
            hint=hint,
        )


def check_reading(files: Iterable[Path]) -> None:
    """Refuse interactions that cannot be read in the memory that is free; see `check_bytes`.

    The size of the files alone tells: reading takes at least READ_COPIES times as much.
    """
    size = sum(path.stat().st_size for path in files if is_regular_file(path))
    check_bytes(
        "Reading the interactions",
        READ_COPIES * size,
        f"{READ_COPIES} times the {size / 2**30:,.1f} GiB of the files",
        hint="use a machine with more memory, or a part of the interactions",
    )


def check_lists(users: int, longest: int) -> None:
    """Refuse top-K lists that do not fit in memory; see `check_bytes`."""
    check_bytes("The ranking", users * longest * RANKED_BYTES, f"lists of {longest:,} items")


def check_negatives(pairs: int, negatives: int, batch_size: int, width: int) -> None:
    """Refuse sampled negatives whose ids or vectors do not fit in memory; see `check_bytes`.

    Args:
        pairs: training pairs.
        negatives: per pair.
        batch_size: pairs of a step.
        width: size of a vector.
    """
    ids = pairs * (negatives + 2) * 32
    vectors = min(pairs, batch_size) * negatives * width * 16
    check_bytes("Training", ids + vectors, f"{negatives:,} negatives of each of {pairs:,} pairs")


def check(model: Any, learner: str, batch_size: int, device: torch.device | str) -> int:
    """Refuse training that does not fit in memory; returns the estimate in bytes.

    Args:
        batch_size: training pairs of the largest step.

    Raises:
        NotEnoughMemoryError: with the estimate by purpose and what is free.
    """
    parts = training_bytes(model, learner, batch_size, device)
    if torch.device(device).type != "cpu":
        del parts["best weights"]  # in the host's memory
    needed, free = sum(parts.values()), available_bytes(device)
    if torch.device(device).type == "cpu":
        free //= processes.on_this_machine()  # they make the run together, and need as much each
    if needed > free:
        raise NotEnoughMemoryError(
            f"Training {type(model).__name__} would need {needed / 2**30:.1f} GiB more.",
            found=f"{free / 2**30:.1f} GiB free on {torch.device(device).type}",
            expected=", ".join(f"{name} {size / 2**30:.2f}" for name, size in parts.items())
            + " GiB",
            hint="use narrower features, a smaller embedding_size or train_batch_size",
        )
    return needed
