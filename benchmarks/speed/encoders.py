"""Encoders by name against the libraries they use, on the same items: items per second and memory.

    python -m benchmarks.speed.encoders --items items.tsv [--count 64] [--rounds 3] [--only st …]

`st` is all-MiniLM-L6-v2 with its weights (extra `minilm`); the others have the sizes of published
models and random weights, and the tokenizer of all-MiniLM-L6-v2: DINOv2 small, CLIP with two towers
of that size, Whisper tiny on 10 s of noise, BLIP with towers of 6 layers and captions of 16 tokens.
Ours reads files, encodes batches of 16 and checks rows, as `prepare` does; the library's side is
its own processor and model on the same files in batches of 16 in the table's order. The last line
printed is one JSON object.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignrec_recbole.data.items import ItemTable, read_item_table
from alignrec_recbole.encoders.base import EncoderRequest
from alignrec_recbole.encoders.batches import make_plan, run_batches
from alignrec_recbole.encoders.captioner import Captioner
from alignrec_recbole.encoders.minilm import minilm_folder
from alignrec_recbole.encoders.registry import find_encoder
from alignrec_recbole.runtime import hardware
from benchmarks.speed import paired_timing

BATCH = 16
SECONDS = 10  # of a sound
NEW_TOKENS = 16
SMALL: dict[str, Any] = {
    "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12,
    "num_attention_heads": 6,
}  # fmt: skip
CASES = ("st", "vision", "clip", "audio", "caption")


def write_model(case: str, folder: Path) -> Path:
    """A model of a published size with random weights; of `st` the packaged one."""
    import transformers as t

    if case == "st":
        return minilm_folder()
    torch.manual_seed(0)
    tokenizer = t.AutoTokenizer.from_pretrained(minilm_folder())
    text = {**SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    ends = {"bos_token_id": 101, "eos_token_id": 102, "pad_token_id": 0}
    model: Any
    if case == "vision":
        model = t.Dinov2Model(t.Dinov2Config(image_size=224, patch_size=14, **SMALL))
        t.BitImageProcessor(size={"shortest_edge": 256}, crop_size=224).save_pretrained(folder)
    elif case == "clip":
        vision = {**SMALL, "image_size": 224, "patch_size": 32}
        config = t.CLIPConfig(text_config={**text, **ends}, vision_config=vision)
        model = t.CLIPModel(config)
        tokenizer.model_max_length = 64
        tokenizer.save_pretrained(folder)
        t.CLIPImageProcessor().save_pretrained(folder)
    elif case == "audio":
        model = t.WhisperModel(t.WhisperConfig())  # the default is tiny's
        t.WhisperFeatureExtractor().save_pretrained(folder)
    else:
        six = {**SMALL, "num_hidden_layers": 6}
        words = {**text, **six, **ends, "sep_token_id": 102, "encoder_hidden_size": 384}
        model = t.BlipForConditionalGeneration(t.BlipConfig(
            text_config=words, vision_config={**six, "image_size": 224, "patch_size": 16},
        ))  # fmt: skip
        processor = t.BlipImageProcessor(size={"height": 224, "width": 224})
        t.BlipProcessor(processor, tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def write_sounds(folder: Path, count: int) -> list[Path | None]:
    """WAV files of noise at 16 kHz."""
    import soundfile

    noise = np.random.default_rng(0)
    paths: list[Path | None] = []
    for i in range(count):
        path = folder / f"{i}.wav"
        soundfile.write(path, noise.normal(0, 0.1, SECONDS * 16_000).clip(-1, 1), 16_000)
        paths.append(path)
    return paths


def ours(case: str, model: Path, items: ItemTable) -> paired_timing.Actions:
    """The encoder by its name."""
    if case == "caption":
        from alignrec_recbole.data.images import whole

        captioner = Captioner(str(model), "cpu", None, NEW_TOKENS, False)

        def describe() -> None:
            for batch in _batches(items.images):
                captioner.captions([whole(path).pixels for path in batch])  # type: ignore[misc]

        return {"encode": describe}
    name = f"{case}:{model}"
    encoder = find_encoder(name).load().open_encoder(EncoderRequest(name))
    items = items.with_files(encoder.media)
    plan = make_plan(encoder, items, BATCH)

    def encode() -> None:
        for _ in run_batches(encoder, items, plan, range(len(plan.batches))):
            pass

    return {"encode": encode}


def library(case: str, model: Path, items: ItemTable) -> paired_timing.Actions:
    """The library's own calls."""
    return {"encode": partial(_library_pass, items, _library_call(case, model))}


