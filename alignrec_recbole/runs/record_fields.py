"""The types of a record's fields: closed, of bounded size, without NaN and infinity.

Records also come from other machines and people, so all that tables, plots and pages read in them
is checked here. The keys are those of stored records and therefore fixed.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from alignrec_recbole.errors import printable
from alignrec_recbole.io.names import is_safe_name
from alignrec_recbole.settings import MAX_TRIALS

MAX_LABEL = 1000  # characters of what tables and plots show as a name
MAX_TEXT = 1 << 20  # characters of a note, a command or a traceback
MAX_DEPTH = 32  # of nested values in a configuration
SMALLEST, LARGEST = 1e-100, 1e100  # magnitudes of figures: their squares and ratios are finite


def first_problem(error: ValidationError) -> str:
    """The place and the kind of the first problem, without the value, which may be huge."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))[:200]
    return f"{place}: {first['msg']}" if place else first["msg"]


# Values ------------------------------------------------------------------------------------------


def _number(value: float) -> float:
    if value and not SMALLEST <= abs(value) <= LARGEST:  # NaN included
        raise ValueError(f"not 0 or a number of magnitude {SMALLEST:g} to {LARGEST:g}")
    return value


def _label(text: str) -> str:
    if len(text) > MAX_LABEL or "\n" in text or printable(text, MAX_LABEL) != text:
        raise ValueError(f"not one line of at most {MAX_LABEL} printable characters")
    return text


def _name(text: str) -> str:
    if not is_safe_name(text):
        raise ValueError("not a name that can be part of a path")
    return text


def _values(value: Any) -> Any:
    """A configuration: text, finite numbers and nested lists and mappings of them."""
    todo = [(value, 0)]
    while todo:
        part, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        if isinstance(part, dict):
            todo += [(inner, depth + 1) for inner in part.values()]
        elif isinstance(part, (list, tuple)):
            todo += [(inner, depth + 1) for inner in part]
        elif isinstance(part, int) and abs(part) >= 2**63:
            raise ValueError("a whole number of more than 64 bits")
        elif isinstance(part, float) and not math.isfinite(part):
            raise ValueError("a number that is not finite")
    return value


