"""Protocols from the command line to records, on a small data set on disk."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from records import read_records

from alignrec_recbole.cli.main import main
from alignrec_recbole.evaluation.ranking import EvalTask
from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.features.masking import FeatureMask, masked_items
from alignrec_recbole.features.table import save_features
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.protocols import PROTOCOLS, long_tail, zero_shot
from alignrec_recbole.protocols.content import rank_content
from alignrec_recbole.protocols.context import ProtocolContext
from alignrec_recbole.protocols.rankers import rank_by_features
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.settings import Settings
from alignrec_recbole.testing.synthetic import make_blocks

ROOT = Path(__file__).resolve().parents[2]
CONTENT = ["zero-shot", "item-cf", "mask-modality", "cold-start", "diagnostics"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A block world with features "text" and "image", and a fused set with its second files."""
    folder = tmp_path_factory.mktemp("data")
    world = make_blocks(users=12, items=10, cold=2, blocks=3, likes=6, seed=1, name="small")
    place = world.write(folder)
    rng = np.random.default_rng(0)
    both = np.concatenate(list(world.features.values()), axis=1)
    for name, part in (
        ("fused", both),
        ("fused-no-image", both * (rng.random(both.shape) > 0.5)),
    ):
        save_features(
            place / f"{name}.npy", part.astype(np.float32), name=name, modality="fused",
            encoder="hand", settings={}, source="hand", items=list(world.items),
        )  # fmt: skip
    return folder


