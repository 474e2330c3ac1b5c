"""Records in groups: runs that differ in the seed alone, and groups that may be compared.

Comparable are groups of one data set, protocol and evaluation convention on the same data: they
have the same targets and candidates and exclude the same items.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from alignrec_recbole.data.dataset_paths import dataset_defaults, defaults_path
from alignrec_recbole.errors import counted
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml
from alignrec_recbole.reports.escaping import plain
from alignrec_recbole.runs.config_hash import complete, config_hashes
from alignrec_recbole.runs.record import NUMBERS_EPOCH, Run, RunRecord

PRIMARY_METRIC = "Recall@20"
COLUMNS = ("Recall@10", PRIMARY_METRIC, "NDCG@10", "NDCG@20")
ABSENT = "absent"  # how labels show a setting that a configuration does not have
MOST_DIGITS = 8  # letters of a value in a name; a longer number is shown in four digits
GRIDS = re.compile(r"(?:: |; )([\w.]+) in \[(.*?)\](?=; |$)")  # in a record's `tuned_on`
NOT_CHOSEN = {"epochs", "eval_args", "metrics", "setting", "topk"}  # no chance of a better row
NOT_VARIED = {
    "seed",
    "gpu_id",
    "show_progress",
    "threads",
    "features",
    "protocol.of_sha256",
    "knock_out",
}


class ComparisonKey(NamedTuple):
    """What a table may compare.

    Attributes:
        data: hash of interactions and split if the records of the data set have several, else "".
    """

    dataset: str
    protocol: str
    setting: str
    data: str = ""


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in the seed alone.

    Attributes:
        label: the model's name and `non_default_settings`.
        non_default_settings: "key=value" of the settings in which this group differs from the
            model's usual ones.
    """

    label: str
    runs: tuple[Run, ...]
    non_default_settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Label and features, which tell the groups of a block apart."""
        return row_name(self.label, self.first.features)

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
        notes = [f"at most {counted(epochs, 'epoch')}" for epochs in self.epoch_limits]
        notes += [note for record in self.records for note in record.notes]
        notes += [_tuning_note(record) for record in self.records if record.tuned_on]
        threads = sorted({r.machine["threads"] for r in self.records if "threads" in r.machine})
        if len(threads) > 1:
            several = " and ".join(map(str, threads))
            notes.append(f"seeds with {several} threads, whose sums are rounded differently")
        return list(dict.fromkeys(notes))

    @property
    def epoch_limits(self) -> list[int]:
        """The numbers of epochs below the default at which runs ended before early stopping."""
        usual = int(_defaults(self.first.model, self.first.dataset)["epochs"])
        ended = [r for r in self.records if r.selection.get("stopped") == "epochs"]
        return sorted({r.config["epochs"] for r in ended if r.config.get("epochs", usual) < usual})

    def values(self, metric: str, split: str = "test") -> dict[int, float]:
        """Seed → the metric; empty if no record has it."""
        found = {}
        for record in self.records:
            metrics = record.metrics if split == "test" else record.valid_metrics
            if metric in metrics:
                found[record.seed] = metrics[metric]
        return found

    def mean(self, metric: str, split: str = "test") -> float | None:
        """Mean of the metric over the seeds; None if no record has it."""
        values = list(self.values(metric, split).values())
        return math.fsum(values) / len(values) if values else None


def row_name(label: str, features: str) -> str:
    """What tells a row from the others of its table.

    >>> row_name("BPR", "none"), row_name("AlignRec", "lsa")
    ('BPR', 'AlignRec, lsa')
    """
    return label if features == "none" else f"{label}, {features}"


def _tuning_note(record: RunRecord) -> str:
    """How settings were chosen, and which were."""
    values = ", ".join(f"{key}={value}" for key, value in chosen_settings(record).items())
    return f"{record.tuned_on}" + (f"; chosen: {values}" if values else "")


def chosen_settings(record: RunRecord) -> dict[str, str]:
    """The searched settings of a record with the values that were chosen, for tables.

    They are those of the chosen trial. A record without trials names the keys of its grid, and its
    configuration has their values.
    """
    stored = record.budget
    if stored is not None:
        trials = [trial for trial in stored["curve"] if trial["trial"] == stored["chosen"]]
        found = flatten(trials[0]["parameters"])
    else:
        config = flatten(complete(record.config))
        keys = [key for key, _ in GRIDS.findall(record.tuned_on or "")]
        found = {key: config[key] for key in keys if key in config}
    return {key: _four_digits(value) for key, value in found.items()}


def _four_digits(text: str) -> str:
    """A number with a fraction in four digits; anything else as it is.

    >>> _four_digits("0.0012345678"), _four_digits("20000"), _four_digits("sum")
    ('0.001235', '20000', 'sum')
    """
    try:
        return f"{float(text):.4g}" if "." in text or "e" in text else text
    except ValueError:
        return text


def settings_changed(record: RunRecord) -> list[str]:
    """ "key=value" of the model's and the trainer's settings that are not the usual ones."""
    usual = _defaults(record.model, record.dataset)
    return [
        f"{key}={value}"
        for key, value in flatten(complete(record.config)).items()
        if key in usual and value != usual[key] and key.partition(".")[0] not in NOT_CHOSEN
    ]


def candidates_of(record: RunRecord) -> int:
    """The items that a list may have, before any are excluded; 0 if the record does not tell."""
    items = int(record.data.get("items", 0))
    about = record.config.get("protocol")
    share = about.get("cold_share") if isinstance(about, dict) else None
    return int(share * items + 1e-9) if isinstance(share, float) else items


def publishable(runs: Iterable[Run]) -> Iterator[Run]:
    """Finished runs with test metrics, of the present version of results."""
    for run in runs:
        record = run.record
        if record.status == "finished" and record.metrics and record.numbers_epoch == NUMBERS_EPOCH:
            yield run


def comparable_groups(runs: Iterable[Run]) -> dict[ComparisonKey, list[SeedGroup]]:
    """Groups that may be compared, in a fixed order."""
    found: dict[ComparisonKey, list[Run]] = defaultdict(list)
    versions: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run in publishable(runs):
        record, data = run.record, _data_version(run.record)
        found[ComparisonKey(record.dataset, record.protocol, record.setting, data)].append(run)
        versions[record.dataset, record.setting].add(data)
    out = {}
    for key in sorted(found):
        several = len(versions[key.dataset, key.setting]) > 1
        out[key if several else key._replace(data="")] = seed_groups(found[key])
    return out


def _data_version(record: RunRecord) -> str:
    """Eight hex digits of the interactions, the split and the counts a record was made on."""
    data = {**record.data}
    data["files"] = {n: h for n, h in data.get("files", {}).items() if n.endswith(".inter")}
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:8]


def seed_groups(runs: Iterable[Run]) -> list[SeedGroup]:
    """Comparable runs by everything except the seed, with names that tell the groups apart.

    Records of different ages have different hashes of one configuration; they form one group. If it
    has two records of one seed, the earlier one is used.
    """
    found: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        record = run.record
        found[record.model, record.features, _ageless_hash(record)].append(run)
    variants: dict[str, list[list[Run]]] = defaultdict(list)
    for (model, _, _), members in found.items():
        by_seed: dict[int, Run] = {}
        for run in sorted(members, key=lambda run: run.record.started_utc):
            by_seed.setdefault(run.record.seed, run)
        variants[model].append([by_seed[seed] for seed in sorted(by_seed)])
    for several in variants.values():
        several.sort(key=lambda group: (group[0].record.features, group[0].record.config_sha256))
    return [group for _, several in sorted(variants.items()) for group in _named(several)]


def _ageless_hash(record: RunRecord) -> str:
    """Hash of the configuration that records of any age share."""
    return possible_hashes(record)[-1]


def possible_hashes(record: RunRecord) -> list[str]:
    """The hashes that records of this configuration may have, by their age."""
    return config_hashes(
        model=record.model,
        dataset=record.dataset,
        protocol=record.protocol,
        config=record.config,
        data={"files": {}, "split": {}, **record.data},
        feature_files=record.feature_files,
    )


def _named(variants: list[list[Run]]) -> list[SeedGroup]:
    """A model's groups, named by the settings in which each differs from the usual ones."""
    records = [members[0].record for members in variants]
    model = records[0].model
    configs = [flatten(complete(record.config)) for record in records]
    usual = _usual(configs, _defaults(model, records[0].dataset))
    non_default = [
        tuple(f"{k}={config.get(k, ABSENT)}" for k in usual if config.get(k, ABSENT) != usual[k])
        for config in configs
    ]
    labels = [
        plain(f"{model} ({', '.join(plain(_short(e), 100) for e in own)})" if own else model, 300)
        for own in non_default
    ]
    seen = Counter(zip(labels, (record.features for record in records), strict=True))
    return [
        SeedGroup(
            f"{label} [{record.config_sha256[:8]}]" if seen[label, record.features] > 1 else label,
            tuple(members),
            own,
        )
        for label, record, members, own in zip(labels, records, variants, non_default, strict=True)
    ]


