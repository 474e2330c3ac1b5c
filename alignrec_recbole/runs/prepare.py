"""From a specification to the effective configuration and the data."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from alignrec_recbole.compat.config import hide_command_line
from alignrec_recbole.data.dataset_paths import CARD_KEYS, find_dataset, interaction_files
from alignrec_recbole.dataset import MultimodalDataset, refuse_splitting, split_description
from alignrec_recbole.encoders.lookup import check_feature_name
from alignrec_recbole.errors import AlignRecError, DataError, RecordError, SettingError
from alignrec_recbole.features.published import default_features, expanded
from alignrec_recbole.features.table import manifest_summary
from alignrec_recbole.io.files import inside, sha256_file
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml
from alignrec_recbole.registry.components import ModelComponents, components, dataset_defaults
from alignrec_recbole.runs.config_hash import config_hashes, same_data
from alignrec_recbole.runs.record import read_record, record_folder, record_stem
from alignrec_recbole.runs.spec import CLI_ONLY_KEYS, PATH_KEYS, DataSpec, RunSpec
from alignrec_recbole.runtime import allocator, hardware
from alignrec_recbole.runtime.threads import ThreadCount, table_numbers
from alignrec_recbole.settings import check_keys, check_plain, read_settings, shown
from alignrec_recbole.training import captured, memory_estimate
from alignrec_recbole.training.recbole_settings import HONOURED, RecBoleSettings, check_refused
from alignrec_recbole.training.settings import DataSettings, TrainingSettings
from alignrec_recbole.training.trainer import cutoffs

TRAINING_ONLY = {  # of RecBole's settings
    "epochs",
    "train_batch_size",
    "learner",
    "learning_rate",
    "train_neg_sample_args",
    "eval_step",
    "stopping_step",
    "clip_grad_norm",
    "weight_decay",
    "metric_decimal_place",
}
USUAL_EMBEDDING_SIZE = 64  # of models without a setting of this name, for the number of threads
DEFAULTS_FILE = "properties/overall.yaml"


@dataclass(frozen=True)
class PreparedData:
    """A data set as it is split and ranked, with its features.

    Attributes:
        config: RecBole's Config.
        splits: training, validation and test split.
        data: counts, split and file hashes, for the record.
        feature_files: name → manifest summary.
        effective_config: every setting that this package gave, with its value.
        notes: what a reader must know next to the numbers.
        numbers: in the tables that a step goes through, which the number of threads follows.
        threads: the number of threads, and what decided it.
        coverage: feature set → share of the items that have the modality.
    """

    config: Any
    splits: list[MultimodalDataset]
    data: dict[str, Any]
    feature_files: dict[str, Any]
    effective_config: dict[str, Any]
    notes: list[str]
    numbers: int
    threads: ThreadCount
    coverage: dict[str, float] = field(default_factory=dict)

    @property
    def read(self) -> str:
        """What was read, in one line: counts, and the share of items with features."""
        counts = zip(self.data["interactions"], ("training", "validation", "test"), strict=False)
        parts = [
            f"{self.data['users']:,} users",
            f"{self.data['items']:,} items",
            f"{', '.join(f'{count:,} {name}' for count, name in counts)} interactions",
            *(f"{name} for {share:.1%} of the items" for name, share in self.coverage.items()),
        ]
        return "; ".join(parts)


@dataclass(frozen=True)
class PreparedRun:
    """Everything that is known of a run before anything is trained or ranked.

    Attributes:
        config_hash: SHA-256 of what decides the result except the seed; see config_hash.py.
        components: ModelComponents of the model; None where nothing is trained.
    """

    spec: RunSpec
    data: PreparedData
    effective_config: dict[str, Any]
    feature_files: dict[str, Any]
    notes: list[str]
    config_hash: str
    components: Any = None

    @property
    def config(self) -> Any:
        """RecBole's Config."""
        return self.data.config

    @property
    def splits(self) -> list[MultimodalDataset]:
        """Training, validation and test split."""
        return self.data.splits

    @property
    def run_id(self) -> Path:
        """Path of the run's files under the output folder, without a suffix."""
        spec = self.spec
        folder = record_folder(spec.dataset, spec.protocol, spec.model)
        return folder / self.file_stem(self.config_hash)

    def file_stem(self, config_hash: str) -> str:
        """Name of files of this run's features, convention and seed with a configuration's hash."""
        return record_stem(self.feature_name, self.config["setting"], config_hash, self.spec.seed)

    @property
    def feature_name(self) -> str:
        """Feature sets joined by "+", or none."""
        return "+".join(self.feature_files) or "none"

    def path(self, kind: str, suffix: str) -> Path:
        """`<output>/<kind>/<run id><suffix>`."""
        run_id = self.run_id
        return self.spec.output / kind / run_id.parent / f"{run_id.name}{suffix}"

    @property
    def record_path(self) -> Path:
        """Path of the record: under `runs`, or under `tuning` for a grid point."""
        return self.path("tuning" if self.spec.validation_only else "runs", ".json")

    @property
    def state_path(self) -> Path:
        """Path of the saved training state, which an interrupted run resumes from."""
        return self.path("checkpoints", ".state.pt")


