"""The peak of the resident memory, on every system by what it offers."""

import mmap
import sys
import types
from pathlib import Path

import pytest

from alignrec_recbole.runtime import memory_usage

HAS_PROC = Path("/proc/self/clear_refs").exists()


@pytest.mark.skipif(not HAS_PROC, reason="needs /proc")
def test_a_reset_forgets_an_earlier_peak():
    assert memory_usage.reset_peak_rss()  # earlier tests had peaks of their own
    block = mmap.mmap(-1, 64 << 20)  # given back when closed, whatever the allocator keeps
    for page in range(0, len(block), mmap.PAGESIZE):
        block[page] = 1
    with_block = memory_usage.peak_rss_bytes()
    block.close()
    assert memory_usage.reset_peak_rss()
    assert memory_usage.peak_rss_bytes() < with_block - (32 << 20)


def without_proc(monkeypatch):
    def refuse(self, *_, **__):
        raise OSError

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)


@pytest.mark.skipif(memory_usage.resource is None, reason="needs getrusage")
@pytest.mark.parametrize(("platform_name", "unit"), [("linux", 1024), ("darwin", 1)])
def test_without_proc_getrusage_is_read_in_its_unit(platform_name, unit, monkeypatch):
    without_proc(monkeypatch)
    monkeypatch.setattr(sys, "platform", platform_name)
    usage = types.SimpleNamespace(ru_maxrss=5000)
    monkeypatch.setattr(memory_usage.resource, "getrusage", lambda _: usage)
    assert memory_usage.peak_rss_bytes() == 5000 * unit
    assert not memory_usage.reset_peak_rss()


def test_without_proc_and_getrusage_psutil_is_asked(monkeypatch):
    without_proc(monkeypatch)
    monkeypatch.setattr(memory_usage, "resource", None)
    found = types.SimpleNamespace(rss=3 << 20, peak_wset=7 << 20)
    monkeypatch.setattr(
        memory_usage.psutil, "Process", lambda: types.SimpleNamespace(memory_info=lambda: found)
    )
    assert memory_usage.peak_rss_bytes() == 7 << 20
    del found.peak_wset
    assert memory_usage.peak_rss_bytes() == 3 << 20
