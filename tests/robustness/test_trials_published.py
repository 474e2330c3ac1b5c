"""Generated trials: archives and pickles of published features that are broken, changed or hostile.

Each is refused in a sentence, runs nothing, leaves what was there as it was, and the right file
afterwards is fetched and converted to the same bytes.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import io
import os
import pickle
import signal
import stat
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published_files import ARCHIVES, World, all_files, facts_of, published, zipped
from scripted_server import Answer, ScriptedServer, scripted_server, served
from small_disks import SmallDisk
from trials import check_answered, check_refused, run_verb, trial

from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.row_order import row_order
from alignrec_recbole.io.pickled_arrays import read_matrix

AREA = "published features"
WORLD = World()
FILES = all_files(WORLD)
ARCHIVE = ARCHIVES["sports"]
MEMBERS = WORLD.members()
MATRIX = WORLD.features["visual"]
ROOT = Path(__file__).resolve().parents[2]


# Pickles -----------------------------------------------------------------------------------------


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function: Callable, *arguments: object, state: object = None) -> None:
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self) -> tuple:
        return (self.function, self.arguments, self.state)


def hidden(call: Calls) -> bytes:
    """A pickled tensor whose storage, itself a pickle, calls something."""
    return pickle.dumps(Calls(torch._utils._rebuild_tensor_v2, Calls(
        torch.storage._load_from_bytes, pickle.dumps(call)), 0, (2, 2), (2, 1), False,
        collections.OrderedDict()))  # fmt: skip


def rebuilt(offset: object, size: object, stride: object) -> bytes:
    """A pickled tensor with other numbers than its storage has."""
    storage = MATRIX.untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    return pickle.dumps(
        Calls(torch._utils._rebuild_tensor_v2, typed, offset, size, stride, False, {})
    )


def saved(value: object, **keywords: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **keywords)
    return out.getvalue()


MARK = "marks that a pickle ran"
HOSTILE = {
    "system": pickle.dumps(Calls(os.system, f"touch '{MARK}'")),
    "mkdir": pickle.dumps(Calls(os.mkdir, MARK)),
    "eval": pickle.dumps(Calls(eval, f"__import__('os').mkdir({MARK!r})")),
    "exec": pickle.dumps(Calls(exec, f"import os; os.mkdir({MARK!r})")),
    "getattr": pickle.dumps(Calls(getattr, "a", "upper")),
    "popen": pickle.dumps(Calls(subprocess.check_call, ["mkdir", MARK])),
    "import": pickle.dumps(Calls(__import__, "antigravity")),
    "open": pickle.dumps(Calls(open, MARK, "w")),
    "system in protocol 0": pickle.dumps(Calls(os.mkdir, MARK), 0),
    "system as an instance": b"(S'mkdir x'\nios\nsystem\n.",
    "torch.load": pickle.dumps(Calls(torch.load, MARK)),
    "in a storage": hidden(Calls(os.mkdir, MARK)),
    "in a state": pickle.dumps(Calls(np.dtype, "f4", state=Calls(os.mkdir, MARK))),
    "in a list of tensors": pickle.dumps([MATRIX, Calls(os.mkdir, MARK)]),
    "saved by torch": saved([MATRIX, Calls(os.mkdir, MARK)]),
    "code of a function": b"\x80\x04\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93}"
    b"\x8c\x08__code__K\x01sb.",
    "a large memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a large memo entry": b"\x80\x02Nr\x00\x00\x00\x10.",
    "a long array": b"\x80\x05\x96" + (1 << 60).to_bytes(8, "little") + b"abc.",
    "a long text": b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little") + b"abc.",
    "a long frame": b"\x80\x04\x95" + (1 << 60).to_bytes(8, "little") + b"N.",
    "a huge shape": pickle.dumps(Calls(np.ndarray, (1 << 20, 1 << 20))),
    "a persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "an extension": b"\x80\x02\x82\x01.",
    "many lists": b"\x80\x02" + b"]" * 100_000 + b".",
    "deep tuples": b"\x80\x02N" + b"\x85" * 100_000 + b".",
    "outside the storage": rebuilt(0, (1000, 1000), (1000, 1)),
    "before the storage": rebuilt(-5, (2, 2), (2, 1)),
    "one number repeated": rebuilt(0, (10**6, 10**6), (0, 0)),
    "a negative stride": rebuilt(10, (2, 2), (-2, 1)),
    "a size of texts": rebuilt(0, ("a", 2), (2, 1)),
    "a huge whole number": rebuilt(0, (1 << 70, 1), (1, 1)),
    "a truth value as size": rebuilt(0, (True, 2), (2, 1)),
    "whole numbers": pickle.dumps(torch.arange(6).reshape(3, 2)),
    "complex": pickle.dumps(torch.zeros(3, 2, dtype=torch.complex64)),
    "objects": pickle.dumps(np.array([[1, "a"]], dtype=object)),
    "one dimension": pickle.dumps(torch.zeros(3)),
    "no rows": pickle.dumps(torch.zeros(0, 3)),
    "NaN": pickle.dumps(MATRIX * float("nan")),
    "infinite": pickle.dumps(MATRIX * float("inf")),
    "beyond float32": pickle.dumps(MATRIX.double() * 1e300),
    "a dictionary": pickle.dumps({"a": MATRIX}),
    "None": pickle.dumps(None),
    "a sparse tensor": saved(MATRIX.to_sparse()),
    "torch's earlier form": saved(MATRIX, _use_new_zipfile_serialization=False),
    "empty": b"",
    "text": b"user\titem\n",
    "a NumPy file": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}",
    "a zip of something else": zipped({"a.txt": b"a"}),
    "two pickles": pickle.dumps(MATRIX) * 2,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_pickles_that_are_no_matrix(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with trial(AREA, name):
        with pytest.raises(FeatureError, match=r"v\.pkl"):
            read_matrix(HOSTILE[name], "v.pkl")
        assert not list((tmp_path / "empty").iterdir()), "nothing of it ran"


def doubled(before: bytes, after: bytes, levels: int = 16) -> bytes:
    """A pickle with a tuple of twice a tuple of twice a tuple …, each stored once."""
    return b"\x80\x02" + before + b")" + b"q\x00h\x00\x86" * levels + after + b"."


DOUBLED = {
    "a key": doubled(b"}", b"Ns"),
    "a type": doubled(b"cnumpy\ndtype\n", b"\x85R"),
    "an encoding": doubled(b"c_codecs\nencode\nX\x01\x00\x00\x00a", b"\x86R"),
    "in later entries": doubled(b"}", b"Ns").replace(b"q\x00h\x00", b"\x94h\x00", 1),
    "saved by torch": zipped({"a/data.pkl": doubled(b"}", b"Ns")}),
}


@pytest.mark.parametrize("name", DOUBLED)
def test_pickles_that_double_with_every_level(name: str) -> None:
    """A hash or a text of such a value takes for ever; its pickle is refused before it is run."""
    refused = pytest.raises(FeatureError, match="neither text nor name, that is used again")
    with trial(AREA, name), refused:
        read_matrix(DOUBLED[name], "v.pkl")


@pytest.mark.parametrize("before", [b"cnumpy\ndtype\n", b"c_codecs\nencode\nX\x01\x00\x00\x00a"])
def test_errors_name_values_by_their_type(before: bytes) -> None:
    text = b"X" + (1 << 16).to_bytes(4, "little") + b"a" * (1 << 16) + b"q\x00"
    call = b"\x86R." if b"encode" in before else b"\x85R."
    content = b"\x80\x02" + before + b"(" + text + b"h\x00" * 900 + b"t" + call
    with trial(AREA, "a text many times"):
        tracemalloc.start()
        try:
            with pytest.raises(FeatureError, match="a tuple"):
                read_matrix(content, "v.pkl")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1 << 23, "the text of the tuple was not made"


VALUES = [
    MATRIX, MATRIX.double(), MATRIX.half(), MATRIX.bfloat16(), MATRIX.t(), MATRIX[3:9, 2:],
    torch.nn.Parameter(MATRIX), MATRIX.numpy(), MATRIX.double().numpy(), MATRIX.numpy().T,
    MATRIX.numpy().astype(">f4"), MATRIX.half().numpy(),
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("number", range(len(VALUES)))
def test_matrices_are_read_as_they_are(number: int, protocol: int) -> None:
    value = VALUES[number]
    with trial(AREA, f"value {number} in protocol {protocol}"):
        expected = value.detach().float().numpy() if torch.is_tensor(value) else value
        found = read_matrix(pickle.dumps(value, protocol), "v.pkl")
        assert found.dtype == np.float32
        assert np.array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize("protocol", [2, 3])  # those that torch reads
def test_files_of_torch_are_read(protocol: int) -> None:
    for value in filter(torch.is_tensor, VALUES):
        with trial(AREA, "saved by torch"):
            found = read_matrix(saved(value, pickle_protocol=protocol), "v.pkl")
            assert np.array_equal(found, value.detach().float().numpy())


PICKLES = [pickle.dumps(MATRIX[:4], protocol) for protocol in (2, 4, 5)]
PICKLES += [pickle.dumps(MATRIX[:4].numpy(), protocol) for protocol in (2, 4, 5)]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(PICKLES), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=8))))
def test_pickles_with_changed_bytes(content: bytes, changes: list[tuple[float, bytes]]) -> None:
    """Read as a matrix of some numbers, or refused; no other error, and nothing is called."""
    changed = bytearray(content)
    for place, inserted in changes:
        at = int(place * len(changed))
        changed[at : at + len(inserted)] = inserted
    with trial(AREA, "changed bytes"), contextlib.suppress(FeatureError):
        assert read_matrix(bytes(changed), "v.pkl").ndim == 2


# Archives ----------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScriptedServer]:
    with published(WORLD, tmp_path / "properties", FILES) as running:
        yield running


def download(server: ScriptedServer, root: Path, source: str = "mmrec"):
    mirror = server.url.rpartition("/")[0]
    return run_verb(
        "download", "--dataset", "sports", "--source", source, "--data-path", root, "--mirror",
        mirror, "--quiet",
    )  # fmt: skip


def content(root: Path) -> dict[str, str]:
    """Hash of every file but locks."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a data folder has after a download without trouble."""
    root = tmp_path_factory.mktemp("complete")
    with published(WORLD, root / "facts", FILES) as running:
        assert download(running, root / "data").status == 0
    found = content(root / "data")
    found.pop("downloads.lock.yaml")  # names the address of the server
    return found