def delete_checkpoint(spec: RunSpec) -> None:
    """Delete the saved training state of a run."""
    prepare_run(spec).state_path.unlink(missing_ok=True)


def prepare_data(spec: DataSpec) -> PreparedData:
    """Read a data set and its features, for protocols that train nothing.

    Raises:
        DataError, FeatureError, SettingError, UnknownNameError: see their texts.
    """
    folder = _find_folder(spec)
    spec = replace(spec, features=expanded(spec.features, folder))
    given = data_settings(spec, folder)
    of_machine = {"gpu_id": _gpu(spec.device), "show_progress": False}
    config = make_config(_no_model(), spec.dataset, {**given, **of_machine})
    return _read(spec, MultimodalDataset, config, given, folder)


def check_data_spec(spec: DataSpec) -> None:
    """Refuse what `prepare_data` would refuse of a specification, before any data is read.

    Raises:
        DataError, FeatureError, SettingError, UnknownNameError: as `prepare_data`.
        MissingDependencyError: the extra of an encoder is not installed.
    """
    folder = _find_folder(spec)
    names = expanded(spec.features, folder)
    data_settings(replace(spec, features=names), folder)
    _check_features(spec, names, folder)


def check_run_spec(spec: RunSpec) -> None:
    """Refuse what `prepare_run` would refuse of a specification, before any data is read.

    Raises:
        DataError, FeatureError, SettingError, UnknownNameError: as `prepare_run`.
        MissingDependencyError: the extra of an encoder is not installed.
    """
    parts = components(spec.model)
    folder = _find_folder(spec.data)
    names = _features(spec, parts, folder)
    run_settings(replace(spec, features=names), parts, folder)
    _check_features(spec.data, names, folder)


def _check_features(spec: DataSpec, names: Iterable[str], folder: Path) -> None:
    for name in names:
        check_feature_name(name, folder, spec.dataset, spec.features_path)


def data_keys(dataset: str) -> set[str]:
    """Settings of a data set, its split and its ranking: those that `prepare_data` accepts."""
    recbole = set(HONOURED) - TRAINING_ONLY
    return recbole | set(DataSettings.model_fields) | set(_dataset_settings(dataset))


def training_keys() -> set[str]:
    """Settings that only a run with training accepts."""
    ours = set(TrainingSettings.model_fields) - set(DataSettings.model_fields)
    return ours | TRAINING_ONLY


def prepare_run(spec: RunSpec) -> PreparedRun:
    """Resolve the configuration of a model's run and read its data.

    Raises:
        DataError, FeatureError, SettingError, UnknownNameError: see their texts.
    """
    parts = components(spec.model)
    folder = _find_folder(spec.data)
    spec = replace(spec, features=_features(spec, parts, folder))
    given = run_settings(spec, parts, folder)
    config = make_config(parts.model_class, spec.dataset, given)
    data = _read(spec.data, parts.dataset_class, config, given, folder)
    notes = list(data.notes)
    papers = getattr(parts.model_class, "paper_features", None)
    if papers and data.feature_files:
        notes.append(f"not the paper's features ({papers})")
    return prepared_run(spec, data, data.effective_config, data.feature_files, notes, parts)


