"""RecBole's settings: what reads each of them here, of which type it is, or why it is refused.

Every name in RecBole's lists of arguments is in exactly one of HONOURED and REFUSED; a name that a
model declares among its own settings is that model's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from alignrec_recbole.errors import SettingError
from alignrec_recbole.io.names import is_safe_name
from alignrec_recbole.settings import Settings, read_settings, shown

TRAINER = "training/trainer.py"
RANKING = "evaluation/ranking.py"
READER = "dataset.py, with RecBole's Dataset"

HONOURED: dict[str, str] = {  # name → what reads it
    "epochs": TRAINER,
    "train_batch_size": "training/batches.py",
    "learner": TRAINER,
    "learning_rate": TRAINER,
    "train_neg_sample_args": "training/batches.py: uniform; RecBole's loader: popularity",
    "eval_step": TRAINER,
    "stopping_step": "training/early_stopping.py",
    "clip_grad_norm": TRAINER,
    "weight_decay": TRAINER,
    "eval_args": "RecBole's data set: split, order, group_by; mode is always full",
    "metrics": RANKING,
    "topk": RANKING,
    "valid_metric": "training/early_stopping.py",
    "metric_decimal_place": f"{TRAINER}: the scores of early stopping",
    "field_separator": READER,
    "USER_ID_FIELD": READER,
    "ITEM_ID_FIELD": READER,
    "TIME_FIELD": READER,
    "load_col": READER,
    "unload_col": READER,
    "rm_dup_inter": READER,
    "val_interval": READER,
    "filter_inter_by_user_or_item": READER,
    "user_inter_num_interval": READER,
    "item_inter_num_interval": READER,
    "benchmark_filename": READER,
}

_STOCK = "only RecBole's own `run_recbole` reads it"
_SEQUENTIAL = "no sequential model runs here"
_KNOWLEDGE = "no knowledge-based model runs here"
_COLUMNS = "no model here reads further columns; a plug-in that does declares the setting its own"
_NAME = "it names a generated column, which changes no result"
_PRECISION = "use the setting precision"

REFUSED: dict[str, str] = {  # name → why it would have no effect, and what to use instead
    "gpu_id": "use --device",
    "use_gpu": "use --device cpu",
    "seed": "use --seeds",
    "reproducibility": "runs are always reproducible",
    "state": "use --no-progress for a quieter run",
    "data_path": "use --data-path",
    "checkpoint_dir": "use --output",
    "show_progress": "use --no-progress",
    "config_file": "use --set, or a suite's YAML file",
    "save_dataset": _STOCK,
    "dataset_save_path": _STOCK,
    "save_dataloaders": _STOCK,
    "dataloaders_save_path": _STOCK,
    "log_wandb": f"{_STOCK}; a record has the whole history",
    "wandb_project": _STOCK,
    "loss_decimal_place": "losses are recorded in full precision",
    "repeatable": "lists never contain training items",
    "valid_metric_bigger": "RecBole derives it from valid_metric",
    "eval_batch_size": "the ranking chooses its own blocks",
    "seq_separator": _COLUMNS,
    "RATING_FIELD": "no model here weighs interactions by a rating; val_interval filters by one",
    "seq_len": _COLUMNS,
    "LABEL_FIELD": _NAME,
    "threshold": "every interaction counts as positive; val_interval filters by a column, for "
    "example --set 'val_interval={rating: \"[3,inf)\"}'",
    "NEG_PREFIX": _NAME,
    "ITEM_LIST_LENGTH_FIELD": _SEQUENTIAL,
    "LIST_SUFFIX": _SEQUENTIAL,
    "MAX_ITEM_LIST_LENGTH": _SEQUENTIAL,
    "POSITION_FIELD": _SEQUENTIAL,
    "HEAD_ENTITY_ID_FIELD": _KNOWLEDGE,
    "TAIL_ENTITY_ID_FIELD": _KNOWLEDGE,
    "RELATION_ID_FIELD": _KNOWLEDGE,
    "ENTITY_ID_FIELD": _KNOWLEDGE,
    "unused_col": _COLUMNS,
    "additional_feat_suffix": _COLUMNS,
    "alias_of_user_id": _COLUMNS,
    "alias_of_item_id": _COLUMNS,
    "alias_of_entity_id": _KNOWLEDGE,
    "alias_of_relation_id": _KNOWLEDGE,
    "preload_weight": _COLUMNS,
    "normalize_field": _COLUMNS,
    "normalize_all": _COLUMNS,
    # In RecBole's YAML files but in none of its lists:
    "worker": "batches are drawn in the training process",
    "shuffle": "training pairs are always shuffled",
    "require_pow": "it is a setting of some of RecBole's models only",
    "enable_amp": _PRECISION,
    "enable_scaler": _PRECISION,
    "transform": _SEQUENTIAL,
    "numerical_features": _COLUMNS,
    "discretization": _COLUMNS,
    "kg_reverse_r": _KNOWLEDGE,
    "entity_kg_num_interval": _KNOWLEDGE,
    "relation_kg_num_interval": _KNOWLEDGE,
}
LEARNING = frozenset(  # of RecBole and of ours: nothing reads them where a model learns no weights
    {
        "epochs",
        "train_batch_size",
        "learner",
        "learning_rate",
        "lr_decay",
        "train_neg_sample_args",
        "eval_step",
        "stopping_step",
        "clip_grad_norm",
        "weight_decay",
        "precision",
        "captured_steps",
    }
)
UNREAD = {  # of REFUSED: no effect in stock `run_recbole` either, but for RecBole's default
    "threshold": None,
    "repeatable": False,
    "shuffle": True,
    "enable_amp": False,
    "enable_scaler": False,
    "log_wandb": False,
}
READ_BY_MODELS = {"RATING_FIELD": ("DMF",)}  # of RecBole: settings that single models read


def check_refused(given: Mapping[str, Any], own: Iterable[str] = ()) -> None:
    """Refuse RecBole's settings that have no effect here.

    Args:
        given: settings by name.
        own: names that the model reads itself.

    Raises:
        SettingError: for the first one, with the reason.
    """
    for key, value in given.items():
        if key in REFUSED and key not in own:
            raise SettingError(
                f"The setting {key!r} of RecBole has no effect here.",
                found=f"{key} = {shown(value)}",
                expected=REFUSED[key],
            )


# Types ------------------------------------------------------------------------------------------

_INTERVAL = re.compile(r"\s*([\[(])([^,\[\]()]+),([^,\[\]()]+)([\])])\s*")


def _interval(value: Any) -> Any:
    """The text of an interval; a YAML list of two numbers is a closed one."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        value = f"[{value[0]},{value[1]}]"
    if not isinstance(value, str):
        raise ValueError("not an interval")
    for part in value.split(";"):
        found = _INTERVAL.fullmatch(part)
        try:
            left, right = (float(found[2]), float(found[3])) if found else (1.0, 0.0)
        except ValueError:
            raise ValueError("the ends of an interval are numbers or inf") from None
        if found is None or not left <= right:
            raise ValueError("not an interval")
    return value


