"""The values of a verb's options: what the verbs hand to the code that does their work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from alignrec_recbole.cli._overrides import Pair
from alignrec_recbole.data.rekeyed_names import rekeyed_name
from alignrec_recbole.data.split_names import DEFAULT_SEED, DEFAULT_SPLIT, Numbering
from alignrec_recbole.engines import DEFAULT


@dataclass(frozen=True)
class RunOptions:
    """The options of one command line; `jobs` None: as many as fit."""

    model: tuple[str, ...]
    dataset: str
    features: tuple[str, ...]
    protocol: tuple[str, ...]
    setting: str | None
    seeds: tuple[int, ...] | None
    epochs: int | None
    overrides: tuple[Pair, ...]
    grid: tuple[tuple[str, list[Any]], ...]
    data_path: Path | None
    features_path: Path | None
    output: Path
    save: bool
    save_limit: int
    device: str
    resume: bool
    overwrite: bool
    jobs: int | None
    progress: bool
    download: bool
    mirror: str | None
    track: tuple[str, ...] = ()
    engine: str = DEFAULT
    rekey: int | None = None
    nproc: int = 1
    config: str | None = None

    def named(self) -> RunOptions:
        """The same with --rekey as the name of the data set that it stands for."""
        if self.rekey is None:
            return self
        return replace(self, dataset=rekeyed_name(self.dataset, self.rekey), rekey=None)


@dataclass(frozen=True)
class ItemOptions:
    """Which items are encoded, and where their features go."""

    dataset: str
    data_path: Path | None
    items: Path | None
    images: Path | None
    encoder: str | None
    name: str | None
    output: Path | None
    overwrite: bool
    export_mmrec: Path | None
    mapping: Path | None


@dataclass(frozen=True)
class PrepareOptions(ItemOptions):
    """The options of `prepare`."""

    batch_size: int
    dtype: Literal["float32", "float16"]
    workers: int | None
    threads: int | None
    device: str
    progress: bool
    shard: tuple[int, int]
    merge: bool
    weights: str | None
    random_init: bool
    size: str | None
    image_size: int | None
    tokenizer: str | None
    max_tokens: int | None
    pooling: Literal["cls", "text-cls", "mean", "concat", "pooled"] | None
    precision: Literal["auto", "float32", "bfloat16"] | None
    prompt: str | None
    truncate_dim: int | None
    caption: str | None
    max_new_tokens: int | None
    mask: Literal["image", "text"] | None
    mask_ratio: float | None
    mask_seed: int | None
    rekey: int | None = None


@dataclass(frozen=True)
class ImportOptions:
    """The options of `import-amazon`."""

    dataset: str
    data_path: Path | None
    progress: bool
    raw: Path
    no_images: bool
    image_hosts: str | None
    connections: int
    split: str = DEFAULT_SPLIT
    numbering: Numbering = "random"
    seed: int = DEFAULT_SEED


@dataclass(frozen=True)
class ImportDatasetOptions:
    """The options of `import`."""

    path: Path
    dataset: str
    data_path: Path | None
    format: str | None
    columns: str | None
    items: Path | None
    core: tuple[int, int] | None
    split: str | None
    numbering: Numbering
    seed: int
    on_bad_line: Literal["error", "skip"]
    no_images: bool
    image_hosts: str | None
    connections: int
    progress: bool


@dataclass(frozen=True)
class PretrainOptions:
    """The options of `pretrain`.

    Attributes:
        settings: the fields of PretrainSettings that were given.
    """

    dataset: str
    encoder: str
    data_path: Path | None
    items: Path | None
    images: Path | None
    output: Path
    weights: str | None
    random_init: bool
    keep_mim_head: bool
    size: str | None
    image_size: int | None
    tokenizer: str | None
    vocab_size: int | None
    max_tokens: int | None
    workers: int
    threads: int | None
    device: str
    max_steps: int | None
    progress: bool
    settings: dict[str, Any]