def _features(spec: RunSpec, parts: ModelComponents, folder: Path) -> tuple[str, ...]:
    """The features that are named, else the published ones that are there, else the model's."""
    if spec.features or not parts.entry.needs_features:
        return expanded(spec.features, folder)
    return default_features(folder, otherwise=parts.entry.default_features)


def prepared_run(
    spec: RunSpec,
    data: PreparedData,
    effective_config: dict[str, Any],
    feature_files: dict[str, Any],
    notes: list[str],
    parts: ModelComponents | None = None,
) -> PreparedRun:
    """A run with its hash: that of an existing record or saved state, else the present one.

    A record that cannot be read counts as this run's, by its name: `identity.finished_record`
    refuses it.
    """
    hashes = config_hashes(
        model=spec.model,
        dataset=spec.dataset,
        protocol=spec.protocol,
        config=effective_config,
        data=data.data,
        feature_files=feature_files,
    )
    run = PreparedRun(spec, data, effective_config, feature_files, notes, hashes[0], parts)
    candidates = [replace(run, config_hash=digest) for digest in hashes]
    for candidate in candidates:
        if os.path.lexists(candidate.record_path) and _may_be_of(candidate):
            return candidate
    return next((each for each in candidates if each.state_path.is_file()), run)


def _may_be_of(run: PreparedRun) -> bool:
    """Whether the record in a run's place is on the run's data, as far as it can be read."""
    try:
        return same_data(read_record(run.record_path).data, run.data.data)
    except RecordError:
        return True


def _find_folder(spec: DataSpec) -> Path:
    inside(spec.output, spec.dataset)
    return find_dataset(spec.dataset, spec.data_path)


def _read(
    spec: DataSpec,
    dataset_class: Any,
    config: Any,
    given: dict[str, Any],
    folder: Path,
) -> PreparedData:
    """Load features and splits under a configuration whose keys are those of `given`."""
    device = torch.device(hardware.choose_device(spec.device))
    config["device"] = device  # RecBole knows only the first GPU it sees
    if device.index is not None:
        torch.cuda.set_device(device)
    hardware.set_threads(config["threads"])
    allocator.phase("load")
    logging.getLogger("recbole").setLevel(logging.WARNING)

    parts = config["benchmark_filename"]
    memory_estimate.check_reading(interaction_files(folder, spec.dataset, parts))
    with _recbole_errors(spec):
        dataset = dataset_class(config)
    refuse_splitting(dataset, spec.overrides.get("eval_args") or {})  # usual values, too
    memory_estimate.check_lists(dataset.user_num, max(cutoffs(config)))
    with _recbole_errors(spec):
        splits = dataset.build()
    notes: list[str] = []
    feature_files = {}
    coverage = {}
    if isinstance(dataset, MultimodalDataset):
        coverage = {n: float(table.present[1:].mean()) for n, table in dataset.features.items()}
        feature_files = {
            name: manifest_summary(table.manifest) for name, table in dataset.features.items()
        }
        notes += [f"{name}: {note}" for name, f in feature_files.items() for note in f["notes"]]
    files = {path.name: sha256_file(path) for path in _data_files(dataset, folder)}
    data = {
        "users": dataset.user_num - 1,
        "items": dataset.item_num - 1,
        "interactions": [len(split.inter_feat) for split in splits],
        "split": split_description(dataset, config, files),
        "files": files,
    }
    if isinstance(dataset, MultimodalDataset) and dataset.users_without_training:
        notes.append(
            "users without a training interaction are not ranked: "
            f"{dataset.users_without_training}, with {dataset.rows_without_training} later "
            "interactions"
        )
    if expected := dataset_defaults(spec.dataset).get("expected"):
        wrong = {k: (data[k], v) for k, v in expected.items() if data[k] != v}
        if wrong:
            notes.append(
                "data differ from the released set: "
                + "; ".join(f"{k} {found}, expected {want}" for k, (found, want) in wrong.items())
            )
    effective = effective_config(config, given)
    numbers = _table_numbers(dataset, config)
    threads = hardware.set_run_threads(config["threads"], numbers)
    return PreparedData(
        config, splits, data, feature_files, effective, notes, numbers, threads, coverage
    )


