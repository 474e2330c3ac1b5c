"""BEiT-3's ids: special ones, the offset, cutting, padding; on a small SentencePiece model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alignrec_recbole.encoders.beit3.tokenizer import (
    LONGEST_SENTENCE,
    Tokenizer,
    pad,
    train_tokenizer,
)
from alignrec_recbole.errors import FeatureError, MissingDependencyError, SettingError

sentencepiece = pytest.importorskip("sentencepiece", reason="extra 'beit3' is not installed")

TEXTS = [
    f"{colour} {thing} for the {place}, number {n}"
    for n, colour in enumerate(["red", "blue", "green", "dark", "pale"])
    for thing in ["bike", "tent", "helmet", "glove", "bottle", "saddle"]
    for place in ["mountain", "river", "garden", "street"]
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "small.spm"
    train_tokenizer(TEXTS, path, 90)
    return path


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Tokenizer:
    return Tokenizer(path, max_tokens=12)


def test_ids_are_fairseqs(tokenizer: Tokenizer, path: Path) -> None:
    raw = sentencepiece.SentencePieceProcessor(model_file=str(path))
    text = "red bike"
    pieces = raw.encode(text)
    assert raw.unk_id() not in pieces
    assert tokenizer.encode(text) == [0, *(p + 1 for p in pieces), 2]
    assert tokenizer.pieces == raw.get_piece_size() <= 90
    assert (tokenizer.mask, tokenizer.vocabulary) == (tokenizer.pieces + 1, tokenizer.pieces + 2)


def test_unknown_is_three_and_pieces_never_take_special_ids(tokenizer: Tokenizer) -> None:
    assert set(tokenizer.encode("漢字")[1:-1]) >= {3}
    for text in TEXTS:
        inner = tokenizer.encode(text)[1:-1]
        assert min(inner) > 3
        assert max(inner) < tokenizer.mask


@pytest.mark.parametrize("text", ["<mask> bike", "<s> bike </s>", "<pad><unk>"])
def test_special_words_in_a_text_stay_text(tokenizer: Tokenizer, text: str) -> None:
    inner = tokenizer.encode(text)[1:-1]
    assert not {0, 1, 2, tokenizer.mask} & set(inner)


def test_long_texts_keep_both_ends(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("red bike for the mountain " * 50)
    assert len(ids) == 12
    assert (ids[0], ids[-1]) == (0, 2)
    assert tokenizer.encode("") == tokenizer.encode("   ") == [0, 2]


def test_decoding_gives_the_text_back(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("red tent")) == "red tent"


def test_batches_are_trimmed_and_padded_on_the_right(tokenizer: Tokenizer) -> None:
    texts = [tokenizer.encode(t) for t in ("", "bike", "blue tent")]
    ids, padding = pad(texts)
    assert ids.shape[1] == max(map(len, texts)) < 12
    for row, hidden, text in zip(ids, padding, texts, strict=True):
        assert row[: len(text)].tolist() == text
        assert set(row[len(text) :]) <= {1}
        assert hidden.tolist() == [False] * len(text) + [True] * (len(row) - len(text))
    assert ids.dtype == np.int64


def test_training_is_deterministic(path: Path, tmp_path: Path) -> None:
    train_tokenizer(TEXTS[::-1], tmp_path / "again.spm", 90)
    assert (tmp_path / "again.spm").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("text", ["zyx " * 1500, "zyx" * 1500, "zyx " + "é" * 2100])
def test_long_texts_are_learnt_from_too(tmp_path: Path, text: str) -> None:
    assert len(text.encode()) > LONGEST_SENTENCE
    train_tokenizer([*TEXTS, text], tmp_path / "long.spm", 90)
    assert 3 not in Tokenizer(tmp_path / "long.spm", 9000).encode(text)
    assert 3 not in Tokenizer(tmp_path / "long.spm").encode("zyx")


def test_bad_tokenizers(path: Path, tmp_path: Path, tokenizer: Tokenizer, monkeypatch) -> None:
    with pytest.raises(FeatureError, match=r"(?s)There is no tokenizer.*--tokenizer"):
        Tokenizer(tmp_path / "none.spm")
    for content in (b"", b"not a model", path.read_bytes()[: len(path.read_bytes()) // 2]):
        (tmp_path / "bad.spm").write_bytes(content)
        with pytest.raises(FeatureError, match="not a SentencePiece model"):
            Tokenizer(tmp_path / "bad.spm")
    with pytest.raises(SettingError, match="at least 3"):
        Tokenizer(path, max_tokens=2)
    with pytest.raises(SettingError, match="does not belong"):
        tokenizer.check_fits(tokenizer.pieces + 1)
    tokenizer.check_fits(tokenizer.pieces + 2)
    for texts, pieces in ((TEXTS, 10), (["", " "], 90)):
        with pytest.raises(SettingError, match=f"No tokenizer of {pieces} pieces"):
            train_tokenizer(texts, tmp_path / "x.spm", pieces)
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    with pytest.raises(MissingDependencyError, match=r"alignrec-recbole\[beit3\]"):
        Tokenizer(path)
