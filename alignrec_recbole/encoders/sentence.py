"""Vectors of any model of sentence-transformers: of texts, of images, or of both together.

Which tokens are pooled and how, which prompt stands before a text, how long it may be and whether
vectors are normalised is what the model's own files say. Items are documents, as its
`encode_document` encodes them.

Source: Reimers and Gurevych, "Sentence-BERT", EMNLP 2019; documentation of sentence-transformers 6.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from alignrec_recbole.data.images import whole
from alignrec_recbole.encoders.base import EncoderRequest, ImageInput, ItemEncoder
from alignrec_recbole.encoders.model_folders import (
    cannot_be_loaded,
    check_model,
    find_model,
    folder_identity,
    image_library,
    incomplete,
    missing_weights,
    model_identity,
    quiet_transformers,
    shown_name,
)
from alignrec_recbole.encoders.registry import missing_extra
from alignrec_recbole.encoders.sentence_modules import (
    check_modules,
    is_normalised_mean,
    own_prompts,
)
from alignrec_recbole.errors import FeatureError, SettingError
from alignrec_recbole.io.opening import is_regular_file, read_json

WHAT = "sentence encoder"
DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # as encode_document looks for them
PAIR = ("image", "text")

Input = Literal["text", "image", "pair"]


class SentenceEncoder(ItemEncoder):
    """What the model's `encode_document` gives, in float32.

    A model that takes pairs encodes an item's text and image together, and one of them alone where
    the other is missing. A model that takes both but no pairs, such as CLIP, gives the image's
    vector and the text's side by side, and zeros for a missing one.

    Args:
        name: st or hf, a colon, and a hub id or folder. Code that a model brings along is never
            run, and weights are read from safetensors.
        options: prompt: the name of one of the model's prompts, or a text before each item's;
            truncate_dim: columns; precision: of the computation.

    Raises:
        FeatureError: the model cannot be loaded, is incomplete, or encodes neither texts nor
            images.
        SettingError: an option that the model cannot have.
        MissingDependencyError: sentence-transformers is not installed.
    """

    def __init__(self, name: str, device: str, options: Mapping[str, Any]) -> None:
        kind, _, given = name.partition(":")
        identity = model_identity(given, WHAT)
        width = options.get("truncate_dim")
        half = options.get("precision") == "bfloat16"
        self.model = _load(given, device, torch.bfloat16 if half else torch.float32)
        self.inputs = _inputs(given, self.model)
        self.modality = "fused" if len(self.inputs) > 1 else "image"
        if self.inputs == ("text",):
            self.modality = "text"
        self.uses_text = self.modality != "image"
        if self.modality != "text":
            self.decode = whole
        full = self.model.get_embedding_dimension()
        if full is None:
            full = self._encode([_sample(self.inputs[0])]).shape[1]
        if width is not None and width > full:
            raise SettingError(
                f"The {WHAT} {given!r} has fewer than {width} columns.",
                found=f"--truncate-dim {width}",
                expected=f"at most {full}",
            )
        self.truncate_dim, self.block = width, width or full
        self.side_by_side = self.modality == "fused" and "pair" not in self.inputs
        self.width = self.block * (2 if self.side_by_side else 1)
        self.prompt = _prompt(self.model, find_model(given, WHAT), options.get("prompt"))
        shown = identity["model"]
        self.name = f"{kind}:{shown}"
        self.earlier_name = f"huggingface:{shown}"
        self.settings = {
            **identity,
            **(image_library() if self.modality != "text" else {}),
            **({"truncate_dim": width} if width else {}),
            **({"precision": "bfloat16"} if half else {}),
            "prompt": self.prompt,
            "max_tokens": self.model.max_seq_length,
            "inputs": list(self.inputs),
            "modules": [type(module).__name__ for module in self.model],
            "sentence-transformers": _version(),
        }

    def text_lengths(self, texts: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        """Lengths; 0 where only images matter."""
        lengths, stats = super().text_lengths(texts)
        return lengths if self.uses_text else np.zeros_like(lengths), stats

    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        """One call of the model per kind of input."""
        pictures = [Image.fromarray(i) if isinstance(i, np.ndarray) else None for i in images]
        out = np.zeros((len(texts), self.width), dtype=np.float32)
        if self.side_by_side:
            self._fill(out[:, : self.block], pictures)
            self._fill(out[:, self.block :], [text or None for text in texts])
            return out
        inputs = [self._input(t, p) for t, p in zip(texts, pictures, strict=True)]
        for kind in (str, Image.Image, dict):
            same = [i for i, content in enumerate(inputs) if isinstance(content, kind)]
            if same:
                out[same] = self._encode([inputs[i] for i in same])
        return out

    def _fill(self, out: np.ndarray, contents: Sequence[Any]) -> None:
        there = [i for i, content in enumerate(contents) if content is not None]
        if there:
            out[there] = self._encode([contents[i] for i in there])

    def _input(self, text: str, picture: Image.Image | None) -> Any:
        if picture is None:
            return text
        if self.uses_text and (text or "image" not in self.inputs):
            return {"image": picture, "text": text}  # a text that is too long loses its end alone
        return picture

    def _encode(self, contents: list[Any]) -> np.ndarray:
        found = self.model.encode_document(
            contents,
            prompt=getattr(self, "prompt", None) or "",
            batch_size=len(contents),
            show_progress_bar=False,
            convert_to_tensor=True,
            truncate_dim=getattr(self, "truncate_dim", None),
        )
        return found.float().cpu().numpy()


def open_encoder(request: EncoderRequest) -> SentenceEncoder:
    """The encoder `st:MODEL` or `hf:MODEL`.

    Raises:
        MissingDependencyError: sentence-transformers is not installed.
    """
    _version()
    return SentenceEncoder(request.name, request.device, request.options)


def identity(name: str) -> dict[str, Any]:
    """The model's name, the hash of all its files, and the versions of the libraries."""
    own = {**model_identity(name.partition(":")[2], WHAT), "sentence-transformers": _version()}
    return {**own, **image_library()} if reads_images(name) else own


