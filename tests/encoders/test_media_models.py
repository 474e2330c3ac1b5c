"""Image, audio and captioning models by name: equal to transformers' own processor and model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_encoders import SMALL, write_audio, write_blip, write_llava, write_siglip2, write_vision
from tiny_models import write_tiny_bert

from alignrec_recbole.cli.main import main
from alignrec_recbole.data.items import ItemTable, read_item_table
from alignrec_recbole.encoders.base import EncodedItems
from alignrec_recbole.encoders.captioner import Captioner
from alignrec_recbole.encoders.captions import CaptionSpec, write_captions
from alignrec_recbole.encoders.encode import encode_items
from alignrec_recbole.encoders.extraction import Identity, existing_output
from alignrec_recbole.encoders.vision import VisionEncoder
from alignrec_recbole.errors import AlignRecError, DataError, FeatureError, SettingError
from alignrec_recbole.features.table import load_features, save_features
from alignrec_recbole.testing.encoder_checks import EncoderCase, encoder_checks, sample_items

ROOT = Path(__file__).resolve().parents[2]
VISION = ("dinov2", "dinov3", "vit", "convnext")
AUDIO = ("whisper", "clap", "wav2vec2")
quiet = partial(encode_items, progress=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("transformers", minversion="5", reason="transformers is older than 5")
    folder = tmp_path_factory.mktemp("models")
    bert = write_tiny_bert(folder / "bert")
    return {
        **{kind: write_vision(folder / kind, kind) for kind in (*VISION, "deit")},
        **{kind: write_audio(folder / kind, kind) for kind in AUDIO},
        "siglip2": write_siglip2(folder / "siglip2", bert, flexible=False),
        "naflex": write_siglip2(folder / "naflex", bert, flexible=True),
        "llava": write_llava(folder / "llava", bert),
        "blip": write_blip(folder / "blip", bert),
        "bert": bert,
    }


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> ItemTable:
    return sample_items(tmp_path_factory.mktemp("sample"))


def write_sounds(folder: Path, count: int = 8) -> list[Path | None]:
    """WAV and FLAC files of several rates, lengths and numbers of channels; item 5 has none."""
    soundfile = pytest.importorskip("soundfile", reason="extra 'audio' is not installed")
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    sounds: list[Path | None] = []
    for i in range(count):
        path = folder / f"{i}.{'wav' if i % 2 else 'flac'}"
        noise = generator.normal(0, 0.1, (7000 + 900 * i, 1 + i % 2)).clip(-1, 1)
        soundfile.write(path, noise, (8000, 16000, 22050)[i % 3])
        sounds.append(path)
    sounds[5:6] = [None] * len(sounds[5:6])
    return sounds


@pytest.fixture(scope="module")
def heard(items: ItemTable, tmp_path_factory: pytest.TempPathFactory) -> ItemTable:
    sounds = write_sounds(tmp_path_factory.mktemp("sounds") / "audio", len(items.ids))
    return replace(items, audio=sounds)


# Checks that every encoder passes -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [*(f"vision:{kind}" for kind in VISION), "clip:siglip2", "clip:naflex", "clip-image:naflex"],
)
@pytest.mark.parametrize("check", encoder_checks(), ids=lambda check: check.__name__[6:])
def test_image_models_pass(check, name: str, models, items: ItemTable, tmp_path: Path) -> None:
    kind, _, family = name.partition(":")
    check(EncoderCase(partial(quiet, f"{kind}:{models[family]}"), items, tmp_path))


@pytest.mark.parametrize("kind", AUDIO)
@pytest.mark.parametrize("check", encoder_checks(), ids=lambda check: check.__name__[6:])
def test_audio_models_pass(check, kind: str, models, heard: ItemTable, tmp_path: Path) -> None:
    encode = partial(quiet, f"audio:{models[kind]}")
    # the checks build tables of their own, whose images are the files to encode
    sounds = replace(heard, images=heard.audio, audio=[])

    def of_images(table: ItemTable, batch_size: int = 64) -> EncodedItems:
        return encode(replace(table, audio=table.images), batch_size=batch_size)

    check(EncoderCase(of_images, sounds, tmp_path))


# Images -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", VISION)
def test_image_vectors_equal_transformers(kind: str, models, items: ItemTable) -> None:
    from transformers import AutoImageProcessor, AutoModel

    rows = quiet(f"vision:{models[kind]}", items, batch_size=5)
    processor = AutoImageProcessor.from_pretrained(models[kind])
    model = AutoModel.from_pretrained(models[kind]).eval()
    for i, path in enumerate(items.images):
        if path is None:
            assert not rows.present[i]
            continue
        with torch.inference_mode():
            out = model(**processor(Image.open(path).convert("RGB"), return_tensors="pt"))
        expected = out.last_hidden_state[:, 0] if kind == "vit" else out.pooler_output
        assert np.abs(rows.matrix[i] - expected.flatten().numpy()).max() < 2e-6, i
    assert rows.settings["pooling"] == ("cls" if kind == "vit" else "pooled")


@pytest.mark.parametrize("kind", [*VISION, "deit"])
def test_mean_of_patches(kind: str, models, items: ItemTable, tmp_path: Path) -> None:
    """Without CLS, registers and DeiT's distillation token; ConvNeXt has maps, no patches."""
    from transformers import AutoImageProcessor, AutoModel

    shop = as_files(items, tmp_path)
    arguments = ["prepare", "--dataset", "d", "--items", str(shop), "--output", str(tmp_path)]
    encoder = ["--encoder", f"vision:{models[kind]}", "--name", "f", "--no-progress"]
    assert main([*arguments, *encoder, "--pooling", "mean", "--workers", "0"]) == 0
    row = load_features(tmp_path / "f.npy").matrix[0]
    processor = AutoImageProcessor.from_pretrained(models[kind])
    image = Image.open(items.images[0]).convert("RGB")
    with torch.inference_mode():
        model = AutoModel.from_pretrained(models[kind]).eval()
        hidden = model(**processor(image, return_tensors="pt")).last_hidden_state[0]
    patches = hidden.flatten(1).T if kind == "convnext" else hidden[-16:]
    assert np.abs(row - patches.mean(0).numpy()).max() < 1e-5