def _column(name: str) -> str:
    if not name.strip() or any(character in name for character in ":\t\r\n"):
        raise ValueError("not the name of a column")
    return name


Column = Annotated[str, Field(max_length=200), AfterValidator(_column)]
Interval = Annotated[str, BeforeValidator(_interval)]
Ratio = Annotated[float, Field(gt=0, le=1e9)]
Ratios = Annotated[list[Ratio], Field(min_length=3, max_length=3)]


def _part(name: str) -> str:
    if not is_safe_name(name):
        raise ValueError("not the part of a file name")
    return name


Part = Annotated[str, AfterValidator(_part)]


class SplitSettings(Settings):
    """eval_args.split: exactly one of them."""

    RS: Ratios | None = None
    TS: Ratios | None = None
    LS: Literal["valid_and_test"] | None = None


class EvalArguments(Settings):
    """eval_args."""

    split: SplitSettings = SplitSettings(RS=[0.8, 0.1, 0.1])
    order: Literal["RO", "TO"] = "RO"
    group_by: Literal["user", "none"] | None = "user"
    mode: Any = "full"

    @field_validator("mode")
    @classmethod
    def _full(cls, mode: Any) -> Any:
        modes = list(mode.values()) if isinstance(mode, dict) else [mode]
        if not modes or any(each != "full" for each in modes):
            raise ValueError("only the full ranking is computed")
        if isinstance(mode, dict) and not mode.keys() <= {"valid", "test"}:
            raise ValueError("full, or valid and test with full")
        return mode

    @field_validator("split")
    @classmethod
    def _one(cls, split: SplitSettings) -> SplitSettings:
        if len(split.model_fields_set) != 1 or not any(split.model_dump().values()):
            raise ValueError("exactly one of RS, LS and TS")
        return split

    @field_validator("group_by")
    @classmethod
    def _grouped(cls, group_by: str | None, info: ValidationInfo) -> str | None:
        split = info.data.get("split")
        if split is not None and split.RS is None and group_by != "user":
            raise ValueError("LS and TS split each user's interactions: group_by is user")
        return group_by


