"""Names, settings and options that cannot be."""

from __future__ import annotations

import pytest
from bad_input import (
    Bad,
    Place,
    check_refused,
    manifest,
    set_to,
    whole,
)

CASES = [
    Bad(
        "unknown model",
        whole,
        "UnknownNameError",
        ("'AlignRecc'", "Did you mean 'AlignRec'?", "LightGCN"),
        model="AlignRecc",
    ),
    Bad(
        "model in the wrong case",
        whole,
        "UnknownNameError",
        ("'lightgcn'", "Did you mean 'LightGCN'?"),
        model="lightgcn",
    ),
    Bad(
        "unknown data set",
        whole,
        "UnknownNameError",
        ("'blok_world'", "Did you mean 'block_world'?", "--data-path"),
        ("--dataset", "blok_world"),
    ),
    Bad(
        "data set outside its folder",
        whole,
        "DataError",
        ("'../data/block_world' leads out of its folder",),
        ("--dataset", "../data/block_world"),
    ),
    Bad("absolute data set", whole, "DataError", ("'/etc' leads out",), ("--dataset", "/etc")),
    Bad(
        "unknown key",
        whole,
        "SettingError",
        ("'learning_rat'", "Did you mean 'learning_rate'?"),
        set_to("learning_rat=0.1"),
    ),
    *[
        Bad(
            f"{value} as {key}",
            whole,
            "SettingError",
            (f"setting {key!r}", "not finite"),
            set_to(f"{key}={text}"),
        )
        for key, text, value in (
            ("learning_rate", ".inf", "infinity"),
            ("learning_rate", "-1e999", "minus infinity"),
            ("weight_decay", ".nan", "NaN"),
            ("topk", "[20, .inf]", "infinity in a list"),
        )
    ],
    Bad(
        "value of the wrong kind",
        whole,
        "SettingError",
        ("embedding_size = 'big'", "AlignRec.yaml"),
        set_to("embedding_size=big"),
    ),
    Bad(
        "value out of range",
        whole,
        "SettingError",
        ("embedding_size = -1", "greater than 0"),
        set_to("embedding_size=-1"),
    ),
    Bad(
        "word for a learning rate",
        whole,
        "SettingError",
        ("learning_rate = 'fast'", "overall.yaml"),
        set_to("learning_rate=fast"),
    ),
    Bad(
        "learning rate that explodes",
        whole,
        "DivergedError",
        ("NaN", "lower learning_rate"),
        ("--set", "learning_rate=1e38", "--epochs", "9"),
    ),
    Bad("no batch", whole, "SettingError", ("train_batch_size = 0",), set_to("train_batch_size=0")),
    Bad("list length 0", whole, "SettingError", ("topk", "0"), set_to("topk=[0]")),
    Bad("lists without 20", whole, "SettingError", ("topk", "20"), set_to("topk=[5, 10]")),
    Bad("no Recall", whole, "SettingError", ("Recall@20",), set_to("metrics=[NDCG]")),
    Bad(
        "sampled ranking",
        whole,
        "SettingError",
        ("full ranking", "uni100"),
        set_to("eval_args.mode=uni100"),
    ),
    Bad(
        "a filter on released splits",
        whole,
        "SettingError",
        ("user_inter_num_interval", "without splits"),
        set_to('user_inter_num_interval="[2,inf)"'),
    ),
    Bad("unknown metric", whole, "SettingError", ("'Recal'", "NDCG"), set_to("metrics=[Recal]")),
    Bad(
        "selection by what is not computed",
        whole,
        "SettingError",
        ("Recall@7", "Recall@20"),
        set_to("valid_metric=Recall@7"),
    ),
    Bad("half a decay", whole, "SettingError", ("lr_decay",), set_to("lr_decay=[0.5]")),
    Bad(
        "a decay that grows",
        whole,
        "SettingError",
        ("lr_decay", "without bound"),
        set_to("lr_decay=[1e300,1]"),
    ),
    Bad("unknown learner", whole, "SettingError", ("'adm'", "adam"), set_to("learner=adm")),
    Bad(
        "code as a value",
        whole,
        "SettingError",
        ("learner",),
        set_to("learner=__import__('os').system('touch {root}/pwned')"),
    ),
    Bad("unknown setting", whole, "SettingError", ("'mrec'", "mmrec"), set_to("setting=mrec")),
    Bad("a key with an option", whole, "SettingError", ("'seed'", "--seeds"), set_to("seed=1")),
    Bad("seed too large", whole, "SettingError", ("seed = 4294967296",), ("--seeds", "4294967296")),
    Bad("negative epochs", whole, "SettingError", ("epochs = -1",), ("--epochs", "-1")),
    Bad("unknown device", whole, "SettingError", ("tpu", "cpu"), ("--device", "tpu")),
    Bad("odd device", whole, "SettingError", ("cudaXYZ", "cpu"), ("--device", "cudaXYZ")),
    Bad("a device without its colon", whole, "SettingError", ("cuda1",), ("--device", "cuda1")),
    Bad("absent device", whole, "SettingError", ("cuda:99", "cpu"), ("--device", "cuda:99")),
    Bad(
        "a grid without evaluation",
        whole,
        "SettingError",
        ("validation score", "--epochs"),
        ("--epochs", "0", "--grid", "learning_rate=0.1,0.2"),
    ),
    Bad(
        "a model with another training",
        whole,
        "UnknownNameError",
        ("RecVAE", "in RecBole itself"),
        ("--model", "RecVAE"),
    ),
    Bad(
        "a modality that the record does not have",
        manifest(modality="audio"),
        "RecordError",
        ("modality audio, in image+text", "--overwrite"),
    ),
    Bad("seed as a word", whole, "usage", ("'1,x'", "999,1000"), ("--seeds", "1,x")),
    Bad("--set without a value", whole, "usage", ("'topk' is not key=value",), set_to("topk")),
    Bad("--set without YAML", whole, "usage", ("'[1' is not a YAML value",), set_to("topk=[1")),
    Bad("no feature name", whole, "usage", ("contains no name",), features=","),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused(place: Place, case: Bad, capsys: pytest.CaptureFixture[str]) -> None:
    check_refused(place, case, capsys)


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
