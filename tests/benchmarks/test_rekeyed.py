"""The comparison of runs on a released and on a re-keyed split."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from records import record, store
from scipy import stats
from trials import run_verb

from alignrec_recbole.data.rekey import USERS
from benchmarks import rekeyed


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EASE and two seeds of BPR on both splits."""
    root, draw = tmp_path_factory.mktemp("both"), random.Random(0)
    lines = ["userID\titemID\tx_label"]
    for user in range(40):
        items = [(user % 4 + 4 * n) % 24 for n in draw.sample(range(6), 5)]
        lines += [f"{user}\t{i}\t{n}" for i, n in zip(items, [0, 0, 0, 1, 2], strict=True)]
    (root / "data" / "shop").mkdir(parents=True)
    (root / "data" / "shop" / "shop.inter").write_text("\n".join(lines) + "\n")
    where = ("--data-path", root / "data", "--output", root / "out", "--quiet", "--epochs", "3")
    for more in ((), ("--rekey", 1)):
        answer = run_verb(
            "--model", "EASE,BPR", "--dataset", "shop", "--eval-convention", "mmrec",
            "--seeds", "1,2", *where, *more,
        )  # fmt: skip
        assert answer.status == 0, answer.errors
    return root


def test_users_are_joined_by_the_mapping(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data-path", str(output / "data"), "--output", str(output / "out")]
    given += ["--dataset", "shop", "--folder", str(output / "found")]
    assert rekeyed.main(given) == 0
    shown = capsys.readouterr().out
    rows = json.loads((output / "found" / "shop-1.json").read_text())["rows"]
    assert [(row["model"], row["metric"]) for row in rows] == [
        (model, metric) for model in ("BPR", "EASE") for metric in rekeyed.METRICS
    ]
    bpr, ease = rows[0], rows[3]
    assert ease["users"] == bpr["users"] == 40
    assert ease["difference"] == pytest.approx(0, abs=0.01)  # ties
    assert ease["users_that_differ"] < 10
    assert bpr["p_seeds"] is not None
    low, high = bpr["interval"]
    assert low <= bpr["difference"] <= high
    assert "users that differ" in shown
    header, cells = rekeyed.table(rekeyed.read(output / "found")["shop-rekeyed-1"])
    assert all(len(row) == len(header) for row in cells)


def test_the_figures_of_a_pair(tmp_path: Path) -> None:
    """Of the common seeds: Welch's test over them, and a paired one over the users' means."""
    users = np.array([0.1, 0.2, 0.3, 0.4])
    gains = {"shop": {1: 0.0, 2: 0.01, 3: 0.02, 9: 0.5}, "shop-rekeyed-1": {1: 0.1, 2: 0.3, 3: 0.2}}
    for dataset, by_seed in gains.items():
        for seed, gain in by_seed.items():
            values = users + gain
            if dataset != "shop":
                values[3] = users[3] + 0.01  # as before in the mean
                values = values[::-1]  # user n has number 3 - n
            made = record("BPR", seed, 0.25 + gain, dataset=dataset)
            store(tmp_path, made, values)
        other = {"reg_weight": 0.5 if dataset == "shop" else 0.7, "seed": 1}
        store(tmp_path, record("BPR", 1, 0.9, dataset=dataset, config=other), users)
    lines = [f"u{old}\tu{3 - old}" for old in range(4)]
    (tmp_path / USERS).write_text("\n".join(["old\tnew", *lines]) + "\n")
    recall, _ = rekeyed.pairs(tmp_path, tmp_path, "shop", 1)  # the same settings on both
    before, after = [0.25, 0.26, 0.27], [0.35, 0.55, 0.45]
    assert recall.metric == "Recall@20"
    assert recall.released == dict(zip((1, 2, 3), before, strict=True))
    assert recall.rekeyed == dict(zip((1, 2, 3), after, strict=True))
    assert recall.difference == pytest.approx(0.19)
    welch = stats.ttest_ind(after, before, equal_var=False)
    assert recall.p_seeds == pytest.approx(welch.pvalue)
    error = np.sqrt(np.var(before, ddof=1) / 3 + np.var(after, ddof=1) / 3)
    half = stats.t.ppf(0.975, welch.df) * error
    assert recall.interval == pytest.approx((0.19 - half, 0.19 + half))
    assert (recall.users, recall.users_that_differ) == (4, 3)
    gained = [0.19, 0.19, 0.19, 0.0]  # one t-test of the differences from 0
    assert recall.p_users == pytest.approx(stats.ttest_1samp(gained, 0).pvalue)


def test_stored_rows_of_other_models_stay(output: Path, tmp_path: Path) -> None:
    given = ["--data-path", str(output / "data"), "--output", str(output / "out")]
    given += ["--dataset", "shop", "--folder", str(tmp_path)]
    assert rekeyed.main(given) == 0
    path = tmp_path / "shop-1.json"
    first = json.loads(path.read_text())
    others = [{**row, "model": f"Other{row['model']}"} for row in first["rows"]]
    path.write_text(json.dumps({**first, "rows": others}))
    assert rekeyed.main(given) == 0
    assert json.loads(path.read_text())["rows"] == [*first["rows"], *others]
    assert rekeyed.main(given) == 0
    assert json.loads(path.read_text())["rows"] == [*first["rows"], *others]


def test_a_wrong_mapping_is_seen(output: Path) -> None:
    """Users of each other's values: the same means, other users."""
    folder = output / "data" / "shop-rekeyed-1"
    path = folder / USERS
    text = path.read_text()
    try:
        lines = text.splitlines()
        olds = [line.split("\t")[0] for line in lines[1:]]
        moved = [f"{old}\t{n}" for n, old in enumerate(np.roll(olds, 1))]
        path.write_text("\n".join([lines[0], *moved]) + "\n")
        found = rekeyed.pairs(output / "out", folder, "shop", 1)
    finally:
        path.write_text(text)
    ease = next(p for p in found if (p.model, p.metric) == ("EASE", "NDCG@20"))
    assert ease.difference == pytest.approx(0, abs=0.01)
    assert ease.users_that_differ > 10


def test_without_runs_on_both_it_says_so(output: Path, tmp_path: Path) -> None:
    given = ["--data-path", str(output / "data"), "--output", str(tmp_path), "--dataset", "shop"]
    with pytest.raises(rekeyed.RecordError, match="No model has runs"):
        rekeyed.main(given)


def test_runs_without_a_common_seed_are_no_comparison(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = rekeyed.SeedGroup.values

    def shifted(group: rekeyed.SeedGroup, metric: str) -> dict[int, float]:
        shift = 0 if group.first.dataset == "shop" else 100
        return {seed + shift: value for seed, value in values(group, metric).items()}

    monkeypatch.setattr(rekeyed.SeedGroup, "values", shifted)
    with pytest.raises(rekeyed.RecordError, match=r"no seed of .* in common"):
        rekeyed.pairs(output / "out", output / "data" / "shop-rekeyed-1", "shop", 1)