def as_files(items: ItemTable, folder: Path) -> Path:
    """The items as items.tsv with images beside it."""
    (folder / "images").symlink_to(next(p for p in items.images if p).parent)
    rows = [
        f"{item}\t{text}\t{image.name if image else ''}"
        for item, text, image in zip(items.ids, items.texts, items.images, strict=True)
    ]
    path = folder / "items.tsv"
    path.write_text("\n".join(["item_id\ttitle\timage", *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("kind", "pooling", "says"),
    [("vit", "pooled", "no weights of a pooler"), ("convnext", "cls", "has no pooling 'cls'"),
     ("dinov2", "concat", "has no pooling 'concat'")],
)  # fmt: skip
def test_poolings_that_a_model_does_not_have(kind, pooling, says, models) -> None:
    with pytest.raises(SettingError, match=says):
        VisionEncoder(f"vision:{models[kind]}", "cpu", pooling)


@pytest.mark.parametrize("family", ["siglip2", "naflex"])
def test_siglip2_equals_transformers(family: str, models, items: ItemTable) -> None:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    folder = models[family]
    rows = quiet(f"clip:{folder}", items, batch_size=5)
    processor = AutoImageProcessor.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    path = items.images[0]
    assert path is not None
    image = Image.open(path).convert("RGB")
    if family == "siglip2":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        image = image.resize((32, 32), Image.Resampling.BICUBIC, box=box)
    words = tokenizer(
        [items.texts[0]], padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    )
    with torch.inference_mode():
        vectors = (
            model.get_image_features(**processor(image, return_tensors="pt")),
            model.get_text_features(**words),
        )
    for part, vector in zip(np.split(rows.matrix[0], 2), vectors, strict=True):
        found = getattr(vector, "pooler_output", vector)[0].numpy()
        assert np.abs(part - found / np.linalg.norm(found)).max() < 2e-6
    assert rows.settings["side"] == (32 if family == "siglip2" else None)


def test_what_scales_images_is_part_of_the_identity(models, monkeypatch) -> None:
    """transformers takes torchvision where it is installed, and rows differ."""
    from importlib import metadata

    from alignrec_recbole.encoders import clip, vision

    names = {f"vision:{models['dinov2']}": vision, f"clip:{models['naflex']}": clip,
             f"clip:{models['siglip2']}": clip}  # fmt: skip
    real = metadata.version
    monkeypatch.setattr("transformers.utils.is_torchvision_available", lambda: False)
    without = [module.identity(name) for name, module in names.items()]
    monkeypatch.setattr("transformers.utils.is_torchvision_available", lambda: True)
    monkeypatch.setattr(metadata, "version", lambda n: "9.9" if n == "torchvision" else real(n))
    found = [module.identity(name) for name, module in names.items()]
    other = {"torchvision": "9.9"}
    assert found == [without[0] | other, without[1] | other, without[2]]


def test_a_package_that_a_model_needs_is_the_hint() -> None:
    from alignrec_recbole.encoders.model_folders import cannot_be_loaded

    error = ImportError("\nQwen3VLVideoProcessor requires the Torchvision library but it was not")
    assert cannot_be_loaded("sentence encoder", "m", error).hint == "pip install torchvision"
    assert not cannot_be_loaded("sentence encoder", "m", ValueError("no")).hint


def test_rows_that_are_others_in_every_call_are_refused(tmp_path: Path) -> None:
    """A masked autoencoder hides patches at random, also outside of training."""
    import transformers as t

    t.ViTMAEModel(t.ViTMAEConfig(image_size=32, patch_size=8, **SMALL)).save_pretrained(tmp_path)
    t.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.raises(FeatureError, match="other rows of the same image"):
        VisionEncoder(f"vision:{tmp_path}", "cpu", None)


def test_detection_tokens_are_no_patches(tmp_path: Path) -> None:
    import transformers as t

    config = t.YolosConfig(image_size=[32, 32], patch_size=8, num_detection_tokens=5, **SMALL)
    t.YolosModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    t.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    encoder = VisionEncoder(f"vision:{tmp_path}", "cpu", "mean")
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    hidden = encoder._output([Image.fromarray(image)]).last_hidden_state[0]
    assert len(hidden) == 1 + 16 + 5
    assert np.abs(encoder.rows([""], [image])[0] - hidden[1:17].mean(0).numpy()).max() < 1e-6


def test_models_that_cannot_encode_a_sample_are_refused(tmp_path: Path) -> None:
    import transformers as t

    pytest.importorskip("soundfile", reason="extra 'audio' is not installed")
    from alignrec_recbole.encoders.audio import AudioEncoder

    part = {"hidden_size": 8, "image_size": 32, "patch_size": 8}
    t.SamModel(t.SamConfig(
        vision_config={**part, "output_channels": 8, "num_hidden_layers": 1, "mlp_dim": 8,
                       "num_attention_heads": 2, "global_attn_indexes": [0]},
        prompt_encoder_config=part,
        mask_decoder_config={"hidden_size": 8, "mlp_dim": 8, "num_hidden_layers": 1,
                             "num_attention_heads": 2, "iou_head_hidden_dim": 8},
    )).save_pretrained(tmp_path / "sam")  # fmt: skip
    t.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "sam")
    t.EncodecModel(t.EncodecConfig(
        num_filters=4, hidden_size=8, num_residual_layers=1, codebook_size=16, codebook_dim=8,
        num_lstm_layers=1,
    )).save_pretrained(tmp_path / "encodec")  # fmt: skip
    t.EncodecFeatureExtractor().save_pretrained(tmp_path / "encodec")
    with pytest.raises(FeatureError, match=r"image encoder .* cannot be loaded"):
        VisionEncoder(f"vision:{tmp_path / 'sam'}", "cpu", None)
    with pytest.raises(FeatureError, match=r"audio encoder .* cannot be loaded"):
        AudioEncoder(f"audio:{tmp_path / 'encodec'}", "cpu")


def test_a_text_tower_with_fewer_positions_than_its_config_names(tmp_path: Path) -> None:
    """RoBERTa's positions begin after the padding's id: 34 are enough for 32 tokens."""
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers

    from alignrec_recbole.encoders.clip import DualEncoder

    text = t.RobertaConfig(vocab_size=10, max_position_embeddings=34, pad_token_id=1, **SMALL)
    image = t.ViTConfig(image_size=32, patch_size=8, **SMALL)
    both = t.VisionTextDualEncoderConfig.from_vision_text_configs(image, text, projection_dim=8)
    t.VisionTextDualEncoderModel(both).save_pretrained(tmp_path)
    words = Tokenizer(models.WordLevel({"<s>": 0, "<pad>": 1, "<unk>": 2, "a": 3}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    t.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", model_max_length=32
    ).save_pretrained(tmp_path)
    t.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    encoder = DualEncoder(f"clip-text:{tmp_path}", "cpu")
    long, cut = encoder.rows(["a " * 90, "a " * 32], [None, None])
    assert np.array_equal(long, cut)


def test_models_of_another_kind_are_refused(models, items: ItemTable) -> None:
    with pytest.raises(FeatureError, match=r"cannot be loaded|is no image encoder"):
        quiet(f"vision:{models['bert']}", items)
    with pytest.raises(FeatureError, match=r"cannot be loaded|is no audio encoder"):
        quiet(f"audio:{models['dinov2']}", items)
    with pytest.raises(FeatureError, match="cannot be loaded"):
        Captioner(str(models["bert"]), "cpu", None, 4, False)


# Audio --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", AUDIO)
def test_audio_vectors_equal_transformers(kind: str, models, heard: ItemTable) -> None:
    from transformers import AutoFeatureExtractor, AutoModel

    from alignrec_recbole.data.audio import waveform

    rows = quiet(f"audio:{models[kind]}", heard, batch_size=5)
    assert (rows.modality, int(rows.present.sum())) == ("audio", 11)
    extractor = AutoFeatureExtractor.from_pretrained(models[kind])
    model = AutoModel.from_pretrained(models[kind]).eval()
    rate = extractor.sampling_rate
    for i in (0, 1, 2, 7):
        path = heard.audio[i]
        assert path is not None
        samples = waveform(path, rate, rows.settings["seconds"]).samples
        found = extractor(samples, sampling_rate=rate, return_tensors="pt")
        with torch.inference_mode():
            if kind == "clap":
                found["is_longer"] = torch.zeros(1, 1, dtype=torch.bool)
                vector = model.get_audio_features(**found)
                expected = getattr(vector, "pooler_output", vector)[0]
            elif kind == "whisper":
                hidden = model.get_encoder()(**found).last_hidden_state[0]  # 2 s are 100 frames
                expected = hidden[: int(np.ceil(len(samples) / rate * 50))].mean(0)
            else:
                expected = model(**found).last_hidden_state[0].mean(0)
        assert np.abs(rows.matrix[i] - expected.numpy()).max() < 2e-6, i


def test_samples_are_read_mixed_and_resampled(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="extra 'audio' is not installed")
    from alignrec_recbole.data.audio import waveform

    time_ = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 440 * time_)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, 0 * tone], 1), 16000, subtype="FLOAT")
    found = waveform(tmp_path / "a.wav", 8000, 0.5).samples
    assert found is not None
    assert found.shape == (4000,)
    assert found.dtype == np.float32
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4000) / 8000)
    assert np.abs(found - expected)[100:-100].max() < 1e-2, "half of one channel"


