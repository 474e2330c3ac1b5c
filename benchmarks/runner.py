"""One run: configuration → data → model → trainer → ranking → record."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.utils import ModelType

from alignrec_recbole import compat, neighbour_store, process, register
from alignrec_recbole.data.dataset import MultimodalDataset, split_description
from alignrec_recbole.data.feature_table import manifest_summary
from alignrec_recbole.data.masking import FeatureMask
from alignrec_recbole.errors import DataError, RecordError, SettingError
from alignrec_recbole.evaluation import Ranking, RankingTask
from alignrec_recbole.files import atomic_write, inside, sha256_file
from alignrec_recbole.locate import find_dataset
from alignrec_recbole.settings import RunSettings, check_keys, read_settings
from alignrec_recbole.trainer import MultimodalTrainer, draws_pairs
from benchmarks import provenance
from benchmarks.record import RunRecord, read_record, write_record

LIST_LENGTH = 50  # items a user kept in top-K lists, more where a metric asks for them
PLACES = {"features_cache", "features_path", "data_path", "checkpoint_dir"}  # of this machine
RESERVED = {  # --set can't change these: the option would win without a word
    "seed": "--seeds",
    "features": "--features",
    "features_path": "--features-path",
    "features_cache": "--output",
    "checkpoint_dir": "--output",
    "data_path": "--data-path",
    "gpu_id": "--device",
    "show_progress": "--quiet",
}
NOT_RESULTS = {"gpu_id", "show_progress", "threads", "seed"}  # can't change a result


@dataclass(frozen=True)
class RunSpec:
    """What the command line asks for, one model and one seed of it."""

    model: str
    dataset: str
    features: tuple[str, ...] = ()
    protocol: str = "full"
    setting: str | None = None  # None: the data set's own
    seed: int = 999
    data_path: Path | None = None
    features_path: Path | None = None
    output: Path = Path("results")
    epochs: int | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    score_test: bool = True  # False: a grid point, judged on validation alone
    tuned_on: str | None = None
    mask: FeatureMask | None = None  # a modality hidden from the model
    progress: bool = True


class Interrupted(Exception):
    """The run was asked to stop; its state is saved."""


@dataclass
class Prepared:
    """A run up to the point where training would start."""

    spec: RunSpec
    config: Any
    parts: Any
    splits: list[MultimodalDataset]
    resolved: dict[str, Any]
    digest: str
    data: dict[str, Any]
    feature_files: dict[str, Any]
    notes: list[str]

    @property
    def stem(self) -> Path:
        """Path of the run's files under the output folder, without a suffix."""
        spec = self.spec
        features = self.feature_name.replace(":", "_").replace("/", "_")
        name = f"{features}-{self.config['setting']}-{self.digest[:8]}-s{spec.seed}"
        protocol = [] if spec.protocol == "full" else [spec.protocol]
        return Path(spec.dataset, *protocol, spec.model, name)

    @property
    def feature_name(self) -> str:
        """Feature sets joined by "+", or none."""
        return "+".join(self.feature_files) or "none"

    def path(self, kind: str, suffix: str) -> Path:
        """`<output>/<kind>/<stem><suffix>`."""
        stem = self.stem
        return self.spec.output / kind / stem.parent / f"{stem.name}{suffix}"

    @property
    def record_path(self) -> Path:
        """Where this run's record lies: `runs`, or `tuning` for a grid point."""
        return self.path("runs" if self.spec.score_test else "tuning", ".json")


