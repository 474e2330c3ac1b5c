"""The training state of a run that reached its maximum of epochs: a run with more continues it.

Nothing in a training depends on its maximum of epochs except the end. So a run with a larger
maximum starts from the state that a shorter one left and equals one that was never interrupted.
States are kept for protocol `full` where the maximum is below the default.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.runs.identity import MAXIMUM, training_hash
from alignrec_recbole.runs.prepared import PreparedRun
from alignrec_recbole.runtime.progress import announce


def find(run: PreparedRun) -> Path | None:
    """The state with the most epochs that a run may continue from; None without one."""
    usable = {done: path for done, path in _states(run).items() if done <= run.config[MAXIMUM]}
    return usable[max(usable)] if usable else None


def keep_or_delete(run: PreparedRun, stopped: str) -> None:
    """Keep the state of a finished run for a longer one if there can be one, else delete it.

    One state per configuration and seed is kept, the one with the most epochs.

    Args:
        run: whose state is at its `state_path`.
        stopped: why its training ended.
    """
    others = _states(run)
    epochs = run.config[MAXIMUM]
    if stopped != MAXIMUM:  # early stopping: no run with more epochs trains any longer
        superseded = others
    elif is_bounded(run) and epochs >= max(others, default=0):
        _move(run.state_path, _path(run, epochs))
        superseded = {done: path for done, path in others.items() if done != epochs}
    else:
        superseded = {done: path for done, path in others.items() if done <= epochs}
    run.state_path.unlink(missing_ok=True)
    for path in superseded.values():
        path.unlink(missing_ok=True)


def is_bounded(run: PreparedRun) -> bool:
    """Whether a run has a smaller maximum of epochs than its model's default."""
    default = run.components.defaults_for(run.spec.dataset)[MAXIMUM]
    return run.spec.protocol == "full" and run.config[MAXIMUM] < default


def _states(run: PreparedRun) -> dict[int, Path]:
    """Epochs → state, of runs that differ in the maximum of epochs alone."""
    pattern = re.compile(re.escape(_stem(run)) + r"\.epochs-([0-9]{1,9})\.state\.pt")
    folder = run.state_path.parent
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        found = [(pattern.fullmatch(entry.name), Path(entry.path)) for entry in entries]
    return {int(match[1]): path for match, path in found if match and is_regular_file(path)}


def _move(source: Path, target: Path) -> None:
    """Rename; where the name is taken by a folder, say so: the record is written already."""
    try:
        os.replace(source, target)
    except OSError as error:
        announce(f"the state is not kept for a longer run: {error.strerror}: {target}")


def _path(run: PreparedRun, epochs: int) -> Path:
    return run.state_path.with_name(f"{_stem(run)}.epochs-{epochs}.state.pt")


def _stem(run: PreparedRun) -> str:
    """The run's file name with the hash of its configuration without the maximum of epochs."""
    return run.file_stem(training_hash(run))