def earlier_identity(name: str) -> tuple[dict[str, Any], bool]:
    """The identity of hf:MODEL in earlier versions, and whether its rows were the same ones.

    It took the mean over the tokens, normalised, without a prompt, whatever the model's files say.
    """
    model = name.partition(":")[2]
    folder = find_model(model, WHAT)
    known = folder_identity(str(folder)) if os.path.isdir(model) else {"revision": folder.name}
    return {"encoder": "hf", "model": shown_name(model), **known}, is_normalised_mean(folder)


def reads_images(name: str) -> bool:
    """Whether the model has a processor of images."""
    folder = find_model(name.partition(":")[2], WHAT)
    places = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    for place in places:
        if is_regular_file(place / "preprocessor_config.json"):
            return True
        path = place / "processor_config.json"
        if is_regular_file(path):
            found = read_json(path, what="processor's config", error=FeatureError)
            if isinstance(found, dict) and "image_processor" in found:
                return True
    return False


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("sentence-transformers")
    except metadata.PackageNotFoundError as error:
        raise missing_extra("st", str(error)) from error


def _load(given: str, device: str, dtype: torch.dtype) -> Any:
    """The model with its modules, from files that were checked."""
    from sentence_transformers import SentenceTransformer

    folder = find_model(given, WHAT)
    transformer = check_modules(folder)
    if transformer is not None:
        check_model(str(transformer))
    try:
        with quiet_transformers(), missing_weights() as missing:
            model = SentenceTransformer(
                str(folder),
                device=device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": dtype},
            ).eval()
    except Exception as error:  # each file format has errors of its own
        raise cannot_be_loaded(WHAT, given, error) from error
    if layers := [key for key in missing if "pooler" not in key]:  # the library pools by itself
        raise incomplete(WHAT, given, layers)
    return model


def _inputs(given: str, model: Any) -> tuple[Input, ...]:
    """What the model encodes of text, image and pair.

    Raises:
        FeatureError: neither texts nor images, or pairs alone.
    """
    known: tuple[tuple[Input, Any], ...] = (("text", "text"), ("image", "image"), ("pair", PAIR))
    found = tuple(name for name, modality in known if model.supports(modality))
    if "text" in found or "image" in found:
        return found
    raise FeatureError(
        f"The {WHAT} {given!r} encodes neither texts alone nor images alone.",
        found=", ".join(map(str, model.modalities)),
        expected="a model of texts, of images or of both",
    )


def _sample(kind: Input) -> Any:
    return "text" if kind == "text" else Image.new("RGB", (64, 64))


def _prompt(model: Any, folder: Path, given: str | None) -> str | None:
    """The text before each item's: named, given, or that of the model's files for documents.

    That is the first of DOCUMENT_PROMPTS that is not empty, else none if one of them is named, else
    the default for all texts. (The library adds empty prompts to those of the files.)
    """
    prompts: dict[str, str] = model.prompts
    if given is not None:
        return prompts.get(given, given)
    own = own_prompts(folder)
    named = sorted((n for n in DOCUMENT_PROMPTS if n in own), key=lambda n: not own[n])
    name = named[0] if named else model.default_prompt_name
    return prompts.get(name) if name is not None else None