def test_a_header_that_names_the_format_in_full_is_a_wav(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="extra 'audio' is not installed")
    from alignrec_recbole.data.audio import waveform

    noise = np.random.default_rng(0).normal(0, 0.1, 99)
    soundfile.write(tmp_path / "a.wav", noise, 16000, format="WAVEX", subtype="PCM_24")
    found = waveform(tmp_path / "a.wav", 16000, 1.0).samples
    assert found is not None
    assert np.abs(found - noise).max() < 1e-6


def test_a_sound_shorter_than_a_frame_is_padded(models) -> None:
    """The convolutions of (10, 8) samples with strides (5, 4) see 45 samples at least."""
    pytest.importorskip("soundfile", reason="extra 'audio' is not installed")
    from alignrec_recbole.encoders.audio import AudioEncoder

    encoder = AudioEncoder(f"audio:{models['wav2vec2']}", "cpu")
    sound = np.random.default_rng(0).normal(0, 0.1, 44).astype(np.float32)
    short, padded = encoder.rows(["", ""], [sound, np.pad(sound, (0, 1))])
    assert np.isfinite(short).all()
    assert np.array_equal(short, padded)


def huge(path: Path) -> None:
    """A WAV header that promises 2^31 samples of 60,000 channels, and holds none."""
    import struct

    channels, rate = 60_000, 48_000
    fmt = struct.pack("<HHIIHH", 1, channels, rate, 2**32 - 1, 2**16 - 1, 16)
    path.write_bytes(
        b"RIFF" + struct.pack("<I", 2**31) + b"WAVEfmt " + struct.pack("<I", 16) + fmt
        + b"data" + struct.pack("<I", 2**31 - 100)
    )  # fmt: skip


