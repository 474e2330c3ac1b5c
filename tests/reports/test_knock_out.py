"""What content explains of a lead: on worked examples, and on records whose truth is known."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from records import record, store

from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.reports.build import build
from alignrec_recbole.reports.contents import tables
from alignrec_recbole.reports.grouping import comparable_groups
from alignrec_recbole.reports.knock_out import knocked_out
from alignrec_recbole.reports.lead_share import leads
from alignrec_recbole.runs.record import RunRecord, read_record, read_runs, write_record

SEEDS = range(999, 1004)
REAL = "f" * 64


def test_the_worked_example_of_the_protocol() -> None:
    values = {"real": 0.10, "shuffled": 0.07, "twin": 0.06}
    found = leads({name: np.full((5, 40), value) for name, value in values.items()}, "real", "twin")
    assert found.lead.value == pytest.approx(0.04)
    assert found.shares["shuffled"].value == pytest.approx(0.75)
    assert found.shares["shuffled"].low == pytest.approx(0.75)  # nothing varies
    assert found.over_twin["shuffled"].value == pytest.approx(0.01)


def test_no_share_of_a_lead_that_may_be_nothing() -> None:
    rng = np.random.default_rng(0)
    values = {name: rng.normal(0.3, 0.2, (5, 50)) for name in ("real", "shuffled", "twin")}
    found = leads(values, "real", "twin")
    assert found.lead.low < 0 < found.lead.high
    assert found.shares == {}
    behind = leads({**values, "twin": values["real"] + 0.1}, "real", "twin")
    assert behind.lead.high < 0
    assert behind.shares == {}


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Users, seeds and their noise are drawn again and again; the truth is .04 and 75 %."""
    rng, hits, trials = np.random.default_rng(1), np.zeros(2), 40
    for _ in range(trials):
        user = rng.normal(0, 0.1, (1, 300))
        values = {}
        for name, mean in (("real", 0.10), ("shuffled", 0.07), ("twin", 0.06)):
            of_seed = rng.normal(0, 0.003, (8, 1))
            own = rng.normal(0, 0.05, (1, 300))  # users like one variant more than another
            values[name] = mean + user + of_seed + own + rng.normal(0, 0.05, (8, 300))
        found = leads(values, "real", "twin")
        share = found.shares["shuffled"]
        hits += [found.lead.low < 0.04 < found.lead.high, share.low < 0.75 < share.high]
    assert (hits / trials > 0.85).all()
    assert hits.sum() < 2 * trials  # intervals that always hold it would be too wide


@pytest.mark.parametrize("shape", [(40, 1), (1, 40)], ids=["seeds", "users"])
def test_intervals_are_of_the_mean_over_seeds_and_over_users_and_variants_are_paired(
    shape: tuple[int, int],
) -> None:
    """Of 40 values, ±1.96 standard errors of their differences; what variants share cancels."""
    rng = np.random.default_rng(3)
    shared, own = rng.normal(0, 0.1, shape), rng.normal(0, 0.02, shape)
    found = leads(
        {"real": 0.10 + shared + own, "shuffled": 0.07 + shared + own, "twin": 0.02 + shared},
        "real",
        "twin",
    )
    half = 1.96 * own.std() / 40**0.5
    lead = 0.08 + own.mean()
    ends = [found.lead.low, found.lead.high]
    assert ends == pytest.approx([lead - half, lead + half], abs=0.1 * half)
    share = found.shares["shuffled"]
    assert share.value == pytest.approx(0.03 / lead)
    ends = [share.low, share.high]  # the lead varies, too
    assert ends == pytest.approx([0.03 / (lead + half), 0.03 / (lead - half)], rel=0.01)


# Records -----------------------------------------------------------------------------------------


def knocked(variant: str, value: float, seed: int, real: str, **more: Any) -> RunRecord:
    """A record of the protocol with features as the variant has them."""
    kind = {"id-only": "random", "alone": "text", "real": "text"}.get(variant, variant)
    names = ["text", "image"] if kind == "text" else [f"{kind}:text", f"{kind}:image"]
    names = names[:1] if variant == "alone" else names
    files = {
        name: {"sha256": "0" * 64, "modality": modality}
        for name, modality in zip(names, ("text", "image"), strict=False)
    }
    knock_out = {
        "variant": variant,
        "of": ["text", "image"],
        "id_only": more.pop("id_only", False),
        "real": real,
        "draws": 3 if variant == "real" else 0,
    }
    config = {"reg_weight": 0.1, "seed": seed, "knock_out": knock_out, **more.pop("config", {})}
    return record(
        seed=seed,
        value=value,
        protocol="knock-out",
        features="+".join(names),
        feature_files=files,
        config=config,
        **more,
    )


