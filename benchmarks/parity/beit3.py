"""Is our BEiT-3 the published one? One state dict, four kinds of input, against torchscale 0.3.0.

    python -m benchmarks.parity.beit3 [--reference FOLDER] [--sizes tiny,base]

FOLDER holds torchscale 0.3.0 (`pip install --no-deps --target FOLDER torchscale==0.3.0`); without
it an installed one is used. timm and fairscale, of which torchscale uses no arithmetic here, are
stood in for. All tensors are random, norms included, since torchscale's own initialisation would
hide exchanged norms. The last line printed is one JSON object; `max_abs_error` is in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from alignrec_recbole.encoders.beit3 import weights
from alignrec_recbole.encoders.beit3.architecture import Beit3, architecture_for
from benchmarks.parity.errors import largest

TINY = {"width": 64, "heads": 4, "layers": 2, "hidden": 256}
PUBLISHED = {"base": 276_510_730, "large": 746_709_514}  # parameters with both mask heads
TEXT = 20  # tokens; padded to 20, 12 and 5 real ones


def import_torchscale(reference: Path | None) -> Any:
    """torchscale's BEiT3 and EncoderConfig, its two unused imports stood in for."""
    if reference is not None:
        sys.path.insert(0, str(reference))

    def stand_in(name: str, **members: Any) -> None:
        module = types.ModuleType(name)
        module.__dict__.update(members)
        sys.modules.setdefault(name, module)

    def same(module: Any, *_: Any, **__: Any) -> Any:
        return module

    stand_in("timm")
    stand_in("timm.models")
    stand_in("timm.models.layers", drop_path=same)  # never called: the rate is 0
    stand_in("fairscale")
    stand_in("fairscale.nn", checkpoint_wrapper=same, wrap=same)
    try:
        from torchscale.architecture.config import EncoderConfig
        from torchscale.model.BEiT3 import BEiT3
    except ImportError as error:
        raise SystemExit(
            f"torchscale 0.3.0 is needed ({error}):\n"
            "  pip install --no-deps --target FOLDER torchscale==0.3.0\n"
            "  python -m benchmarks.parity.beit3 --reference FOLDER"
        ) from error
    return types.SimpleNamespace(BEiT3=BEiT3, EncoderConfig=EncoderConfig)


def reference_model(torchscale: Any, sizes: dict[str, int]) -> Any:
    """torchscale's module in the configuration of the published models, for inference."""
    config = torchscale.EncoderConfig(
        img_size=224,
        patch_size=16,
        vocab_size=64010,
        multiway=True,
        layernorm_embedding=False,
        normalize_output=True,
        no_output_layer=True,
        drop_path_rate=0,
        checkpoint_activations=None,
        encoder_embed_dim=sizes["width"],
        encoder_attention_heads=sizes["heads"],
        encoder_ffn_embed_dim=sizes["hidden"],
        encoder_layers=sizes["layers"],
    )
    return torchscale.BEiT3(config).eval()


def randomise(model: Any, seed: int, scale: float) -> None:
    """Draw every tensor from one seeded generator, in the order of the state dict."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            drawn = torch.randn(value.shape, generator=generator)
            drawn *= scale if value.ndim > 1 else 0.02
            norm = name.endswith("weight") and value.ndim == 1
            value.copy_(drawn + 1 if norm else drawn)


def inputs(seed: int = 1) -> dict[str, Tensor]:
    """Three images, ragged texts and masked patches."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(3, 3, 224, 224, generator=generator)
    ids = torch.randint(4, 64000, (3, TEXT), generator=generator)
    ids[:, 0] = 0
    masked = torch.rand(3, 196, generator=generator) < 0.4
    padding = torch.zeros(3, TEXT, dtype=torch.bool)
    padding[1, 12:] = padding[2, 5:] = True
    return {
        "image": image,
        "ids": ids.masked_fill(padding, 1),
        "padding": padding,
        "masked": masked,
    }