def _library_pass(items: ItemTable, call: Callable[[list[str], list[Any]], Any]) -> None:
    files = items.audio or items.images
    with torch.inference_mode():
        for texts, paths in zip(_batches(items.texts), _batches(files), strict=True):
            call(texts, paths)


def _library_call(case: str, model: Path) -> Callable[[list[str], list[Any]], Any]:
    import transformers as t
    from PIL import Image

    def images(paths: list[Any]) -> list[Any]:
        return [Image.open(path).convert("RGB") for path in paths]

    if case == "st":
        from sentence_transformers import SentenceTransformer

        sentences = SentenceTransformer(str(model), device="cpu")
        return lambda texts, _: sentences.encode(texts, batch_size=BATCH, show_progress_bar=False)
    loaded: Any
    if case == "caption":
        processor = t.AutoProcessor.from_pretrained(model)
        loaded = t.AutoModelForImageTextToText.from_pretrained(model).eval()
        return lambda _, paths: processor.batch_decode(loaded.generate(
            **processor(images=images(paths), return_tensors="pt"),
            do_sample=False, max_new_tokens=NEW_TOKENS,
        ))  # fmt: skip
    loaded = t.AutoModel.from_pretrained(model).eval()
    if case == "audio":
        import soundfile

        extractor = t.AutoFeatureExtractor.from_pretrained(model)
        return lambda _, paths: loaded.get_encoder()(**extractor(
            [soundfile.read(path, dtype="float32")[0] for path in paths],
            sampling_rate=16_000, return_tensors="pt",
        ))  # fmt: skip
    read = t.AutoImageProcessor.from_pretrained(model)
    if case == "vision":
        return lambda _, paths: loaded(**read(images(paths), return_tensors="pt"))
    words = t.AutoTokenizer.from_pretrained(model)
    asked = {"padding": True, "truncation": True, "max_length": 64, "return_tensors": "pt"}

    def both(texts: list[str], paths: list[Any]) -> Any:
        loaded.get_text_features(**words(texts, **asked))
        return loaded.get_image_features(**read(images(paths), return_tensors="pt"))

    return both


def _batches(content: Sequence[Any]) -> list[Any]:
    return [content[start : start + BATCH] for start in range(0, len(content), BATCH)]


def first_items(path: Path, count: int) -> ItemTable:
    """The first items of a table that have a text and an image."""
    items = read_item_table(path)
    chosen = [i for i, image in enumerate(items.images) if image is not None and items.texts[i]]
    chosen = chosen[:count]
    return replace(
        items,
        ids=[items.ids[i] for i in chosen],
        texts=[items.texts[i] for i in chosen],
        images=[items.images[i] for i in chosen],
        image_names=None,
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.encoders")
    parser.add_argument("--items", type=Path, required=True, help="item table with images")
    parser.add_argument("--count", type=int, default=64, help="items that are encoded")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--only", nargs="*", choices=CASES, default=CASES)
    options = parser.parse_args(arguments)
    threads = hardware.set_threads(options.threads)
    items = first_items(options.items, options.count)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in options.only:
            place = Path(folder) / case
            place.mkdir()
            model = write_model(case, place)
            table = items
            if case == "audio":
                table = replace(items, audio=write_sounds(place, len(items.ids)))
            sides = {
                "ours": (ours, (case, model, table)),
                "library": (library, (case, model, table)),
            }
            timings = paired_timing.measure(sides, rounds=options.rounds, threads=threads)
            print(f"{case}\n{paired_timing.table(timings)}")
            found[case] = {
                "items_per_second": len(table.ids) / timings["ours"].median("encode"),
                "peer_items_per_second": len(table.ids) / timings["library"].median("encode"),
                **paired_timing.seconds_and_bytes(timings["ours"], timings["library"], "encode"),
            }
    result: dict[str, Any] = {
        "dataset": options.items.resolve().parent.name, "items": len(items.ids), "encoders": found,
    }  # fmt: skip
    paired_timing.finish(result, threads)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
