"""The comparison of two-stage and joint training on a few small images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import two_stage, two_stage_report

pytest.importorskip("sentencepiece", reason="BEiT-3's tokenizer needs sentencepiece")
ARMS = "two-stage,joint"


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The films of ml-100k by number, of which every 50th has an image."""
    from PIL import Image

    folder, draw = tmp_path_factory.mktemp("items"), np.random.default_rng(0)
    (folder / "images").mkdir()
    words = ["red", "green", "blue", "night", "day", "war", "love", "city"]
    lines = ["item_id\ttitle\timage"]
    for number in range(1, 1683):
        image = f"{number}.png" if number % 50 == 0 else ""
        if image:
            pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / image)
        lines.append(f"{number}\t{' '.join(draw.choice(words, 4))}\t{image}")
    (folder / "items.tsv").write_text("\n".join(lines) + "\n")
    return folder / "items.tsv"


def run(items: Path, folder: Path) -> dict[str, Any]:
    """The result of two small arms."""
    small = ["--updates", "4", "--every", "2", "--block", "6", "--batch", "64", "--width", "8"]
    small += ["--layers", "1", "--image-size", "16", "--vocabulary", "40", "--tokens", "8"]
    where = ["--items", str(items), "--work", str(folder / "work"), "--folder", str(folder)]
    assert two_stage.main([*where, "--seeds", "3", "--arms", ARMS, *small]) == 0
    return json.loads((folder / "s3.json").read_text())


def without_seconds(result: dict[str, Any]) -> list[Any]:
    """What must not depend on when and how often an arm was stopped."""
    out: list[Any] = []
    for content in result["arms"].values():
        for points in content["curves"].values():
            out += [{k: v for k, v in point.items() if k != "seconds"} for point in points]
        out.append(content["test_recalls"])
    return out


@pytest.mark.slow
def test_a_stopped_arm_goes_on_as_if_nothing_had_happened(
    items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    whole = run(items, tmp_path / "whole")
    note, left = two_stage.Training._note, [0]

    def stopping(self: two_stage.Training, *tasks: str) -> None:
        note(self, *tasks)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(two_stage.Training, "_note", stopping)
    for notes in (2, 3, 2):  # in the first stage, in the second, and in the joint arm
        left[0] = notes
        with pytest.raises(KeyboardInterrupt):
            run(items, tmp_path / "stopped")
    left[0] = 0
    assert without_seconds(run(items, tmp_path / "stopped")) == without_seconds(whole)

    arms = whole["arms"]
    first, joint = arms["two-stage"]["curves"], arms["joint"]["curves"]
    assert [point["update"] for point in first["ica"]] == [0, 2, 4]
    assert first["ica"][0]["mlm"] == joint["ica"][0]["mlm"]  # the same initial weights and masks
    losses = [[point["mlm"] for point in arm["ica"][1:]] for arm in (first, joint)]
    assert losses[0] != losses[1]  # the recommendation reaches the encoder
    assert all(point["rec"] > 0 for point in joint["gradients"])
    assert not first["gradients"]
    assert len(arms["joint"]["test_recalls"]) == 943

    assert two_stage_report.main(["--folder", str(tmp_path / "whole")]) == 0
    assert "against two-stage" in capsys.readouterr().out
    assert (tmp_path / "whole" / "curves.png").stat().st_size > 1000


def test_results_of_other_settings_are_refused(tmp_path: Path, items: Path) -> None:
    (tmp_path / "s3.json").write_text(json.dumps({"seed": 3, "setting": {}, "arms": {}}))
    with pytest.raises(SystemExit):
        run(items, tmp_path)


def test_convergence_is_counted_from_the_first_value_to_the_best() -> None:
    assert two_stage_report.converged([1.0, 0.5, 0.05, 0.0, 0.4]) == 2
    assert two_stage_report.converged([0.1, 0.1, 0.3]) == 2


@pytest.mark.parametrize("wrong", [["--arms", "both"], ["--every", "0"], ["--seeds", "x"]])
def test_wrong_options_are_named(wrong: list[str], tmp_path: Path) -> None:
    places = ["--items", str(tmp_path / "items.tsv"), "--work", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        two_stage.main([*places, *wrong])
    assert ended.value.code == 2