BROKEN_SOUNDS: dict[str, Callable[[Path], object]] = {
    "absent": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "no bytes": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>404 Not Found</html>" * 50),
    "a header alone": lambda path: path.write_bytes(b"RIFF\x24\0\0\0WAVEfmt "),
    "a huge header": huge,
}


@pytest.mark.parametrize("case", BROKEN_SOUNDS)
def test_sounds_that_cannot_be_trusted(case: str, tmp_path: Path) -> None:
    pytest.importorskip("soundfile", reason="extra 'audio' is not installed")
    from alignrec_recbole.data.audio import waveform

    BROKEN_SOUNDS[case](tmp_path / "a.wav")
    found = waveform(tmp_path / "a.wav", 16000, 2.0)
    assert found.samples is None
    assert found.reason in ("missing", "not a file", "empty", "damaged", "too large")


def test_broken_sounds_are_counted_and_absent(models, tmp_path: Path, caplog) -> None:
    sounds = write_sounds(tmp_path / "audio", 3)
    for i, breaks in enumerate(BROKEN_SOUNDS.values()):
        path = tmp_path / f"{i}.wav"
        breaks(path)
        sounds.append(path)
    ids = [f"i{n}" for n in range(len(sounds))]
    table = ItemTable(ids, ["t"] * len(ids), [None] * len(ids), "t", ["title"], audio=sounds)
    rows = quiet(f"audio:{models['whisper']}", table)
    assert rows.present.tolist() == [True] * 3 + [False] * len(BROKEN_SOUNDS)
    assert "7 of 10 audio files are missing or broken" in caplog.text
    with pytest.raises(DataError, match="no readable audio file"):
        quiet(f"audio:{models['whisper']}", replace(table, audio=[None] * 3 + sounds[3:]))