def run_one(spec: RunSpec, *, overwrite: bool = False, command: str | None = None) -> RunRecord:
    """Run or, if its record is there, read it.

    A run that was interrupted goes on from its saved state. A different configuration, feature
    file or data file has another record path, so it never overwrites this one.

    Raises:
        Interrupted: the run was stopped by a signal; calling again continues it.
    """
    started = time.perf_counter()
    started_utc = datetime.now(timezone.utc).isoformat(timespec="seconds")
    process.reset_peaks()
    prepared = prepare(spec)
    state_file = prepared.path("checkpoints", ".state.pt")
    if overwrite:
        state_file.unlink(missing_ok=True)
    elif prepared.record_path.is_file():
        return _same_modalities(read_record(prepared.record_path), prepared)
    _check_chosen(prepared)
    _check_writable(prepared.record_path.parent)

    seconds = {"prepare": time.perf_counter() - started}
    trainer = build_trainer(prepared, state_file)
    seconds["build"] = time.perf_counter() - started - seconds["prepare"]
    with _stop_on_signal(trainer):
        trainer.fit(
            train_data(prepared), valid_task(prepared), saved=False, show_progress=spec.progress
        )
    if trainer.stopped == "interrupted":
        raise Interrupted(f"State saved in {state_file}; run the same command to go on.")

    metrics: dict[str, float] = {}
    per_user = None
    if spec.score_test:
        begun = time.perf_counter()
        ranking = trainer.rank(test_task(prepared), max(LIST_LENGTH, *trainer.cutoffs))
        seconds["evaluate"] = time.perf_counter() - begun
        names = prepared.config["metrics"], trainer.cutoffs
        metrics = ranking.means(*names)
        per_user = save_lists(prepared, ranking, ranking.per_user(*names))
    history = trainer.history
    if history:
        seconds["train_epoch"] = float(np.median([entry["seconds"] for entry in history]))
    else:
        seconds["train_epoch"] = 0.0
    seconds["total"] = time.perf_counter() - started + trainer.seconds_before
    record = RunRecord(
        status="finished",
        model=spec.model,
        dataset=spec.dataset,
        features=prepared.feature_name,
        protocol=spec.protocol,
        setting=prepared.config["setting"],
        seed=spec.seed,
        config=prepared.resolved,
        config_sha256=prepared.digest,
        tuned_on=spec.tuned_on,
        data=prepared.data,
        feature_files=prepared.feature_files,
        selection={
            "metric": prepared.config["valid_metric"],
            "split": "valid",
            "best_epoch": trainer.best_epoch,
            "best_score": trainer.best_valid_score
            if np.isfinite(trainer.best_valid_score)
            else None,
            "stopped": trainer.stopped,
        },
        valid_metrics=_titled(trainer.best_valid_result or {}, prepared.config["metrics"]),
        metrics=metrics,
        per_user=per_user,
        epochs=len(history),
        history=history,
        parameters=sum(p.numel() for p in trainer.model.parameters()),
        seconds=seconds,
        peak_rss_bytes=process.peak_rss_bytes(),
        peak_gpu_bytes=process.peak_gpu_bytes(),
        code=provenance.code(),
        machine=provenance.machine(str(prepared.config["device"])),
        command=command or provenance.command(),
        started_utc=started_utc,
        notes=prepared.notes,
    )
    write_record(prepared.record_path, record)
    if spec.score_test:  # a grid point keeps its state: if chosen, it is only ranked
        state_file.unlink(missing_ok=True)
    return record


def _check_chosen(prepared: Prepared) -> None:
    """Refuse a grid point that would end without a validation score."""
    epochs, step = prepared.config["epochs"], prepared.config["eval_step"]
    trained = prepared.parts.model_class.type != ModelType.TRADITIONAL
    if trained and epochs < step and not prepared.spec.score_test:
        raise SettingError(
            "Without a validation score nothing can be chosen.",
            came=f"{epochs} epochs, the first evaluation after {step}",
            expected="at least one evaluation in every grid point",
            next="raise --epochs, or lower eval_step",
        )


def _same_modalities(record: RunRecord, prepared: Prepared) -> RunRecord:
    """The record, if its features were of the modalities they are now said to be of."""
    for name, file in prepared.feature_files.items():
        was, now = record.feature_files[name].get("modality"), file["modality"]
        if was != now:
            raise RecordError(
                f"There is a record of this run with {name!r} as other features.",
                came=f"modality {now}, in the record {was}: {prepared.record_path.name}",
                expected="one modality for one file",
                next="correct the features' .json, or pass --overwrite or another --output",
            )
    return record


def forget(spec: RunSpec) -> None:
    """Delete the saved state of a run."""
    prepare(spec).path("checkpoints", ".state.pt").unlink(missing_ok=True)


