"""BEiT-3's text tokenizer: SentencePiece pieces under fairseq's ids.

    <s> 0 · <pad> 1 · </s> 2 · <unk> 3 · piece p → p + 1 · <mask> = pieces + 1

`<mask>`, `<s>` and `</s>` in an item's text are plain text. SentencePiece is called
directly: transformers 5 reads the published file as a vocabulary of five entries.
"""

from __future__ import annotations

import hashlib
import io
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alignrec_recbole.errors import FeatureError, MissingDependencyError, SettingError
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.io.opening import read_bytes

MAX_MODEL_BYTES = 256 << 20
BOS, PAD, EOS, UNK = 0, 1, 2, 3
SPECIAL = 2  # <s> and </s> around every text
MAX_TOKENS = 128  # AlignRec's; the special ones included
LONGEST_SENTENCE = 4192  # bytes; SentencePiece's training silently skips longer ones


class Tokenizer:
    """Texts to ids, and the ids of one batch padded to its longest text.

    Args:
        path: a SentencePiece model.
        max_tokens: longer texts are truncated; <s> and </s> are counted.

    Raises:
        FeatureError: the file is missing or is not a SentencePiece model.
        MissingDependencyError: sentencepiece is not installed.
    """

    def __init__(self, path: Path, max_tokens: int = MAX_TOKENS) -> None:
        pieces = _sentencepiece()
        if max_tokens <= SPECIAL:
            raise SettingError(
                "max_tokens is too small for a token between <s> and </s>.",
                found=f"max_tokens {max_tokens}",
                expected=f"at least {SPECIAL + 1}",
            )
        path = Path(path)
        if not os.path.lexists(path):
            raise FeatureError(
                f"There is no tokenizer {path}.",
                expected="a SentencePiece model; BEiT-3's is beit3.spm",
                hint="pass --tokenizer PATH",
            )
        content = read_bytes(path, what="tokenizer", error=FeatureError, max_bytes=MAX_MODEL_BYTES)
        try:
            self._pieces = pieces.SentencePieceProcessor()
            self._pieces.LoadFromSerializedProto(content)
        except (RuntimeError, OSError) as error:
            raise FeatureError(
                f"{path.name} is not a SentencePiece model.",
                found=(str(error).strip() or "-").splitlines()[0][:200],
                expected="the file beit3.spm, or one made by train_tokenizer",
            ) from error
        self.max_tokens = max_tokens
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._unknown = self._pieces.unk_id()

    @property
    def pieces(self) -> int:
        """Pieces of the model; 64000 in the published file."""
        return int(self._pieces.get_piece_size())

    @property
    def mask(self) -> int:
        """Id of <mask>, one beyond the last piece's."""
        return self.pieces + 1

    @property
    def vocabulary(self) -> int:
        """Number of ids; the published embedding has eight unused rows more."""
        return self.pieces + 2

    def encode(self, text: str) -> list[int]:
        """<s>, at most max_tokens − 2 pieces, </s>."""
        found = self._pieces.encode(text)[: self.max_tokens - SPECIAL]
        return [BOS, *(UNK if p == self._unknown else p + 1 for p in found), EOS]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special ones."""
        return str(self._pieces.decode([i - 1 for i in ids if UNK < i < self.mask]))

    def check_length(self, longest_text: int) -> None:
        """Check that a model has a position per token of a text.

        Raises:
            SettingError: it has fewer.
        """
        if self.max_tokens > longest_text:
            raise SettingError(
                "The model has fewer positions than a text may have tokens.",
                found=f"max_tokens {self.max_tokens}",
                expected=f"at most {longest_text}",
                hint="lower --max-tokens",
            )

    def check_fits(self, vocabulary: int) -> None:
        """Check that a model has an embedding row per id.

        Raises:
            SettingError: it has fewer.
        """
        if self.vocabulary > vocabulary:
            raise SettingError(
                "The tokenizer does not belong to these weights.",
                found=f"{self.vocabulary} ids",
                expected=f"at most {vocabulary}, the rows of the text embedding",
                hint="pass the tokenizer the model was trained with",
            )


def pad(texts: Sequence[Sequence[int] | np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ids int64 [B, T] and padding bool [B, T], T the longest text's length.

    >>> ids, padding = pad([[0, 9, 2], [0, 2]])
    >>> ids.tolist(), padding.tolist()
    ([[0, 9, 2], [0, 2, 1]], [[False, False, False], [False, False, True]])
    """
    lengths = np.array([len(text) for text in texts])
    padding = np.arange(lengths.max()) >= lengths[:, None]
    ids = np.full(padding.shape, PAD, dtype=np.int64)
    ids[~padding] = np.concatenate([np.asarray(text, dtype=np.int64) for text in texts])
    return ids, padding


def train_tokenizer(texts: Sequence[str], path: Path, pieces: int) -> None:
    """Write what `fit_tokenizer` makes of texts.

    Raises:
        SettingError: as `fit_tokenizer`.
    """
    content = fit_tokenizer(texts, pieces)
    with atomic_write(path) as handle:
        handle.write(content)


def fit_tokenizer(texts: Sequence[str], pieces: int) -> bytes:
    """A unigram model of texts, for architectures that start from nothing.

    The same texts give the same bytes.

    Args:
        pieces: maximum number; short texts give fewer.

    Raises:
        SettingError: the texts have no words, or more different letters than pieces.
    """
    out = io.BytesIO()
    sentences = sorted({part for t in texts if t.strip() for part in _sentences(t)})
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=out,
            vocab_size=pieces,
            hard_vocab_limit=False,
            model_type="unigram",
            character_coverage=1.0,
            num_threads=1,  # more give other models from run to run
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        raise SettingError(
            f"No tokenizer of {pieces} pieces can be made from these texts.",
            found=str(error).splitlines()[0][-200:],
            expected="texts with words, and more pieces than they have different letters",
        ) from error
    return out.getvalue()


def _sentences(text: str) -> list[str]:
    """The text, split at white space (or within a long word) if training would skip it."""
    if len(text.encode()) <= LONGEST_SENTENCE:
        return [text]
    # a character has four bytes at most
    return textwrap.wrap(text, LONGEST_SENTENCE // 4, break_on_hyphens=False)


def _sentencepiece():  # type: ignore[no-untyped-def]
    try:
        import sentencepiece
    except ImportError as error:
        raise MissingDependencyError.of_extra(
            "BEiT-3's tokenizer needs sentencepiece.", "beit3", str(error)
        ) from error
    return sentencepiece
