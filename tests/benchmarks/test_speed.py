"""The timing tools: fair turns, a side's errors, the generator, the table. Nothing is timed."""

import argparse
import importlib
import json
import pkgutil
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

from alignrec_recbole.errors import RecordError
from benchmarks import parity, speed
from benchmarks.reference import epoch_timer, options
from benchmarks.speed import (
    alignrec,
    baselines,
    electronics,
    growth,
    import_formats,
    knn,
    loaded,
    paired_timing,
    report,
    scaling,
)


def counting(start):
    calls = []
    return {"a": lambda: calls.append(start), "b": lambda: calls.append(start)}


def broken():
    return {"a": lambda: 1 / 0}


def test_sides_act_in_turn_and_are_measured():
    timings = paired_timing.measure({"x": (counting, (1,)), "y": (counting, (2,))}, rounds=3)
    assert list(timings) == ["x", "y"]
    for timing in timings.values():
        assert {action: len(taken) for action, taken in timing.seconds.items()} == {"a": 3, "b": 3}
        assert timing.startup > 0
        assert timing.peak_bytes > 1 << 20
    assert "a, s" in paired_timing.table(timings)


def test_an_error_of_a_side_is_the_callers():
    with pytest.raises(RuntimeError, match="division by zero"):
        paired_timing.measure({"x": (broken, ())}, rounds=1)


def test_captured_steps_are_compared_on_a_gpu_alone(capsys):
    sides = {"ours float32": [0.010, 0.012, 0.011], "ours float32, captured": [0.002]}
    timings = {name: paired_timing.Timing(0.0, {"step": taken}) for name, taken in sides.items()}
    assert alignrec.steps_side_by_side(timings, "cuda") == (
        "ours float32: 11.00 ms a step, captured 2.00 ms: 5.50×"
    )
    assert "they need a GPU" in alignrec.steps_side_by_side(timings, "cpu")
    with pytest.raises(SystemExit):
        alignrec.main(["--dataset", "lfm2k", "--device", "cuda"])
    assert "there is no GPU here" in capsys.readouterr().err


@pytest.mark.parametrize("scale", [1, 3])
def test_simulated_graphs_keep_the_degrees(tmp_path, scale):
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, (40, 30), size=(300, 2)), axis=0)
    frame = pd.DataFrame({"userID": pairs[:, 0], "itemID": pairs[:, 1], "x_label": 0})
    frame.to_csv(tmp_path / "toy.inter", sep="\t", index=False)
    (tmp_path / "out").mkdir()
    scaling.simulate(tmp_path / "toy.inter", tmp_path / "out", scale, 5)
    made = pd.read_csv(tmp_path / "out" / "simulated" / "simulated.inter", sep="\t")
    train = made[made.x_label == 0]
    assert not train.duplicated(["userID", "itemID"]).any()
    degrees = train.userID.value_counts()
    assert set(degrees) <= set(frame.userID.value_counts())
    assert len(degrees) == scale * frame.userID.nunique()
    assert len(train) == pytest.approx(scale * len(frame), rel=0.25)
    again = tmp_path / "again"
    again.mkdir()
    scaling.simulate(tmp_path / "toy.inter", again, scale, 5)
    assert (again / "simulated" / "simulated.inter").read_text() == (
        tmp_path / "out" / "simulated" / "simulated.inter"
    ).read_text()


@pytest.mark.parametrize("total", [90, 200, 400])
def test_simulated_graphs_have_the_total_asked_for(total):
    degrees = np.array([3, 4, 5, 1]), np.array([2, 0, 9, 1])
    user, item = scaling.draw_pairs(*degrees, 60, 50, np.random.default_rng(1), total=total)
    assert len(user) == total
    assert len(np.unique(user * 50 + item)) == total
    assert user.max() < 60
    assert item.max() < 50
    assert len(np.unique(user)) == 60


def test_a_side_that_is_not_warmed_up_acts_once_a_round():
    timing = paired_timing.measure({"x": (counting, (1,))}, rounds=1, warm_up=0)["x"]
    assert {action: len(taken) for action, taken in timing.seconds.items()} == {"a": 1, "b": 1}


