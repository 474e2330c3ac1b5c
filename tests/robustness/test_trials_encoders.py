"""Generated trials: weights, tokenizers, models of Hugging Face, states and caches of pre-training.

Right is: what the undamaged file gives, or an error of this package that names what is wrong.
"""

from __future__ import annotations

import copy
import json
import shutil
import struct
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from damage import NASTY, NO_FILES, edited, replace_by, result_or_refusal, with_values
from trials import trial

from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders import model_folders
from alignrec_recbole.encoders.beit3 import checkpoints, pretrain_settings, weights
from alignrec_recbole.encoders.beit3.architecture import Beit3, architecture_for
from alignrec_recbole.encoders.beit3.corpus import _decode, read_corpus
from alignrec_recbole.encoders.beit3.pretraining import Pretraining
from alignrec_recbole.encoders.beit3.targets import Pixels
from alignrec_recbole.encoders.beit3.tokenizer import Tokenizer, train_tokenizer
from alignrec_recbole.encoders.beit3.vqkd import load_visual_tokenizer
from alignrec_recbole.encoders.encode import encode_items
from alignrec_recbole.errors import AlignRecError, FeatureError, SettingError
from alignrec_recbole.testing.encoder_checks import sample_items

SIZES = {"vocab_size": 20, "num_layers": 1, "width": 64, "num_heads": 1, "ffn_dim": 8,
         "text_positions": 12}  # fmt: skip


def small(seed: int = 0) -> Beit3:
    return Beit3(architecture_for("toy", 32, **SIZES)).initialise(seed)  # type: ignore[arg-type]


def same(a: Beit3, b: Beit3) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


# Weights -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def safetensors_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    weights.save(small(), path, {"origin": "o", "notes": ["n"]})
    return path.read_bytes()


