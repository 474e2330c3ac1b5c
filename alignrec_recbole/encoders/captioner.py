"""A generative model of images and text from transformers that describes images.

Captions are encoded instead of images in MKF4MMRec, LIRDRec (arXiv 2505.04960) and VLM4Rec (arXiv
2603.12625), among others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from alignrec_recbole.encoders.model_folders import (
    image_library,
    load_model,
    model_identity,
)

WHAT = "captioning model"
MAX_NEW_TOKENS = 64  # of a caption, where no other number is given
REQUEST = "Describe this image in one sentence."  # asked of models that take a conversation


class Captioner:
    """Captions by greedy decoding: the same image always has the same caption.

    Args:
        model: a hub id or a folder. Code that a model brings along is never run.
        request: what is asked of it; None: REQUEST of a model with a chat template, nothing of
            others, such as BLIP.
        max_new_tokens: length of a caption at most.
        bfloat16: compute in this format instead of float32.

    Raises:
        FeatureError: the model cannot be loaded, is incomplete or cannot describe images.
    """

    def __init__(
        self, model: str, device: str, request: str | None, max_new_tokens: int, bfloat16: bool
    ) -> None:
        identity = model_identity(model, WHAT)
        dtype = torch.bfloat16 if bfloat16 else torch.float32
        self.processor, found = _load(model, dtype)
        self.model, self.device = found.to(device).eval(), device
        self.dtype, self.max_new_tokens = dtype, max_new_tokens
        self.chats = bool(getattr(self.processor, "chat_template", None))
        self.request = REQUEST if request is None and self.chats else request
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        tokenizer.padding_side = "left"  # a decoder continues the last token
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.name = f"caption:{identity['model']}"
        self.settings: dict[str, Any] = {
            **identity,
            **image_library(),
            "request": self.request,
            "max_new_tokens": max_new_tokens,
            "decoding": "greedy",
            "architecture": type(found).__name__,
            **({"precision": "bfloat16"} if bfloat16 else {}),
        }

    @torch.inference_mode()
    def captions(self, images: Sequence[np.ndarray]) -> list[str]:
        """One line per image; "" if the model says nothing."""
        pictures = [Image.fromarray(image) for image in images]
        inputs = self._chat(pictures) if self.chats else self._plain(pictures)
        inputs = inputs.to(self.device, self.dtype)
        out = self.model.generate(
            **inputs, do_sample=False, num_beams=1, max_new_tokens=self.max_new_tokens
        )
        asked = inputs.get("input_ids")
        if asked is not None and torch.equal(out[:, : asked.shape[1]], asked):
            out = out[:, asked.shape[1] :]
        return list(map(one_line, self.processor.batch_decode(out, skip_special_tokens=True)))

    def _chat(self, pictures: list[Image.Image]) -> Any:
        chats = [
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": picture},
                        {"type": "text", "text": self.request},
                    ],
                }
            ]
            for picture in pictures
        ]
        return self.processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"return_tensors": "pt", "padding": True},
        )

    def _plain(self, pictures: list[Image.Image]) -> Any:
        text = {} if self.request is None else {"text": [self.request] * len(pictures)}
        return self.processor(images=pictures, return_tensors="pt", padding=True, **text)


def one_line(text: str) -> str:
    r"""A text on one line, without characters that do not print and quotation marks around it.

    >>> one_line(' "A red\n\tbike."\x00 ')
    'A red bike.'
    """
    printed = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printed.split()).strip('"').strip()


def _load(given: str, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor, model, _ = load_model(
        given, WHAT, AutoProcessor, AutoModelForImageTextToText, dtype=dtype
    )
    return processor, model