def test_electronics_shows_peaks_and_refusals(tmp_path, capsys):
    shown = {
        "BPR": {"seconds": 12.0, "peak_bytes": 3 << 30, "startup_seconds": 9.0},
        "VBPR": {"refused": "Training VBPR would need 40.0 GiB more."},
    }
    store = tmp_path / "store.json"
    made = {"dataset": "toy", "steps": None, "seed": 0}
    store.write_text(json.dumps({"models": {k: {**v, **made} for k, v in shown.items()}}))
    inter = tmp_path / "toy" / "toy.inter"
    inter.parent.mkdir()
    rows = pd.DataFrame({"userID": range(9), "itemID": range(9), "x_label": 0})
    rows.to_csv(inter, sep="\t", index=False)
    with mock.patch.multiple(electronics, USERS=9, ITEMS=9, INTERACTIONS=20):
        electronics.main(
            ["--data-path", str(tmp_path), "--dataset", "toy", "--model", "BPR,VBPR",
             "--store", str(store)]
        )  # fmt: skip
    *table, last = capsys.readouterr().out.splitlines()
    assert any("BPR" in row and "3.0" in row for row in table)
    assert any("40.0 GiB more" in row for row in table)
    assert json.loads(last)["worst_peak_bytes"] == 3 << 30


@pytest.mark.parametrize("steps", [None, 2, 5, 40])
def test_an_epoch_is_extrapolated_from_its_first_steps(monkeypatch, steps):
    now = [0.0]
    monkeypatch.setattr(epoch_timer.time, "perf_counter", lambda: now[0])

    def run(batches):
        now[0] += 7  # what an epoch begins with
        for number, _ in enumerate(batches):
            now[0] += 2 if number else 11  # the first step builds something

    seconds = epoch_timer.epoch_seconds(run, range(40), steps)
    assert seconds == 7 + 11 + 39 * 2
    assert now[0] == (seconds if steps in (None, 40) else 7 + 11 + 2 * (steps - 1))


def test_an_action_may_return_its_seconds():
    timings = paired_timing.measure({"x": (returning, ())}, rounds=2, warm_up=0)
    assert timings["x"].seconds == {"a": [12.5, 12.5]}


def returning():
    return {"a": lambda: 12.5}


def test_one_step_is_too_few_to_extrapolate(tmp_path, capsys):
    with pytest.raises(SystemExit):
        baselines.main(["--reference", ".", "--data-path", str(tmp_path), "--steps", "1"])
    assert "at least 2 steps" in capsys.readouterr().err


def test_measured_baselines_are_not_measured_again(tmp_path, capsys):
    timings = [
        paired_timing.Timing(4.0, {"epoch": [s, s + 1], "evaluation": [1.0, 1.0]}, peak)
        for s, peak in ((1.0, 1 << 30), (5.0, 3 << 30))
    ]
    store = tmp_path / "store.json"
    entry = {**baselines.entry(*timings), "dataset": "toy", "steps": None}
    store.write_text(json.dumps({"models": {"BM3": entry}}))
    inter = tmp_path / "toy" / "toy.inter"
    inter.parent.mkdir()
    pd.DataFrame({"userID": [0], "itemID": [0]}).to_csv(inter, sep="\t", index=False)
    baselines.main(
        ["--reference", str(tmp_path), "--data-path", str(tmp_path), "--dataset", "toy",
         "--model", "BM3", "--store", str(store)]
    )  # fmt: skip
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["ratio"] == pytest.approx(5.5 / 1.5)
    assert last["models"]["BM3"]["ratio_peak"] == 3


MACHINE = {
    "cpu": "AMD EPYC", "threads": 2, "versions": {"torch": "2.13.0"}, "python": "3.11.7",
    "system": "Linux x86_64",
}  # fmt: skip