def prepare(spec: RunSpec) -> Prepared:
    """Resolve the configuration and read the data.

    Raises:
        DataError, FeatureError, SettingError, UnknownNameError: see their texts.
    """
    parts = register.prepare(spec.model)
    inside(spec.output, spec.dataset)
    folder = find_dataset(spec.dataset, spec.data_path)
    given = resolve(spec, parts, folder)
    expected = given.pop("expected", None)
    given.pop("downloads", None)
    device = torch.device(process.choose_device(spec.device))
    config = make_config(parts, spec.dataset, given)
    config["device"] = device  # RecBole knows only the first GPU it sees
    if device.index is not None:
        torch.cuda.set_device(device)
    _check_ranking(config)
    process.set_threads(config["threads"])
    process.return_freed_memory()
    logging.getLogger("recbole").setLevel(logging.WARNING)

    dataset = parts.dataset_class(config)
    notes: list[str] = []
    feature_files = {}
    if isinstance(dataset, MultimodalDataset):
        feature_files = {
            name: manifest_summary(table.manifest) for name, table in dataset.features.items()
        }
        notes += [f"{name}: {note}" for name, f in feature_files.items() for note in f["notes"]]
    splits = dataset.build()
    data = {
        "users": dataset.user_num - 1,
        "items": dataset.item_num - 1,
        "interactions": [len(split.inter_feat) for split in splits],
        "split": split_description(dataset, config),
        "files": {path.name: sha256_file(path) for path in _data_files(dataset, folder)},
    }
    if expected:
        wrong = {k: (data[k], v) for k, v in expected.items() if data[k] != v}
        if wrong:
            notes.append(
                "data differ from the released set: "
                + "; ".join(f"{k} {came}, expected {want}" for k, (came, want) in wrong.items())
            )
    papers = getattr(parts.model_class, "paper_features", None)
    if papers and feature_files:
        notes.append(f"not the paper's features ({papers})")
    resolved = {key: _plain(config[key]) for key in sorted(given) if key not in PLACES}
    resolved.setdefault("eval_args", _plain(config["eval_args"]))
    digest = run_digest(spec, resolved, data, feature_files)
    return Prepared(spec, config, parts, splits, resolved, digest, data, feature_files, notes)


def _data_files(dataset: Any, folder: Path) -> list[Path]:
    """Interactions and, where they are loaded, items and users: those without any count too."""
    files = sorted(folder.glob(f"{dataset.dataset_name}*.inter"))
    loaded = {"item": dataset.item_feat, "user": dataset.user_feat}
    named = [
        folder / f"{dataset.dataset_name}.{kind}"
        for kind, feat in loaded.items()
        if feat is not None
    ]
    return files + [path for path in named if path.is_file()]


def run_digest(
    spec: RunSpec, config: dict[str, Any], data: dict[str, Any], feature_files: dict[str, Any]
) -> str:
    """SHA-256 of all that decides a result but the seed."""
    config = {k: v for k, v in config.items() if k not in NOT_RESULTS}
    if "feature_mask" in config:  # its seed follows the run's
        config["feature_mask"] = {k: v for k, v in config["feature_mask"].items() if k != "seed"}
    return hashlib.sha256(
        json.dumps(
            {
                "config": config,
                "model": spec.model,
                "dataset": spec.dataset,
                "protocol": spec.protocol,
                "data": data["files"],
                "split": data["split"],
                "features": {
                    name: [file["sha256"], file.get("items_sha256")]
                    for name, file in feature_files.items()
                },
            },
            sort_keys=True,
        ).encode()
    ).hexdigest()


def resolve(spec: RunSpec, parts: Any, folder: Path) -> dict[str, Any]:
    """Every configuration key this package sets; later sources win.

    Defaults of all runs < model < data set < command line.
    """
    given = dict(register.load_defaults(spec.model, spec.dataset))
    known = set(given) | set(parts.known_keys)
    check_keys(spec.overrides, known, spec.model)
    _check_reserved(spec.overrides)
    given.update(spec.overrides)
    given.update(
        seed=spec.seed,
        features=list(spec.features),
        features_path=str(spec.features_path) if spec.features_path else None,
        features_cache=str(spec.output / "features" / spec.dataset),
        data_path=str(folder.parent),
        checkpoint_dir=str(spec.output / "checkpoints"),
        show_progress=False,
        gpu_id=_gpu(spec.device),
    )
    if spec.setting:
        given["setting"] = spec.setting
    if spec.epochs is not None:
        given["epochs"] = spec.epochs
    if spec.mask is not None:
        given["feature_mask"] = spec.mask.model_dump()
    read_settings(given, RunSettings, "The trainer", "properties/overall.yaml")
    return given


def _check_reserved(overrides: dict[str, Any]) -> None:
    for key, option in RESERVED.items():
        if key in overrides:
            raise SettingError(
                f"The setting {key!r} has an option of its own.",
                came=f"--set {key}={overrides[key]}",
                expected=option,
            )


def _check_ranking(config: Any) -> None:
    mode = config["eval_args"]["mode"]
    if set(mode.values() if isinstance(mode, dict) else [mode]) != {"full"}:
        raise SettingError(
            "Only the full ranking is computed.",
            came=f"eval_args.mode = {mode!r}",
            expected="full",
        )


def make_config(parts: Any, dataset: str, given: dict[str, Any]) -> Any:
    """A RecBole Config of these values, whatever stands on the command line."""
    from recbole.config import Config

    with compat.clean_argv():
        config = Config(model=parts.model_class, dataset=dataset, config_dict=dict(given))
    config["data_path"] = str(Path(given["data_path"]) / dataset)
    return config


