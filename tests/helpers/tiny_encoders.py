"""Encoders of today's families with random weights, small enough to be made in a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny_models import write_tiny_bert

SMALL: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(content))


def write_modules(
    folder: Path,
    pooling: str,
    *,
    normalise: bool,
    prompts: dict[str, str] | None = None,
    default: str | None = None,
) -> None:
    """The files of sentence-transformers: mean, cls or lasttoken pooling, prompts, unit length."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalise else [])]
    places = ["", "1_Pooling", "2_Normalize"]
    write_json(folder / "modules.json", [
        {"idx": i, "name": str(i), "path": places[i], "type": f"sentence_transformers.models.{k}"}
        for i, k in enumerate(kinds)
    ])  # fmt: skip
    modes = {f"pooling_mode_{mode}": mode.startswith(pooling)
             for mode in ("cls_token", "mean_tokens", "lasttoken")}  # fmt: skip
    width = SMALL["hidden_size"]
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})
    write_json(folder / "config_sentence_transformers.json", {
        "prompts": prompts or {}, "default_prompt_name": default,
        "similarity_fn_name": "cosine",
    })  # fmt: skip


def write_bge(folder: Path) -> Path:
    """Like BGE: the CLS token, normalised."""
    write_tiny_bert(folder)
    write_modules(folder, "cls", normalise=True)
    return folder


def write_e5(folder: Path) -> Path:
    """Like E5: the mean over tokens, normalised, with a prefix for passages."""
    write_tiny_bert(folder, 64)
    write_modules(
        folder, "mean", normalise=True, prompts={"query": "query. ", "passage": "passage. "}
    )
    return folder


def write_qwen3_embedding(folder: Path) -> Path:
    """Like Qwen3-Embedding: the last token of a decoder, an instruction for queries alone."""
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    write_tiny_bert(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", eos_token="[SEP]",
        unk_token="[UNK]", padding_side="left", model_max_length=64,
    )  # fmt: skip
    size = len(tokenizer)
    for path in folder.iterdir():
        path.unlink()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=size, num_key_value_heads=1, head_dim=8, max_position_embeddings=64,
        pad_token_id=0, eos_token_id=3, **SMALL,
    )  # fmt: skip
    Qwen3Model(config).save_pretrained(folder)
    write_modules(
        folder, "lasttoken", normalise=True, prompts={"query": "find. query.", "document": ""}
    )
    return folder


def write_vision(folder: Path, kind: str) -> Path:
    """A dinov2, dinov3, vit, deit or convnext."""
    import transformers as t

    torch.manual_seed(0)
    model: Any
    if kind == "dinov2":
        model = t.Dinov2Model(t.Dinov2Config(image_size=32, patch_size=8, **SMALL))
        processor: Any = t.BitImageProcessor(size={"shortest_edge": 40}, crop_size=32)
    elif kind == "dinov3":
        config = t.DINOv3ViTConfig(image_size=32, patch_size=8, num_register_tokens=2, **SMALL)
        model = t.DINOv3ViTModel(config)
        processor = t.ViTImageProcessor(size={"height": 32, "width": 32})
    elif kind == "vit":
        model = t.ViTModel(
            t.ViTConfig(image_size=32, patch_size=8, **SMALL), add_pooling_layer=False
        )
        processor = t.ViTImageProcessor(size={"height": 32, "width": 32})
    elif kind == "deit":
        model = t.DeiTModel(
            t.DeiTConfig(image_size=32, patch_size=8, **SMALL), add_pooling_layer=False
        )
        processor = t.ViTImageProcessor(size={"height": 32, "width": 32})
    else:
        model = t.ConvNextModel(t.ConvNextConfig(
            depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 8, 16], image_size=32
        ))  # fmt: skip
        processor = t.ConvNextImageProcessor(size={"shortest_edge": 32})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_siglip2(folder: Path, tiny_bert: Path, *, flexible: bool) -> Path:
    """A SigLIP 2: of squares, or of any proportions (NaFlex)."""
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    text = {**SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": 24,
            "projection_size": 16}  # fmt: skip
    if flexible:
        vision = {**SMALL, "num_patches": 16, "patch_size": 8}
        both: Any = t.Siglip2Config(text_config=text, vision_config=vision)
        model: Any = t.Siglip2Model(both)
        processor: Any = t.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    else:
        vision = {**SMALL, "image_size": 32, "patch_size": 8}
        both = t.SiglipConfig(text_config=text, vision_config=vision)
        model = t.SiglipModel(both)
        processor = t.SiglipImageProcessor(size={"height": 32, "width": 32})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_audio(folder: Path, kind: str, tiny_bert: Path | None = None) -> Path:
    """A whisper, clap or wav2vec2."""
    import transformers as t

    torch.manual_seed(0)
    model: Any
    if kind == "whisper":
        model = t.WhisperModel(t.WhisperConfig(
            vocab_size=60, d_model=16, encoder_layers=2, decoder_layers=1,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
            decoder_ffn_dim=32, num_mel_bins=8, max_source_positions=100, pad_token_id=0,
            bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        ))  # fmt: skip
        extractor: Any = t.WhisperFeatureExtractor(feature_size=8, chunk_length=2)
    elif kind == "clap":
        audio = {
            "window_size": 8, "num_mel_bins": 32, "spec_size": 64, "patch_embeds_hidden_size": 8,
            "depths": [1, 1], "num_attention_heads": [1, 2], "hidden_size": 16,
            "patch_embed_input_channels": 1, "num_classes": 2, "enable_fusion": True,
        }  # fmt: skip
        text = {**SMALL, "vocab_size": 60, "max_position_embeddings": 24}
        model = t.ClapModel(t.ClapConfig(text_config=text, audio_config=audio, projection_dim=12))
        extractor = t.ClapFeatureExtractor(feature_size=32, max_length_s=1, truncation="fusion")
    else:
        model = t.Wav2Vec2Model(t.Wav2Vec2Config(
            **SMALL, vocab_size=20, conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 8),
            num_feat_extract_layers=2, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        ))  # fmt: skip
        extractor = t.Wav2Vec2FeatureExtractor(do_normalize=True)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