def test_audio_of_a_table_is_prepared_and_cached(models, tmp_path: Path, capsys) -> None:
    from alignrec_recbole.encoders.cache import find_or_encode

    shop = tmp_path / "shop"
    sounds = write_sounds(shop / "audio", 6)
    rows = [f"{i}\t{p.name if p else ''}\titem {i}" for i, p in enumerate(sounds)]
    (shop / "items.tsv").write_text("\n".join(["item_id\taudio\ttitle", *rows]) + "\n")
    items = read_item_table(shop / "items.tsv")
    assert items.text_columns == ["title"]
    common = ["prepare", "--dataset", "shop", "--data-path", str(tmp_path), "--no-progress",
              "--encoder", f"audio:{models['clap']}", "--name", "sound"]  # fmt: skip
    for number in ("1/2", "2/2"):
        assert main([*common, "--batch-size", "2", "--shard", number]) == 0
    assert main(["merge-shards", "--dataset", "shop", "--data-path", str(tmp_path), "--name",
                 "sound"]) == 0  # fmt: skip
    table = load_features(shop / "features" / "sound.npy")
    assert (table.manifest.modality, table.manifest.missing) == ("audio", ["5"])
    assert table.manifest.settings["images"] == {"read": 5, "not named": 1}
    assert "audio files read" in capsys.readouterr().out
    ask = partial(find_or_encode, f"audio:{models['clap']}", dataset_dir=shop, dataset="shop")
    first = ask()
    assert ask().path == first.path
    assert np.abs(np.array(first.matrix) - np.array(table.matrix)).max() < 1e-5
    (shop / "audio" / "0.flac").write_bytes((shop / "audio" / "2.flac").read_bytes())
    assert ask().path != first.path, "another sound under the same name"


