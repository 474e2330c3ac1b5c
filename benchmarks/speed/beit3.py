"""BEiT-3 base, fused, as a feature encoder: ours against torchscale 0.3.0, in turn, in one run.

    python -m benchmarks.speed.beit3 [--reference FOLDER] [--items items.tsv …] [--rounds 5]

FOLDER holds torchscale 0.3.0 (see benchmarks/parity/beit3.py). Equal work: 8 images of 224 pixels
and 8 texts of 128 tokens to the 8 summary rows. Real work: four of the batches in which `prepare`
takes an item table, by the lengths of its texts under a tokenizer fitted to it; torchscale pads to
128 as the published pipeline does, ours to the longest of the batch. Same random weights on all
sides, whose outputs must agree first. The last line printed is one JSON object: `ratio` and
`ratio_bf16` are torchscale's seconds (float32; its autocast) to those of ours at the precision that
`prepare` chooses on this processor, `ratio_float32` to our float32, `ratio_real` is the first
table's and `real` names each. Without bfloat16 units both sides run in float32 only; `skipped` says
so.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignrec_recbole.data.items import read_item_table
from alignrec_recbole.encoders.beit3 import weights
from alignrec_recbole.encoders.beit3.architecture import Architecture, architecture_for
from alignrec_recbole.encoders.beit3.tokenizer import MAX_TOKENS, Tokenizer, train_tokenizer
from alignrec_recbole.ops.matmul import prepack_linears
from alignrec_recbole.runtime import allocator, hardware
from benchmarks.parity.beit3 import import_torchscale, randomise, reference_model
from benchmarks.speed import paired_timing

BATCH = 8
REAL_BATCHES = 4
H100_FLOPS = 989e12  # dense bfloat16, data sheet; 40 and 50 % of it assumed
PIECES = 4000


def inputs(lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Images, ids padded to MAX_TOKENS, padding; of texts of these lengths."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(len(lengths), 3, 224, 224, generator=generator)
    ids = torch.randint(4, 64000, (len(lengths), MAX_TOKENS), generator=generator)
    padding = torch.arange(MAX_TOKENS) >= torch.tensor(lengths)[:, None]
    ids[:, 0] = 0
    return image, ids.masked_fill(padding, 1), padding


@torch.inference_mode()
def their_rows(model: Any, bf16: bool, image: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
    """Summary rows [B, d] of torchscale."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = model(textual_tokens=ids, visual_tokens=image, text_padding_position=padding)
    return out["encoder_out"][:, 0].float()