def test_the_table_shows_ratios_of_both_precisions(tmp_path):
    entry = {
        "dataset": "toy", "ratio": 5.0, "ratio_float32": 4.0, "ours_seconds": 2.0,
        "peer_seconds": 10.0, "ours_peak_bytes": 1 << 30, "peer_peak_bytes": 3 << 30,
        "startup": {"ours": 4.0, "peer": 12.0}, "machine": MACHINE,
    }  # fmt: skip
    (tmp_path / "alignrec.json").write_text(json.dumps(entry))
    text = report.table(tmp_path)
    assert "5.0× (4.0× in float32)" in text
    assert "1.00 / 3.00 GiB" in text
    assert "3.0×" in text  # start-up
    assert "(1)" not in text

    other = {**MACHINE, "instructions": "AVX2"}
    for name, machine in (("lightgcn", MACHINE), ("evaluation", other)):
        (tmp_path / f"{name}.json").write_text(json.dumps({**entry, "machine": machine}))
    rows = {
        line.split("|")[1].split(",")[0].strip(): line
        for line in report.table(tmp_path).splitlines()
    }
    assert "| (1)" in rows["LightGCN"]
    assert "| (2)" in rows["full ranking"]
    assert report.machine(tmp_path).startswith("(1) AMD EPYC, 2 threads")
    assert "(2) AMD EPYC (AVX2), 2 threads" in report.machine(tmp_path)


def test_the_table_shows_the_encoder_and_what_fits(tmp_path):
    entry = {
        "precision_chosen": "bfloat16", "ours_seconds": 1.5, "peer_seconds": 6.0, "ratio": 4.0,
        "ratio_float32": 1.2, "ratio_bf16": 2.1,
        "real": {"shop/items.tsv": {"ratio": 6.3}, "films/items.tsv": {"ratio": 5.2}},
        "ours_peak_bytes": 1 << 30, "peer_peak_bytes": 2 << 30, "machine": MACHINE,
    }  # fmt: skip
    (tmp_path / "beit3.json").write_text(json.dumps(entry))
    fits = {"seconds": 20.0, "peak_bytes": 5 << 30, "startup_seconds": 9.0}
    models = {"A": fits, "B": {**fits, "seconds": 70.0}, "C": {"refused": "too large"}}
    (tmp_path / "electronics.json").write_text(
        json.dumps({"models": models, "worst_peak_bytes": 5 << 30, "machine": MACHINE})
    )
    timed = {
        "items_per_second": 32.0, "ours_seconds": 2.0, "peer_seconds": 3.0,
        "ours_peak_bytes": 1 << 29, "peer_peak_bytes": 1 << 30,
    }  # fmt: skip
    (tmp_path / "encoders.json").write_text(
        json.dumps({"items": 64, "encoders": {"st": timed}, "machine": MACHINE})
    )
    text = report.table(tmp_path)
    assert "64 texts by st:all-MiniLM-L6-v2" in text
    assert "2.0 s (32.0 items/s)" in text
    assert "3.0 s, sentence-transformers | 1.5× " in text
    assert (
        "4.0× (1.2× in float32, 2.1× its autocast, 6.3× on texts of shop, 5.2× on texts of films)"
        in text
    )
    del entry["ratio_bf16"]  # as on a processor without bfloat16 units
    (tmp_path / "beit3.json").write_text(json.dumps({**entry, "precision_chosen": "float32"}))
    assert "4.0× (1.2× in float32, 6.3× on texts of shop," in report.table(tmp_path)
    assert "one epoch of each of 3 models" in text
    assert "20 to 70 s" in text
    assert "5.0 GiB at most" in text


def test_no_timings_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="no timings"):
        report.table(tmp_path)


@pytest.mark.parametrize("name", ["--cache", "--store"])
def test_the_cache_has_its_former_name_too(name):
    parser = argparse.ArgumentParser()
    options.add_cache(parser)
    assert parser.parse_args([name, "x.json"]).cache == Path("x.json")


