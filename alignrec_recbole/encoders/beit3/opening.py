"""BEiT-3 as an encoder, with the weights and the tokenizer that its options name."""

from __future__ import annotations

from dataclasses import dataclass

from alignrec_recbole.encoders.base import EncoderRequest
from alignrec_recbole.encoders.beit3 import checkpoints
from alignrec_recbole.encoders.beit3.encoder import POOLINGS, Beit3Encoder, Pooling, Precision
from alignrec_recbole.encoders.beit3.tokenizer import MAX_TOKENS, Tokenizer, train_tokenizer
from alignrec_recbole.errors import SettingError

FITTED_PIECES = 8000  # of a tokenizer fitted for random weights


@dataclass(frozen=True)
class Beit3Options:
    """What the command line names.

    Attributes:
        weights: a file, or a published name that is downloaded.
        random_init: instead of `weights`: untrained ones; tables will say so.
        size: of random weights; None: base.
        image_size: other than the weights'; None: theirs.
        tokenizer: a SentencePiece file; None: beside the weights, or published with them.
        max_tokens: longer texts are truncated.
        pooling, precision: see `Beit3Encoder`.
    """

    weights: str | None = None
    random_init: bool = False
    size: str | None = None
    image_size: int | None = None
    tokenizer: str | None = None
    max_tokens: int = MAX_TOKENS
    pooling: Pooling = "cls"
    precision: Precision = "auto"


def open_encoder(request: EncoderRequest) -> Beit3Encoder:
    """The encoder that the request's options describe: the fields of Beit3Options.

    If weights are random and no tokenizer is named, one is fitted to the items' texts.

    Raises:
        SettingError: weights or tokenizer are not named, or do not belong together.
        FeatureError: a file cannot be used.
        DownloadError: a published file cannot be downloaded.
        MissingDependencyError: the extra 'beit3' is not installed.
    """
    options, progress = Beit3Options(**request.options), request.progress
    if options.pooling not in POOLINGS:
        raise SettingError(
            f"BEiT-3 has no pooling {options.pooling!r}.", expected=", ".join(POOLINGS)
        )
    checkpoints.check_choice(options.weights, options.random_init, options.size)
    if options.random_init and options.tokenizer is None:
        if request.fitted is None or request.items is None:
            raise SettingError(
                "A tokenizer cannot be fitted.", expected="items, and a place for it"
            )
        path = request.fitted.with_name(f"{request.fitted.name}.spm")
        train_tokenizer(request.items.texts, path, FITTED_PIECES)  # one there may be of other items
    else:
        path = checkpoints.find_tokenizer(options.tokenizer, options.weights, progress)
    tokenizer = Tokenizer(path, options.max_tokens)
    chosen = checkpoints.resolve_weights(
        options.weights,
        random_init=options.random_init,
        size=options.size or "base",
        image_size=options.image_size,
        progress=progress,
    )
    return Beit3Encoder(
        chosen.model,
        tokenizer,
        pooling=options.pooling,
        precision=options.precision,
        device=request.device,
        identity=chosen.identity,
        notes=chosen.notes,
    )
