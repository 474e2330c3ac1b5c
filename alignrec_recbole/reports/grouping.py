"""Records put together: runs that differ in nothing but the seed, and blocks that are comparable.

A block is one data set, protocol and setting, on the same data: the same targets, candidates and
masks.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from alignrec_recbole.io.files import inside
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml
from alignrec_recbole.runs.record import NUMBERS_EPOCH, Run, RunRecord

LATER_SETTINGS = {"precision": "float32"}  # those that older records lack, as these ran
ABSENT = "absent"  # how labels show a setting that a record lacks
NOT_VARIED = {"seed", "gpu_id", "show_progress", "threads", "features", "protocol.of_sha256"}


class Block(NamedTuple):
    """What a table may compare.

    Attributes:
        data: which interactions and split, where records of the data set were made on several; "".
    """

    dataset: str
    protocol: str
    setting: str
    data: str = ""


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
        label: the model's name and `odd`.
        odd: "key=value" of the settings in which the model's other groups differ from this one.
    """

    label: str
    runs: tuple[Run, ...]
    odd: tuple[str, ...] = ()

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


def current(runs: Iterable[Run]) -> Iterator[Run]:
    """Finished runs with test metrics, of the numbers a table may show."""
    for run in runs:
        record = run.record
        if record.status == "finished" and record.metrics and record.numbers_epoch == NUMBERS_EPOCH:
            yield run


def blocks(runs: Iterable[Run]) -> dict[Block, list[Group]]:
    """Groups by block, both in a fixed order."""
    found: dict[Block, list[Run]] = defaultdict(list)
    versions: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run in current(runs):
        record, data = run.record, _data_version(run.record)
        found[Block(record.dataset, record.protocol, record.setting, data)].append(run)
        versions[record.dataset, record.setting].add(data)
    out = {}
    for block in sorted(found):
        several = len(versions[block.dataset, block.setting]) > 1
        out[block if several else block._replace(data="")] = groups(found[block])
    return out


def _data_version(record: RunRecord) -> str:
    """Eight hex digits of the interactions, the split and the counts a record was made on."""
    data = {**record.data}
    data["files"] = {n: h for n, h in data.get("files", {}).items() if n.endswith(".inter")}
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:8]


def groups(runs: Iterable[Run]) -> list[Group]:
    """Runs of one block by all but the seed, with names that tell them apart."""
    found: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        record = run.record
        found[record.model, record.features, record.config_sha256].append(run)
    variants: dict[str, list[list[Run]]] = defaultdict(list)
    for (model, _, _), members in sorted(found.items()):
        variants[model].append(sorted(members, key=lambda run: run.record.seed))
    return [group for several in variants.values() for group in _named(several)]


def _named(variants: list[list[Run]]) -> list[Group]:
    """A model's groups, named by the settings in which each leaves the usual ones."""
    records = [members[0].record for members in variants]
    model = records[0].model
    configs = [flat(LATER_SETTINGS | record.config) for record in records]
    usual = _usual(configs, _defaults(model, records[0].dataset))
    odd = [
        tuple(f"{k}={config.get(k, ABSENT)}" for k in usual if config.get(k, ABSENT) != usual[k])
        for config in configs
    ]
    labels = [f"{model} ({', '.join(own)})" if own else model for own in odd]
    seen = Counter(zip(labels, (record.features for record in records), strict=True))
    return [
        Group(
            f"{label} [{record.config_sha256[:8]}]" if seen[label, record.features] > 1 else label,
            tuple(members),
            own,
        )
        for label, record, members, own in zip(labels, records, variants, odd, strict=True)
    ]


def _usual(configs: list[dict[str, str]], defaults: dict[str, str]) -> dict[str, str]:
    """The default of every setting where a config has it, else the commonest value."""
    out = {}
    for key in dict.fromkeys(key for config in configs for key in config):
        count = Counter(config.get(key, ABSENT) for config in configs)
        default = defaults.get(key, ABSENT)
        out[key] = default if default in count else max(count, key=lambda value: count[value])
    return out


def _defaults(model: str, dataset: str) -> dict[str, str]:
    """The values of this package's YAML files; of a model from elsewhere only what all share."""
    files = ("overall", f"model/{model}", f"dataset/{dataset}")
    layers = [read_yaml(inside(properties_dir(), f"{file}.yaml")) for file in files]
    return flat({key: value for layer in layers for key, value in layer.items()})


def plain(members: Iterable[Group]) -> dict[tuple[str, str], Group]:
    """By model and features, the group that leaves the fewest usual settings, where it is one."""
    found: dict[tuple[str, str], list[Group]] = defaultdict(list)
    for group in members:
        found[group.first.model, group.first.features].append(group)
    out = {}
    for key, several in found.items():
        fewest = min(len(group.odd) for group in several)
        bases = [group for group in several if len(group.odd) == fewest]
        if len(bases) == 1:
            out[key] = bases[0]
    return out


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
