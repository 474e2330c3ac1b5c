"""The cache of results that several processes add to."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.reference.result_cache import changed_results, read_results


def test_what_another_process_has_added_meanwhile_is_kept(tmp_path: Path) -> None:
    cache = tmp_path / "results.json"
    known = read_results(cache)
    assert known == {}
    cache.write_text(json.dumps({"theirs": 1}))  # while we computed
    with changed_results(cache, known) as found:
        found["ours"] = 2
    assert read_results(cache) == found == {"theirs": 1, "ours": 2}


def test_without_a_cache_results_are_added_to_those_known() -> None:
    known = {"a": 1}
    with changed_results(None, known) as found:
        found["b"] = 2
    assert known == {"a": 1, "b": 2}
    assert read_results(None) == {}


def test_one_process_at_a_time_changes_it(tmp_path: Path) -> None:
    """Threads stand for processes: FileLock objects exclude each other in both."""
    cache = tmp_path / "results.json"

    def add(number: int) -> None:
        with changed_results(cache, {}) as found:
            found[str(number)] = number

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert sorted(read_results(cache).values()) == list(range(40))