def write_model(
    output: Path,
    model: str,
    values: dict[str, float],
    twin: str,
    users: int = 0,
    seeds: Iterable[int] = SEEDS,
) -> None:
    """The seeds of every variant; values per user scatter about `value`."""
    rng = np.random.default_rng(len(model))
    for seed in seeds:
        groups = {
            "features": {
                "text: zero": {"Recall@20": values["real"] - 0.02, "overlap@20": 0.5},
                "text: permutation 0": {"Recall@20": values["real"] - 0.03, "overlap@20": 0.2},
                "text: permutation 1": {"Recall@20": values["real"] - 0.05, "overlap@20": 0.4},
            }
        }
        made = knocked("real", values["real"], seed, "", model=model, groups=groups)
        for variant, value in values.items():
            if variant != "real":
                settings = {"n_mm_layers": 0} if variant == "id-only" else {}
                own = knocked(variant, value, seed, made.config_sha256, model=model,
                              id_only=variant == twin, config=settings)  # fmt: skip
            else:
                own = made
            per_user = value + rng.normal(0, 0.01, users) if users else None
            store(output, own, per_user)


def shown(output: Path) -> list[dict[str, str]]:
    runs = read_runs(output / "runs")
    (several,) = tables(runs).values()
    first = several[0]
    return [dict(zip(first.header, (cell.text for cell in row), strict=True)) for row in first.rows]


WITH_LEAD = {
    "real": 0.10,
    "alone": 0.09,
    "shuffled": 0.07,
    "popularity-shuffled": 0.08,
    "zero": 0.06,
}
WITHOUT = {"real": 0.0601, "shuffled": 0.0599, "popularity-shuffled": 0.06, "zero": 0.06}


@pytest.mark.parametrize("users", [0, 200])
def test_the_table(tmp_path: Path, users: int) -> None:
    write_model(tmp_path, "AlignRec", WITH_LEAD, "zero", users)
    write_model(tmp_path, "BM3", {**WITHOUT, "real": 0.06}, "zero", users)
    own = {**WITH_LEAD, "id-only": 0.05}
    write_model(tmp_path, "PGL", own, "id-only", users)
    rows = {row["model"]: row for row in shown(tmp_path)}
    assert list(rows) == ["PGL", "AlignRec", "BM3"]  # by lead
    assert [row["twin"] for row in rows.values()] == ["random", "zero", "zero"]
    assert [row["seeds"] for row in rows.values()] == ["5"] * 3
    if not users:  # seeds that all agree
        assert rows["AlignRec"]["lead"] == "0.0400"
        assert rows["AlignRec"]["content explains"] == "75 %"
        assert rows["AlignRec"]["beyond popularity"] == "50 %"
        assert rows["PGL"]["content explains"] == "60 %"
    else:
        assert abs(float(rows["AlignRec"]["content explains"].split()[0]) - 75) <= 3
    assert rows["BM3"]["content explains"] == "no lead"
    assert rows["BM3"]["beyond popularity, 95 % interval"] == "—"


def test_every_form_is_written(tmp_path: Path) -> None:
    values = {name: WITH_LEAD[name] for name in ("real", "alone", "shuffled", "zero")}
    write_model(tmp_path, "AlignRec", values, "zero", users=50, seeds=(999,))
    build(tmp_path)
    folder = tmp_path / "tables"
    stem = "toy-knock-out"
    assert "text only" in (folder / f"{stem}.md").read_text()
    assert "content explains" in (folder / f"{stem}.tex").read_text()
    lines = list(csv.DictReader(io.StringIO((folder / f"{stem}.csv").read_text())))
    assert float(lines[0]["lead"]) == pytest.approx(0.04, abs=0.004)
    for suffix in ("svg", "pdf", "png"):
        assert (tmp_path / "plots" / f"toy-knock-out.{suffix}").stat().st_size > 1000
    drawn = csv.DictReader(io.StringIO((tmp_path / "plots" / "toy-knock-out.csv").read_text()))
    assert {row["variant"] for row in drawn} == {"real", "text only", "shuffled"}  # no twin