CHAT = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}[IMAGE]{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def write_llava(folder: Path, tiny_bert: Path) -> Path:
    """A LLaVA: a CLIP tower, a decoder and a chat template; describes and embeds images."""
    import transformers as t

    tokenizer = t.PreTrainedTokenizerFast(
        tokenizer_file=str(tiny_bert / "tokenizer.json"), pad_token="[PAD]", eos_token="[SEP]",
        unk_token="[UNK]", padding_side="left", model_max_length=256,
        additional_special_tokens=["[IMAGE]"],
    )  # fmt: skip
    text = t.LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=256, pad_token_id=0, eos_token_id=3,
        bos_token_id=2, **SMALL,
    )  # fmt: skip
    vision = t.CLIPVisionConfig(image_size=32, patch_size=8, **SMALL)
    torch.manual_seed(0)
    model = t.LlavaForConditionalGeneration(t.LlavaConfig(
        vision_config=vision.to_dict(), text_config=text.to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMAGE]"), vision_feature_layer=-1,
    ))  # fmt: skip
    with torch.no_grad():  # so that images differ in what is said of them
        for value in model.parameters():
            value.mul_(4)
    model.save_pretrained(folder)
    processor = t.LlavaProcessor(
        image_processor=t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32),
        tokenizer=tokenizer, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, image_token="[IMAGE]", chat_template=CHAT,
    )  # fmt: skip
    processor.save_pretrained(folder)
    return folder


def write_blip(folder: Path, tiny_bert: Path) -> Path:
    """A BLIP, which describes images without being asked."""
    import transformers as t

    tokenizer = t.BertTokenizer.from_pretrained(tiny_bert)
    text = {**SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": 32,
            "bos_token_id": 2, "sep_token_id": 3, "pad_token_id": 0, "eos_token_id": 3,
            "encoder_hidden_size": 16, "projection_dim": 16}  # fmt: skip
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    model = t.BlipForConditionalGeneration(t.BlipConfig(text_config=text, vision_config=vision))
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(4)
    model.save_pretrained(folder)
    processor = t.BlipProcessor(t.BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    processor.save_pretrained(folder)
    return folder


def write_multimodal(folder: Path, tiny_bert: Path) -> Path:
    """A LLaVA as sentence-transformers saves it: the last token of texts, images and pairs."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    source = write_llava(folder.with_name(f"{folder.name}-source"), tiny_bert)
    modules = [Transformer(str(source)), Pooling(SMALL["hidden_size"], "lasttoken"), Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu")
    model.save_pretrained(str(folder), create_model_card=False)
    return folder
