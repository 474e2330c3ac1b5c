"""Fixtures of all tests: no network by default, devices, real data; the table of trials."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import trials
from small_disks import SmallDisk, mount_small_disk

ROOT = Path(__file__).resolve().parents[1]
LOCAL = ("127.", "::1", "localhost", "0.0.0.0")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from all but the tests that ask for one: elsewhere results must be exact."""
    if not re.search(r"(?<!not )\bgpu\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections that leave this machine, except in tests marked `network`."""
    if request.node.get_closest_marker("network"):
        return
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def check(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if self.family != getattr(socket, "AF_UNIX", None) and not str(host).startswith(LOCAL):
            raise RuntimeError(
                f"A test tried to reach {host!r}: mark it `network` or serve from localhost"
            )

    def guarded_connect(self: socket.socket, address: object) -> None:
        check(self, address)
        return connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: object) -> int:
        check(self, address)
        return connect_ex(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and results must not depend on their number."""
    torch.set_num_threads(1)
    torch.autograd.set_detect_anomaly(False)  # importing RecBole's SINE switches it on for all


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], SmallDisk]]:
    """Mounts file systems of a given number of bytes; skips where mounting is not permitted."""
    disks: list[SmallDisk] = []

    def mount(size: int) -> SmallDisk:
        try:
            disks.append(mount_small_disk(tmp_path / f"disk{len(disks)}", size))
        except OSError as error:
            pytest.skip(f"a small file system cannot be mounted: {error}")
        return disks[-1]

    yield mount
    for disk in disks:
        disk.unmount()


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """cpu always; cuda with `-m gpu`, skipped where there is none."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return str(request.param)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets: $ALIGNREC_TEST_DATA, else ../shared/data beside the checkout."""
    named = os.environ.get("ALIGNREC_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set ALIGNREC_TEST_DATA to a folder of data sets")
    return folder


# The table of trials, summed over the processes of pytest-xdist ----------------------------------


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands over its counts."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["trials"] = {
            area: [count.tried, count.right, count.seconds] for area, count in trials.COUNTS.items()
        }


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Add a worker's counts to those of this process."""
    for area, (tried, right, seconds) in (
        getattr(node, "workeroutput", {}).get("trials", {}).items()
    ):
        count = trials.COUNTS.setdefault(area, trials.Count())
        count.tried, count.right = count.tried + tried, count.right + right
        count.seconds += seconds


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print tried, right and seconds per area."""
    if not trials.COUNTS:
        return
    terminalreporter.section("trials of broken, odd and hostile input")
    rows = [(area, c.tried, c.right, c.seconds) for area, c in sorted(trials.COUNTS.items())]
    rows.append(("total", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
    for area, tried, right, seconds in rows:
        terminalreporter.write_line(f"{area:<24}{tried:>7} tried{right:>7} right{seconds:>9.1f} s")
