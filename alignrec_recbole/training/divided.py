"""Training whose columns are divided among processes: states, weights and rankings of the whole.

In one process each function returns what it is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from alignrec_recbole.errors import SettingError
from alignrec_recbole.evaluation.ranking import (
    EvalTask,
    Ranking,
    Scores,
    block_users,
    find_hits,
    rank,
)
from alignrec_recbole.ops import columns


def check(model_class: Any, config: Any) -> None:
    """Refuse what cannot be trained by columns among the present processes.

    Raises:
        SettingError: a model, or a setting.
    """
    within = columns.division()
    if within is None:
        return
    columns.check_model(model_class, within.size)
    size = config["embedding_size"]
    if size % within.size:
        raise SettingError(
            "The vectors cannot be divided among the processes in equal parts.",
            found=f"embedding_size = {size}, {within.size} processes",
            expected="an embedding_size that is a multiple of --nproc",
        )
    if config["clip_grad_norm"]:
        raise SettingError(
            "The setting 'clip_grad_norm' needs all columns in one process.",
            found=f"{within.size} processes",
            expected="one process, or clip_grad_norm=null",
        )


def whole_state(model: Any, state: dict[str, Any] | None = None) -> dict[str, Any]:
    """A model's state with the columns of all processes; a collective.

    Args:
        state: of the same names and shapes as the model's present one, which is the default.
    """
    state = model.state_dict() if state is None else state
    if columns.division() is None:
        return state
    tables = model.state_dict(keep_vars=True)
    return {
        name: columns.whole_of(value.to(tables[name].device), tables[name])
        for name, value in state.items()
    }


def part_of_state(model: Any, state: dict[str, Any]) -> dict[str, Any]:
    """This process's columns of a whole state of a model."""
    if columns.division() is None:
        return state
    tables = model.state_dict(keep_vars=True)
    return {
        name: columns.part_of(value, tables[name]) if name in tables else value
        for name, value in state.items()
    }


def whole_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state with the columns of all processes; a collective."""
    return _each_moment(optimizer, optimizer.state_dict(), columns.whole_of)


def part_of_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """This process's columns of a whole state of an optimizer."""
    return _each_moment(optimizer, state, columns.part_of)


def _each_moment(optimizer: torch.optim.Optimizer, state: dict[str, Any], of: Any) -> Any:
    if columns.division() is None:
        return state
    tables = [table for group in optimizer.param_groups for table in group["params"]]
    moments = {
        number: {
            name: of(value, tables[number]) if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    return {**state, "state": moments}


@torch.no_grad()
def align(optimizer: torch.optim.Optimizer) -> None:
    """Give every process the first one's undivided weights and moments.

    All compute the same from the same numbers, but sums on a GPU may differ by rounding, which
    would grow over epochs.
    """
    if columns.division() is None:
        return
    for group in optimizer.param_groups:
        for table in group["params"]:
            if not columns.is_divided(table):
                for value in (table.data, *optimizer.state[table].values()):
                    if isinstance(value, torch.Tensor) and value.dim():
                        dist.broadcast(value, 0)


def any_of(*flags: bool) -> list[bool]:
    """Of each flag, whether any process has it set."""
    within = columns.division()
    if within is None:
        return list(flags)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    values = torch.tensor(flags, dtype=torch.float32, device=device)
    return [value > 0 for value in columns.summed(values, within).tolist()]


def rank_by_users(scores: Scores, task: EvalTask, k: int, device: torch.device | str) -> Ranking:
    """As `rank`; each process ranks a share of the users, in the same blocks as one process."""
    within = columns.division()
    if within is None:
        return rank(scores, task, k, device)
    size, count = block_users(task.masked.shape[1], device), len(task.users)
    blocks = columns.shares(-(-count // size), within)
    parts = [(min(start * size, count), min(stop * size, count)) for start, stop in blocks]
    mine = slice(*parts[within.rank])
    own = EvalTask(task.users[mine], task.masked[mine], task.targets[mine], task.tie_rank)
    top = torch.from_numpy(rank(scores, own, k, device).items if len(own.users) else _no_lists(k))
    if dist.get_backend() == "nccl":
        top = top.to(device)
    lists = columns.joined(top, 0, count, within, parts).cpu().numpy()
    return Ranking(task.users, lists, *find_hits(lists, task.targets))


def _no_lists(k: int) -> np.ndarray:
    return np.empty((0, k), dtype=np.int32)