def test_interventions_are_averaged_over_permutations(tmp_path: Path) -> None:
    write_model(tmp_path, "AlignRec", WITH_LEAD, "zero")
    (several,) = tables(read_runs(tmp_path / "runs")).values()
    table = several[-1]
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert [row["replaced by"].text for row in rows] == ["zero", "permutation"]
    assert {row["what"].text for row in rows} == {"features"}
    assert rows[0]["change"].value == pytest.approx(-0.02)
    assert rows[1]["change"].value == pytest.approx(-0.04)
    assert rows[1]["overlap@20"].value == pytest.approx(0.3)


def test_interventions_on_graphs_that_change_nothing_are_no_rows(tmp_path: Path) -> None:
    zero = {"Recall@20": 0.08, "overlap@20": 0.5}
    for seed in SEEDS:
        groups = {
            "features": {"text: zero": zero, "text: mean": zero},
            "features and item graphs": {"text: zero": zero, "text: mean": {**zero, "RBO@20": 0.1}},
        }
        store(tmp_path, knocked("real", 0.1, seed, "", groups=groups, model="VBPR"))
    (several,) = tables(read_runs(tmp_path / "runs")).values()
    rows = [dict(zip(several[-1].header, row, strict=True)) for row in several[-1].rows]
    assert [(row["replaced by"].text, row["what"].text) for row in rows] == [
        ("zero", "features, whatever the graphs"),
        ("mean", "features"),
        ("mean", "features and item graphs"),
    ]
    assert "Not measured yet" in several[0].note


def test_damaged_values_per_user_are_named_and_seeds_remain(tmp_path: Path) -> None:
    write_model(tmp_path, "AlignRec", WITH_LEAD, "zero", users=50)
    path = next(tmp_path.glob("runs/**/*.users.npz"))
    path.write_bytes(b"nothing")
    members = next(iter(comparable_groups(read_runs(tmp_path / "runs")).values()))
    named: list[Path] = []
    (model,) = knocked_out(members, lambda path, error: named.append(path))
    assert len(named) == 1
    assert model.leads is not None
    assert not model.over_users
    assert model.leads.shares["shuffled"].value == pytest.approx(0.75)


def test_users_in_another_order_are_not_taken_for_one_another(tmp_path: Path) -> None:
    write_model(tmp_path, "AlignRec", WITH_LEAD, "zero", users=50)
    path = next(path for path in sorted(tmp_path.glob("runs/**/*.json")) if "zero" in path.name)
    lists = path.with_suffix(".users.npz")
    with np.load(lists) as stored:
        turned = {name: stored[name][::-1] for name in stored.files}
    np.savez_compressed(lists, **turned)
    described = {"file": lists.name, "sha256": sha256_file(lists)}
    write_record(path, read_record(path).model_copy(update={"per_user": described}))
    members = next(iter(comparable_groups(read_runs(tmp_path / "runs")).values()))
    (model,) = knocked_out(members)
    assert model.leads is not None
    assert not model.over_users


def test_runs_with_other_settings_are_rows_of_their_own(tmp_path: Path) -> None:
    write_model(tmp_path, "AlignRec", WITH_LEAD, "zero")
    for seed in SEEDS:
        other = {"reg_weight": 0.5}
        made = knocked("real", 0.2, seed, "", model="AlignRec", config=other)
        store(tmp_path, made)
        twin = knocked("zero", 0.1, seed, made.config_sha256, model="AlignRec", id_only=True,
                       config=other)  # fmt: skip
        store(tmp_path, twin)
    rows = shown(tmp_path)
    assert [row["lead"] for row in rows] == ["0.1000", "0.0400"]
    assert rows[0]["model"] == "AlignRec (reg_weight=0.5)"
    assert rows[0]["content explains"] == "—"  # not run


def test_a_record_must_say_what_its_features_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.knock_out"):
        record(protocol="knock-out")


def test_one_number_per_variant_has_no_interval(tmp_path: Path) -> None:
    write_model(tmp_path, "AlignRec", WITH_LEAD, "zero", seeds=(999,))
    (row,) = shown(tmp_path)
    assert row["lead"] == row["lead, 95 % interval"] == row["content explains"] == "—"


def test_intervals_of_one_seed_are_said_to_be_over_its_users(tmp_path: Path) -> None:
    write_model(tmp_path, "AlignRec", WITH_LEAD, "zero", users=50, seeds=(999,))
    (several,) = tables(read_runs(tmp_path / "runs")).values()
    assert several[0].note.endswith("of AlignRec over the users of one seed.")
