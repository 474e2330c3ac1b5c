"""Encoders of Hugging Face with random weights, small enough to be made in a test."""

from __future__ import annotations

from pathlib import Path

import torch

from alignrec_recbole.data.items import ItemTable


def write_tiny_bert(folder: Path, max_tokens: int = 24) -> Path:
    """A BERT with two layers, random weights and a limit of tokens; returns its folder."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir()
    letters = [
        *"abcdefghijklmnopqrstuvwxyz0123456789.",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"),
    ]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]) + "\n"
    )
    BertTokenizer(str(vocabulary), model_max_length=max_tokens).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5 + len(letters),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=max_tokens,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def write_tiny_clip(folder: Path, tiny_bert: Path) -> Path:
    """A CLIP with two layers per tower, random weights and a BERT's letters; returns its folder."""
    from transformers import (
        BertTokenizer,
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPTextConfig,
        CLIPVisionConfig,
    )

    tokenizer = BertTokenizer.from_pretrained(tiny_bert)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 2}  # fmt: skip
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), max_position_embeddings=24, eos_token_id=3, pad_token_id=0,
        bos_token_id=2, **sizes,
    )  # fmt: skip
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **sizes)
    torch.manual_seed(0)
    both = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12)
    CLIPModel(both).save_pretrained(folder)
    return folder


def table(*texts: str, images: list[Path | None] | None = None) -> ItemTable:
    """Items i0, i1 … with these texts."""
    ids = [f"i{n}" for n in range(len(texts))]
    return ItemTable(ids, list(texts), images or [None] * len(texts), "test", ["title"])