def test_a_column_called_audio_is_text_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "items.tsv").write_text("item_id\taudio\na\tstereo\n")
    assert read_item_table(tmp_path / "items.tsv").texts == ["stereo"]


# Captions -----------------------------------------------------------------------------------------


def spec(folder: Path, **other: object) -> CaptionSpec:
    return replace(CaptionSpec(folder, "c", batch_size=4, progress=False), **other)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["llava", "blip"])
def test_captions_equal_transformers(family: str, models, items: ItemTable, tmp_path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    captioner = Captioner(str(models[family]), "cpu", None, 8, False)
    table, manifest = write_captions(captioner, items, spec(tmp_path))
    processor = AutoProcessor.from_pretrained(models[family])
    model = AutoModelForImageTextToText.from_pretrained(models[family]).eval()
    for i in (0, 1, 7):
        path = items.images[i]
        assert path is not None
        picture = Image.open(path).convert("RGB")
        text = {"text": f"[IMAGE]{captioner.request}"} if family == "llava" else {}
        inputs = processor(images=picture, return_tensors="pt", **text)
        with torch.inference_mode():
            out = model.generate(**inputs, do_sample=False, max_new_tokens=8)
        start = inputs["input_ids"].shape[1] if family == "llava" else 0
        said = processor.batch_decode(out[:, start:], skip_special_tokens=True)[0]
        assert table.texts[i] == " ".join(said.split())
    assert manifest.missing == ["item5"]
    assert table.ids == items.ids
    if family == "llava":
        assert len(set(table.texts)) > 6, "images are told apart"


def test_captions_one_by_one_are_those_of_batches(models, items: ItemTable, tmp_path) -> None:
    captioner = Captioner(str(models["llava"]), "cpu", None, 8, False)
    whole, _ = write_captions(captioner, items, spec(tmp_path / "a"))
    single, _ = write_captions(captioner, items, spec(tmp_path / "b", batch_size=1))
    assert whole.texts == single.texts


class Stopping(Captioner):
    """Counts images, and may stop."""

    def __init__(self, model: Path, stop_after: int | None = None) -> None:
        super().__init__(str(model), "cpu", None, 8, False)
        self.given, self.stop_after = 0, stop_after

    def captions(self, images):
        if self.stop_after is not None and self.given >= self.stop_after:
            raise KeyboardInterrupt
        self.given += len(images)
        return super().captions(images)


@pytest.mark.parametrize("damage", ["none", "torn line", "other words"])
def test_stopped_captions_go_on(damage: str, models, items: ItemTable, tmp_path: Path) -> None:
    whole, _ = write_captions(Stopping(models["llava"]), items, spec(tmp_path / "whole"))
    first, second = Stopping(models["llava"], 6), Stopping(models["llava"])
    with pytest.raises(KeyboardInterrupt):
        write_captions(first, items, spec(tmp_path / "cut"))
    journal = next((tmp_path / "cut").glob(".c-*.part")) / "journal"
    text = journal.read_text()
    if damage == "torn line":
        journal.write_text(text[:-20])
    elif damage == "other words":
        journal.write_text(text.replace('"captions": {"0": "', '"captions": {"0": "evil', 1))
    rest, _ = write_captions(second, items, spec(tmp_path / "cut"))
    assert first.given == 8
    assert second.given == (3 if damage == "none" else 7), "11 images, in batches of 4"
    for name in ("c.tsv", "c.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert rest.texts == whole.texts
    assert not list((tmp_path / "cut").glob(".*"))
    again = Stopping(models["llava"])
    write_captions(again, items, spec(tmp_path / "cut"))
    assert again.given == 0, "finished captions are not made again"


def test_captions_of_other_settings_are_not_replaced(models, items, tmp_path: Path) -> None:
    write_captions(Captioner(str(models["blip"]), "cpu", None, 4, False), items, spec(tmp_path))
    other = Captioner(str(models["blip"]), "cpu", None, 6, False)
    with pytest.raises(FeatureError, match="made from other items or settings"):
        write_captions(other, items, spec(tmp_path))
    _, manifest = write_captions(other, items, spec(tmp_path, overwrite=True))
    assert manifest.settings["max_new_tokens"] == 6
    with pytest.raises(FeatureError, match="made from other items or settings"):
        write_captions(other, items, spec(tmp_path, batch_size=3))
    (tmp_path / "c.tsv").write_text("mine")
    with pytest.raises(FeatureError, match="a table that was changed since"):
        write_captions(other, items, spec(tmp_path))
    assert (tmp_path / "c.tsv").read_text() == "mine"


class Still(Captioner):
    """Says the same of every image, without a model."""

    def __init__(self) -> None:
        self.name, self.settings = "caption:still", {}

    def captions(self, images):
        return ["a thing"] * len(images)


def manifest_of(folder: Path) -> bytes:
    return (folder / "c.json").read_bytes()


def save_rows(folder: Path) -> None:
    about = {"name": "c", "modality": "text", "encoder": "e", "settings": {}, "source": "s"}
    save_features(folder / "c.npy", np.ones((2, 3), np.float32), items=["b", "a"], **about)


@pytest.mark.parametrize("overwrite", [False, True])
def test_captions_do_not_replace_the_manifest_of_features(
    overwrite: bool, items: ItemTable, tmp_path: Path
) -> None:
    save_rows(tmp_path)
    before = manifest_of(tmp_path)
    with pytest.raises(FeatureError, match="name of another file"):
        write_captions(Still(), items, spec(tmp_path, overwrite=overwrite))
    assert manifest_of(tmp_path) == before
    (tmp_path / "c.json").unlink()  # row n belongs to item n
    with pytest.raises(FeatureError, match="name of another file"):
        write_captions(Still(), items, spec(tmp_path, overwrite=overwrite))
    (tmp_path / "c.npy").rename(tmp_path / "d.npy")
    (tmp_path / "c.json").write_text('{"mine": 1}')
    with pytest.raises(FeatureError, match="name of another file"):
        write_captions(Still(), items, spec(tmp_path, overwrite=overwrite))
    assert manifest_of(tmp_path) == b'{"mine": 1}'


@pytest.mark.parametrize("overwrite", [False, True])
def test_features_do_not_replace_the_manifest_of_captions(
    overwrite: bool, items: ItemTable, tmp_path: Path
) -> None:
    write_captions(Still(), items, spec(tmp_path))
    before = manifest_of(tmp_path)
    with pytest.raises(FeatureError, match=r"c\.json is there, and no manifest of features"):
        save_rows(tmp_path)
    with pytest.raises(FeatureError, match=r"c\.json is there, and no manifest of features"):
        existing_output(tmp_path / "c.npy", Identity("a", "a", False), overwrite)
    assert manifest_of(tmp_path) == before
    assert not (tmp_path / "c.npy").exists()


def test_a_damaged_manifest_of_features_is_written_again(tmp_path: Path) -> None:
    save_rows(tmp_path)
    before = manifest_of(tmp_path)
    (tmp_path / "c.json").write_bytes(before[:-9])
    save_rows(tmp_path)
    assert manifest_of(tmp_path) == before


def test_captions_are_encoded_like_any_text(models, items: ItemTable, tmp_path: Path) -> None:
    shop = as_files(items, tmp_path)
    command = ["prepare", "--dataset", "d", "--items", str(shop), "--output", str(tmp_path / "o"),
               "--caption", str(models["llava"]), "--max-new-tokens", "8", "--no-progress",
               "--workers", "0"]  # fmt: skip
    assert main([*command, "--encoder", "lsa", "--name", "both"]) == 0
    table = next((tmp_path / "o").glob("caption-*.tsv"))
    assert json.loads(table.with_suffix(".json").read_text())["kind"] == "captions"
    again = ["prepare", "--dataset", "d", "--items", str(table), "--output", str(tmp_path / "o")]
    assert main([*again, "--encoder", "lsa", "--name", "alone", "--no-progress"]) == 0
    both, alone = (load_features(tmp_path / "o" / f"{name}.npy") for name in ("both", "alone"))
    assert np.array_equal(both.matrix, alone.matrix)
    assert "item5" in both.manifest.missing
    assert main([*command, "--shard", "1/2"]) == 2


def test_nothing_to_describe(models, tmp_path: Path) -> None:
    captioner = Captioner(str(models["blip"]), "cpu", None, 4, False)
    table = ItemTable(["a"], ["text"], [tmp_path / "absent.png"], "t", ["title"])
    with pytest.raises(FeatureError, match="has no image that"):
        write_captions(captioner, table, spec(tmp_path))


@pytest.mark.parametrize("kind", ["vision:dinov2", "audio:whisper", "caption:llava"])
@pytest.mark.parametrize("damage", ["config", "weights", "processor", "huge"])
def test_damaged_models_are_refused_in_a_sentence(kind, damage, models, items, tmp_path) -> None:
    import shutil

    door, _, family = kind.partition(":")
    folder = shutil.copytree(models[family], tmp_path / "m")
    if damage == "config":
        (folder / "config.json").write_text("{")
    elif damage == "weights":
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "processor":
        for name in ("preprocessor_config.json", "processor_config.json"):
            if (folder / name).exists():
                (folder / name).write_text('["x"]')
    else:
        config = json.loads((folder / "config.json").read_text())
        config |= {"hidden_size": 10**9, "d_model": 10**9, "text_config": {"hidden_size": 10**9}}
        (folder / "config.json").write_text(json.dumps(config))
    opened = partial(quiet, f"{door}:{folder}", items)
    if door == "caption":
        opened = partial(Captioner, str(folder), "cpu", None, 4, False)
    with pytest.raises(AlignRecError, match="cannot be loaded"):
        opened()


# All films, killed and resumed --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.data
@pytest.mark.parametrize(
    "door", ["vision:dinov2", "vision:convnext", "clip:naflex", "st:llava", "caption:llava"]
)
def test_all_films_killed_and_resumed(door: str, models, shared_data: Path, tmp_path) -> None:
    """kill -9 of the real command on 1,682 films; then the bytes of one that was not stopped."""
    kind, _, family = door.partition(":")
    model = models[family]
    if kind == "st":
        pytest.importorskip("sentence_transformers", reason="extra 'st' is not installed")
        from tiny_encoders import write_multimodal

        model = write_multimodal(tmp_path / "st", models["bert"])
    chosen = (
        ["--caption", str(model), "--max-new-tokens", "3"]
        if kind == "caption"
        else ["--encoder", f"{kind}:{model}"]
    )
    command = [sys.executable, "run_benchmark.py", "prepare", "--dataset", "d", "--items",
               str(shared_data / "ml-100k-posters" / "items.tsv"), "--name", "f", *chosen,
               "--workers", "0", "--threads", "1"]  # fmt: skip
    first = subprocess.Popen(
        [*command, "--output", str(tmp_path / "cut")],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and first.poll() is None:
        journals = list((tmp_path / "cut").glob(".f-*.part/journal"))
        if journals and journals[0].read_bytes().count(b"\n") >= 5:
            break
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL, "it ended before it was killed"
    end = "tsv" if kind == "caption" else "npy"
    assert not (tmp_path / "cut" / f"f.{end}").exists()
    said = subprocess.run([*command, "--output", str(tmp_path / "cut")], cwd=ROOT,
                          capture_output=True, text=True)  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "resuming after" in said.stderr + said.stdout
    assert main([*command[2:], "--output", str(tmp_path / "whole"), "--no-progress"]) == 0
    for name in (f"f.{end}", "f.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
