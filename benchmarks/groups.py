"""Records put together: runs that differ in nothing but the seed, and blocks that are comparable.

A block is one data set, protocol and setting: the same targets, candidates and masks.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from benchmarks.record import NUMBERS_EPOCH, RunRecord, read_record

LATER_SETTINGS = {"precision": "float32"}  # those that older records lack, as these ran
NOT_VARIED = {"seed", "gpu_id", "show_progress", "threads", "features", "protocol.of_sha256"}


class Run(NamedTuple):
    """A record and where it lies."""

    path: Path
    record: RunRecord


class Block(NamedTuple):
    """What a table may compare."""

    dataset: str
    protocol: str
    setting: str


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed."""

    label: str
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """Label and features, which tell the groups of a block apart."""
        return (
            self.label if self.first.features == "none" else f"{self.label}, {self.first.features}"
        )

    @property
    def first(self) -> RunRecord:
        """The record of the smallest seed."""
        return self.runs[0].record

    @property
    def records(self) -> list[RunRecord]:
        """The records by seed."""
        return [run.record for run in self.runs]

    @property
    def device(self) -> str:
        """cpu, or the GPU's name; several, where the seeds ran on several."""
        return " and ".join(
            sorted({record.machine.get("device", "cpu") for record in self.records})
        )

    @property
    def notes(self) -> list[str]:
        """What a reader must know, each once."""
        notes = [note for record in self.records for note in record.notes]
        return list(dict.fromkeys(notes + [r.tuned_on for r in self.records if r.tuned_on]))

    def values(self, metric: str, split: str = "test") -> pd.Series:
        """The metric by seed; empty where there is none."""
        found = {}
        for record in self.records:
            metrics = record.metrics if split == "test" else record.valid_metrics
            if metric in metrics:
                found[record.seed] = metrics[metric]
        return pd.Series(found, dtype=float)


def read_runs(folder: Path) -> list[Run]:
    """All records under a folder, in the order of their paths.

    Raises:
        RecordError: one of them is damaged.
    """
    return [Run(path, read_record(path)) for path in sorted(Path(folder).rglob("*.json"))]


def current(runs: Iterable[Run]) -> Iterator[Run]:
    """Finished runs with test metrics, of the numbers a table may show."""
    for run in runs:
        record = run.record
        if record.status == "finished" and record.metrics and record.numbers_epoch == NUMBERS_EPOCH:
            yield run


def blocks(runs: Iterable[Run]) -> dict[Block, list[Group]]:
    """Groups by block, both in a fixed order."""
    found: dict[Block, list[Run]] = defaultdict(list)
    for run in current(runs):
        record = run.record
        found[Block(record.dataset, record.protocol, record.setting)].append(run)
    return {block: groups(found[block]) for block in sorted(found)}


def groups(runs: Iterable[Run]) -> list[Group]:
    """Runs of one block by all but the seed, with names that tell them apart."""
    found: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        record = run.record
        found[record.model, record.features, record.config_sha256].append(run)
    variants: dict[str, list[list[Run]]] = defaultdict(list)
    for (model, _, _), members in sorted(found.items()):
        variants[model].append(sorted(members, key=lambda run: run.record.seed))
    return [
        Group(label, tuple(members))
        for model, several in variants.items()
        for label, members in zip(_labels(model, several), several, strict=True)
    ]


def _labels(model: str, variants: list[list[Run]]) -> list[str]:
    """The model's name and the settings in which a variant leaves the commonest ones."""
    configs = [flat(LATER_SETTINGS | members[0].record.config) for members in variants]
    usual = {
        key: Counter(config.get(key, "absent") for config in configs).most_common(1)[0][0]
        for key in dict.fromkeys(key for config in configs for key in config)
    }
    labels = []
    for config in configs:
        own = {key: config.get(key, "absent") for key in usual}
        odd = [f"{key}={value}" for key, value in own.items() if value != usual[key]]
        labels.append(f"{model} ({', '.join(odd)})" if odd else model)
    seen = Counter((label, v[0].record.features) for label, v in zip(labels, variants, strict=True))
    return [
        f"{label} [{members[0].record.config_sha256[:8]}]"
        if seen[label, members[0].record.features] > 1
        else label
        for label, members in zip(labels, variants, strict=True)
    ]


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings that can vary, as text.

    >>> flat({"seed": 1, "reg_weight": 0.1, "protocol": {"k": 20}})
    {'reg_weight': '0.1', 'protocol.k': '20'}
    """
    out: dict[str, str] = {}
    for key, value in config.items():
        if prefix + key in NOT_VARIED:
            continue
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = json.dumps(value).strip('"')
    return out