class NegativeSampling(Settings):
    """train_neg_sample_args."""

    distribution: Literal["uniform", "popularity"] = "uniform"
    sample_num: int = Field(default=1, ge=1, le=10_000)
    alpha: float = Field(default=1.0, ge=0, le=100)
    dynamic: Literal[False] = False
    candidate_num: Literal[0] = 0

    @field_validator("alpha")
    @classmethod
    def _of_popularity(cls, alpha: float, info: ValidationInfo) -> float:
        if alpha != 1.0 and info.data.get("distribution") != "popularity":
            raise ValueError("alpha is the exponent of distribution: popularity")
        return alpha


class ClipSettings(Settings):
    """clip_grad_norm."""

    max_norm: float = Field(gt=0, le=1e30)
    norm_type: float = Field(gt=0, le=1e3, default=2.0)


Source = Literal["inter", "user", "item"]
Columns = dict[Source, Annotated[list[Column], Field(min_length=1)] | Literal["*"]]


class RecBoleSettings(Settings):
    """RecBole's settings beside those of TrainingSettings and RankingSettings."""

    train_neg_sample_args: NegativeSampling = Field(
        NegativeSampling(),
        description="{distribution: uniform or popularity, sample_num: 1 to 10,000, alpha: of "
        "popularity}",
    )
    clip_grad_norm: ClipSettings | None = Field(
        None, description="{max_norm: above 0, norm_type: above 0}, or null"
    )
    weight_decay: float = Field(0.0, ge=0, le=1e30, description="0 or more")
    eval_args: EvalArguments = Field(
        EvalArguments(),
        description="{split: {RS: [0.8, 0.1, 0.1]} or {LS: valid_and_test} or {TS: [0.8, 0.1, "
        "0.1]}, order: RO or TO, group_by: user or none}",
    )
    field_separator: str = Field(
        "\t",
        min_length=1,
        max_length=1,
        pattern=r"^[^\s\w.\"]|[ \t]$",
        description='one character that is no letter, digit or quotation mark; a tab is "\\t" '
        "in double quotes",
    )
    USER_ID_FIELD: Column = Field("user_id", description="name of a column")
    ITEM_ID_FIELD: Column = Field("item_id", validate_default=True, description="name of a column")
    TIME_FIELD: Column = Field("timestamp", description="name of a column")
    RATING_FIELD: Column = Field("rating", description="name of a column")
    load_col: Columns | None = Field(
        None, description="{inter: [names of columns], item: …, user: …}, or null for all columns"
    )
    unload_col: Columns | None = Field(
        None, description="{inter: [names of columns], item: …, user: …} beside load_col=null"
    )
    rm_dup_inter: Literal["first", "last"] | None = Field(None, description="first, last or null")
    val_interval: dict[Column, Interval | list[str]] | None = Field(
        None,
        description='{column of numbers: "[low,high)", column of tokens: [tokens]}, or null',
    )
    filter_inter_by_user_or_item: bool = Field(True, description="true or false")
    user_inter_num_interval: Interval | None = Field(
        None, description='an interval such as "[5,inf)", several joined by ";", or null'
    )
    item_inter_num_interval: Interval | None = Field(
        None, description='an interval such as "[5,inf)", several joined by ";", or null'
    )
    benchmark_filename: Annotated[list[Part], Field(min_length=3, max_length=3)] | None = Field(
        None, description="three parts of file names: [train, valid, test], or null"
    )

    @field_validator("ITEM_ID_FIELD")
    @classmethod
    def _differ(cls, name: str, info: ValidationInfo) -> str:
        if name == info.data.get("USER_ID_FIELD"):
            raise ValueError("the same column as USER_ID_FIELD")
        return name

    @field_validator("unload_col")
    @classmethod
    def _alone(cls, columns: Columns | None, info: ValidationInfo) -> Columns | None:
        loaded = info.data.get("load_col") or {}
        if columns and any(loaded.get(source, "*") != "*" for source in columns):
            raise ValueError("load_col names the columns of that file; set load_col=null as well")
        return columns

    @field_validator("benchmark_filename")
    @classmethod
    def _three(cls, parts: list[str] | None) -> list[str] | None:
        if parts is not None and len(set(parts)) != len(parts):
            raise ValueError("the same part twice")
        return parts


def check_stock(given: Mapping[str, Any], own: Iterable[str] = ()) -> None:
    """Check what a configuration of stock `run_recbole` gives for a model of this package.

    Args:
        given: settings by name.
        own: names that the model reads itself.

    Raises:
        SettingError: a setting has no effect, or a value that RecBole or the trainer cannot use.
    """
    owned = set(own)
    check_refused(
        {key: given[key] for key in UNREAD if given.get(key, UNREAD[key]) != UNREAD[key]}, owned
    )
    shared = {key: value for key, value in given.items() if key not in owned and value is not None}
    read_settings(shared, RecBoleSettings, "RecBole", "docs/settings.md")