def run(data, output, *arguments):
    return main(
        ["--data-path", str(data), "--output", str(output), "--dataset", "small", "--quiet",
         *arguments]
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """Every training-free protocol on text and image, then those that read what was stored."""
    output = tmp_path_factory.mktemp("results")
    assert run(data, output, "--features", "text,image", "--protocol", ",".join(CONTENT)) == 0
    assert run(data, output, "--protocol", "long-tail") == 0
    assert run(data, output, "--features", "text", "--protocol", "beyond-accuracy") == 0
    return output


def records(output, protocol):
    return [r for r in read_records(output / "runs") if r.protocol == protocol]


def test_every_protocol_leaves_records(done):
    counts = {name: len(records(done, name)) for name in PROTOCOLS}
    assert counts == {
        "full": 0, "zero-shot": 1, "item-cf": 1, "mask-modality": 2, "knock-out": 0, "long-tail": 2,
        "beyond-accuracy": 2, "cold-start": 6, "diagnostics": 1,
    }  # fmt: skip
    for record in read_records(done / "runs"):
        assert record.config["protocol"]["name"] == record.protocol
        assert record.config["protocol"]["version"] == 1
        assert record.features == "text+image"
        assert "learning_rate" not in record.config
        assert record.code["version"]
        if record.protocol != "diagnostics":
            assert {"Recall@20", "NDCG@20", "Precision@20", "MAP@20"} <= set(record.metrics)
    assert records(done, "item-cf")[0].config["protocol"]["k"] == 20


def test_features_that_name_the_block_find_it(done):
    for name in ("zero-shot", "item-cf"):
        record = records(done, name)[0]
        assert record.metrics["Recall@5"] > 0.9 > record.chance["Recall@5"] + 0.5
        assert record.valid_metrics["Recall@5"] > 0.9


@pytest.mark.parametrize("setting", ["mmrec", "recbole"])
def test_rankers_are_judged_on_each_split_by_the_convention(data, tmp_path, setting):
    made = RunSpec(
        "", "small", ("text",), protocol="zero-shot", setting=setting, data_path=data,
        output=tmp_path, overrides={"topk": [1, 3, 20]},
    )  # fmt: skip
    record = rank_by_features(made)
    context = ProtocolContext(made, Settings, "zero-shot")
    train, valid, test = context.pairs
    content, shape = context.content(), (context.dataset.user_num, context.dataset.item_num)
    scores = zero_shot.scorer(content, zero_shot.ZeroShotSettings())
    for found, targets, hidden in (
        (record.valid_metrics, valid, [train]),
        (record.metrics, test, [train, valid] if setting == "recbole" else [train]),
    ):
        task = EvalTask.from_pairs(targets, hidden, shape)
        assert found == rank_content(scores, content, task, 20).means(*context.metric_names)


def test_rankers_say_how_much_has_nothing_to_be_ranked_by(tmp_path):
    world = make_blocks(users=12, items=10, cold=2, blocks=3, likes=6, seed=1, name="small")
    world = world.with_missing("text", 0.8)
    world.write(tmp_path)
    without = set(world.missing["text"])
    taken = defaultdict(set)
    for user, item in world.rows["train"]:
        taken[user].add(item)
    items = sum(item in without for item in np.flatnonzero(~world.cold))
    users = sum(own <= without for own in taken.values())
    assert items
    assert users
    made = RunSpec(
        "", "small", ("text",), protocol="zero-shot", data_path=tmp_path, output=tmp_path / "out"
    )
    notes = rank_by_features(made).notes
    assert {f"{items} items without features", f"{users} users without a profile"} <= {*notes}


def test_areas_are_those_of_each_modalitys_own_points(done):
    for record in records(done, "mask-modality"):
        for modality, areas in record.groups["robustness"].items():
            means = [
                np.mean([p["metrics"]["NDCG@20"] for p in record.curve
                         if (p["modality"], p["ratio"]) == (modality, step / 10)])
                for step in range(11)
            ]  # fmt: skip
            assert areas["NDCG@20"] == pytest.approx(np.trapezoid(means, dx=0.1) / means[0])


def test_masking_starts_at_the_unmasked_protocol(done):
    for record in records(done, "mask-modality"):
        plain = records(done, record.model)[0]
        assert record.metrics == plain.metrics  # bit by bit
        assert len(record.curve) == 2 * 11 * 5
        at_zero = [point for point in record.curve if point["ratio"] == 0]
        assert len(at_zero) == 10
        assert all(point["metrics"] == plain.metrics for point in at_zero)
        assert set(record.groups["robustness"]) == {"text", "image"}
    areas = records(done, "mask-modality")[0].groups["robustness"]["text"]
    assert 0 < areas["Recall@20"] <= 1.2


def test_one_modality_all_gone_is_the_other_alone(data, done, tmp_path):
    for name in ("zero-shot", "item-cf"):
        assert run(data, tmp_path, "--features", "text", "--protocol", name) == 0
        alone = records(tmp_path, name)[0].metrics
        curve = next(r for r in records(done, "mask-modality") if r.model == name).curve
        gone = [p for p in curve if p["modality"] == "image" and p["ratio"] == 1]
        assert all(point["metrics"] == alone for point in gone)


def test_cold_sets_are_seeds_of_one_result(done):
    found = records(done, "cold-start")
    assert sorted((r.model, r.seed) for r in found) == [
        (model, seed) for model in ("item-cf", "zero-shot") for seed in (0, 1, 2)
    ]
    assert len({r.config_sha256 for r in found}) == 2
    lists = np.load(next((done / "runs/small/cold-start").rglob("*.users.npz")))
    assert len(lists["items"]) == 1 + int(0.2 * 24)  # PAD and the candidates
    assert lists["top"].max() < len(lists["items"])


def test_cold_targets_are_of_every_split_of_the_file(data, done):
    rows = [line.split("\t") for line in (data / "small/small.inter").read_text().splitlines()[1:]]
    paths = sorted((done / "runs/small/cold-start/zero-shot").rglob("*.users.npz"))
    assert len(paths) == 3
    for path in paths:
        with np.load(path) as lists:
            users, cold = set(lists["users"].tolist()), set(lists["items"].tolist())
            targets = lists["targets"].sum()
        assert {user for user, item, label in rows if label == "0" and item not in cold} >= users
        assert targets == sum(user in users and item in cold for user, item, _ in rows)


def test_another_share_of_cold_items_is_another_result(data, tmp_path):
    for share, count in (("0.2", 4), ("0.5", 12)):
        made = ("--set", f"cold_share={share}", "cold_seeds=[0]")
        assert run(data, tmp_path, "--features", "text", "--protocol", "cold-start", *made) == 0
        notes = [record.notes for record in records(tmp_path, "cold-start")]
        assert sum(any(f"{count} cold items" in note for note in each) for each in notes) == 2


def test_a_sets_own_diagnostics_are_those_of_the_set_alone(data, done, tmp_path):
    assert run(data, tmp_path, "--features", "text", "--protocol", "diagnostics") == 0
    (alone,), (both,) = records(tmp_path, "diagnostics"), records(done, "diagnostics")
    assert both.groups["features"]["text"] == alone.metrics != both.metrics


def test_long_tail_repeats_the_stored_means(done):
    for record in records(done, "long-tail"):
        stored = records(done, record.model)[0]
        assert record.metrics == pytest.approx(stored.metrics)
        assert record.config["protocol"]["of_sha256"] == stored.config_sha256
        users = record.groups["history"].values()
        weighted = sum(g["users"] * g.get("Recall@20", 0) for g in users)
        assert weighted / sum(g["users"] for g in users) == pytest.approx(
            stored.metrics["Recall@20"]
        )


def test_beyond_accuracy_describes_the_stored_lists(done):
    world = {path.stem: path for path in (done / "runs/small").rglob("*.json")}
    assert world
    for record in records(done, "beyond-accuracy"):
        stored = records(done, record.model)[0]
        assert {n: record.metrics[n] for n in stored.metrics} == pytest.approx(stored.metrics)
        protocol = record.config["protocol"]
        assert protocol["of_sha256"] == stored.config_sha256
        assert list(protocol["content"]) == ["text"]
        assert record.features == stored.features == "text+image"
        path = next((done / "runs/small" / record.model).rglob("*.users.npz"), None)
        path = path or next((done / "runs/small").rglob(f"{record.model}/**/*.users.npz"))
        with np.load(path) as lists:
            first = lists["top"][:, :5]
            assert record.metrics["coverage@5"] == len(np.unique(first[first > 0])) / 24
        groups = record.groups["history"]
        assert sum(g["users"] for g in groups.values()) == len(first)
        weighted = sum(g["users"] * g.get("ILD@5", 0) for g in groups.values())
        assert weighted / len(first) == pytest.approx(record.metrics["ILD@5"])


def test_beyond_accuracy_counts_training_interactions(data, done):
    """The figures of the stored lists, from the rows of the file."""
    rows = [line.split("\t") for line in (data / "small/small.inter").read_text().splitlines()[1:]]
    taken = defaultdict(list)
    for user, item, label in rows:
        if label == "0":
            taken[user].append(item)
    degree = Counter(item for items in taken.values() for item in items)
    tokens = ["[PAD]", *sorted({item for _, item, _ in rows})]
    place = dict(zip(tokens[1:], tie_ranks(tokens)[1:].tolist(), strict=True))
    tail, before = set(), 0
    for item in sorted(place, key=lambda item: (-degree[item], place[item])):
        if before >= 0.8 * sum(degree.values()):
            tail.add(item)
        before += degree[item]
    gains = [1 / math.log2(rank + 2) for rank in range(5)]
    for record in records(done, "beyond-accuracy"):
        path = next((done / f"runs/small/{record.model}").rglob("*.users.npz"))
        with np.load(path) as stored:
            users = stored["users"].tolist()
            lists = stored["items"][stored["top"][:, :5]].tolist()
        wanted = {user: {i for u, i, label in rows if (u, label) == (user, "2")} for user in users}
        popularity = np.mean([[degree[item] for item in row] for row in lists])
        own = np.mean([np.mean([degree[item] for item in taken[user]]) for user in users])
        found = [
            sum(g * (1 - degree[i] / len(taken)) for g, i in zip(gains, row, strict=True)
                if i in wanted[user]) / sum(gains)
            for user, row in zip(users, lists, strict=True)
        ]  # fmt: skip
        assert record.metrics["popularity@5"] == pytest.approx(popularity)
        assert record.metrics["lift@5"] == pytest.approx(popularity / own - 1)
        in_tail = [[item in tail for item in row] for row in lists]
        assert record.metrics["tail@5"] == pytest.approx(np.mean(in_tail))
        assert record.metrics["EPC@5"] == pytest.approx(np.mean(found))
        sizes = Counter("<=3" if len(taken[user]) < 4 else "4-7" for user in users)
        groups = record.groups["history"]
        assert {name: g["users"] for name, g in groups.items() if g["users"]} == sizes


def test_beyond_accuracy_without_content_has_no_distance(data, tmp_path):
    assert run(data, tmp_path, "--features", "text", "--protocol", "zero-shot") == 0
    assert run(data, tmp_path, "--protocol", "beyond-accuracy") == 0
    (record,) = records(tmp_path, "beyond-accuracy")
    assert "coverage@20" in record.metrics
    assert not [name for name in record.metrics if name.startswith("ILD")]
    table = (tmp_path / "tables" / "small-beyond-accuracy.md").read_text()
    assert "Gini@20" in table
    assert "ILD@20" not in table.splitlines()[2]


def test_a_finished_protocol_is_read_not_run(data, done):
    path = next((done / "runs/small/zero-shot").rglob("*.json"))
    before = path.stat().st_mtime_ns
    assert run(data, done, "--features", "text,image", "--protocol", "zero-shot,diagnostics") == 0
    assert path.stat().st_mtime_ns == before
    assert (
        run(data, done, "--features", "text,image", "--protocol", "zero-shot", "--overwrite") == 0
    )
    assert path.stat().st_mtime_ns > before


def test_a_grid_is_judged_on_validation_alone(data, tmp_path):
    arguments = [
        "--features", "text", "--protocol", "item-cf", "--grid", "k=1,3,20",
        "--set", "topk=[2,20]", "valid_metric=Recall@2",
    ]  # fmt: skip
    assert run(data, tmp_path, *arguments) == 0
    trials = read_records(tmp_path / "tuning")
    assert [trial.metrics for trial in trials] == [{}] * 3
    scores = [trial.selection["best_score"] for trial in trials]
    assert len(set(scores)) > 1
    best = max(scores)
    chosen = records(tmp_path, "item-cf")[0]
    assert chosen.selection["best_score"] == best
    assert chosen.tuned_on == "tuned on validation, seed 999: k in [1, 3, 20]"


def test_fused_features_are_masked_by_their_second_file(data, tmp_path, capsys):
    assert run(data, tmp_path, "--features", "fused", "--protocol", "mask-modality") == 0
    record = records(tmp_path, "mask-modality")[0]
    assert {point["modality"] for point in record.curve} == {"image"}
    assert list(record.config["protocol"]["second_files"]) == ["fused-no-image"]
    table = (tmp_path / "tables" / "small-mask-modality.md").read_text()
    assert "re-encoded" in table
    assert run(data, tmp_path, "--features", "fused-no-image", "--protocol", "mask-modality") == 2
    assert "cannot be masked" in capsys.readouterr().err
    pair = "fused,fused-no-image"
    assert run(data, tmp_path, "--features", pair, "--protocol", "diagnostics") == 0
    gaps = records(tmp_path, "diagnostics")[0].groups["pairs"]
    assert gaps["fused | fused-no-image"]["modality gap"] > 0


def test_a_model_is_trained_with_the_modality_gone(data, tmp_path):
    arguments = [
        "--model", "AlignRec", "--features", "text,image", "--protocol", "mask-modality",
        "--epochs", "2", "--set", "ratios=[0, 1]", "--set", "knn_k=3", "--seeds", "999,1000",
    ]  # fmt: skip
    assert run(data, tmp_path, *arguments) == 0
    found = records(tmp_path, "mask-modality")
    assert len(found) == 2 * 2 * 2
    assert len({r.config_sha256 for r in found}) == 4  # seeds share a configuration
    for record in found:
        mask = record.config["feature_mask"]
        assert mask["seed"] == record.seed - 999
        if mask["ratio"] == 0:
            whole = next(r for r in records(tmp_path, "full") if r.seed == record.seed)
            assert record.metrics == whole.metrics
    assert "AlignRec" in (tmp_path / "tables" / "small-mask-modality.md").read_text()


def test_a_run_sees_the_features_that_its_mask_leaves(data, tmp_path):
    made = RunSpec("AlignRec", "small", ("text", "image"), data_path=data, output=tmp_path)
    mask = FeatureMask(modality="image", ratio=0.5, seed=0, fill="zero")
    whole, masked = (prepare_run(replace(made, mask=m)).splits[0] for m in (None, mask))
    hidden = masked_items(masked.field2id_token[masked.iid_field], 0.5, 0)
    before, after = whole.features["image"], masked.features["image"]
    assert (after.present == before.present & ~hidden).all()
    assert before.present[hidden].any()
    assert not after.values[hidden].any()
    assert np.array_equal(whole.features["text"].values, masked.features["text"].values)


def test_protocols_see_training_interactions_alone(data, tmp_path):
    made = RunSpec("", "small", ("text",), protocol="zero-shot", data_path=data, output=tmp_path)
    context = ProtocolContext(made, Settings, "zero-shot")
    users, items = context.dataset.pairs()
    assert len(users) < sum(len(split.pairs()[0]) for split in context.data.splits)
    history = context.content().history.tocoo()
    pairs = set(zip(users.tolist(), items.tolist(), strict=True))
    assert set(zip(history.row.tolist(), history.col.tolist(), strict=True)) == pairs


def test_controls_are_features_like_any_other(data, tmp_path):
    for name in ("random", "shuffled:text"):
        assert run(data, tmp_path, "--features", name, "--protocol", "zero-shot,diagnostics") == 0
    files = {r.features: r.feature_files for r in records(tmp_path, "zero-shot")}
    assert files["shuffled:text"]["shuffled:text"]["encoder"].startswith("control: rows of text")
    assert files["random"]["random"]["encoder"].startswith("control:")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "zeroshot"], "Did you mean 'zero-shot'?"),
        (["--protocol", "full"], "Protocol full needs a model"),
        (["--protocol", "zero-shot", "--model", "BPR"], "does not use --model"),
        (["--protocol", "cold-start", "--model", "BPR"], "trains no model"),
        (["--protocol", "item-cf", "--seeds", "1,2"], "does not use --seeds"),
        (["--protocol", "mask-modality", "--seeds", "1"], "draws nothing from --seeds"),
        (["--protocol", "item-cf", "--epochs", "3"], "does not use --epochs"),
        (["--protocol", "mask-modality", "--epochs", "3"], "uses --epochs only where it trains"),
        (
            ["--protocol", "mask-modality", "--model", "item-cf", "--no-save"],
            "uses --no-save only where it trains",
        ),
        (["--protocol", "zero-shot", "--jobs", "4"], "does not use --jobs"),
        (["--protocol", "knock-out", "--model", "VBPR", "--jobs", "4"], "does not use --jobs"),
        (["--protocol", "knock-out", "--model", "VBPR", "--no-save"], "does not use --no-save"),
        (["--protocol", "zero-shot", "--save-limit", "2GB"], "does not use --save-limit"),
        (["--protocol", "item-cf", "--set", "learning_rate=0.1"], "trains nothing"),
        (["--protocol", "item-cf", "--set", "k=0"], "k = 0"),
        (["--protocol", "item-cf", "--set", "kk=3"], "Unknown setting 'kk'"),
        (["--protocol", "zero-shot", "--set", "k=3"], "Unknown setting 'k'"),
        (["--protocol", "mask-modality", "--set", "ratios=[0.5, 1]"], "without ratio 0"),
        (["--protocol", "mask-modality", "--set", "ratios=[0, 2]"], "ratios.1 = 2"),
        (["--protocol", "mask-modality", "--grid", "fill=zero,mean"], "chooses nothing"),
        (["--protocol", "long-tail"], "no stored rankings"),
        (["--protocol", "beyond-accuracy"], "no stored rankings"),
    ],
)
def test_what_makes_no_sense_is_refused(data, tmp_path, capsys, arguments, message):
    features = [] if "long-tail" in arguments else ["--features", "text"]
    assert run(data, tmp_path, *features, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path).rglob("*.json"))