@torch.inference_mode()
def our_rows(model: Any, image: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
    """Summary rows [B, d] of ours, texts trimmed to the batch's longest."""
    longest = int((~padding).sum(1).max())
    hidden = padding[:, :longest]
    rows = model(image, ids[:, :longest], hidden if hidden.any() else None, cls_only=True)
    return rows.vision[:, 0].float()


Texts = dict[str, list[int]]  # a table's name → tokens of the texts taken from it


def theirs(reference: Path | None, bf16: bool, texts: Texts) -> dict[str, Any]:
    """Actions of torchscale."""
    model = reference_model(import_torchscale(reference), architecture_for("base").stored())
    randomise(model, seed=3, scale=0.02)
    return _actions(partial(their_rows, model, bf16), texts)


def ours(reference: Path | None, bf16: bool, texts: Texts) -> dict[str, Any]:
    """Actions of ours, on the same weights."""
    model = reference_model(import_torchscale(reference), architecture_for("base").stored())
    randomise(model, seed=3, scale=0.02)
    own = weights.from_torchscale(model.state_dict()).eval().requires_grad_(False)
    del model
    own = own.to(torch.bfloat16 if bf16 else torch.float32)
    prepack_linears(own)
    allocator.phase("train")  # as extraction does
    return _actions(partial(our_rows, own), texts)


def _actions(rows: Any, texts: Texts) -> dict[str, Any]:
    def encode(lengths: list[int], image: Tensor, ids: Tensor, padding: Tensor) -> None:
        for start in range(0, len(lengths), BATCH):
            cut = slice(start, start + BATCH)
            rows(image[cut], ids[cut], padding[cut])

    given = {"equal": [MAX_TOKENS] * BATCH, **texts}
    return {name: partial(encode, lengths, *inputs(lengths)) for name, lengths in given.items()}


def agreement(reference: Path | None, bf16: bool) -> dict[str, float]:
    """Largest difference in float32; with bf16 the least cosine of its rows to float32."""
    model = reference_model(import_torchscale(reference), architecture_for("base").stored())
    randomise(model, seed=3, scale=0.02)
    x = inputs([MAX_TOKENS, 40, 12])
    expected = their_rows(model, False, *x)
    own = weights.from_torchscale(model.state_dict()).eval().requires_grad_(False)
    half = copy.deepcopy(own).bfloat16() if bf16 else None
    prepack_linears(own)
    single = our_rows(own, *x)
    found = {"max_abs_difference": float((single - expected).abs().max())}
    if half is not None:
        prepack_linears(half)
        cosine = torch.nn.functional.cosine_similarity(single, our_rows(half, *x))
        found["cosine_bf16"] = float(cosine.min())
    return found


def flops(sizes: Architecture, tokens: int) -> float:
    """Operations of one item: 24 n d² + 4 n² d a layer, and the patches."""
    d = sizes.width
    per_layer = 24 * tokens * d**2 + 4 * tokens**2 * d
    return sizes.num_layers * per_layer + 2 * sizes.patches * 3 * sizes.patch_size**2 * d


def tokens_of(table: Path) -> list[int]:
    """Tokens of all texts of an item table, under a tokenizer fitted to them."""
    texts = read_item_table(table).texts
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(texts, Path(folder) / "t.spm", PIECES)
        tokenizer = Tokenizer(Path(folder) / "t.spm")
        return [len(tokenizer.encode(text)) for text in texts]


def sampled_texts(lengths: list[int]) -> list[int]:
    """The texts of REAL_BATCHES batches, evenly from the shortest to the longest.

    A batch has texts of similar length, as `make_plan` divides a table.

    >>> sampled_texts(list(range(80)))[::8]
    [8, 24, 48, 64]
    """
    whole = len(lengths) // BATCH
    batches = np.sort(lengths)[: whole * BATCH].reshape(whole, BATCH)
    middles = (np.arange(REAL_BATCHES) + 0.5) / REAL_BATCHES * whole
    return [int(length) for length in batches[middles.astype(int)].ravel()]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.beit3")
    parser.add_argument("--reference", type=Path, help="folder with torchscale 0.3.0")
    parser.add_argument(
        "--items", type=Path, nargs="*", default=[], help="item tables; default: simulated lengths"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: all cores")
    options = parser.parse_args(arguments)
    threads = hardware.set_threads(options.threads)
    halves = ["ours, bfloat16", "torchscale, autocast"]
    skipped = paired_timing.skipped_bfloat16("cpu", halves)
    result: dict[str, Any] = agreement(options.reference, not skipped)
    if result["max_abs_difference"] > 1e-4:
        raise SystemExit(f"the two sides disagree: {result}")
    lengths = {
        f"{path.resolve().parent.name}/{path.name}": tokens_of(path) for path in options.items
    }
    if not lengths:  # so that the script runs anywhere
        drawn = np.random.default_rng(0).integers(10, 80, 1000)
        lengths = {"simulated": [int(length) for length in drawn]}
    texts = {name: sampled_texts(found) for name, found in lengths.items()}
    given = options.reference
    sides = {
        "ours, float32": (ours, (given, False, texts)),
        "ours, bfloat16": (ours, (given, True, texts)),
        "torchscale, float32": (theirs, (given, False, texts)),
        "torchscale, autocast": (theirs, (given, True, texts)),
    }
    sides = {name: side for name, side in sides.items() if name not in skipped}
    timings = paired_timing.measure(sides, rounds=options.rounds, threads=threads)
    print(paired_timing.table(timings))
    chosen = timings["ours, float32" if skipped else "ours, bfloat16"]
    single = timings["torchscale, float32"]
    tokens = architecture_for("base").patches + 1 + MAX_TOKENS
    work = flops(architecture_for("base"), tokens)
    real = {
        name: {
            "ratio": single.median(name) / chosen.median(name),
            "items_per_second": len(texts[name]) / chosen.median(name),
            "mean_tokens": float(np.mean(found)),
        }
        for name, found in lengths.items()
    }
    result |= {
        "precision_chosen": "float32" if skipped else "bfloat16",
        "skipped": skipped,
        "items_per_second": BATCH / chosen.median("equal"),
        "ratio": single.median("equal") / chosen.median("equal"),
        "ratio_real": next(iter(real.values()))["ratio"],
        "ratio_float32": single.median("equal") / timings["ours, float32"].median("equal"),
        "real": real,
        "gflop_per_item": work / 1e9,
        "h100_seconds_per_million_items_estimate": [
            1e6 * work / (share * H100_FLOPS) for share in (0.5, 0.4)
        ],
        **paired_timing.seconds_and_bytes(chosen, single, "equal"),
    }
    if not skipped:
        half = timings["torchscale, autocast"]
        result["ratio_bf16"] = half.median("equal") / chosen.median("equal")
    paired_timing.finish(result, threads)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