SCRIPTS = [
    module.name
    for package in (parity, speed)
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    if hasattr(importlib.import_module(module.name), "main")
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_describes_its_options(script, capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(script).main(["--help"])
    assert ended.value.code == 0
    assert "usage: benchmarks." in capsys.readouterr().out


@pytest.mark.slow
def test_loaded_ends_with_an_object_of_the_fair_share(monkeypatch, capsys):
    monkeypatch.setattr(loaded, "SETTLE_SECONDS", 0.0)
    loaded.main(
        ["--dataset", "ml-100k", "--models", "LightGCN", "--loads", "0", "--steps", "2",
         "--rounds", "1"]
    )  # fmt: skip
    *rows, last = capsys.readouterr().out.splitlines()
    assert any(row.startswith("LightGCN") for row in rows)
    found = json.loads(last)
    for figures in (found, found["before"]):
        share = figures["quiet_seconds"] * (loaded.COUNTED + 1)
        assert figures["over_fair_share"] == pytest.approx(figures["loaded_seconds"] / share)
    quiet = found["models"]["LightGCN"][0]
    assert quiet["busy_per_core"] == 0
    ratio = quiet["now"]["seconds"] / quiet["before"]["seconds"]
    assert found["quiet_over_before"]["LightGCN"] == pytest.approx(ratio)


def test_features_of_the_loaded_run_are_those_of_the_folder(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.inter").write_text("userID\titemID\n0\t0\n")
    assert loaded.features_of("toy", tmp_path, None, "AlignRec") == ("lsa",)
    for name in ("text", "audio"):
        np.save(tmp_path / "toy" / f"{name}.npy", np.zeros((1, 2)))
    assert loaded.features_of("toy", tmp_path, None, "AlignRec") == ("audio", "text")
    assert loaded.features_of("toy", tmp_path, "text", "AlignRec") == ("text",)
    assert loaded.features_of("toy", tmp_path, "text", "LightGCN") == ()


def test_kin_of_features_are_near_their_rows():
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    made = knn.kin_of(rows, 200)
    assert torch.equal(made[:40], rows)
    assert torch.equal(made, knn.kin_of(rows, 200))
    assert torch.equal(knn.kin_of(rows, 30), rows[:30])
    reach = torch.cdist(made[40:], rows).min(1).values
    assert reach.max() < torch.cdist(rows, rows).max() / 2
    assert len(torch.unique(made, dim=0)) == 200


@pytest.mark.slow
@pytest.mark.long
def test_growth_measures_every_stage_and_names_the_wall(tmp_path, capsys):
    arguments = ["--dataset", "ml-100k", "--scales", "1,2"]
    assert growth.main([*arguments, "--limit", "300"]) == 0
    said = capsys.readouterr().out
    found = json.loads(said.splitlines()[-1])
    assert found["first_wall"] is None
    for point in found["points"]:
        assert [stage["stage"] for stage in point["stages"]] == [
            "read", "sampler", "LightGCN step", "LightGCN ranking",
            "graph", "AlignRec step", "AlignRec ranking",
        ]  # fmt: skip
        assert all(stage["seconds"] > 0 for stage in point["stages"])
    assert growth.main([*arguments, "--limit", "0.05"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["first_wall"] == "scale 1, read: longer than 0.05 s"
    assert len(found["points"]) == 1


def test_a_cache_of_another_measurement_is_refused(tmp_path):
    cache, made = tmp_path / "cache.json", {"dataset": "sports", "features": ["text"], "steps": 5}
    assert paired_timing.cached_models(cache, made) == {}
    paired_timing.cache_models(cache, {"BPR": {"seconds": 1.0, **made}})
    assert paired_timing.cached_models(cache, made)["BPR"]["seconds"] == 1.0
    for other in ({"steps": None}, {"dataset": "baby"}, {"seed": 1}):
        with pytest.raises(RecordError, match="The cached result of BPR is of another measurement"):
            paired_timing.cached_models(cache, {**made, **other})


def dies(folder, filtered, answer):
    raise SystemExit(3)


def test_a_reader_that_dies_ends_the_measurement(monkeypatch, capsys):
    monkeypatch.setattr(import_formats, "measure", dies)
    with pytest.raises(SystemExit):
        import_formats.main(["--lines", "50", "--users", "9", "--items", "9"])
    assert "the process ended with status 3" in capsys.readouterr().err
