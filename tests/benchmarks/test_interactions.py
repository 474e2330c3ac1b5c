"""Timings take every data set: those in RecBole's layout are converted, with the splits of ours."""

from __future__ import annotations

import argparse
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from alignrec_recbole.runs.prepare import prepare_data
from alignrec_recbole.runs.spec import DataSpec
from alignrec_recbole.runtime import hardware
from benchmarks.reference.interactions import add_data, in_mmrec_layout, is_converted
from benchmarks.speed import paired_timing


def opened(*arguments: str):
    parser = argparse.ArgumentParser()
    add_data(parser)
    return in_mmrec_layout(parser, parser.parse_args(list(arguments)))


def test_the_shipped_data_set_is_converted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with opened("--dataset", "ml-100k") as folder:
        frame = pd.read_csv(folder / "ml-100k" / "ml-100k.inter", sep="\t")
        assert is_converted("ml-100k", folder)
    assert not folder.exists()
    assert list(frame) == ["userID", "itemID", "x_label"]
    assert not frame.duplicated(["userID", "itemID"]).any()
    assert (frame.userID.nunique(), frame.userID.max()) == (943, 942)
    assert (frame.itemID.nunique(), frame.itemID.max()) == (1682, 1681)
    splits = prepare_data(DataSpec("ml-100k", output=tmp_path)).splits
    assert np.bincount(frame.x_label).tolist() == [len(split.inter_feat) for split in splits]
    train = frame[frame.x_label == 0]
    users, items = splits[0].pairs()
    assert set(zip(train.userID + 1, train.itemID + 1, strict=True)) == set(
        zip(users.tolist(), items.tolist(), strict=True)
    )


def test_a_file_in_mmrecs_layout_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    file = tmp_path / "toy" / "toy.inter"
    file.write_text("userID\titemID\tx_label\n0\t0\t0\n")
    with opened("--data-path", str(tmp_path), "--dataset", "toy") as folder:
        assert folder / "toy" / "toy.inter" == file
        assert not is_converted("toy", folder)
    assert file.is_file()


def test_a_data_set_that_is_not_there_ends_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit), opened("--data-path", str(tmp_path), "--dataset", "sports"):
        pass
    assert "no sports.inter in" in capsys.readouterr().err


def test_bfloat16_is_skipped_with_a_word_where_there_are_no_units(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with mock.patch.object(hardware, "has_bfloat16", return_value=False):
        skipped = paired_timing.skipped_bfloat16("cpu", ["ours, bfloat16"])
    assert skipped == {"ours, bfloat16": "this processor has no bfloat16 units"}
    assert "not timed: ours, bfloat16 (this processor has no" in capsys.readouterr().out
    with mock.patch.object(hardware, "has_bfloat16", return_value=True):
        assert paired_timing.skipped_bfloat16("cpu", ["ours, bfloat16"]) == {}
    assert capsys.readouterr().out == ""
