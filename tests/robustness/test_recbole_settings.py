"""Each setting of RecBole: change it, and a result or a refusal changes."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from recbole.utils import argument_list
from trials import trial

from alignrec_recbole.errors import AlignRecError, SettingError
from alignrec_recbole.io.yaml_loader import read_yaml
from alignrec_recbole.registry.components import components
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import CLI_ONLY_KEYS, RunSpec
from alignrec_recbole.settings import read_settings
from alignrec_recbole.testing.synthetic import make_blocks
from alignrec_recbole.training.recbole_settings import HONOURED, LEARNING, REFUSED, RecBoleSettings

ROOT = Path(argument_list.__file__).parents[1]
LISTED = [
    *argument_list.general_arguments,
    *argument_list.training_arguments,
    *argument_list.evaluation_arguments,
    *argument_list.dataset_arguments,
]
IN_FILES = [
    *read_yaml(ROOT / "properties" / "overall.yaml"),
    *read_yaml(ROOT / "properties" / "dataset" / "sample.yaml"),
]
USERS, ITEMS = 12, 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`typed` with ratings and times, `commas`, `named`, `split`, and `block` in MMRec's layout."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        (f"u{u}", f"i{(u * 3 + k) % ITEMS}", 1 + (u + k) % 5, 1000 + (u * 7 + k * 13) % 97)
        for u in range(USERS)
        for k in range(3 + u % 6)
    ]
    rows.append(("u0", "i0", 5, 5000))  # again
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    lines = [head, *("\t".join(map(str, row)) for row in rows)]
    unique = [head, *("\t".join(map(str, row)) for row in rows[:-1])]
    write(folder, "typed", unique)
    write(folder, "twice", lines)
    write(folder, "commas", [line.replace("\t", ",") for line in unique])
    renamed = unique[0].replace("user_id", "u").replace("item_id", "i").replace("timestamp", "t")
    write(folder, "named", [renamed, *unique[1:]])
    for part, some in (("a", unique[1::3]), ("b", unique[2::3]), ("c", unique[3::3])):
        write(folder, "split", [head, *some], f"split.{part}.inter")
    (folder / "typed" / "typed.item").write_text(
        "item_id:token\n" + "".join(f"i{n}\n" for n in range(ITEMS - 2))
    )
    make_blocks(users=6, items=6, cold=1).write(folder)
    return folder


def write(folder: Path, name: str, lines: list[str], file: str = "") -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / (file or f"{name}.inter")).write_text("\n".join(lines) + "\n")


def spec(data: Path, output: Path, dataset: str = "typed", model: str = "BPR", **given) -> RunSpec:
    return RunSpec(model, dataset, data_path=data, output=output, overrides=given,
                   epochs=given.pop("_epochs", 2), progress=False)  # fmt: skip


def test_every_name_of_recbole_is_honoured_or_refused() -> None:
    assert not HONOURED.keys() & REFUSED.keys()
    assert HONOURED.keys() | REFUSED.keys() == {*LISTED, *IN_FILES}


def test_the_page_of_settings_has_a_row_for_each() -> None:
    path = Path(__file__).parents[2] / "docs" / "_hooks" / "generated.py"
    spec = importlib.util.spec_from_file_location("generated", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.on_page_markdown((path.parents[1] / "settings.md").read_text("utf-8"))
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", page, re.MULTILINE)
    assert sorted(key for key, _ in rows) == sorted({*LISTED, *IN_FILES})
    assert all(words and words != "None" for _, words in rows)


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_a_refused_setting_is_named_with_the_reason(key: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=re.escape(repr(key))) as caught:
        prepare_run(spec(data, tmp_path, **{key: True}))
    assert caught.value.expected == CLI_ONLY_KEYS.get(key, REFUSED[key]) or key in CLI_ONLY_KEYS
    assert not list(tmp_path.iterdir())


# Settings of the data: what is seen in the splits ------------------------------------------------


def splits(made: RunSpec) -> list[list[tuple[str, str]]]:
    """(user, item) of every row, in order, per split."""
    out = []
    for split in prepare_run(made).splits:
        users = split.id2token(split.uid_field, split.inter_feat[split.uid_field].numpy())
        items = split.id2token(split.iid_field, split.inter_feat[split.iid_field].numpy())
        out.append(list(zip(users.tolist(), items.tolist(), strict=True)))
    return out


OF_DATA = {  # key → data set, settings without it, its value
    "eval_args": ("typed", {}, {"order": "TO", "split": {"RS": [0.6, 0.2, 0.2]}}),
    "TIME_FIELD": ("named", {"USER_ID_FIELD": "u", "ITEM_ID_FIELD": "i",
                             "eval_args": {"order": "TO"}}, "t"),
    "load_col": ("typed", {}, {"inter": ["user_id", "item_id"], "item": ["item_id"]}),
    "rm_dup_inter": ("twice", {}, "first"),
    "val_interval": ("typed", {}, {"rating": "[3,inf)"}),
    "filter_inter_by_user_or_item": (
        "typed", {"load_col": {"inter": ["user_id", "item_id"], "item": ["item_id"]}}, False),
    "user_inter_num_interval": ("typed", {}, "[5,inf)"),
    "item_inter_num_interval": ("typed", {}, "(6,inf)"),
    "benchmark_filename": ("split", {}, ["a", "b", "c"]),
    "field_separator": ("commas", {}, ","),
    "USER_ID_FIELD": ("named", {"ITEM_ID_FIELD": "i"}, "u"),
    "ITEM_ID_FIELD": ("named", {"USER_ID_FIELD": "u"}, "i"),
}  # fmt: skip


@pytest.mark.parametrize("key", OF_DATA)
def test_a_setting_of_the_data_changes_what_is_read(key: str, data: Path, tmp_path: Path) -> None:
    dataset, others, value = OF_DATA[key]
    found: list[object] = []
    for given in (others, {**others, key: value}):
        try:
            found.append(splits(spec(data, tmp_path, dataset, **given)))
        except AlignRecError as error:
            found.append(str(error))
    assert found[0] != found[1]
    assert isinstance(found[1], list), found[1]


def test_columns_are_unloaded(data: Path, tmp_path: Path) -> None:
    given = {"load_col": None, "unload_col": {"inter": ["rating"]}}
    columns = prepare_run(spec(data, tmp_path, **given)).splits[0].inter_feat.columns
    assert set(columns) == {"user_id", "item_id", "timestamp"}


# Settings of training and ranking: what is seen in the record ------------------------------------

BASE = {"topk": [2, 20], "valid_metric": "Recall@2", "metrics": ["Recall", "NDCG"]}
OF_TRAINING = {
    "epochs": 3,
    "train_batch_size": 7,
    "learner": "sgd",
    "learning_rate": 0.05,
    "train_neg_sample_args": {"distribution": "popularity"},
    "eval_step": 2,
    "stopping_step": 0,
    "clip_grad_norm": {"max_norm": 1e-3},
    "weight_decay": 0.5,
    "metrics": ["Recall", "NDCG", "Hit"],
    "topk": [2, 3, 20],
    "valid_metric": "NDCG@2",
    "metric_decimal_place": 0,
}


def result(made: RunSpec) -> tuple:
    record = run_one(made)
    history = [(entry["loss"], entry.get("valid")) for entry in record.history]
    return history, record.metrics, record.selection["best_score"]


@pytest.mark.parametrize("key", OF_TRAINING)
def test_a_setting_of_training_changes_the_result(key: str, data: Path, tmp_path: Path) -> None:
    # without any step of learning, every evaluation but the first is no improvement
    base = {**BASE, "_epochs": None, "epochs": 2, "learning_rate": 0.01}
    if key == "stopping_step":
        base.update(learning_rate=0.0, epochs=6)
    before = result(spec(data, tmp_path, **base))
    after = result(spec(data, tmp_path, **{**base, key: OF_TRAINING[key]}))
    assert before != after


def test_every_honoured_setting_has_its_test() -> None:
    assert {*OF_DATA, *OF_TRAINING, "unload_col"} == HONOURED.keys()


@pytest.mark.parametrize("key", sorted(LEARNING - {"precision", "lr_decay"}))
def test_what_learns_nothing_refuses_settings_of_training(
    key: str, data: Path, tmp_path: Path
) -> None:
    value = {**OF_TRAINING, "captured_steps": True}[key]
    with pytest.raises(SettingError, match=f"'{key}' has no effect on Pop"):
        prepare_run(spec(data, tmp_path, model="Pop", **{key: value}, _epochs=None))


@pytest.mark.parametrize("part", ["split", "order", "group_by"])
def test_settings_of_a_ratio_split_are_refused_on_released_splits(
    part: str, data: Path, tmp_path: Path
) -> None:
    value = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "none"}[part]
    with pytest.raises(AlignRecError, match=rf"eval_args\.{part}|timestamp"):
        prepare_run(spec(data, tmp_path, "block_world", eval_args={part: value}))


def test_a_model_that_reads_a_setting_keeps_it() -> None:
    components("DMF").check_unused({"RATING_FIELD": "stars"})
    with pytest.raises(SettingError, match="RATING_FIELD"):
        components("BPR").check_unused({"RATING_FIELD": "stars"})


@pytest.mark.parametrize("value", ["5", 5.0, True])
@pytest.mark.parametrize("key", ["epochs", "embedding_size", "train_batch_size"])
def test_no_value_becomes_a_whole_number(
    key: str, value: object, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=f"{key} = {value!r}"):
        run_one(spec(data, tmp_path, **{**BASE, "_epochs": None, key: value}))


IMPOSSIBLE = [
    ("train_neg_sample_args", {"alpha": 0.5}),  # of popularity alone
    ("train_neg_sample_args", {"distribution": "uniform", "alpha": 2.0}),
    ("train_neg_sample_args", {"sample_num": 0}),
    ("train_neg_sample_args", {"sample_num": 10_001}),
    ("train_neg_sample_args", {"dynamic": True}),
    ("eval_args", {"split": {"RS": [0.8, 0.1, 0.1], "LS": "valid_and_test"}}),
    ("eval_args", {"split": {}}),
    ("eval_args", {"split": {"RS": None}}),
    ("eval_args", {"split": {"RS": [0.8, 0.2]}}),
    ("eval_args", {"split": {"RS": [0.8, 0.2, 0]}}),
    ("eval_args", {"split": {"RS": [0.8, 0.1, 0.05, 0.05]}}),
    ("eval_args", {"split": {"LS": "valid_and_test"}, "group_by": "none"}),
    ("eval_args", {"split": {"TS": [0.8, 0.1, 0.1]}, "group_by": None}),
    ("eval_args", {"mode": "uni100"}),
    ("eval_args", {"mode": {"valid": "full", "test": "uni100"}}),
    ("eval_args", {"mode": {"train": "full"}}),
    ("eval_args", {"mode": {}}),
    ("user_inter_num_interval", "[9,5]"),
    ("user_inter_num_interval", "[5,inf);(9,1)"),
    ("user_inter_num_interval", "[nan,5]"),
    ("item_inter_num_interval", "5"),
    ("item_inter_num_interval", [1, 2, 3]),
    ("val_interval", {"rating": "[9,5]"}),
    ("val_interval", {"a:b": "[1,5]"}),
    ("clip_grad_norm", {"max_norm": 0.0}),
    ("clip_grad_norm", {"norm_type": 2.0}),
    ("weight_decay", -0.1),
    ("load_col", {"inter": []}),
    ("load_col", {"net": ["a"]}),
    ("rm_dup_inter", "newest"),
    ("benchmark_filename", ["a", "b"]),
    ("benchmark_filename", ["a", "b", "b"]),
    ("benchmark_filename", ["a", "b", "../c"]),
    ("field_separator", '"'),
    ("field_separator", "a"),
    ("field_separator", "\n"),
    ("field_separator", ""),
    ("field_separator", ", "),
    ("USER_ID_FIELD", "item_id"),
    ("USER_ID_FIELD", " "),
]
POSSIBLE = [
    ("train_neg_sample_args", {"distribution": "popularity", "alpha": 0.5}),
    ("train_neg_sample_args", {"sample_num": 10_000}),
    ("eval_args", {"split": {"TS": [0.8, 0.1, 0.1]}}),
    ("eval_args", {"split": {"RS": [8.0, 1.0, 1.0]}, "group_by": None}),
    ("eval_args", {"mode": {"valid": "full", "test": "full"}}),
    ("user_inter_num_interval", "[5,5]"),
    ("user_inter_num_interval", "[1,3);(9,inf)"),
    ("user_inter_num_interval", [1, 5]),
    ("field_separator", "\t"),
    ("field_separator", "|"),
    ("load_col", {"inter": "*"}),
    ("USER_ID_FIELD", "user"),
]


def name_of(case: tuple[str, object]) -> str:
    return f"{case[0]}={case[1]!r}"


@pytest.mark.parametrize("case", IMPOSSIBLE, ids=name_of)
def test_impossible_values_and_combinations_are_refused(case: tuple[str, object]) -> None:
    with trial("settings", name_of(case)), pytest.raises(SettingError, match="Invalid setting"):
        read_settings(dict([case]), RecBoleSettings, "RecBole")


@pytest.mark.parametrize("case", POSSIBLE, ids=name_of)
def test_possible_values_are_read(case: tuple[str, object]) -> None:
    with trial("settings", name_of(case)):
        read_settings(dict([case]), RecBoleSettings, "RecBole")
