"""States of training: plain values beside tensors, nothing executed, nothing half-written."""

import json
import os
from pathlib import Path

import pytest
import torch

from alignrec_recbole.io.training_state import load_state, save_state


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    tensors = {"model": {"w": torch.arange(3.0)}, "average": None}
    plain = {"progress": {"step": 3, "seen": [[1, 0.5], [2, None]], "name": "ä"}}
    save_state(tmp_path / "s.pt", tensors, plain)
    state = load_state(tmp_path / "s.pt", ["progress"])
    assert torch.equal(state["model"]["w"], tensors["model"]["w"])
    assert state["average"] is None
    assert state["progress"] == plain["progress"]
    assert list(state["progress"]) == ["step", "seen", "name"], "the order of keys is kept"


def test_states_of_earlier_versions_are_read(tmp_path: Path) -> None:
    torch.save({"model": {}, "plain": json.dumps({"next_epoch": 4})}, tmp_path / "s.pt")
    assert load_state(tmp_path / "s.pt", ["plain"])["plain"] == {"next_epoch": 4}


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_state_is_executed(tmp_path: Path) -> None:
    torch.save({"plain": "{}", "model": Attack(tmp_path / "ran")}, tmp_path / "s.pt")
    with pytest.raises(Exception, match=r"[Uu]nsupported|[Ww]eights"):
        load_state(tmp_path / "s.pt", ["plain"])
    assert not (tmp_path / "ran").exists()


def test_an_interrupted_write_leaves_the_state_before(tmp_path: Path, monkeypatch) -> None:
    save_state(tmp_path / "s.pt", {}, {"plain": 1})

    def stop(state: object, handle) -> None:
        handle.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path / "s.pt", {}, {"plain": 2})
    monkeypatch.undo()
    assert load_state(tmp_path / "s.pt", ["plain"])["plain"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt"]
