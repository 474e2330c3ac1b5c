"""Ways to break the input of a run, and the check that it is refused as it should be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from alignrec_recbole.cli.main import main
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.testing.synthetic import make_blocks, world_settings

WORLD = make_blocks(users=6, items=6, cold=1)  # 24 users, 24 items of which 4 are cold
INTER = "block_world.inter"


@dataclass(frozen=True)
class Place:
    """Folders of one case."""

    data: Path  # the data set's own folder
    output: Path

    @property
    def root(self) -> Path:
        return self.output.parent


@dataclass(frozen=True)
class Bad:
    """A broken input and what its error must say."""

    name: str
    breaks: Callable[[Place], None]
    kind: str  # class of the error; usage: the command line refuses it
    says: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    features: str = "image,text"
    model: str = "AlignRec"


# How to break things ----------------------------------------------------------------------------


def whole(place: Place) -> None:
    """Break nothing: the arguments are at fault."""


def content(name: str, change: Callable[[bytes], bytes]) -> Callable[[Place], None]:
    def breaks(place: Place) -> None:
        path = place.data / name
        path.write_bytes(change(path.read_bytes()))

    return breaks


def appended(line: str, name: str = INTER, encoding: str = "utf-8") -> Callable[[Place], None]:
    return content(name, lambda data: data + line.encode(encoding) + b"\n")


def manifest(**changes: object) -> Callable[[Place], None]:
    """Change entries of image.json; a function gets the old value."""

    def breaks(place: Place) -> None:
        path = place.data / "image.json"
        entries = json.loads(path.read_text())
        for key, change in changes.items():
            entries[key] = change(entries.get(key)) if callable(change) else change
        path.write_text(json.dumps(entries))

    return breaks


def matrix(change: Callable[[np.ndarray], np.ndarray], *, declared: bool = True):
    """Change image.npy; `declared`: the manifest describes the changed file."""

    def breaks(place: Place) -> None:
        path = place.data / "image.npy"
        np.save(path, change(np.load(path)))
        if declared:
            shape = list(np.load(path, allow_pickle=True).shape)
            manifest(shape=shape, sha256=sha256_file(path))(place)

    return breaks


def row(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[3] = value
        return values

    return change


def numbered(rows: int, last: str | None = None) -> Callable[[Place], None]:
    """MMRec's feature layout: item ids 0 … 19, no manifest, `rows` feature rows."""

    def breaks(place: Place) -> None:
        lines = (place.data / INTER).read_text().splitlines()
        cells = [line.split("\t") for line in lines[1:]]
        number = {item: str(i) for i, item in enumerate(sorted({c[1] for c in cells}))}
        if last is not None:
            number[max(number)] = last
        table = [f"{user}\t{number[item]}\t{label}" for user, item, label in cells]
        (place.data / INTER).write_text("\n".join([lines[0], *table]) + "\n")
        (place.data / "block_world.item").unlink()
        for path in place.data.glob("*.npy"):
            path.with_suffix(".json").unlink()
            np.save(path, np.load(path)[:rows])

    return breaks


def atomic(change: Callable[[bytes], bytes]) -> Callable[[Place], None]:
    """RecBole's layout in three files, the training file broken."""

    def breaks(place: Place) -> None:
        (place.data / INTER).unlink()
        WORLD.write(place.data.parent, "atomic")
        content("block_world.train.inter", change)(place)

    return breaks


ATOMIC = ("--set", "benchmark_filename=[train,valid,test]")


def record(change: Callable[[bytes], bytes]) -> Callable[[Place], None]:
    """Damage the record of a finished run."""

    def breaks(place: Place) -> None:
        (path,) = place.output.glob("runs/**/*.json")
        path.write_bytes(change(path.read_bytes()))

    return breaks


def state(data: Callable[[Place], bytes]) -> Callable[[Place], None]:
    """As if the finished run had been stopped, with a damaged state."""

    def breaks(place: Place) -> None:
        (path,) = place.output.glob("runs/**/*.json")
        folder = place.output / "checkpoints" / path.parent.relative_to(place.output / "runs")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{path.stem}.state.pt").write_bytes(data(place))
        path.unlink()

    return breaks


class Evil:
    """Runs a command when it is un-pickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def evil_state(place: Place) -> bytes:
    path = place.root / "evil.pt"
    torch.save({"model": Evil(f"touch {place.root / 'pwned'}")}, path)
    return path.read_bytes()


def first_line(data: bytes) -> bytes:
    return data.split(b"\n")[1] + b"\n"


def set_to(value: str) -> tuple[str, ...]:
    return ("--set", value)


def arguments(place: Place, case: Bad | None = None) -> list[str]:
    """A command line that runs when nothing is broken; later options win."""
    out = ["--model", case.model if case else "AlignRec", "--dataset", "block_world"]
    out += ["--features", case.features if case else "image,text"]
    out += ["--data-path", str(place.data.parent), "--output", str(place.output)]
    out += ["--quiet", "--epochs", "1", "--device", "cpu"]
    for key, value in world_settings().items():
        out += ["--set", f"{key}={json.dumps(value)}"]
    given = case.arguments if case else ()
    return out + [
        a.replace("{root}", str(place.root)).replace("{data}", str(place.data)) for a in given
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check_refused(place: Place, case: Bad, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken input ends with its own error, exit status 2, no traceback, and nothing lost."""
    case.breaks(place)
    before = files(place.root)
    capsys.readouterr()
    status = main(arguments(place, case))
    said = capsys.readouterr().err
    assert status == 2
    start = "Usage:" if case.kind == "usage" else f"{case.kind}: "
    assert said.startswith(start), said
    for words in case.says:
        assert words in said, said
    assert len(said) < 2000, "an error is to be read"
    after = files(place.root)
    assert {name: after.get(name) for name in before} == before, "a file was lost or changed"
    kept = {name for name in after if name not in before}
    assert all("/features/" in name for name in kept), f"left behind: {kept}"
    assert not (place.root / "pwned").exists(), "code from the input was run"
