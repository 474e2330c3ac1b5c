"""Settings that the trainer, the ranking and the reading of data use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from alignrec_recbole.evaluation.metrics import METRICS
from alignrec_recbole.runtime.threads import MAX_THREADS
from alignrec_recbole.settings import Settings

Length = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]


class RankingSettings(Settings):
    """Which metrics are computed and which items are excluded from the lists."""

    topk: Length | Annotated[list[Length], Field(min_length=1)] = Field(
        description="list lengths K, each at least 1"
    )
    metrics: list[str] = Field(min_length=1, description=", ".join(METRICS))
    valid_metric: str = Field(description="METRIC@K of metrics and topk")
    setting: Literal["mmrec", "recbole"] = Field(description="mmrec or recbole")

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: list[str]) -> list[str]:
        unknown = [name for name in metrics if name not in METRICS]
        if unknown:
            raise ValueError(f"there is no metric {unknown[0]!r}")
        return metrics

    @field_validator("valid_metric")
    @classmethod
    def _computed(cls, name: str, info: ValidationInfo) -> str:
        cutoffs = info.data.get("topk", [])
        cutoffs = [cutoffs] if isinstance(cutoffs, int) else cutoffs
        computed = [f"{metric}@{k}" for metric in info.data.get("metrics", []) for k in cutoffs]
        if computed and name not in computed:
            raise ValueError(f"not computed; there are {', '.join(computed)}")
        return name


class DataSettings(RankingSettings):
    """What is read of a data set, how it is split and how it is ranked; no model is involved."""

    split_seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        description="seed of a ratio split, 0 to 2**63 - 1, or null"
    )
    zero_rows_missing: bool = Field(description="true or false")
    features: list[str]
    features_path: str | None
    features_cache: str | None


class TrainingSettings(RankingSettings):
    """What the trainer and the ranking use; defaults are in properties/overall.yaml."""

    seed: int = Field(ge=0, lt=2**32, description="whole number from 0 to 2**32 - 1")
    epochs: int = Field(ge=0, description="0 or more")
    train_batch_size: int = Field(gt=0, description="at least 1")
    learning_rate: float = Field(ge=0, description="0 or more")
    learner: Literal["adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam"] = Field(
        description="adam, adamw, sgd, adagrad, rmsprop or sparse_adam"
    )
    lr_decay: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = Field(
        description="[factor, epochs], the factor at most 1"
    )
    stopping_step: int = Field(ge=0, description="0 or more")
    eval_step: int = Field(gt=0, description="at least 1")
    valid_users: Length | None = Field(description="at least 1, or null")
    metric_decimal_place: int = Field(ge=0, le=100, description="0 to 100")
    precision: Literal["float32", "bfloat16"] = Field(description="float32 or bfloat16")
    captured_steps: bool = Field(description="true or false")
    threads: Annotated[int, Field(gt=0, le=MAX_THREADS)] | None = Field(
        description=f"1 to {MAX_THREADS}, or null"
    )

    @field_validator("lr_decay")
    @classmethod
    def _falling(cls, decay: list[float] | None) -> list[float] | None:
        if decay and decay[0] > 1:
            raise ValueError(f"the factor {decay[0]!r} would raise the learning rate without bound")
        return decay