def parts(file: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a .safetensors."""
    (length,) = struct.unpack("<Q", file[:8])
    return json.loads(file[8 : 8 + length]), file[8 + length :]


def joined(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_edited_headers_of_weights(safetensors_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    length = len(safetensors_file) - len(parts(safetensors_file)[1])
    for seed in range(40):
        head = edited(safetensors_file[:length], Random(seed))
        path.write_bytes(head + safetensors_file[length:])
        with trial("weights", f"header bytes {seed}"):
            model = result_or_refusal(lambda: weights.load(path), "w.safetensors")
            assert model is None or model.sizes.width == 64


def test_architectures_that_lie(safetensors_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    header, data = parts(safetensors_file)
    about = json.loads(header["__metadata__"]["beit3"])
    changes = list(with_values(about))[::3]
    changes += [("nested", "[" * 100_000), ("text", "x"), ("list", [1])]
    for name, changed in changes:
        text = changed if isinstance(changed, str) else json.dumps(changed)
        path.write_bytes(joined({**header, "__metadata__": {"beit3": text}}, data))
        with trial("weights", name):
            model = result_or_refusal(lambda: weights.load(path), "w.safetensors")
            assert model is None or same(model, small())


KEYS = ("encoder.layers.99999999.x", "encoder.layers.3000000.x", "encoder.layers.-1.x",
        "encoder.layers.x.y", "encoder.layers", "encoder.layers." + "9" * 5000,
        "\x1b[31m")  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_names_that_ask_for_many_layers(tmp_path: Path, key: str) -> None:
    from safetensors.torch import save_file

    state = {**weights.to_torchscale(small()), key: torch.zeros(1)}
    state = {name: value.clone() for name, value in state.items()}
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        with trial("weights", key[:30]), pytest.raises(FeatureError, match=r"w\.(pth|safe)"):
            weights.load(tmp_path / name)


TENSORS = {
    "expanded": torch.zeros(1).expand(10**12, 64),
    "a little expanded": torch.zeros(1, 64).expand(20, 64),
    "complex": torch.zeros(20, 64, dtype=torch.complex64),
    "whole numbers": torch.zeros(20, 64, dtype=torch.int64),
    "sparse": torch.zeros(20, 64).to_sparse(),
    "without data": torch.zeros(20, 64, device="meta"),
    "NaN": torch.full((20, 64), torch.nan),
    "half": torch.zeros(20, 64, dtype=torch.float16),
    "transposed": torch.zeros(64, 20).T,
    "another shape": torch.zeros(20, 64, 1),
    "a number": 5,
    "text": "\x1b[31m",
    "nothing": None,
    "a list": [1],
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_of_other_kinds(tmp_path: Path, name: str) -> None:
    state: dict[str, Any] = weights.to_torchscale(small())
    state["text_embed.weight"] = TENSORS[name]
    torch.save(state, tmp_path / "w.pth")
    with trial("weights", name):
        model = result_or_refusal(lambda: weights.load(tmp_path / "w.pth"), "w.pth")
        fits = name in ("a little expanded", "half", "transposed")
        assert (model is not None) == fits
        assert model is None or not model.text_embed.weight.any()


def test_edited_pickles_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for legacy in (False, True):
        torch.save(weights.to_torchscale(small()), path, _use_new_zipfile_serialization=not legacy)
        whole = path.read_bytes()
        for seed in range(30):
            head = edited(whole[:3000], Random(seed))
            path.write_bytes(head + whole[3000:])
            with trial("weights", f"pickle {legacy} {seed}"):
                result_or_refusal(lambda: weights.load(path), "w.pth")
                result_or_refusal(lambda: load_visual_tokenizer(path), "w.pth")


def test_compressed_weights_are_refused(tmp_path: Path) -> None:
    import zipfile

    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "plain.pth")
    packed = zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, packed:
        for entry in plain.namelist():
            packed.writestr(entry, plain.read(entry))
    with trial("weights", "compressed"), pytest.raises(FeatureError, match="bytes of content in"):
        weights.load(tmp_path / "w.pth")


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "t.spm"])
def test_weights_that_are_no_files(tmp_path: Path, name: str, kind: str) -> None:
    replace_by(tmp_path / name, kind)
    read = Tokenizer if name == "t.spm" else weights.load
    with trial("weights", f"{name} is {kind}"), pytest.raises(FeatureError, match=name):
        read(tmp_path / name)


@pytest.mark.parametrize("image_size", [33, 0, -16, 6400, 100_000, 10**9])
def test_image_sizes(image_size: int) -> None:
    with trial("weights", f"image size {image_size}"):
        with pytest.raises(SettingError, match=f"image_size {image_size}"):
            weights.resized(small(), image_size)
        with pytest.raises(SettingError, match=f"image_size {image_size}"):
            architecture_for("base", image_size)


TWINS = {
    "other weights": lambda copy, header: weights.save(small(5), copy, header),
    "other weights and their hash": lambda copy, header: weights.save(
        small(5), copy, {**header, "content_sha256": weights.content_hash(small(5)), "sha256": "0"}
    ),
    "no header": lambda copy, header: weights.save(small(), copy),
    "cut off": lambda copy, header: copy.write_bytes(copy.read_bytes()[:-99]),
    "one bit": lambda copy, header: copy.write_bytes(
        copy.read_bytes()[:-9] + bytes([copy.read_bytes()[-9] ^ 1]) + copy.read_bytes()[-8:]
    ),
    "empty": lambda copy, header: copy.write_bytes(b""),
}


@pytest.mark.parametrize("name", TWINS)
def test_a_poisoned_copy_of_weights_is_not_used(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ALIGNREC_CACHE", str(tmp_path / "cache"))
    torch.save(weights.to_torchscale(small()), tmp_path / "w.pth")
    ask = checkpoints.resolve_weights
    first = ask(str(tmp_path / "w.pth"), random_init=False)
    (copied,) = (tmp_path / "cache" / "beit3").glob("*.safetensors")
    TWINS[name](copied, weights.load_with_header(copied)[1].model_dump(exclude={"architecture"}))
    with trial("weights", f"copy: {name}"):
        again = ask(str(tmp_path / "w.pth"), random_init=False)
        assert same(first.model, again.model)
        assert first.identity == again.identity
        assert same(weights.load(copied), small())  # and replaced


def test_a_copy_that_cannot_be_stored(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ALIGNREC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").write_text("no folder")
    torch.save(weights.to_torchscale(small()), tmp_path / "w.pth")
    with trial("weights", "no cache"):
        found = checkpoints.resolve_weights(str(tmp_path / "w.pth"), random_init=False)
        assert same(found.model, small())


# Tokenizers --------------------------------------------------------------------------------------


def test_edited_tokenizers(tmp_path: Path) -> None:
    path = tmp_path / "t.spm"
    train_tokenizer(["red bike for the road", "blue tent and a lamp"], path, 40)
    whole = path.read_bytes()
    for seed in range(60):
        path.write_bytes(edited(whole, Random(seed)))
        with trial("tokenizers", str(seed)):
            tokenizer = result_or_refusal(lambda: Tokenizer(path, 9), "t.spm")
            if tokenizer is not None:
                ids = tokenizer.encode("red zebra \U0001f600")
                assert len(ids) <= 9
                assert all(0 <= i < tokenizer.vocabulary for i in ids)


@pytest.mark.parametrize("pieces", [1, 3, 10**10, 2**31])
def test_numbers_of_pieces(tmp_path: Path, pieces: int) -> None:
    with trial("tokenizers", f"{pieces} pieces"), pytest.raises(SettingError, match=str(pieces)):
        train_tokenizer(["red bike", "blue tent"], tmp_path / "t.spm", pieces)


# Models of Hugging Face --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=16,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


TABLE = ItemTable(["1", "2"], ["red bike", "tent " * 30], [None, None], "items.tsv", ["title"])
CONFIGS: dict[str, Any] = {
    "sentence_bert_config.json": ["{", "[1]", '{"max_seq_length": "abc"}', '{"max_seq_length": -5}',
        '{"max_seq_length": 99999999999}', '{"max_seq_length": 5000}', "[" * 100_000, "null"],
    "config.json": ["", "{", "[]", "null", "[" * 100_000,
        *({key: value} for key in ("num_hidden_layers", "hidden_size", "vocab_size",
            "intermediate_size", "max_position_embeddings", "num_attention_heads")
            for value in (10**12, 10**6, 0, -1, "x", None, 3)),
        {"hidden_size": float("nan")}, {"vocab_size": float("inf")},
        {"hidden_size": float("-inf")},
        {"model_type": "zz"}, {"auto_map": {"AutoModel": "evil.Evil"}, "model_type": "evil"},
        {"hidden_size": 8192, "intermediate_size": 32768, "num_hidden_layers": 200}],
    "tokenizer.json": ["", "{", "[" * 100_000, "{}"],
    "tokenizer_config.json": ["{", "[]", {"model_max_length": "x"}, {"tokenizer_class": "Evil"}],
}  # fmt: skip


@pytest.mark.parametrize("file", CONFIGS)
def test_configs_of_models(tiny_bert: Path, tmp_path: Path, monkeypatch, capfd, file: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for number, content in enumerate(CONFIGS[file]):
        folder = shutil.copytree(tiny_bert, tmp_path / str(number))
        path = folder / file
        if isinstance(content, dict):
            content = json.dumps({**json.loads(path.read_text()), **content})
        path.write_text(content)
        with trial("models", f"{file} {content[:40]}"):
            rows = result_or_refusal(
                lambda f=folder: encode_items(f"hf:{f}", TABLE, progress=False)
            )
            assert rows is None or rows.matrix.shape[0] == 2
        said = capfd.readouterr()
        assert "\x1b" not in said.out + said.err


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "vocab.txt"])
def test_models_with_what_is_no_file(tiny_bert, tmp_path, monkeypatch, file, kind) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = shutil.copytree(tiny_bert, tmp_path / "m")
    replace_by(folder / file, kind)
    with trial("models", f"{file} is {kind}"):
        result_or_refusal(lambda: encode_items(f"hf:{folder}", TABLE, progress=False))


@pytest.mark.parametrize("name", ["x" * 5000, "\x1b[31mx", "../" * 9, "a b", "\0", "é"])
def test_names_of_models(name: str, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with trial("models", name[:20]), pytest.raises(AlignRecError):
        encode_items(f"hf:{name}", TABLE, progress=False)


def test_weights_that_are_not_finite_are_named(tiny_bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_bert, tmp_path / "m")
    state = load_file(folder / "model.safetensors")
    state["embeddings.word_embeddings.weight"][:] = torch.nan
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with trial("models", "NaN"), pytest.raises(FeatureError, match="computed NaN or infinity"):
        encode_items(f"hf:{folder}", TABLE, progress=False)


@pytest.mark.parametrize("value", NASTY)
def test_sizes_of_any_kind_are_looked_at(tiny_bert: Path, tmp_path: Path, value: Any) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": value, "text_config": {"hidden_size": value}}
    (folder / "config.json").write_text(json.dumps(config))
    with trial("models", f"size {str(value)[:20]}"):
        result_or_refusal(lambda: model_folders.check_model(str(folder)), "'m'")


# States and caches of pre-training ---------------------------------------------------------------


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> ItemTable:
    return sample_items(tmp_path_factory.mktemp("items"), 12)


def begin(items: ItemTable, folder: Path) -> Pretraining:
    path = folder / "t.spm"
    if not path.is_file():
        train_tokenizer(items.texts, path, 120)
    tokenizer = Tokenizer(path, 10)
    chosen = pretrain_settings.PretrainSettings(epochs=1, batch_size=4, micro_batch=4, ema=0.5)
    corpus = read_corpus(items, tokenizer, folder, 32, chosen, progress=False)
    sizes = {**SIZES, "vocab_size": tokenizer.vocabulary, "mlm": True, "mim": 768}
    model = Beit3(architecture_for("toy", 32, **sizes)).initialise(0)  # type: ignore[arg-type]
    return Pretraining(model, Pixels(model.sizes), corpus, chosen, folder, progress=False)


@pytest.fixture(scope="module")
def stopped(items: ItemTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    begin(items, folder).run(stop_after=1)
    return folder


@pytest.fixture(scope="module")
def run(items: ItemTable, stopped: Path, tmp_path_factory) -> Pretraining:
    """A run whose folder gets damaged states; it is not trained."""
    return begin(items, Path(shutil.copytree(stopped, tmp_path_factory.mktemp("run") / "r")))


def resume(run: Pretraining, name: str) -> None:
    """The state is taken, or refused by a sentence that names it."""
    before = copy.deepcopy(run.model.state_dict())
    with trial("states", name):
        taken = result_or_refusal(lambda: run._resume() or True, "last.pt", "another pre-training")
        if taken:
            assert run.state.step == len(run.state.history)
            assert all(torch.isfinite(v).all() for v in run.model.state_dict().values())
    run.model.load_state_dict(before)
    run.state.step = 0


def test_edited_states(run: Pretraining, stopped: Path) -> None:
    whole = (stopped / "last.pt").read_bytes()
    for seed in range(25):
        (run.folder / "last.pt").write_bytes(edited(whole[:5000], Random(seed)) + whole[5000:])
        resume(run, f"bytes {seed}")


def test_states_with_other_values(run: Pretraining, stopped: Path) -> None:
    whole = torch.load(stopped / "last.pt", weights_only=True)
    path = run.folder / "last.pt"
    for key in whole:
        for value in (*NASTY[::2], torch.zeros(1), {"a": torch.zeros(1)}, [torch.zeros(2)]):
            torch.save({**whole, key: value}, path)
            resume(run, f"{key} = {str(value)[:20]}")
    for key in ("identity", "progress"):
        for name, changed in list(with_values(json.loads(whole[key])))[::19]:
            torch.save({**whole, key: json.dumps(changed)}, path)
            resume(run, f"{key}.{name}")
    groups, moments = whole["optimizer"]["param_groups"], whole["optimizer"]["state"]
    first = min(moments)
    for moment in (torch.zeros(3), torch.zeros(1, 1)):
        changed = {**moments, first: {**moments[first], "exp_avg": moment}}
        torch.save({**whole, "optimizer": {**whole["optimizer"], "state": changed}}, path)
        with trial("states", "moments"), pytest.raises(FeatureError, match="a moment of shape"):
            run._resume()
    for changed in (groups[:-1], [{**g, "weight_decay": 9.0} for g in groups], [], None):
        torch.save({**whole, "optimizer": {**whole["optimizer"], "param_groups": changed}}, path)
        with (
            trial("states", "groups"),
            pytest.raises(FeatureError, match=r"last\.pt cannot be con"),
        ):
            run._resume()


@pytest.mark.parametrize("kind", NO_FILES)
def test_states_that_are_no_files(run: Pretraining, kind: str) -> None:
    replace_by(run.folder / "last.pt", kind)
    resume(run, kind)
    path = run.folder / "last.pt"
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_damaged_images_are_decoded_again(items: ItemTable, tmp_path: Path) -> None:
    pixels, place = _decode(items, tmp_path, 16, 0, False)
    expected = np.array(pixels)
    (path,), (index,) = tmp_path.glob("*.npy"), tmp_path.glob("*.json")
    good = {file: file.read_bytes() for file in (path, index)}
    about = json.loads(good[index])
    damages = [(f, edited(good[f], Random(s))) for f in (path, index) for s in range(12)]
    damages += [(index, json.dumps(changed).encode()) for _, changed in with_values(about)]
    for number, (file, content) in enumerate(damages):
        file.write_bytes(content)
        with trial("images", f"{file.suffix} {number}"):
            again, places = _decode(items, tmp_path, 16, 0, False)
            assert np.array_equal(places, place)
            read = int((place >= 0).sum())
            assert np.array_equal(again[:read], expected[:read])
