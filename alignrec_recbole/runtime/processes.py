"""One run in several processes: who this one is, waiting for each other, and how they are started.

The processes are started by torch's own launcher, here (`start`) or by `torchrun`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignrec_recbole.errors import AlignRecError, SettingError, printable
from alignrec_recbole.runtime import threads

_LAUNCHED = "TORCHELASTIC_RUN_ID"
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
STOP_SECONDS = 3600  # in which the processes end their epoch and save after a signal
NOTICED_SECONDS = 10.0  # in which the launcher sees which process failed


def environment_number(name: str, default: int, least: int = 0) -> int:
    """A number that torchrun sets.

    Raises:
        SettingError: it is no whole number, or out of range.
    """
    text = os.environ.get(name, str(default))
    if text.isdecimal() and len(text) < 7 and int(text) >= least:
        return int(text)
    raise SettingError(
        f"The environment variable {name} cannot be used.",
        found=printable(text, 80),
        expected=f"a whole number from {least}, as torchrun sets it",
        hint=f"unset {name}",
    )


def check_gpus(device: str, number: int) -> None:
    """Refuse a device that `number` processes of this machine cannot share out, one GPU for each.

    Raises:
        SettingError: it is one GPU by its number, or there are fewer GPUs than processes.
    """
    import torch

    if number == 1 or not device.startswith("cuda"):
        return
    gpus = torch.cuda.device_count()
    if ":" in device or number > gpus:
        raise SettingError(
            f"{number} processes cannot compute on {device}: each takes a GPU of its own.",
            found=f"{gpus} CUDA devices",
            expected=f"--device cuda and at least {number} GPUs",
            hint="CUDA_VISIBLE_DEVICES chooses which; --device cpu needs none",
        )


def count() -> int:
    """Processes of this run, 1 unless torch's launcher started them."""
    return environment_number("WORLD_SIZE", 1, least=1) if _LAUNCHED in os.environ else 1


def on_this_machine() -> int:
    """Those of them on this machine."""
    return environment_number("LOCAL_WORLD_SIZE", 1, least=1) if count() > 1 else 1


def is_first() -> bool:
    """Whether this process writes files and speaks for all of them."""
    return count() == 1 or environment_number("RANK", 0) == 0


def own_device(device: str) -> str:
    """The GPU of this process, for a device that names none."""
    if count() == 1 or not device.startswith("cuda"):
        return device
    return f"cuda:{environment_number('LOCAL_RANK', 0)}"


@contextlib.contextmanager
def joined(device: str) -> Iterator[None]:
    """Within it, the processes of this run can exchange tensors."""
    import torch.distributed as dist

    if device.startswith("cuda"):
        import torch

        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Go on when every process has come here."""
    if count() > 1:
        import torch.distributed as dist

        dist.barrier()


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """What the first process does before the others do it: they find its files."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()


def report_failure(text: str) -> bool:
    """Tell the launcher why this process ends; False where there is none to tell."""
    path = os.environ.get(_ERROR_FILE)
    if count() == 1 or not path:
        return False
    with contextlib.suppress(OSError):
        Path(path).write_text(json.dumps({"message": text, "timestamp": int(time.time())}))
    return True


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error says that another process of this run has ended."""
    if count() == 1 or not isinstance(error, RuntimeError):
        return False
    text = str(error)
    return "Connection" in text or "peer" in text or type(error).__name__ == "DistBackendError"


class ProcessFailed(AlignRecError):
    """One of the processes of a run failed."""


def start(number: int, arguments: Sequence[str]) -> int:
    """Run this program's command line in `number` processes here; returns their exit status.

    Raises:
        ProcessFailed: one ended without saying why; the others are ended, too.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):  # it prints a page per failure
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault(threads.SHARE, str(max(1, threads.free_cores() // number)))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=number,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        start_method="spawn",
    )
    if hasattr(config, "shutdown_timeout"):
        config.shutdown_timeout = STOP_SECONDS
    try:
        elastic_launch(config, sys.executable)("-m", "alignrec_recbole", *arguments)
    except ChildFailedError as error:
        return _say_failure(error.failures)
    except SignalException:
        return 130
    return 0


def _say_failure(failures: dict[int, Any]) -> int:
    """Print why the first process failed that said why."""
    spoken = {
        rank: failure
        for rank, failure in failures.items()
        if isinstance(failure.error_file_data.get("message"), str)
        and os.path.isfile(failure.error_file)
    }
    if spoken:
        failure = min(spoken.values(), key=lambda each: each.timestamp)
        sys.stderr.write(f"{printable(failure.message)}\n")
        return max(failure.exitcode, 1)
    ended = -signal.SIGTERM  # by the launcher, because another one failed
    rank, failure = min(
        failures.items(), key=lambda each: (each[1].exitcode == ended, each[1].timestamp)
    )
    raise ProcessFailed(
        f"Process {rank} of the run ended without a result.",
        found=failure.signal_name() if failure.exitcode < 0 else f"exit {failure.exitcode}",
        hint="SIGKILL is what the system sends when memory runs out: fewer processes, or smaller "
        "tables; the same command goes on from the last saved state",
    )
