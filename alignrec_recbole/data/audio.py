"""Audio files from unknown sources: decoded to samples, or refused with a reason."""

from __future__ import annotations

import os
from math import gcd
from pathlib import Path

import numpy as np

from alignrec_recbole.data.images import Decoded
from alignrec_recbole.errors import AlignRecError
from alignrec_recbole.io.opening import is_regular_file, open_input

FORMATS = ("WAV", "WAVEX", "FLAC")  # WAVEX: a WAV whose header names the format in full
MAX_BYTES = 4 << 30
MAX_RATE, MAX_CHANNELS = 768_000, 64
MAX_SAMPLES = 1 << 27  # of all channels: what is decoded at once


def waveform(path: Path, rate: int, seconds: float) -> Decoded:
    """The first seconds of a WAV or FLAC file: the mean of its channels at `rate` samples/s.

    Other rates are resampled by a polyphase filter. A file without samples has no content.

    Args:
        rate: samples per second.
        seconds: at most; later ones are not decoded.
    """
    import soundfile

    if not is_regular_file(path):  # reading a pipe would block forever
        return Decoded(reason="not a file" if os.path.lexists(path) else "missing")
    if path.stat().st_size == 0:
        return Decoded(reason="empty")
    if path.stat().st_size > MAX_BYTES:
        return Decoded(reason="too large")
    try:
        with open_input(path, what="audio file") as handle, soundfile.SoundFile(handle) as sound:
            if sound.format not in FORMATS:
                return Decoded(reason="not WAV or FLAC")
            frames = int(seconds * sound.samplerate)
            if (
                sound.samplerate > MAX_RATE
                or sound.channels > MAX_CHANNELS
                or min(frames, sound.frames) * sound.channels > MAX_SAMPLES
            ):
                return Decoded(reason="too large")
            found = sound.samplerate
            channels = sound.read(frames, dtype="float32", always_2d=True)  # [t, channels]
    except (AlignRecError, soundfile.SoundFileError, RuntimeError, ValueError, TypeError):
        return Decoded(reason="damaged")
    samples = channels.mean(axis=1)
    if not len(samples) or not np.isfinite(samples).all():
        return Decoded(reason="empty" if not len(samples) else "damaged")
    return Decoded(samples=resampled(samples, found, rate))


def resampled(samples: np.ndarray, found: int, rate: int) -> np.ndarray:
    """Samples [t] of `found` per second at `rate` per second, float32.

    >>> resampled(np.ones(8, dtype=np.float32), 16_000, 8_000).shape
    (4,)
    """
    if found == rate:
        return samples
    from scipy.signal import resample_poly

    common = gcd(found, rate)
    return resample_poly(samples, rate // common, found // common).astype(np.float32)