def _short(entry: str) -> str:
    """A "key=value" with a value of many digits in four.

    >>> _short("reg_weight=1.8648562452180992e-05"), _short("reg_weight=100.0")
    ('reg_weight=1.865e-05', 'reg_weight=100.0')
    """
    key, _, value = entry.partition("=")
    return f"{key}={_four_digits(value)}" if len(value) > MOST_DIGITS else entry


def _usual(configs: list[dict[str, str]], defaults: dict[str, str]) -> dict[str, str]:
    """The default of every setting where a config has it, else the commonest value.

    Of `epochs` it is the default wherever the configs differ: every smaller maximum is named.
    """
    out = {}
    for key in dict.fromkeys(key for config in configs for key in config):
        count = Counter(config.get(key, ABSENT) for config in configs)
        default = defaults.get(key, ABSENT)
        named = default in count or (key == "epochs" and len(count) > 1)
        out[key] = default if named else max(count, key=lambda value: count[value])
    return out


def _defaults(model: str, dataset: str) -> dict[str, str]:
    """The values of this package's YAML files; of a model from elsewhere only what all share."""
    files = [inside(properties_dir(), f"{name}.yaml") for name in ("overall", f"model/{model}")]
    files.append(defaults_path(dataset))
    return _flat_defaults(model, dataset, tuple((path, _changed(path)) for path in files))