@torch.inference_mode()
def theirs(model: Any, x: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows of torchscale's module, padded ones left out."""
    text = {"textual_tokens": x["ids"], "text_padding_position": x["padding"]}
    masked = {"vision_masked_position": x["masked"]}
    real = ~x["padding"]
    fused = model(visual_tokens=x["image"], **text)["encoder_out"]
    with_mask = model(visual_tokens=x["image"], **text, **masked)["encoder_out"]
    return {
        "vision": model(visual_tokens=x["image"])["encoder_out"],
        "text": model(**text)["encoder_out"][real],
        "fused, image rows": fused[:, :197],
        "fused, text rows": fused[:, 197:][real],
        "fused and masked, image rows": with_mask[:, :197],
        "fused and masked, text rows": with_mask[:, 197:][real],
    }


@torch.inference_mode()
def ours(model: Beit3, x: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same rows of our module."""
    real = ~x["padding"]
    fused = model(x["image"], x["ids"], x["padding"])
    with_mask = model(x["image"], x["ids"], x["padding"], x["masked"])
    out = {
        "vision": model(x["image"]).vision,
        "text": model(None, x["ids"], x["padding"]).text[real],  # type: ignore[index]
        "fused, image rows": fused.vision,
        "fused, text rows": fused.text[real],  # type: ignore[index]
        "fused and masked, image rows": with_mask.vision,
        "fused and masked, text rows": with_mask.text[real],  # type: ignore[index]
    }
    return {name: rows for name, rows in out.items() if rows is not None}


def compare(torchscale: Any, size: str) -> dict[str, float]:
    """Largest absolute difference by kind of rows."""
    sizes = TINY if size == "tiny" else architecture_for(size).stored()
    reference = reference_model(torchscale, sizes)
    randomise(reference, seed=7, scale=0.05 if size == "tiny" else 0.02)
    state = {f"{weights.PREFIX}{k}": v for k, v in reference.state_dict().items()}
    model = weights.from_torchscale(state, num_heads=sizes["heads"]).eval()
    back = weights.to_torchscale(model)
    exact = all(torch.equal(back[k], v) for k, v in reference.state_dict().items())
    if not exact or back.keys() != reference.state_dict().keys():
        raise SystemExit(f"{size}: the state dict does not come back as it was")
    x = inputs()
    expected, found = theirs(reference, x), ours(model, x)
    return {
        kind: largest([float((found[kind] - rows).abs().max())]) for kind, rows in expected.items()
    }


def count(torchscale: Any, size: str) -> dict[str, Any]:
    """Parameters with both heads, and the names that only one side has."""
    with torch.device("meta"):
        model = Beit3(architecture_for(size, mlm=True, mim=weights.CODES))
        reference = reference_model(torchscale, architecture_for(size).stored())
    converted = {k: tuple(v.shape) for k, v in weights.to_torchscale(model).items()}
    heads = {k for k in converted if k.startswith(weights.HEAD_NAMES)}
    expected = {k: tuple(v.shape) for k, v in reference.state_dict().items()}
    differing = {
        k for k in converted.keys() | expected.keys() if converted.get(k) != expected.get(k)
    }
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "published": PUBLISHED[size],
        "tensors": len(expected),
        "differing": sorted(differing - heads),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison; 1 if a bound is missed."""
    parser = argparse.ArgumentParser(prog="benchmarks.parity.beit3")
    parser.add_argument("--reference", type=Path, help="folder with torchscale 0.3.0")
    parser.add_argument(
        "--sizes", type=lambda text: text.split(","), default=["tiny", "base"], metavar="S[,S…]"
    )
    options = parser.parse_args(arguments)
    torchscale = import_torchscale(options.reference)
    errors = {size: compare(torchscale, size) for size in options.sizes}
    rows = [[size, kind, f"{e:.1e}"] for size, kinds in errors.items() for kind, e in kinds.items()]
    print(tabulate(rows, ["size", "rows", "largest difference"], disable_numparse=True))
    counts = {size: count(torchscale, size) for size in PUBLISHED}
    worst = largest(e for kinds in errors.values() for e in kinds.values())
    good = worst < 1e-5 and all(
        c["parameters"] == c["published"] and not c["differing"] for c in counts.values()
    )
    print(json.dumps({"max_abs_error": worst, "errors": errors, "counts": counts, "passed": good}))
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
