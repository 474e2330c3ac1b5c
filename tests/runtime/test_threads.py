"""The number of threads: by the size of the work, and by what is free."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from alignrec_recbole.errors import SettingError
from alignrec_recbole.runtime import hardware, threads

LARGE, SMALL = 64 * threads.NUMBERS_PER_THREAD, threads.NUMBERS_PER_THREAD // 2


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen idle cores, without a setting of the user's."""
    for name in ("OMP_NUM_THREADS", threads.SHARE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "cores_of_affinity", lambda: list(range(16)))
    monkeypatch.setattr(threads, "cpu_quota", lambda: None)
    monkeypatch.setattr(threads.time, "sleep", lambda seconds: None)
    use(monkeypatch, 1.0)


def use(monkeypatch: pytest.MonkeyPatch, *percent: float) -> None:
    """The percentages of the cores that are in use, look by look; the last one from then on."""
    looks = list(percent)

    def look(interval: float, percpu: bool) -> list[float]:
        return [looks.pop(0) if len(looks) > 1 else looks[0]] * 16

    monkeypatch.setattr(psutil, "cpu_percent", look)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [(0, 1), (SMALL, 1), (2 * threads.NUMBERS_PER_THREAD, 2), (LARGE, 16)],
)
def test_an_idle_machine_gives_as_many_as_the_size_needs(numbers: int, expected: int) -> None:
    chosen = threads.choose(None, numbers)
    assert chosen.threads == expected
    assert f"{numbers:,} numbers" in chosen.reason


def test_small_work_does_not_look_at_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "free_cores", None)  # would fail if it were called
    assert threads.choose(None, SMALL).threads == 1


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ((75.0,), 4),  # twelve other processes
        ((100.0,), 1),
        ((9.0,), 15),
        ((100.0, 0.0), 16),  # a moment's work
    ],
)
def test_what_others_use_is_not_taken(
    looks: tuple[float, ...], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, *looks)
    chosen = threads.choose(None, LARGE)
    assert chosen.threads == expected
    assert f"{expected} of 16 cores free" in chosen.reason


def test_the_setting_wins_then_the_environment_then_the_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(threads.SHARE, "3")
    assert threads.choose(None, LARGE).threads == 3
    monkeypatch.setenv(threads.SHARE, "99")
    assert threads.choose(None, LARGE).threads == 16
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert threads.choose(None, SMALL) == threads.ThreadCount(5, "OMP_NUM_THREADS=5")
    assert threads.choose(7, SMALL) == threads.ThreadCount(7, "the setting threads")


@pytest.mark.parametrize("text", ["1025", "9999", "0009999,1", "9" * 5000])
def test_more_threads_than_openmp_has_room_for_are_refused(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    with pytest.raises(SettingError, match="OMP_NUM_THREADS is too large"):
        threads.choose(None, SMALL)
    monkeypatch.setenv("OMP_NUM_THREADS", "1024")
    assert threads.choose(None, SMALL).threads == 1024


@pytest.mark.parametrize("text", ["", "0", "-2", "many", ","])
def test_what_is_no_number_of_threads_is_not_read(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    monkeypatch.setenv(threads.SHARE, text)
    assert threads.choose(None, LARGE).threads == 16


@pytest.mark.parametrize(
    ("text", "quota", "cores"),
    [("max 100000", None, 16), ("250000 100000", 2.5, 2), ("50000 100000", 0.5, 1), ("", None, 16)],
)
def test_a_container_has_fewer_cores(
    text: str, quota: float | None, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(threads, "cores_of_affinity", lambda: list(range(16)))
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(threads, "_QUOTA_V1", (tmp_path / "quota", tmp_path / "period"))
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(threads, "_OWN_GROUP", tmp_path / "cgroup")
    assert threads.cpu_quota() == quota
    assert threads.available_cores() == cores


@pytest.mark.parametrize(
    ("group", "quota"),
    [
        ("0::/", 8.0),
        ("0::/job/step", 1.5),
        ("12:cpu:/docker/x\n0::/job", 3.0),
        ("0::/../elsewhere", 8.0),
        ("", 8.0),
    ],
)
def test_the_smallest_limit_of_the_groups_around_counts(
    group: str, quota: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(threads, "_QUOTA_V1", (tmp_path / "quota", tmp_path / "period"))
    monkeypatch.setattr(threads, "_OWN_GROUP", tmp_path / "cgroup")
    (tmp_path / "job" / "step").mkdir(parents=True)
    (tmp_path / "cgroup").write_text(group)
    for folder, text in (("", "800000 100000"), ("job", "300000 100000"), ("job/step", "150 100")):
        (tmp_path / folder / "cpu.max").write_text(text)
    assert threads.cpu_quota() == quota


def test_the_cores_of_others_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job with four of sixteen cores, which it has to itself, on a busy machine."""
    monkeypatch.setattr(threads, "cores_of_affinity", lambda: [4, 5, 6, 7])
    busy = [100.0] * 4 + [0.0] * 4 + [100.0] * 8
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: busy)
    assert threads.choose(None, LARGE).threads == 4


def test_a_limit_is_free_while_as_many_cores_are_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cpu_quota", lambda: 2.0)
    use(monkeypatch, 75.0)  # four of sixteen are idle
    assert threads.choose(None, LARGE).threads == 2
    use(monkeypatch, 95.0)
    assert threads.choose(None, LARGE).threads == 1


def test_reading_and_encoding_do_not_depend_on_what_else_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, 100.0)
    monkeypatch.setattr(hardware.torch, "set_num_threads", lambda number: None)
    assert hardware.set_threads(None) == 16
    assert hardware.set_threads(None, jobs=4) == 4
    assert hardware.set_run_threads(None, LARGE).threads == 1