@functools.lru_cache(maxsize=512)  # every group asks for the same files
def _flat_defaults(model: str, dataset: str, files: tuple[tuple[Path, int], ...]) -> dict[str, str]:
    layers = [*(_layer(*file) for file in files[:-1]), _dataset_layer(dataset, files[-1])]
    return flatten({key: value for layer in layers for key, value in layer.items()})


@functools.lru_cache(maxsize=512)  # every model and data set have the first one
def _layer(path: Path, changed: int) -> dict[str, Any]:
    return read_yaml(path)


@functools.lru_cache(maxsize=512)
def _dataset_layer(dataset: str, file: tuple[Path, int]) -> dict[str, Any]:
    return dataset_defaults(dataset)


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def default_variants(members: Iterable[SeedGroup]) -> dict[tuple[str, str], SeedGroup]:
    """By model and features, the one group with the fewest settings that differ from the usual."""
    found: dict[tuple[str, str], list[SeedGroup]] = defaultdict(list)
    for group in members:
        found[group.first.model, group.first.features].append(group)
    out = {}
    for key, several in found.items():
        fewest = min(len(group.non_default_settings) for group in several)
        bases = [group for group in several if len(group.non_default_settings) == fewest]
        if len(bases) == 1:
            out[key] = bases[0]
    return out


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings that can vary, as text.

    >>> flatten({"seed": 1, "reg_weight": 0.1, "protocol": {"k": 20}})
    {'reg_weight': '0.1', 'protocol.k': '20'}
    """
    out: dict[str, str] = {}
    for key, value in config.items():
        if prefix + key in NOT_VARIED:
            continue
        if isinstance(value, dict):
            out |= flatten(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = json.dumps(value).strip('"')
    return out


def shown_metrics(members: Iterable[SeedGroup]) -> tuple[str, ...]:
    """Metrics of a leaderboard: the usual ones that any record has, else the first four."""
    found = dict.fromkeys(name for g in members for record in g.records for name in record.metrics)
    usual = tuple(name for name in COLUMNS if name in found)
    return usual or tuple(found)[: len(COLUMNS)]


def primary_metric(members: Sequence[SeedGroup]) -> str:
    """The metric that rows are ordered and tested by: Recall@20 if any record has it.

    Otherwise the metric by which the first record was selected on validation, or its first one.
    """
    shown = shown_metrics(members)
    if PRIMARY_METRIC in shown or not shown:
        return PRIMARY_METRIC
    selected = str(members[0].first.selection.get("metric"))
    return selected if any(group.values(selected) for group in members) else shown[0]
