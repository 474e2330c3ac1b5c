"""Tables where they are read: in a paper, a terminal, a spreadsheet and a notebook."""

from __future__ import annotations

import re
import shutil
import subprocess
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from records import record, store

from alignrec_recbole import load_leaderboard
from alignrec_recbole.errors import SettingError, UnknownNameError
from alignrec_recbole.reports import build, contents
from alignrec_recbole.reports.formats.csv import as_csv
from alignrec_recbole.reports.formats.latex import as_latex
from alignrec_recbole.reports.formats.text import as_text
from alignrec_recbole.reports.table import Table, mean_sd_cell, text_cell
from alignrec_recbole.runs.record import read_runs

SHIPPED = Path(__file__).resolve().parents[2] / "results" / "shipped"
PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage{booktabs,tabularx}
\begin{document}
"""
NOTE = "not the paper's features (BEiT-3)"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of a target that is better than one row and like another."""
    folder = tmp_path_factory.mktemp("paper")
    for model, gain in (("AlignRec", 0.3), ("BPR", 0.0), ("LightGCN", 0.299)):
        for seed in (1, 2, 3):
            rng = np.random.default_rng(seed)
            users = rng.random(60) + gain + 0.01 * np.random.default_rng(len(model)).normal(size=60)
            features = "none" if model != "AlignRec" else "all-MiniLM-L6-v2+vggish+whisper"
            made = record(model, seed, float(users.mean()), features=features, notes=[NOTE])
            store(folder, made, users)
    store(folder, record("zero-shot", protocol="zero-shot", features="lsa", history=[]))
    return folder


def compiled(latex: str, folder: Path) -> str:
    """The log of TeX; the test is skipped where there is none."""
    (folder / "tables.tex").write_text(PREAMBLE + latex + "\\end{document}\n", "utf-8")
    if shutil.which("pdflatex"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    elif shutil.which("tectonic"):
        command = ["tectonic", "--keep-logs", "tables.tex"]
    else:
        pytest.skip("needs pdflatex (texlive-latex-recommended) or tectonic")
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "tables.log").read_text("utf-8", "replace")


@pytest.mark.slow
def test_committed_results_compile_without_an_overfull_box(tmp_path: Path) -> None:
    pages = contents.tables(read_runs(SHIPPED / "runs"), tuning=read_runs(SHIPPED / "tuning"))
    latex = "\n\\clearpage\n".join(as_latex(tables) for tables in pages.values())
    log = compiled(latex, tmp_path)
    assert "Overfull" not in log
    assert "Float too large" not in log
    assert "multiply defined" not in log


def test_an_overfull_box_would_be_seen(tmp_path: Path) -> None:
    """The check above, on a table of the kind that does not fit."""
    wide = " & ".join(["0.1234567890123"] * 9)
    table = f"\\begin{{tabular}}{{{'r' * 9}}}{wide}\\end{{tabular}}"
    assert "Overfull" in compiled(table, tmp_path)


def test_metrics_come_first_and_the_rest_follows(output: Path) -> None:
    (table,) = contents.tables(read_runs(output / "runs"))["toy"]
    latex = as_latex([table])
    first, second = latex.split(r"\end{table}")[:2]
    head = first.split(r"\toprule")[1].split(r"\midrule")[0]
    assert head.split(r" \\")[0].strip().split(" & ") == [
        "model",
        "features",
        "Recall@10",
        "Recall@20",
        "NDCG@10",
        "NDCG@20",
    ]
    assert r"\tiny$\pm$" in first
    assert "best bold, second underlined" in first
    assert "seeds" in second
    assert "best bold" not in second
    labels = re.findall(r"\\label\{(.*?)\}", latex)
    assert len(set(labels)) == len(labels) == latex.count(r"\begin{table}") == 2


