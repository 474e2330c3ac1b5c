"""Vectors of the items' audio files by audio encoders from transformers: Whisper, CLAP and others.

MODEL is a hub id or a folder. An item table names WAV or FLAC files in its column `audio`; they are
in the folder `audio/` beside it.

Source: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", ICML 2023; Wu
et al., "Large-Scale Contrastive Language-Audio Pretraining", ICASSP 2023; Baevski et al., "wav2vec
2.0", NeurIPS 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from alignrec_recbole.data.audio import waveform
from alignrec_recbole.encoders.base import EncoderRequest, ImageInput, ItemEncoder
from alignrec_recbole.encoders.model_folders import (
    cannot_be_loaded,
    load_model,
    model_identity,
)
from alignrec_recbole.encoders.registry import ENCODERS, missing_extra
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.table import Modality
from alignrec_recbole.ops.matmul import prepack_linears

WHAT = "audio encoder"
SECONDS = 30.0  # of a file, where the model has no limit of its own
MAX_SECONDS = 600.0
MIN_RATE, MAX_RATE = 1_000, 384_000


class AudioEncoder(ItemEncoder):
    """One vector per audio file, in float32.

    CLAP and other models with `get_audio_features` give those. Of Whisper it is the mean of the
    encoder's frames over the sound, without the padding to 30 s; of wav2vec 2.0, HuBERT and the
    like the mean of all frames, file by file; sounds shorter than a frame are padded with silence.
    Later seconds than the model takes are not heard.

    Args:
        name: audio, a colon, and a hub id or folder. Code that a model brings along is never run.

    Raises:
        FeatureError: the model cannot be loaded, is incomplete or is no audio model.
    """

    modality: Modality = "audio"
    reads_text: ClassVar[bool] = False
    media: ClassVar[Literal["image", "audio"]] = "audio"

    def __init__(self, name: str, device: str) -> None:
        given = name.partition(":")[2]
        identity = model_identity(given, WHAT)
        self.extractor, model = _load(given)
        self.rate, self.seconds = _limits(given, self.extractor)
        self.decode = partial(waveform, rate=self.rate, seconds=self.seconds)
        self.projected = hasattr(model, "get_audio_features")
        self.whisper = model.config.model_type == "whisper"
        part = model.get_encoder() if self.whisper else model
        self.model, self.device = part.float().to(device).eval(), device
        prepack_linears(self.model)
        try:
            self.shortest = _receptive_field(model.config)
            self.width = self._encode([np.zeros(self.rate, dtype=np.float32)]).shape[1]
        except Exception as error:  # each architecture has inputs and outputs of its own
            raise cannot_be_loaded(WHAT, given, error) from error
        self.name = f"audio:{identity['model']}"
        self.settings = {
            **identity,
            "pooling": "the model's" if self.projected else "mean of frames",
            "rate": self.rate,
            "seconds": self.seconds,
            "architecture": type(model).__name__,
        }

    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        """Whisper and CLAP in one call, other models file by file: their padding is heard."""
        sounds = [sound for sound in images if isinstance(sound, np.ndarray)]
        if self.whisper or self.projected:
            return self._encode(sounds)
        return np.concatenate([self._encode([sound]) for sound in sounds])

    @torch.inference_mode()
    def _encode(self, sounds: list[np.ndarray]) -> np.ndarray:
        sounds = [_padded(sound, self.shortest) for sound in sounds]
        found = self.extractor(sounds, sampling_rate=self.rate, return_tensors="pt")
        found = found.to(self.device)
        if self.projected:
            if "is_longer" in found:  # CLAP's extractor marks one file at random if none is longer
                found["is_longer"] = torch.zeros_like(torch.as_tensor(found["is_longer"]))
            vectors = self.model.get_audio_features(**found)
            return getattr(vectors, "pooler_output", vectors).float().cpu().numpy()
        hidden = self.model(**found).last_hidden_state  # [b, frames, f]
        if not self.whisper:
            return hidden.mean(1).float().cpu().numpy()
        full = self.rate * self.seconds
        frames = [math.ceil(len(sound) / full * hidden.shape[1]) for sound in sounds]
        means = [row[: max(1, n)].mean(0) for row, n in zip(hidden, frames, strict=True)]
        return torch.stack(means).float().cpu().numpy()


def open_encoder(request: EncoderRequest) -> AudioEncoder:
    """The encoder `audio:MODEL`.

    Raises:
        MissingDependencyError: soundfile is not installed.
    """
    if missing := ENCODERS["audio"].missing_packages():
        raise missing_extra("audio", f"no package {', '.join(missing)}")
    return AudioEncoder(request.name, request.device)


def identity(name: str) -> dict[str, Any]:
    """The model's name and the hash of all its files."""
    return model_identity(name.partition(":")[2], WHAT)


def _load(given: str) -> tuple[Any, Any]:
    from transformers import AutoFeatureExtractor, AutoModel

    extractor, model, _ = load_model(given, WHAT, AutoFeatureExtractor, AutoModel)
    if model.main_input_name not in ("input_features", "input_values") and not hasattr(
        model, "get_audio_features"
    ):
        raise FeatureError(
            f"{given!r} is no {WHAT}.",
            found=type(model).__name__,
            expected="a model of audio, such as Whisper, CLAP or wav2vec 2.0",
        )
    return extractor, model


def _receptive_field(config: Any) -> int:
    """Samples of the shortest sound that gives a frame: of wav2vec 2.0, 400; else 1.

    A convolution of kernel k and stride s makes n outputs of (n − 1) s + k inputs.
    """
    kernels, strides = getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ())
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def _padded(sound: np.ndarray, samples: int) -> np.ndarray:
    """The sound, with silence up to so many samples."""
    return np.pad(sound, (0, max(0, samples - len(sound))))


def _limits(given: str, extractor: Any) -> tuple[int, float]:
    """Samples per second, and seconds that the model hears at most."""
    rate = getattr(extractor, "sampling_rate", None)
    if type(rate) is not int or not MIN_RATE <= rate <= MAX_RATE:
        raise cannot_be_loaded(WHAT, given, ValueError(f"sampling_rate {rate!r}"))
    samples = getattr(extractor, "nb_max_samples", None) or getattr(extractor, "n_samples", None)
    if samples is None:
        own = getattr(extractor, "chunk_length_s", None) or getattr(extractor, "max_length_s", None)
        samples = rate * (own or SECONDS)
    if not isinstance(samples, int | float) or not 0 < samples <= rate * MAX_SECONDS:
        raise cannot_be_loaded(WHAT, given, ValueError(f"a length of {samples!r} samples"))
    return rate, samples / rate