def _table_numbers(dataset: Any, config: Any) -> int:
    """Numbers in the tables of users and items and in the features."""
    features = dataset.features.values() if isinstance(dataset, MultimodalDataset) else ()
    columns = sum(table.values.shape[1] for table in features)
    size = config["embedding_size"]
    size = size if isinstance(size, int) else USUAL_EMBEDDING_SIZE
    return table_numbers(dataset.user_num - 1, dataset.item_num - 1, size, columns)


def effective_config(config: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The settings that this package gave and `eval_args`, with the values RecBole made of them."""
    out = {key: _as_json(config[key]) for key in sorted(given) if key not in PATH_KEYS}
    out.setdefault("eval_args", _as_json(config["eval_args"]))
    return out


def _data_files(dataset: Any, folder: Path) -> list[Path]:
    """Files of the interactions and of the items and users, as far as they are loaded."""
    parts = dataset.config["benchmark_filename"]
    files = sorted(interaction_files(folder, dataset.dataset_name, parts))
    loaded = {"item": dataset.item_feat, "user": dataset.user_feat}
    named = [
        folder / f"{dataset.dataset_name}.{kind}"
        for kind, feat in loaded.items()
        if feat is not None
    ]
    return files + [path for path in named if path.is_file()]


def data_settings(spec: DataSpec, folder: Path) -> dict[str, Any]:
    """Settings of a data set and its ranking; later sources win.

    Defaults of all runs < data set < command line.
    """
    overall = read_yaml(properties_dir() / "overall.yaml")
    given = {key: value for key, value in overall.items() if key in DataSettings.model_fields}
    given.update(_dataset_settings(spec.dataset))
    for key, value in given.items():
        check_plain(key, value, "the defaults of the data set")
    check_refused(spec.overrides)
    _check_overrides(spec.overrides, data_keys(spec.dataset), "the data set")
    given.update(spec.overrides)
    given.update(_options(spec, folder))
    read_settings(given, DataSettings, f"Data set {spec.dataset}", DEFAULTS_FILE)
    _check_recbole(given, spec.overrides)
    return given


def run_settings(spec: RunSpec, parts: ModelComponents, folder: Path) -> dict[str, Any]:
    """Settings of a model's run; later sources win.

    Defaults of all runs < model < data set < command line.
    """
    given = parts.defaults_for(spec.dataset)
    for key in CARD_KEYS:
        given.pop(key, None)
    for key, value in given.items():
        check_plain(key, value, f"the defaults of {spec.model} and of the data set")
    parts.check_unused(spec.overrides)
    _check_overrides(spec.overrides, set(given) | set(parts.known_keys), spec.model)
    given.update(spec.overrides)
    given.update(_options(spec.data, folder))
    given.update(
        seed=spec.seed,
        checkpoint_dir=str(spec.output / "checkpoints"),
        show_progress=False,
        gpu_id=_gpu(spec.device),
    )
    if spec.epochs is not None:
        given["epochs"] = spec.epochs
    read_settings(given, TrainingSettings, "The trainer", DEFAULTS_FILE)
    read_settings(given, DataSettings, f"Data set {spec.dataset}", DEFAULTS_FILE)
    if kind := getattr(parts.model_class, "settings_class", None):
        read_settings(given, kind, spec.model)  # before RecBole makes numbers of texts
    _check_recbole(given, spec.overrides, parts.own_keys)
    if given["captured_steps"]:
        device = hardware.choose_device(spec.device)
        captured.check(parts.model_class, device, given["learner"])
    return given


def _options(spec: DataSpec, folder: Path) -> dict[str, Any]:
    """What the options of the command line set, of data and features."""
    given: dict[str, Any] = {
        "features": list(spec.features),
        "features_path": str(spec.features_path) if spec.features_path else None,
        "features_cache": str(spec.output / "features" / spec.dataset),
        "data_path": str(folder.parent),
    }
    if spec.setting:
        given["setting"] = spec.setting
    if spec.mask is not None:
        given["feature_mask"] = spec.mask.model_dump()
    if spec.knock_out is not None:
        given["knock_out"] = spec.knock_out.model_dump(mode="json")
    return given


def _dataset_settings(dataset: str) -> dict[str, Any]:
    given = dataset_defaults(dataset)
    return {key: value for key, value in given.items() if key not in CARD_KEYS}


def _check_overrides(overrides: dict[str, Any], known: set[str], owner: str) -> None:
    check_keys(overrides, known, owner)
    for key, option in CLI_ONLY_KEYS.items():
        if key in overrides:
            raise SettingError(
                f"The setting {key!r} has an option of its own.",
                found=f"{key} = {shown(overrides[key])}",
                expected=option,
            )
    for key, value in overrides.items():
        check_plain(key, value)


def _check_recbole(
    given: dict[str, Any], overrides: dict[str, Any], own: Iterable[str] = ()
) -> None:
    """Check RecBole's settings before RecBole reads them, and put those in that others imply.

    Args:
        given: all settings.
        overrides: those of the command line among them.
        own: the model's own, which have its types.

    Raises:
        SettingError: a value or a combination that RecBole cannot use.
    """
    shared = {key: value for key, value in given.items() if key not in own}
    read = read_settings(shared, RecBoleSettings, "RecBole", "docs/settings.md")
    for key in ("user_inter_num_interval", "item_inter_num_interval", "val_interval"):
        if key in overrides:
            given[key] = getattr(read, key)  # [1, 5] as text
    if read.unload_col and given.get("load_col", {}) is not None:
        raise SettingError(
            "The setting 'unload_col' needs all columns to be loaded.",
            found=f"unload_col = {shown(given['unload_col'])} with columns chosen by load_col",
            expected="load_col=null",
        )
    ordered = read.eval_args.order == "TO" or read.eval_args.split.TS is not None
    if "TIME_FIELD" in overrides and "TIME_FIELD" not in own and not ordered:
        raise SettingError(
            "The setting 'TIME_FIELD' has no effect without a split by time.",
            found=f"TIME_FIELD = {shown(overrides['TIME_FIELD'])}",
            expected="eval_args.order=TO or eval_args.split with TS beside it",
        )
    if read.val_interval:
        _load_columns(given, list(read.val_interval))


def _load_columns(given: dict[str, Any], columns: list[str]) -> None:
    """Let the interactions' columns be loaded that another setting reads."""
    loaded = given.get("load_col", {})
    if loaded is None or loaded.get("inter") == "*":
        return
    named = {column for names in loaded.values() for column in names}
    ids = [given.get("USER_ID_FIELD", "user_id"), given.get("ITEM_ID_FIELD", "item_id")]
    inter = list(loaded.get("inter", ids))
    inter += [column for column in columns if column not in named | set(inter)]
    given["load_col"] = {**loaded, "inter": inter}


@contextlib.contextmanager
def _recbole_errors(spec: DataSpec) -> Iterator[None]:
    """Errors of RecBole's and pandas' own code become one that names the data set."""
    try:
        yield
    except AlignRecError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        given = ", ".join(f"{key} = {shown(value)}" for key, value in spec.overrides.items())
        raise DataError(
            f"RecBole cannot read data set {spec.dataset!r} with these settings.",
            found=f"{type(error).__name__}: {error}" + (f"; {given}" if given else ""),
            expected="columns of the types that the headers name, and settings that fit them",
        ) from error
    except (AssertionError, NotImplementedError) as error:
        raise SettingError(
            f"RecBole does not support these settings on data set {spec.dataset!r}.",
            found=str(error),
        ) from error


def make_config(model_class: Any, dataset: str, given: dict[str, Any]) -> Any:
    """A RecBole Config of these values; this process's command line is not read."""
    from recbole.config import Config

    with hide_command_line():
        config = Config(model=model_class, dataset=dataset, config_dict=dict(given))
    config["data_path"] = str(Path(given["data_path"]) / dataset)
    return config


def _no_model() -> Any:
    """A class without parameters: RecBole builds a Config for a model class only."""
    from recbole.model.abstract_recommender import GeneralRecommender
    from recbole.utils import InputType

    return type("NoModel", (GeneralRecommender,), {"input_type": InputType.PAIRWISE})


def _gpu(device: str) -> str:
    """What RecBole writes into CUDA_VISIBLE_DEVICES: what is visible now; nothing for the CPU."""
    if hardware.choose_device(device) == "cpu":
        return ""
    every = ",".join(map(str, range(torch.cuda.device_count())))
    return os.environ.get("CUDA_VISIBLE_DEVICES") or every


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