def build_trainer(prepared: Prepared, state_file: Path | None) -> MultimodalTrainer:
    """Model and trainer of a prepared run, seeded."""
    from recbole.utils import init_seed

    init_seed(prepared.spec.seed, True)
    process.return_freed_memory()  # anew: encoders and an earlier run's training kept theirs
    kept = prepared.config["features_cache"]
    with neighbour_store.keep_in(Path(kept) if kept else None):
        model = prepared.parts.model_class(prepared.config, prepared.splits[0])
    for split in prepared.splits:  # the model has what it needs of them
        if isinstance(split, MultimodalDataset):
            split.release_features()
    model = model.to(prepared.config["device"])
    process.keep_freed_memory()  # from here on
    trainer_class = prepared.parts.trainer_class or MultimodalTrainer
    return trainer_class(prepared.config, model, state_file)


def train_data(prepared: Prepared) -> Any:
    """The training split for pair models; RecBole's own loader for the others."""
    from recbole.data.utils import create_samplers, get_dataloader

    kind = prepared.parts.model_class
    config, splits = prepared.config, prepared.splits
    if kind.type == ModelType.TRADITIONAL or draws_pairs(kind, config):
        return splits[0]
    samplers = create_samplers(config, prepared.splits[0], splits)
    return get_dataloader(config, "train")(config, splits[0], samplers[0], shuffle=True)


def valid_task(prepared: Prepared) -> RankingTask:
    """Validation: training items masked in both settings."""
    train, valid, _ = prepared.splits
    return RankingTask.from_pairs(_pairs(valid), [_pairs(train)], (train.user_num, train.item_num))


def test_task(prepared: Prepared) -> RankingTask:
    """Test: mmrec masks the training items, recbole also the validation items."""
    train, valid, test = prepared.splits
    masked = [_pairs(train)] + ([_pairs(valid)] if prepared.config["setting"] == "recbole" else [])
    return RankingTask.from_pairs(_pairs(test), masked, (train.user_num, train.item_num))


def _pairs(split: Any) -> tuple[np.ndarray, np.ndarray]:
    return (
        split.inter_feat[split.uid_field].numpy(),
        split.inter_feat[split.iid_field].numpy(),
    )


def save_lists(
    prepared: Prepared,
    ranking: Ranking,
    values: dict[str, np.ndarray],
    columns: np.ndarray | slice = slice(None),
) -> dict[str, str]:
    """Per-user values and top-K lists beside the record; `top` counts in `items`, PAD first.

    Args:
        columns: internal ids of the columns that were ranked; default all items.
    """
    dataset = prepared.splits[0]
    path = prepared.path("runs", ".users.npz")
    with atomic_write(path) as handle:
        np.savez_compressed(
            handle,
            users=dataset.field2id_token[dataset.uid_field][ranking.users].astype(str),
            items=dataset.field2id_token[dataset.iid_field][columns].astype(str),
            top=ranking.items.astype(np.int32),
            targets=ranking.targets.astype(np.int32),
            **values,  # type: ignore[arg-type]
        )
    return {"file": path.name, "sha256": sha256_file(path)}


def _titled(result: dict[str, float], names: list[str]) -> dict[str, float]:
    """RecBole's lower-case metric names in the spelling of the records."""
    titles = {name.lower(): name for name in names}
    return {
        f"{titles[key.split('@')[0]]}@{key.split('@')[1]}": value for key, value in result.items()
    }


@contextlib.contextmanager
def _stop_on_signal(trainer: MultimodalTrainer) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: finish the epoch, save, stop. Second: stop at once."""

    def handler(number: int, frame: Any) -> None:
        if trainer.stop_requested:
            raise KeyboardInterrupt
        trainer.stop_requested = True
        print("\nstopping after this epoch; once more to stop at once", file=sys.stderr)

    try:
        old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever runs us handles signals
        yield
        return
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / ".writable"):
            pass
        (folder / ".writable").unlink(missing_ok=True)  # another process may try the same folder
    except OSError as error:
        raise DataError(
            f"Results cannot be written to {folder}.",
            came=getattr(error, "came", "") or str(error),
            expected="a folder this user may write to",
            next="pass --output with another folder",
        ) from error


def _gpu(device: str) -> str:
    """What RecBole writes into CUDA_VISIBLE_DEVICES: what is visible now; nothing for the CPU."""
    if process.choose_device(device) == "cpu":
        return ""
    every = ",".join(map(str, range(torch.cuda.device_count())))
    return os.environ.get("CUDA_VISIBLE_DEVICES") or every


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