def test_changed_lists_are_refused(data, tmp_path, capsys):
    assert run(data, tmp_path, "--features", "text", "--protocol", "zero-shot") == 0
    lists = next((tmp_path / "runs").rglob("*.users.npz"))
    with atomic_write(lists) as handle:
        np.savez(handle, users=np.array(["u"]))
    assert run(data, tmp_path, "--protocol", "long-tail") == 2
    assert "not the file that its record describes" in capsys.readouterr().err


def test_every_protocol_has_its_tables(done):
    for name in [*CONTENT, "long-tail", "beyond-accuracy"]:
        assert "text+image" in (done / "tables" / f"small-{name}.md").read_text()


def test_shipped_records_name_no_folder_of_a_machine():
    paths = sorted((ROOT / "results" / "shipped").rglob("*.json"))
    assert paths
    folder = re.compile(r"[\s\"=](\.\.)?/\w")
    named = [path.name for path in paths if folder.search(path.read_text("utf-8"))]
    assert not named


def test_the_long_tail_is_cut_by_training_interactions(data, done, monkeypatch):
    counts = {}

    def watched(name):
        original = getattr(long_tail, name)

        def call(*arguments):
            counts[name] = arguments[2]
            return original(*arguments)

        return call

    for name in ("by_user", "by_item"):
        monkeypatch.setattr(long_tail, name, watched(name))
    assert run(data, done, "--protocol", "long-tail", "--overwrite") == 0
    made = RunSpec("", "small", ("text",), protocol="zero-shot", data_path=data, output=done)
    train = ProtocolContext(made, Settings, "zero-shot").dataset
    for name, ids, n in zip(counts, train.pairs(), (train.user_num, train.item_num), strict=True):
        assert np.array_equal(counts[name], np.bincount(ids, minlength=n))
