"""The file of a data set's runs of protocol knock-out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from trials import run_verb
from two_blocks import write_two_blocks

from alignrec_recbole.errors import RecordError
from alignrec_recbole.runs.record import read_runs
from benchmarks import knock_out

VARIANTS = {"real", "shuffled", "zero"}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VBPR on two blocks with two feature sets: real, shuffled and no features, two seeds."""
    root = tmp_path_factory.mktemp("knock-out")
    (root / "data").mkdir()
    draw = write_two_blocks(root / "data")
    for name in ("words", "sounds"):
        np.save(root / "data" / "two" / f"{name}.npy", draw.normal(size=(24, 4)))
    answer = run_verb(
        "--protocol", "knock-out", "--model", "VBPR", "--dataset", "two",
        "--features", "words,sounds", "--eval-convention", "mmrec", "--seeds", "1,2",
        "--epochs", "2", "--quiet", "--set", "variants=[real,shuffled,zero,id-only]",
        "--data-path", root / "data", "--output", root / "out",
    )  # fmt: skip
    assert answer.status == 0, answer.errors
    return root / "out"


def test_every_run_is_stored_once_with_the_tables_of_the_report(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--output", str(output), "--dataset", "two", "--folder", str(tmp_path)]
    assert knock_out.main(given) == 0
    assert "content explains" in capsys.readouterr().out
    (stored,) = knock_out.read(tmp_path)
    records = {r.record.config_sha256: r.record for r in read_runs(output / "runs" / "two")}
    assert {(run["variant"], run["seed"]) for run in stored["runs"]} == {
        (variant, seed) for variant in VARIANTS for seed in (1, 2)
    }
    for run in stored["runs"]:
        record = next(
            r.record
            for r in read_runs(output / "runs" / "two")
            if (r.record.config_sha256, r.record.seed) == (run["config_sha256"], run["seed"])
        )
        assert run["Recall@20"] == record.metrics["Recall@20"]
        assert run["epochs"] == record.epochs == 2
    assert len(records) == len({run["config_sha256"] for run in stored["runs"]})
    header, ((*cells,),) = knock_out.table(stored, 1)
    shown = dict(zip(header, cells, strict=True))
    for variant in VARIANTS:
        values = [run["Recall@20"] for run in stored["runs"] if run["variant"] == variant]
        assert shown[variant] == f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
    assert shown["ID-only"] == shown["zero"]
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".csv", ".svg", ".pdf", ".png"}
    figure = (tmp_path / "two.csv").read_text()
    assert "shuffled" in figure
    assert "zero" not in figure  # the twin itself has no dot


def test_stored_models_stay_in_the_file_and_the_figure(output: Path, tmp_path: Path) -> None:
    given = ["--output", str(output), "--dataset", "two", "--folder", str(tmp_path)]
    assert knock_out.main(given) == 0
    path, figure = tmp_path / "two.json", tmp_path / "two.csv"
    ours = json.loads(path.read_text())
    text = path.read_text()
    path.write_text(text.replace('"VBPR"', '"Other"'))
    lines = figure.read_text()
    figure.write_text(lines.replace("VBPR", "Other"))
    parts = {row[1] for row in ours["tables"][2]["rows"]}
    assert parts == {"words", "sounds", "all"}
    for _ in range(2):
        assert knock_out.main(given) == 0
        both = json.loads(path.read_text())
        for before, after in zip(ours["tables"], both["tables"], strict=True):
            assert after["header"] == before["header"]
            other = [["Other", *row[1:]] for row in before["rows"]]
            assert after["rows"] == [*other, *before["rows"]]
        assert len(both["runs"]) == 2 * len(ours["runs"])
        drawn = figure.read_text()
        assert "VBPR" in drawn
        assert sorted(drawn.replace("VBPR", "Other").splitlines()[1:]) == sorted(
            2 * lines.replace("VBPR", "Other").splitlines()[1:]
        )
    path.write_text(text.replace('two.inter": "', 'two.inter": "0'))
    with pytest.raises(RecordError, match="do not make one table"):
        knock_out.main(given)


def test_a_data_set_without_runs_is_named(output: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="'shelf' do not make one table") as caught:
        knock_out.groups(output, "shelf")
    assert "suite knock-out" in str(caught.value)


def test_stored_results_of_the_repository_are_of_committed_code() -> None:
    stored = knock_out.read()
    if not stored:
        pytest.skip("the repository has no results of the suite knock-out yet")
    for one in stored:
        for run in one["runs"]:
            assert len(run["commit"]) == 40
        for table in one["tables"]:
            keys = [tuple(cell for cell in row if "0." not in cell) for row in table["rows"]]
            assert len(keys) == len(set(keys))
        shares = json.dumps(one["tables"][0])
        assert "over users and seeds" in shares