Number = Annotated[float, AfterValidator(_number)]
Duration = Annotated[float, Field(ge=0), AfterValidator(_number)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Label = Annotated[str, AfterValidator(_label)]
Name = Annotated[str, AfterValidator(_name)]
ProtocolName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Metrics = Annotated[dict[Label, Number], Field(max_length=10_000)]
Groups = Annotated[dict[Label, Metrics], Field(max_length=5_000)]
Values = Annotated[dict[str, Any], AfterValidator(_values)]


# Mappings with fixed keys ------------------------------------------------------------------------


class Closed(BaseModel):
    """A mapping of the keys below and no others."""

    model_config = ConfigDict(extra="forbid")


class Seconds(Closed):
    """Durations by step."""

    train_epoch: Duration  # median over the epochs; 0 if nothing is trained
    total: Duration
    prepare: Duration = 0
    build: Duration = 0
    evaluate: Duration = 0


class Selection(Closed):
    """How the ranked weights were selected."""

    metric: Label | None
    split: Label | None = None
    best_epoch: Count | None = None
    best_score: Number | None = None
    stopped: Label | None = None
    users: Count | None = None  # validated, where they are a sample (valid_users)
    users_with_targets: Count | None = None


class Epoch(Closed):
    """One epoch of a history; `valid` where it was evaluated."""

    epoch: Annotated[int, Field(ge=0, le=10**9)]
    seconds: Duration
    loss: Number
    losses: Metrics | list[Number] = []  # by name; a list in older records
    valid: Number | None = None
    evaluate_seconds: Duration = 0


class Data(Closed):
    """Counts, the split, and the SHA-256 of the files."""

    users: Count = 0
    items: Count = 0
    interactions: list[Count] = []
    split: Values
    files: dict[Label, Label]


class FeatureSettings(BaseModel):
    """An encoder's settings; only what is used here is checked."""

    published: Label | None = None  # the group of published features


class FeatureFile(BaseModel):
    """A manifest's summary; only what is used here is checked."""

    sha256: Label
    items_sha256: Label | None = None
    modality: Label | None = None
    settings: FeatureSettings = FeatureSettings()


class Point(Closed):
    """A point of a robustness curve."""

    modality: Literal["text", "image", "audio"]
    ratio: Share
    mask_seed: Seed
    metrics: Metrics


class Mask(Closed):
    """The mask of a model's run in protocol mask-modality."""

    modality: Literal["text", "image", "audio"]
    ratio: Share
    seed: Seed
    fill: Label


class Trial(Closed):
    """A trial of a search, with the best score until then."""

    trial: Count
    state: Literal["complete", "pruned", "failed"]
    score: Number | None  # validation; of a pruned trial its best until then
    best: Number | None  # of the complete trials up to this one
    epochs: Count
    seconds: Duration
    parameters: Values


class Budget(Closed):
    """What a choice of hyper-parameters cost, and how it was made."""

    study: Label
    sampler: Label
    pruner: Label = "none"
    space_sha256: Sha256
    chosen_on: Label  # metric, split and seed
    limit: dict[Literal["trials", "seconds"], Duration]
    trials: Count
    pruned: Count = 0
    failed: Count = 0
    epochs: Count
    seconds: Duration  # of training and validation
    patience: Count | None = None  # evaluations without improvement that end a trial
    chosen: Count  # trial
    curve: Annotated[list[Trial], Field(min_length=1, max_length=MAX_TRIALS)]

    @model_validator(mode="after")
    def _counts_are_of_the_curve(self) -> Budget:
        states = [trial.state for trial in self.curve]
        counts = len(states), states.count("pruned"), states.count("failed")
        if (self.trials, self.pruned, self.failed) != counts:
            raise ValueError("trials, pruned and failed are not those of curve")
        if self.epochs != sum(trial.epochs for trial in self.curve):
            raise ValueError("epochs are not those of curve")
        if self.chosen not in {trial.trial for trial in self.curve}:
            raise ValueError("chosen is no trial of curve")
        return self


class ItemSearch(Closed):
    """An approximate search of an item graph, and its recall on a sample of rows."""

    method: Label
    rows: Count
    k: Count
    recall: Share
    sample: Count


class Energy(Closed):
    """Energy since the start of the last session of a run, and what it was measured with."""

    joules: Annotated[Duration, Field(gt=0)]
    seconds: Duration
    source: Label


class PerUser(Closed):
    """The file with the values per user."""

    file: Label
    sha256: Sha256


class Weights(Closed):
    """The file with the trained model."""

    file: Label
    sha256: Sha256
    bytes: Count


class Code(Closed):
    """The version of this package."""

    version: Label = ""
    commit: Label | None = None
    dirty: bool | None = None


class Machine(Closed):
    """Where a run was made."""

    cpu: Label = ""
    instructions: Label = ""
    cores: Count = 0
    threads: Count = 0
    threads_by: Label = ""  # what decided the number of threads
    processes: Count = 1  # that made the run together
    device: Label = ""
    system: Label = ""
    python: Label = ""
    versions: dict[Label, Label | None] = {}


def _of(shape: Any) -> AfterValidator:
    """Check a value against a type without changing it; a file's types are to match exactly."""
    adapter: TypeAdapter[Any] = TypeAdapter(shape)

    def check(value: Any, info: ValidationInfo) -> Any:
        try:
            adapter.validate_python(value, strict=info.mode == "json")
        except ValidationError as error:
            raise ValueError(first_problem(error)) from error
        return value

    return AfterValidator(check)


SecondsDict = Annotated[dict[str, float], _of(Seconds)]
SelectionDict = Annotated[dict[str, Any], _of(Selection)]
DataDict = Annotated[dict[str, Any], _of(Data)]
FeatureFiles = Annotated[dict[Label, Values], Field(max_length=1_000), _of(dict[str, FeatureFile])]
History = Annotated[list[dict[str, Any]], _of(list[Epoch])]
Curve = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=20_000), _of(list[Point])]
BudgetDict = Annotated[dict[str, Any], _of(Budget)]
ItemSearches = Annotated[
    list[dict[str, Any]], Field(min_length=1, max_length=100), _of(list[ItemSearch])
]
EnergyDict = Annotated[dict[str, float | str], _of(Energy)]
PerUserDict = Annotated[dict[str, str], _of(PerUser)]
WeightsDict = Annotated[dict[str, Any], _of(Weights)]
CodeDict = Annotated[dict[str, Any], _of(Code)]
MachineDict = Annotated[dict[str, Any], _of(Machine)]