def link(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO(zipped(members))
    with zipfile.ZipFile(out, "a") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return out.getvalue()


def twice(name: str) -> bytes:
    out = io.BytesIO(zipped(MEMBERS))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(f"again/{name}", MEMBERS[name])
    return out.getvalue()


def bomb(name: str, size: int) -> bytes:
    """An archive whose member unpacks to zeros, stored in a thousandth of the size."""
    return zipped({**MEMBERS, name: bytes(size)})


def patched(old: bytes, new: bytes, source: bytes | None = None) -> bytes:
    whole = zipped(MEMBERS) if source is None else source
    assert old in whole
    return whole.replace(old, new)


def lying(name: str) -> bytes:
    """An archive whose directory says that a member is shorter than it is."""
    whole = zipped(MEMBERS)
    size = len(MEMBERS[name])
    return whole.replace(size.to_bytes(4, "little"), (size // 2).to_bytes(4, "little"))


def far(name: str) -> bytes:
    """An archive whose directory says that a member begins at the last byte of 2⁶⁴."""
    whole = bytearray(zipped(MEMBERS))
    entry = whole.rindex(b"PK\x01\x02", 0, whole.rindex(name.encode()))
    whole[entry + 42 : entry + 46] = b"\xff" * 4  # the offset is in an extra field
    extra = struct.pack("<HHQ", 1, 8, (1 << 64) - 1)
    whole[entry + 30 : entry + 32] = struct.pack("<H", len(extra))
    whole[entry + 46 + len(name) : entry + 46 + len(name)] = extra
    end = whole.rindex(b"PK\x05\x06")
    (size,) = struct.unpack_from("<I", whole, end + 12)
    struct.pack_into("<I", whole, end + 12, size + len(extra))
    return bytes(whole)


def without(name: str) -> dict[str, bytes]:
    return {key: value for key, value in MEMBERS.items() if key != name}


def split(text: str) -> bytes:
    return zipped({**MEMBERS, "train.txt": text.encode()})


def features(value: object) -> bytes:
    return zipped({**MEMBERS, "visual_modality.pkl": pickle.dumps(value)})


TRAIN = MEMBERS["train.txt"].decode()
BROKEN = {
    "a name with ..": (zipped({**MEMBERS, "../evil.txt": b"x"}), "../evil.txt"),
    "a deep name with ..": (zipped({**MEMBERS, "a/../../evil.txt": b"x"}), "a/../../evil.txt"),
    "an absolute name": (zipped({**MEMBERS, "/tmp/evil.txt": b"x"}), "/tmp/evil.txt"),
    "a drive": (zipped({**MEMBERS, "C:/evil.txt": b"x"}), "C:/evil.txt"),
    "a wanted name with ..": (zipped({**without("train.txt"), "../train.txt": b"x"}), "../train"),
    "an escape sequence": (zipped({**MEMBERS, "\x1b[31m": b"x"}), "\\x1b"),
    "a link": (link(MEMBERS), "no links"),
    "a member twice": (twice("train.txt"), "two members 'train.txt'"),
    "no training split": (zipped(without("train.txt")), "no train.txt"),
    "no features": (
        zipped({k: v for k, v in MEMBERS.items() if k.endswith("txt")}),
        "has no features",
    ),
    "encrypted": (
        patched(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
        "encrypted",
    ),
    "a name before the content that is no UTF-8": (
        patched(
            b"PK\x03\x04\x14\x00\x00\x00",
            b"PK\x03\x04\x14\x00\x00\x08",  # the name is UTF-8
            zipped(MEMBERS).replace(b"train.txt", b"\xffrain.txt", 1),
        ),
        "train.txt: 'utf-8' codec can't decode",
    ),
    "an offset beyond any file": (far("train.txt"), "train.txt: "),
    "a bomb": (bomb("visual_modality.pkl", 40 << 20), "at most"),
    "a size that lies": (lying("visual_modality.pkl"), "visual_modality.pkl"),
    "no zip": (b"<html>Too many requests</html>", "not a whole zip file"),
    "empty": (b"", "not a whole zip file"),
    "half": (zipped(MEMBERS)[:2000], "not a whole zip file"),
    "no columns": (split("a\tb\n0\t1\n"), "columns a, b"),
    "commas": (split(TRAIN.replace("\t", ",")), "columns USER,ITEM"),
    "a word for a number": (split(TRAIN + "x\t1\n"), "'x' as USER in line"),
    "a negative number": (split(TRAIN + "-1\t1\n"), "'-1' as USER"),
    "a float": (split(TRAIN + "1.0\t1\n"), "'1.0' as USER"),
    "a huge number": (split(TRAIN + "1\t99999999999\n"), "'99999999999' as ITEM"),
    "a ragged line": (split(TRAIN + "1\t2\t3\t4\n"), "train.txt"),
    "a short line": (split(TRAIN + "1\n"), "1 cells in line"),
    "wider lines than the header": (
        split(TRAIN.replace("\n", "\t6\n").replace("ITEM\t6", "ITEM")),
        "3 cells in line 2",
    ),
    "an empty cell": (split(TRAIN + "1\t\n"), "'' as ITEM"),
    "a pair twice": (split(TRAIN + TRAIN.splitlines()[1] + "\n"), "for the second time"),
    "a gap": (split(TRAIN + "70\t1\n"), "without gaps"),
    "other counts": (split("\n".join(TRAIN.splitlines()[:-1]) + "\n"), "not the released split"),
    "not UTF-8": (zipped({**MEMBERS, "train.txt": b"USER\tITEM\n\xff\t1\n"}), "train.txt"),
    "a split of zeros": (zipped({**MEMBERS, "train.txt": bytes(1000)}), "train.txt"),
    "only a header": (split("USER\tITEM\n"), "no rows"),
    "a row too few": (features(MATRIX[:-1]), "39 rows"),
    "a row too many": (features(torch.cat([MATRIX, MATRIX[:1]])), "41 rows"),
    "columns and rows exchanged": (features(MATRIX.t()), "24 rows"),
    "NaN": (features(MATRIX * float("nan")), "not finite"),
    "a call": (features(Calls(os.mkdir, MARK)), "a call of posix.mkdir"),
    "rows in another order": (features(MATRIX.roll(1, 0)), "in another order than the items"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_archives_that_are_not_used(
    server: ScriptedServer,
    tmp_path: Path,
    complete: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """The command is refused; once the archive is deleted, the right one is converted."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    archive, words = BROKEN[name]
    root = tmp_path / "data"
    (root / "mine").mkdir(parents=True)
    (root / "mine" / "mine.inter").write_text("precious")
    outside = {path for path in tmp_path.rglob("*") if root not in path.parents}
    with trial(AREA, name):
        server.serves({ARCHIVE: archive})
        check_refused(download(server, root), words)
        assert {path for path in tmp_path.rglob("*") if root not in path.parents} == outside
        assert (root / "mine" / "mine.inter").read_text() == "precious"
        (root / "sports" / "downloads" / ARCHIVE).unlink()
        assert not (root / "downloads.lock.yaml").exists(), "nothing unusable is pinned"
        server.serves(FILES)
        assert download(server, root).status == 0
        found = content(root)
        found.pop("downloads.lock.yaml")
        found.pop("mine/mine.inter")
        assert found == complete


# The way there -----------------------------------------------------------------------------------


def usable(root: Path) -> dict[str, str]:
    """Content without the lock file, which names the server."""
    found = content(root)
    found.pop("downloads.lock.yaml", None)
    return found


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("404", Answer(status="404 Not Found"), "status 404"),
        ("403", Answer(status="403 Forbidden"), "status 403"),
        ("500", Answer(status="500 Broken"), "status 500"),
        ("half a file", replace(served(FILES[ARCHIVE]), cut=2000), "it resumes the partial file"),
        ("a page of HTML", served(b"<html>sign in</html>"), "not a whole zip file"),
        ("a short file", replace(served(FILES[ARCHIVE]), content=FILES[ARCHIVE][:3000]), "zip"),
    ],
)
def test_servers_that_fail(
    server: ScriptedServer,
    tmp_path: Path,
    complete: dict[str, str],
    name: str,
    answer: Answer,
    words: str,
) -> None:
    root = tmp_path / "data"
    with trial(AREA, name):
        server.script = {f"/{ARCHIVE}": answer}
        check_refused(download(server, root), words)
        (root / "sports" / "downloads" / ARCHIVE).unlink(missing_ok=True)
        server.serves(FILES)
        assert download(server, root).status == 0
        assert usable(root) == complete
        if name == "half a file":
            assert server.asked[0][1]["Range"] == "bytes=6000-", "after three tries of 2,000"


def test_a_changed_file_is_refused_with_both_hashes(
    server: ScriptedServer, tmp_path: Path, complete: dict[str, str]
) -> None:
    root, other = tmp_path / "data", zipped({**MEMBERS, "note.txt": b"new"})
    with trial(AREA, "changed zip"):
        assert download(server, root).status == 0
        (root / "sports" / "downloads" / ARCHIVE).unlink()
        server.serves({ARCHIVE: other})
        before = content(root)
        for size in (len(other), len(FILES[ARCHIVE])):  # of another size, of the same size
            changed = (other + bytes(size))[:size]
            server.serves({ARCHIVE: changed})
            said = download(server, root)
            check_refused(said, "downloads.lock.yaml")
            assert content(root) == before
        for content_ in (changed, FILES[ARCHIVE]):
            assert hashlib.sha256(content_).hexdigest() in said.errors
        server.serves(FILES)
        assert download(server, root).status == 0
        assert usable(root) == complete


@pytest.mark.parametrize(
    "text",
    [
        "sports/downloads/x.zip: {url: a, bytes: 1}", "a: {url: u, bytes: -1, sha256: x}", "- a",
        "a: b: c", "a: {url: u, bytes: '1', sha256: " + "0" * 64 + "}", "a: 7", "\x00",
        "a: {url: u, bytes: 1, sha256: " + "0" * 64 + ", more: 1}",
    ],
)  # fmt: skip
def test_lock_files_that_cannot_be_read(server: ScriptedServer, tmp_path: Path, text: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "downloads.lock.yaml").write_text(text)
    with trial(AREA, f"lock file {text!r}"):
        check_refused(download(server, root), "downloads.lock.yaml")
        assert not server.asked
        assert (root / "downloads.lock.yaml").read_text() == text


@pytest.mark.parametrize("mirror", ["ftp://a/b", "file:///etc", "a", "http://", "https:///x", "-"])
def test_mirrors_that_are_none(tmp_path: Path, mirror: str) -> None:
    with trial(AREA, f"mirror {mirror}"):
        said = run_verb(
            "download", "--dataset", "sports", "--source", "mmrec", "--data-path", tmp_path / "d",
            f"--mirror={mirror}",
        )  # fmt: skip
        check_refused(said, "mirror")


def test_an_existing_split_stays_if_it_is_the_same(server: ScriptedServer, tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "sports").mkdir(parents=True)
    path = root / "sports" / "sports.inter"
    with trial(AREA, "the same split"):
        path.write_bytes(WORLD.inter())
        said = download(server, root)
        assert "the same as in the sports.inter that was there" in said.output
        assert path.read_bytes() == WORLD.inter()
    with trial(AREA, "another split"):
        other = WORLD.inter().replace(b"\t1\n", b"\t9\n").replace(b"\t2\n", b"\t1\n")
        path.write_bytes(other.replace(b"\t9\n", b"\t2\n"))
        kept = path.read_bytes()
        check_refused(download(server, root), "other interactions than the archive")
        assert path.read_bytes() == kept


def test_reviews_of_another_split_are_refused(server: ScriptedServer, tmp_path: Path) -> None:
    root = tmp_path / "data"
    lines = WORLD.inter().splitlines(keepends=True)
    with trial(AREA, "other reviews"):
        fewer = b"".join([*lines[:1], *lines[2:]])
        server.serves({**FILES, "sports.inter": fewer})
        check_refused(download(server, root, "raw"), "The reviews are not those of sports.inter")
        assert not (root / "sports" / "items.tsv").exists()


def test_a_full_disk(
    server: ScriptedServer,
    small_disk: Callable[[int], SmallDisk],
    complete: dict[str, str],
) -> None:
    disk = small_disk(4 << 20)
    for left in (0, 4096, 16_384, 32_768):
        root = disk.path / f"d{left}"
        filler = disk.fill(left)
        with trial(AREA, f"disk with {left} bytes"):
            said = download(server, root)
            check_answered(said)
            assert said.status == 2, said
            filler.unlink()
            assert download(server, root).status == 0
            assert usable(root) == complete


# Row order ---------------------------------------------------------------------------------------


def test_the_order_of_rows_is_seen_in_real_data(shared_data: Path) -> None:
    """MiniLM's rows of real items fit the interactions; permuted and shifted ones do not."""
    table = np.loadtxt(
        shared_data / "lfm2k" / "lfm2k.inter", dtype=str, delimiter="\t", comments=None
    )
    train = table[1:][table[1:, list(table[0]).index("x_label")] == "0"][:, :2].astype(np.int64)
    values = np.load(shared_data / "lfm2k" / "all-MiniLM-L6-v2.npy")
    rng = np.random.default_rng(0)
    assert row_order(values, *train.T).is_confirmed
    assert not row_order(values[rng.permutation(len(values))], *train.T).is_confirmed
    for shift in (1, -2):
        assert row_order(np.roll(values, shift, 0), *train.T).is_contradicted


# Kills -------------------------------------------------------------------------------------------

PROGRAM = (
    "import sys; from pathlib import Path; from alignrec_recbole.data import dataset_paths; "
    "folder = Path(sys.argv.pop(1)); dataset_paths.properties_dir = lambda: folder; "
    "from alignrec_recbole.cli.main import main; sys.exit(main())"
)


@pytest.mark.slow
def test_killed_at_random_moments_and_given_again(tmp_path: Path) -> None:
    """The same bytes as without a kill; every byte is asked for once."""
    big = {**MEMBERS, "unread.bin": os.urandom(1 << 19)}
    whole = zipped(big)
    answer = replace(served(whole), rate=400_000)
    command = [
        "--model", "AlignRec", "--dataset", "sports", "--download", "--epochs", "1", "--quiet",
    ]  # fmt: skip

    def start(root: Path, url: str) -> subprocess.Popen:
        where = ["--data-path", str(root / "data"), "--output", str(root / "results")]
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "properties"), *command, *where,
             "--mirror", url],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    facts_of(WORLD, tmp_path / "properties")
    with scripted_server() as server:
        url = server.serves({})
        server.script = {f"/{ARCHIVE}": answer}
        calm = start(tmp_path / "calm", url)
        assert calm.wait(120) == 0, calm.stdout.read() if calm.stdout else ""
        server.asked.clear()
        folder, rng = tmp_path / "killed" / "data" / "sports", np.random.default_rng(5)
        part, sizes = folder / "downloads" / f"{ARCHIVE}.part", []
        marks = [(part, int(share * len(whole))) for share in sorted(rng.uniform(0.1, 0.9, 3))]
        marks += [(folder / "downloads" / ARCHIVE, 1), (folder / "features" / "mmrec-text.npy", 1)]
        for path, size in marks:
            with trial(AREA, f"killed at {size} bytes of {path.name}"):
                run = start(tmp_path / "killed", url)
                while run.poll() is None and not (path.exists() and path.stat().st_size >= size):
                    time.sleep(0.002)
                time.sleep(rng.uniform(0, 0.1))
                run.send_signal(signal.SIGKILL)
                run.wait()
                sizes.append(part.stat().st_size if part.exists() else -1)
        last = start(tmp_path / "killed", url)
        output, _ = last.communicate(timeout=120)
        assert last.returncode == 0, output
        assert "Recall@20" in output
        assert content(tmp_path / "killed" / "data") == content(tmp_path / "calm" / "data")
        starts = [int(headers.get("Range", "bytes=0-")[6:-1]) for _, headers in server.asked]
        assert starts == sorted(starts)
        assert all(start in (0, *sizes) for start in starts[1:])
        assert len(set(starts)) > 2, "several kills fell into the transfer"
        assert sum(start == 0 for start in starts) == 1, "the first bytes are asked for once"
