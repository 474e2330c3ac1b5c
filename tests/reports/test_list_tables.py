"""What lists are like, in tables, plots, the site and the data frame of results."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from records import METRICS, record, store

from alignrec_recbole import load_results
from alignrec_recbole.errors import SettingError
from alignrec_recbole.reports import contents, list_tables, plots
from alignrec_recbole.reports.build import build
from alignrec_recbole.reports.formats.csv import as_csv
from alignrec_recbole.reports.grouping import comparable_groups
from alignrec_recbole.runs.record import read_runs

FIGURES = dict.fromkeys((*list_tables.SHOWN, *METRICS), 0.25)


def described(
    output: Path, model: str, seed: int, value: float, content: str = "lsa", ild: float = 0.25
) -> None:
    """A ranking with its lists, and the record about them."""
    users = np.random.default_rng(seed).random(40) * 2 * value
    ranking = record(model, seed, float(users.mean()))
    store(output, ranking, users)
    about = {
        "name": "beyond-accuracy",
        "of": "full",
        "of_sha256": ranking.config_sha256,
        "content": {content: "0" * 64} if content else {},
    }
    group = {"users": 20.0, **FIGURES, "lift@20": value}
    made = record(
        model,
        seed,
        protocol="beyond-accuracy",
        config={**ranking.config, "protocol": about},
        metrics={**FIGURES, "coverage@20": value, "Recall@20": value, "ILD@20": ild},
        valid_metrics={},
        groups={"history": {"<=3": group, "4-7": group, "8-15": {"users": 0.0}}},
        history=[],
        epochs=0,
    )
    store(output, made)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Two models that are described, one with lists that are not, one without lists."""
    for model, value in (("BPR", 0.1), ("LightGCN", 0.2)):
        for seed in (999, 1000):
            described(tmp_path, model, seed, value + seed / 1e6)
    store(tmp_path, record("VBPR", 999), np.full(40, 0.1))
    store(tmp_path, record("Pop", 999))
    store(
        tmp_path, record("Pop", 999, protocol="long-tail", groups={"history": {}, "popularity": {}})
    )
    return tmp_path


def test_rows_without_figures_say_why(output: Path) -> None:
    first = contents.tables(read_runs(output / "runs"))["toy-beyond-accuracy"][0]
    table = pd.read_csv(StringIO(as_csv([first])), index_col="model", na_values="—")
    assert list(table.index) == ["LightGCN", "BPR", "Pop", "VBPR"]  # by the metric, then blanks
    assert table.loc["LightGCN", "coverage@20"] == pytest.approx(0.2009995)
    assert table.loc["LightGCN", "coverage@20 sd"] == pytest.approx(1e-6 / 2**0.5, rel=1e-3)
    assert table.loc[["Pop", "VBPR"], "Gini@20"].isna().all()
    assert table["why blank"].dropna().to_dict() == {
        "Pop": "no lists beside the record",
        "VBPR": "not computed: run --protocol beyond-accuracy",
    }


def test_every_format_and_the_plot_have_them(output: Path) -> None:
    paths = {path.name for path in build(output)}
    for suffix in ("md", "tex", "csv", "html"):
        assert f"toy-beyond-accuracy.{suffix}" in paths
        text = (output / "tables" / f"toy-beyond-accuracy.{suffix}").read_text("utf-8")
        assert "Gini@20" in text
        assert "4-7" in text
        assert "8-15" not in text  # nobody is in that group
    assert "toy-beyond-accuracy.png" in paths
    page = (output / "site" / "data" / "toy.html").read_text("utf-8")
    assert "what the lists are like" in page
    assert "content lsa" in page


def test_other_content_is_another_table(output: Path) -> None:
    described(output, "MGCN", 999, 0.3, content="clip")
    several = contents.tables(read_runs(output / "runs"))["toy-beyond-accuracy"]
    whole = [table.title.rpartition(", ")[2] for table in several if "why blank" in table.header]
    assert whole == ["content clip", "content lsa"]


def test_results_get_columns_if_asked(output: Path) -> None:
    plain, wide = load_results(output), load_results(output, beyond_accuracy=True)
    others = [column for column in plain if column not in list_tables.SHOWN]
    pd.testing.assert_frame_equal(wide[others], plain[others])
    assert list(wide.columns) == [*others, *wide.columns[len(others) :]]
    assert set(wide.columns[len(others) :]) == {*list_tables.SHOWN, "why_blank"}
    full = wide[wide["protocol"] == "full"].set_index(["model", "seed"])
    assert full.loc[("BPR", 1000), "coverage@20"] == pytest.approx(0.101)
    assert full.loc[("BPR", 1000), "why_blank"] == ""
    assert np.isnan(full.loc[("Pop", 999), "coverage@20"])
    assert full.loc[("Pop", 999), "why_blank"] == list_tables.NO_LISTS
    assert full.loc[("VBPR", 999), "why_blank"] == list_tables.NOT_COMPUTED
    tail = wide[wide["protocol"] == "long-tail"]["why_blank"].item()
    assert tail == "protocol long-tail leaves no lists of all items"
    with pytest.raises(SettingError, match="beyond_accuracy adds columns"):
        load_results(output, per_user=True, beyond_accuracy=True)


def test_results_name_the_contents_if_there_are_several(output: Path) -> None:
    described(output, "BPR", 999, 0.1 + 999 / 1e6, content="image", ild=0.75)
    described(output, "MGCN", 999, 0.3, content="image", ild=0.5)
    table = load_results(output, beyond_accuracy=True)
    assert "ILD@20" not in table.columns
    names = ["ILD@20 (lsa)", "ILD@20 (image)"]
    full = table[table["protocol"] == "full"].set_index(["model", "seed"])[names]
    assert full.loc[("BPR", 999)].tolist() == [0.25, 0.75]
    assert full.loc[("BPR", 1000), names[0]] == 0.25
    assert full.loc[("MGCN", 999), names[1]] == 0.5
    assert full.isna().sum().tolist() == [3, 5]  # of VBPR, Pop and MGCN; of all but two
    own = table[table["protocol"] == "beyond-accuracy"][names]
    assert (own.notna().sum(axis=1) == 1).all()
    assert set(names) <= set(load_results(output).columns)


def test_a_record_of_another_age_is_the_same_ranking(output: Path) -> None:
    """Its hash is that of older code; the lists were made again today."""
    described(output, "MGCN", 999, 0.3)
    (today,) = (output / "runs" / "toy" / "MGCN").glob("*.json")
    today.unlink()
    store(output, record("MGCN", 999, age=-1))
    table = contents.tables(read_runs(output / "runs"))["toy-beyond-accuracy"][0]
    assert [row[0].text for row in table.rows].count("MGCN") == 1
    frame = load_results(output, beyond_accuracy=True).query("protocol == 'full'")
    assert frame.set_index("model").loc["MGCN", "coverage@20"] == pytest.approx(0.3)


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    store(tmp_path, record())
    (members,) = comparable_groups(read_runs(tmp_path / "runs")).values()
    with pytest.raises(plots.EmptyPlotError, match="no described lists"):
        plots.beyond_accuracy_panels(members)


@pytest.mark.parametrize(
    "about",
    [None, {}, {"of_sha256": 3}, {"of_sha256": "a" * 64, "content": {"../x": ""}}, "text"],
    ids=["none", "empty", "number", "path", "text"],
)
def test_a_record_about_no_ranking_is_refused(about) -> None:
    with pytest.raises(ValueError, match="beyond-accuracy names no ranking"):
        record(protocol="beyond-accuracy", config={"seed": 999, "protocol": about})
