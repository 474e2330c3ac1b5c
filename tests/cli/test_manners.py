"""What a command says before, during and after its work."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import torch
from trials import Answer, check_refused, run_verb
from two_blocks import write_two_blocks

from alignrec_recbole.cli._types import SHARE, FiniteRange
from alignrec_recbole.errors import SettingError
from alignrec_recbole.reports.contents import tables
from alignrec_recbole.runs.record import read_runs
from alignrec_recbole.runtime import hardware

MANY = ",".join(map(str, range(1, 74)))  # values of a setting


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two blocks with a table of items whose cells are separated by commas; item 23 has no text."""
    folder = tmp_path_factory.mktemp("data")
    write_two_blocks(folder)
    rows = [f'{i},"{"red, fast" if i < 12 else "blue"} thing {i}"' for i in range(23)]
    (folder / "two" / "items.csv").write_text("\n".join(["item_id,title", *rows, "23,"]) + "\n")
    (folder / "bare").mkdir()
    (folder / "bare" / "bare.inter").write_bytes((folder / "two" / "two.inter").read_bytes())
    return folder


@pytest.fixture
def command(data: Path, tmp_path: Path) -> Callable[..., Answer]:
    def run(*arguments: str) -> Answer:
        places = ["--data-path", data, "--output", tmp_path / "out", "--epochs", 2]
        without = places[:4] if "--protocol" in arguments else places
        named = [] if "--dataset" in arguments else ["--dataset", "two"]
        return run_verb(*named, *without, *arguments)

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "BPR,LightGNC"], ("LightGNC", "Did you mean 'LightGCN'")),
        (["--model", "BPR,VBPR", "--features", "lsa,lsx"], ("'lsx'", "Did you mean 'lsa'")),
        (["--model", "BPR,VBPR", "--dataset", "bare"], ("no item table", "items.csv")),
        (["--model", "BPR,LightGCN", "--set", "n_layers=many"], ("LightGCN: n_layers", "many")),
        (["--model", "BPR,LightGCN", "--set", "LightGCN.n_layer=2"], ("n_layer", "n_layers")),
        (["--model", "BPR,LightGCN", "--grid", "LightGCN.n_layers=1,x"], ("n_layers", "'x'")),
        (["--model", "BPR", "--grid", "reg_weight=0.1,much"], ("reg_weight", "much")),
        (
            ["--model", "BPR", "--protocol", "full,item-cf", "--set", "k=few"],
            ("setting of protocol item-cf: k", "few"),
        ),
        (
            ["--protocol", "zero-shot,item-cf", "--grid", "k=5,0"],
            ("setting of protocol item-cf: k", "greater than 0"),
        ),
        (
            ["--model", "VBPR,BPR", "--protocol", "knock-out"],
            ("BPR has no features", "models that need item features"),
        ),
        (
            ["--model", "BPR", "--grid", f"reg_weight={MANY}", f"embedding_size={MANY}"],
            ("5,329 trials is more than a record holds", "--grid"),
        ),
    ],
    ids=[
        "models", "features", "items", "settings", "keys", "grids", "points", "protocols",
        "grids-of-protocols", "knock-out", "large-grids",
    ],
)  # fmt: skip
def test_lists_are_resolved_before_the_first_epoch(
    command: Callable[..., Answer], tmp_path: Path, arguments: list[str], words: tuple[str, ...]
) -> None:
    answer = command(*arguments)
    check_refused(answer, *words)
    assert answer.output == ""
    assert not (tmp_path / "out").exists(), "nothing was trained or ranked"


def test_the_chosen_point_of_a_grid_is_printed_noted_and_in_the_table(
    command: Callable[..., Answer], tmp_path: Path
) -> None:
    answer = command("--model", "LightGCN", "--grid", "n_layers=1,2", "learning_rate=0.01,0.02")
    assert answer.status == 0, answer.errors
    tried = re.findall(
        r"\{'n_layers': (\d), 'learning_rate': ([\d.]+)\}: .* ([\d.]+)", answer.output
    )
    assert len(tried) == 4
    layers, rate, _ = max(tried, key=lambda each: float(each[2]))
    assert f"  chosen: n_layers={layers}, learning_rate={rate}\n" in answer.output
    (run,) = read_runs(tmp_path / "out" / "runs")
    assert (run.record.config["n_layers"], run.record.config["learning_rate"]) == (
        int(layers),
        float(rate),
    )
    note = " ".join(answer.output.split("note", 1)[1].split())
    assert f"chosen: n_layers={layers}, learning_rate={rate}" in re.sub(
        r"LightGCN +none *", "", note
    )
    (table,) = tables([run], tuning=read_runs(tmp_path / "out" / "tuning"))["two-budget"]
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert cells["chosen"].text == f"n_layers={layers}, learning_rate={rate}"


def test_one_line_says_what_was_read(command: Callable[..., Answer]) -> None:
    answer = command("--model", "VBPR")
    line = (
        "40 users; 24 items; 320 training, 40 validation, 40 test interactions; "
        "lsa for 95.8% of the items"
    )
    assert answer.errors.count(f"VBPR on two, seed 999: {line}\n") == 1
    answer = command("--protocol", "zero-shot")
    assert answer.errors.count(f"zero-shot on two: {line}\n") == 1


def test_a_protocol_prints_its_table_with_chance_and_few_candidates(
    command: Callable[..., Answer],
) -> None:
    answer = command("--protocol", "zero-shot,cold-start,mask-modality,diagnostics")
    assert answer.status == 0, answer.errors
    words = " ".join(answer.output.split())
    ranked, cold, masked, features = re.split(
        r"two, (?:cold-start|mask-modality|diagnostics), mmrec", words
    )
    assert "two, zero-shot, mmrec" in ranked
    assert "chance R@20" in ranked
    assert "Recall@20 is over at most 24 candidates: a list of 20 has 83% of them." in ranked
    assert "over 24 candidates" in ranked.split("two, zero-shot, mmrec")[0], "the line of the run"
    assert "Candidates: 4 cold items. Recall@20 is over at most 4 candidates" in cold
    assert "a list of 20 has all of them" in cold
    assert "chance R@20" in cold
    assert "Chance of Recall@20: about 0.8333." in masked
    assert "effective rank" in features


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_a_share_is_a_finite_number(text):
    for kind in (SHARE, FiniteRange()):
        with pytest.raises(click.BadParameter):
            kind.convert(text, None, None)
    assert SHARE.convert("0.5", None, None) == 0.5


@pytest.mark.parametrize("name", ["cuda1", "cuda:", "cuda:01", "cuda:" + "9" * 5000, "cuda:1\n"])
def test_a_device_is_written_as_torch_writes_it(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 10**6)
    with pytest.raises(SettingError, match="is not available"):
        hardware.choose_device(name)
    assert hardware.choose_device("cuda:12") == "cuda:12"