def test_rows_that_differ_from_the_target_have_a_star(output: Path) -> None:
    (table,) = contents.tables(read_runs(output / "runs"))["toy"]
    starred = {row[0].text: [cell.mark for cell in row[3:7]] for row in table.rows}
    assert starred["BPR"] == ["", "*", "", "*"]  # of the two metrics that are tested
    assert starred["AlignRec"] == [""] * 4
    latex = as_latex([table])
    assert latex.count(r"\textsuperscript{*}") == 2 + ("*" in starred["LightGCN"]) * 2
    assert "differs from AlignRec, all-MiniLM-L6-v2+vggish+whisper with p" in latex


def test_a_journal_chooses_the_columns(output: Path) -> None:
    tables = contents.tables(read_runs(output / "runs"))["toy"]
    first, second = as_latex(tables, ["NDCG@20", "seeds"]).split(r"\end{table}")[:2]
    assert "model & features & NDCG@20 & seeds" in first
    assert "Recall@20" in second
    with pytest.raises(UnknownNameError, match="No table has a column 'NDCG@2'"):
        build.build(output, columns=("NDCG@2",))


def test_terminal_tables_fit_a_terminal_and_name_their_marks(output: Path) -> None:
    tables = contents.tables(read_runs(output / "runs"))["toy"]
    text = as_text(tables)
    assert max(map(len, text.splitlines())) <= 100
    assert "Best marked *, second '." in text
    assert "bold" not in text
    assert re.search(r"0\.\d{4}±\.\d{4}\*", text)
    assert "Best bold" in as_text(tables, "github")
    alone = Table(
        "t", ["model", "Recall@20"], [[text_cell("a"), mean_sd_cell([0.1])]], tables[0].note
    )
    assert "Best" not in as_text([alone])  # no row is marked


@pytest.mark.slow
def test_committed_results_fit_a_terminal() -> None:
    pages = contents.tables(read_runs(SHIPPED / "runs"), tuning=read_runs(SHIPPED / "tuning"))
    for name, tables in pages.items():
        assert max(map(len, as_text(tables).splitlines())) <= 100, name


def test_csv_has_numbers_and_blanks(output: Path) -> None:
    text = as_csv(contents.tables(read_runs(output / "runs"))["toy"])
    assert "—" not in text
    table = pd.read_csv(StringIO(text))
    assert table["seeds"].dtype.kind == "i"
    assert table["Recall@20"].dtype.kind == "f"
    assert table["over best baseline"].isna().sum() == 2


def test_other_features_are_noted_beside_published_rows_alone(tmp_path: Path, output: Path) -> None:
    (table,) = contents.tables(read_runs(output / "runs"))["toy"]
    assert NOTE not in as_text([table], "github")
    store(tmp_path, record("LightGCN", dataset="baby", notes=[NOTE]))
    (table,) = contents.tables(read_runs(tmp_path / "runs"))["baby"]
    assert "published" in as_text([table], "github")
    assert NOTE in as_text([table], "github")


def test_a_table_as_a_data_frame_and_styled(output: Path) -> None:
    frame = load_leaderboard(output, "toy").set_index("model")
    values = [r.record.metrics["Recall@20"] for r in read_runs(output / "runs")]
    assert frame.loc["AlignRec", "Recall@20"] == pytest.approx(np.mean(values[:3]), abs=0)
    assert frame.loc["AlignRec", "Recall@20 sd"] == np.std(values[:3], ddof=1)
    assert pd.isna(frame.loc["BPR", "over best baseline"])
    latex = load_leaderboard(output, "toy", styled=True).to_latex(hrules=True, convert_css=True)
    assert latex.count(r"\bfseries") == 4
    assert f"{frame.loc['BPR', 'NDCG@20']:.4f}" in latex
    with pytest.raises(UnknownNameError, match="data set 'toi'"):
        load_leaderboard(output, "toi")
    with pytest.raises(SettingError, match="0 tables"):
        load_leaderboard(output, "toy", convention="recbole")
