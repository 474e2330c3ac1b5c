"""Pre-training: masks, targets, the loss by its formula, exact resuming, processes, learning."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders.beit3 import corpus as corpus_module
from alignrec_recbole.encoders.beit3 import (
    microbatch,
    objective,
    pretrain_settings,
    pretraining,
    weights,
)
from alignrec_recbole.encoders.beit3.architecture import Beit3, architecture_for
from alignrec_recbole.encoders.beit3.corpus import _decode, read_corpus
from alignrec_recbole.encoders.beit3.encoder import normalise
from alignrec_recbole.encoders.beit3.masking import generator, mask_patches, mask_text
from alignrec_recbole.encoders.beit3.targets import Pixels, Teacher, make_target
from alignrec_recbole.encoders.beit3.tokenizer import UNK, Tokenizer, train_tokenizer
from alignrec_recbole.encoders.beit3.vqkd import VisualTokenizer, load_visual_tokenizer
from alignrec_recbole.errors import DataError, DivergedError, FeatureError, SettingError

pytest.importorskip("sentencepiece", reason="extra 'beit3' is not installed")
ROOT = Path(__file__).resolve().parents[3]
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "grey": (128,) * 3}
THINGS = ["bike", "tent", "lamp", "boot", "rope"]


def make_items(folder: Path, count: int = 40) -> ItemTable:
    """Items whose picture tells the colour word, and whose text tells the picture's colour.

    Item 3 has no text, item 5 no image, item 6 a broken one.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    texts, images = [], []
    for i in range(count):
        colour = list(COLOURS)[rng.integers(len(COLOURS))]
        texts.append(f"{colour} {THINGS[rng.integers(len(THINGS))]}")
        pixels = np.tile(np.array(COLOURS[colour], dtype=np.uint8), (32, 32, 1))
        path = folder / "images" / f"{i}.png"
        Image.fromarray(pixels).save(path)
        images.append(path)
    texts[3], images[5] = "", None
    images[6].write_bytes(b"broken")
    return ItemTable([str(i) for i in range(count)], texts, images, "colours", ["title"])


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> ItemTable:
    return make_items(tmp_path_factory.mktemp("items"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, items: ItemTable) -> Tokenizer:
    path = tmp_path_factory.mktemp("spm") / "tokenizer.spm"
    train_tokenizer(items.texts, path, 40)
    return Tokenizer(path, 16)


def settings(**other: object) -> pretrain_settings.PretrainSettings:
    base = {"epochs": 2, "batch_size": 12, "micro_batch": 4, "learning_rate": 1e-3,
            "warmup_epochs": 0.5, "layer_decay": 1.0}  # fmt: skip
    return pretrain_settings.PretrainSettings(**{**base, **other})  # type: ignore[arg-type]


def model_for(tokenizer: Tokenizer, mim: int = 768, **other: object) -> Beit3:
    sizes = architecture_for(
        "toy", 32, vocab_size=tokenizer.vocabulary, num_layers=2, width=32, num_heads=2,
        ffn_dim=64, mlm=True, mim=mim,
    )  # fmt: skip
    return Beit3(sizes).initialise(0)


def start(items, tokenizer, folder: Path, origin=None, **other: object) -> pretraining.Pretraining:
    chosen = settings(**other)
    corpus = read_corpus(items, tokenizer, folder, 32, chosen, progress=False)
    model = model_for(tokenizer)
    return pretraining.Pretraining(
        model, Pixels(model.sizes), corpus, chosen, folder, progress=False, origin=origin
    )


# Masks --------------------------------------------------------------------------------------------


def test_hidden_words_follow_the_rule() -> None:
    counts, fates = [], np.zeros(3)
    for seed in range(400):
        ids = [0, *range(100, 120), 2]
        hidden, chosen = mask_text(ids, 0.5, 999, generator(seed))
        counts.append(int(chosen.sum()))
        assert not chosen[0]
        assert not chosen[-1]
        assert np.array_equal(hidden[~chosen], np.array(ids)[~chosen])
        was, now = np.array(ids)[chosen], hidden[chosen]
        fates += [(now == 999).sum(), (now == was).sum(), ((now != 999) & (now != was)).sum()]
        assert now.min() > 2
    assert set(counts) == {10}
    assert np.allclose(fates / fates.sum(), [0.8, 0.1, 0.1], atol=0.015)


@pytest.mark.parametrize(("words", "expected"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2)])
def test_short_texts(words: int, expected: int) -> None:
    _, chosen = mask_text([0, *range(10, 10 + words), 2], 0.5, 999, generator(0))
    assert chosen.sum() == expected


@pytest.mark.parametrize(("grid", "count"), [(14, 78), (24, 230), (7, 19), (2, 1)])
def test_hidden_patches_are_exactly_so_many_and_in_blocks(grid: int, count: int) -> None:
    alone = []
    for seed in range(50):
        mask = mask_patches(grid, 0.4, generator(seed))
        assert mask.sum() == count
        square = np.pad(mask.reshape(grid, grid), 1)
        near = square[:-2, 1:-1] + square[2:, 1:-1] + square[1:-1, :-2] + square[1:-1, 2:]
        alone.append((square[1:-1, 1:-1] & ~near).sum() / count)
    if grid >= 14:
        assert np.mean(alone) < 0.02, "scattered patches have a hidden neighbour less often"
    assert len({mask_patches(14, 0.4, generator(s)).tobytes() for s in range(20)}) == 20


class SidesOfBlocks:
    """A generator that notes the height and width of every block that is placed."""

    def __init__(self, seed: int, grid: int) -> None:
        self._rng, self._grid = generator(seed), grid
        self.highs: list[int] = []

    def __getattr__(self, name: str):
        return getattr(self._rng, name)

    def integers(self, low: int, high: int) -> int:
        self.highs.append(self._grid + 1 - high)
        return int(self._rng.integers(low, high))


def test_sides_of_blocks_differ_by_a_bounded_factor() -> None:
    sides = []
    for seed in range(200):
        rng = SidesOfBlocks(seed, 24)
        mask_patches(24, 0.4, rng)
        sides += zip(rng.highs[::2], rng.highs[1::2], strict=True)
    longer, shorter = (np.array([f(pair) for pair in sides]) for f in (max, min))
    assert ((longer - 0.5) / (shorter + 0.5)).max() <= 1 / 0.3  # before both were rounded
    assert (longer / shorter).max() > 3


def test_masks_depend_on_seed_epoch_and_item_alone(items, tokenizer, tmp_path) -> None:
    corpus = read_corpus(items, tokenizer, tmp_path, 32, settings(), progress=False)
    whole = microbatch.make_micro_batch(corpus, np.array([0, 1, 2]), 2, 4, settings())
    alone = microbatch.make_micro_batch(corpus, np.array([2]), 2, 4, settings())
    assert np.array_equal(whole.masked_ids[2], alone.masked_ids[0])
    assert np.array_equal(whole.patches[2], alone.patches[0])


def test_crops_depend_on_seed_epoch_and_item_and_spare_validation(
    items, tokenizer, tmp_path
) -> None:
    corpus = read_corpus(items, tokenizer, tmp_path, 32, settings(), progress=False)
    cropped = settings(crop=0.5)
    members = np.array([0, 1, 2])
    whole = microbatch.make_micro_batch(corpus, members, 2, 4, cropped).crops
    alone = microbatch.make_micro_batch(corpus, members[2:], 2, 4, cropped).crops
    assert whole[2] == alone[0]
    assert whole != microbatch.make_micro_batch(corpus, members, 2, 5, cropped).crops
    assert (
        microbatch.make_micro_batch(corpus, members, 2, microbatch.VALIDATION_EPOCH, cropped).crops
        is None
    )
    assert microbatch.make_micro_batch(corpus, members, 2, 4, settings()).crops is None


def test_drop_path_depends_on_seed_epoch_and_item_and_spares_validation(
    items, tokenizer, tmp_path
) -> None:
    corpus = read_corpus(items, tokenizer, tmp_path, 32, settings(), progress=False)
    dropped = settings(drop_path=0.5)

    def drawn(members: np.ndarray, epoch: int, given: object) -> np.ndarray | None:
        batch = microbatch.make_micro_batch(corpus, members, 2, epoch, given, num_layers=3)
        return batch.drop_path_scale

    members = np.arange(30)
    whole = drawn(members, 4, dropped)
    assert whole.shape == (30, 2, 3, 2)
    assert np.array_equal(whole[2], drawn(members[2:3], 4, dropped)[0])
    assert not np.array_equal(whole, drawn(members, 5, dropped))
    assert (whole[:, :, 0] == 1).all()
    assert set(whole[:, :, 2].flatten()) == {0, 2}
    assert 0.3 < (whole[:, :, 2] == 0).mean() < 0.7
    assert (whole[:, 0] != whole[:, 1]).any()
    assert (
        microbatch.make_micro_batch(corpus, members, 2, 4, settings(), num_layers=3).drop_path_scale
        is None
    )
    run = start(items, tokenizer, tmp_path, drop_path=0.9)
    plain = start(items, tokenizer, tmp_path)
    assert run.evaluate(members[7:]) == plain.evaluate(members[7:])


def test_a_view_is_the_part_it_names() -> None:
    image = torch.arange(16.0).view(1, 4, 4).repeat(3, 1, 1)
    assert torch.equal(microbatch.CropBox(0, 0, 4, 4, False).of(image), image)
    assert torch.equal(microbatch.CropBox(0, 0, 4, 4, True).of(image), image.flip(2))
    flat = torch.zeros(3, 4, 4)
    flat[:, :, 2:] = 1
    assert torch.equal(microbatch.CropBox(1, 2, 2, 2, False).of(flat), torch.ones(3, 4, 4))
    drawn = [microbatch.draw_crop(20, 0.3, generator(n)) for n in range(200)]
    for view in drawn:
        assert 0 <= view.top <= 20 - view.height
        assert 0 <= view.left <= 20 - view.width
        assert view.height * view.width >= 0.25 * 400
    assert 60 < sum(view.mirrored for view in drawn) < 140


# Targets ------------------------------------------------------------------------------------------


def test_pixels_are_normalised_within_a_patch() -> None:
    sizes = architecture_for("toy", 32, vocab_size=10)
    image = torch.randn(2, 3, 32, 32) * 5 + 1
    wanted = Pixels(sizes).of(image)
    assert wanted.shape == (2, 4, 768)
    patch = image[1, :, 16:, :16].permute(0, 1, 2).reshape(-1)
    torch.testing.assert_close(wanted[1, 2], (patch - patch.mean()) / patch.std())
    assert float(Pixels(sizes).loss(torch.zeros(8, 768), wanted.view(8, 768))) == pytest.approx(
        8 * 767 / 768, rel=1e-4
    )


def test_a_teacher_is_frozen_and_sees_the_whole_image(tmp_path: Path) -> None:
    sizes = architecture_for("toy", 32, vocab_size=10)
    teacher = Beit3(sizes).initialise(1)
    weights.save(teacher, tmp_path / "t.safetensors")
    target = make_target(f"teacher:{tmp_path / 't.safetensors'}", sizes)
    assert isinstance(target, Teacher)
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        rows = teacher(image).vision[:, 1:]
    torch.testing.assert_close(target.of(image), torch.nn.functional.layer_norm(rows, (128,)))
    assert not any(p.requires_grad for p in target.model.parameters())
    assert float(target.loss(target.of(image), target.of(image))) == 0


def test_bfloat16_leaves_targets_alone(items, tokenizer, tmp_path, monkeypatch) -> None:
    run = start(items, tokenizer, tmp_path, bfloat16=True)
    weights.save(model_for(tokenizer), tmp_path / "t.safetensors")
    run.target = make_target(f"teacher:{tmp_path / 't.safetensors'}", run.model.sizes)
    run.model = pretraining.with_heads(run.model, 32, 0)
    of, seen = run.target.of, []
    monkeypatch.setattr(
        run.target, "of", lambda image: seen.append((image, of(image))) or seen[-1][1]
    )
    run.evaluate(run.corpus.held)
    assert seen
    for image, found in seen:
        assert torch.equal(found, of(image))


def published_vqkd(width: int = 64, layers: int = 2, codes: int = 50) -> dict[str, torch.Tensor]:
    """Tensors under the names of unilm's beit2."""
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g) * 0.3

    state = {
        "encoder.cls_token": draw(1, 1, width), "encoder.pos_embed": draw(1, 5, width),
        "encoder.patch_embed.proj.weight": draw(width, 3, 16, 16),
        "encoder.patch_embed.proj.bias": draw(width),
        "encoder.fc_norm.weight": draw(width) + 1, "encoder.fc_norm.bias": draw(width),
        "encode_task_layer.0.weight": draw(width, width), "encode_task_layer.0.bias": draw(width),
        "encode_task_layer.2.weight": draw(32, width), "encode_task_layer.2.bias": draw(32),
        "quantize.embedding.weight": torch.nn.functional.normalize(draw(codes, 32), dim=1),
        "quantize.embedding.cluster_size": draw(codes), "quantize.embedding.initted": draw(1),
        "quantize.cluster_size": draw(codes), "decoder.cls_token": draw(1, 1, width),
        "decode_task_layer.0.weight": draw(2, 2), "scaling_layer.shift": draw(1),
    }  # fmt: skip
    for i in range(layers):
        b = f"encoder.blocks.{i}"
        state |= {
            f"{b}.norm1.weight": draw(width) + 1, f"{b}.norm1.bias": draw(width),
            f"{b}.norm2.weight": draw(width) + 1, f"{b}.norm2.bias": draw(width),
            f"{b}.attn.qkv.weight": draw(3 * width, width) * 0.3,
            f"{b}.attn.q_bias": draw(width), f"{b}.attn.v_bias": draw(width),
            f"{b}.attn.proj.weight": draw(width, width), f"{b}.attn.proj.bias": draw(width),
            f"{b}.mlp.fc1.weight": draw(4 * width, width), f"{b}.mlp.fc1.bias": draw(4 * width),
            f"{b}.mlp.fc2.weight": draw(width, 4 * width), f"{b}.mlp.fc2.bias": draw(width),
        }  # fmt: skip
    return state


def codes_by_hand(state: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """The tokenizer's formula written out, one head at a time."""
    f = torch.nn.functional
    width = state["encoder.cls_token"].shape[-1]
    patches = image.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).flatten(3)
    x = patches.flatten(1, 2) @ state["encoder.patch_embed.proj.weight"].flatten(1).T
    x = x + state["encoder.patch_embed.proj.bias"]
    x = torch.cat([state["encoder.cls_token"].expand(len(x), 1, -1), x], 1)
    x = x + state["encoder.pos_embed"]
    for i in range(2):
        at = {k.split(f"blocks.{i}.")[1]: v for k, v in state.items() if f"blocks.{i}." in k}
        u = f.layer_norm(x, (width,), at["norm1.weight"], at["norm1.bias"], 1e-6)
        q, k, v = (u @ w.T for w in at["attn.qkv.weight"].chunk(3))
        q, v = q + at["attn.q_bias"], v + at["attn.v_bias"]
        a = (q @ k.transpose(1, 2) / width**0.5).softmax(-1) @ v  # one head of 64
        x = x + a @ at["attn.proj.weight"].T + at["attn.proj.bias"]
        u = f.layer_norm(x, (width,), at["norm2.weight"], at["norm2.bias"], 1e-6)
        u = f.gelu(u @ at["mlp.fc1.weight"].T + at["mlp.fc1.bias"])
        x = x + u @ at["mlp.fc2.weight"].T + at["mlp.fc2.bias"]
    u = f.layer_norm(x[:, 1:], (width,), state["encoder.fc_norm.weight"],
                     state["encoder.fc_norm.bias"], 1e-6)  # fmt: skip
    u = torch.tanh(u @ state["encode_task_layer.0.weight"].T + state["encode_task_layer.0.bias"])
    z = u @ state["encode_task_layer.2.weight"].T + state["encode_task_layer.2.bias"]
    z = z / z.norm(dim=-1, keepdim=True)
    return torch.cdist(z, state["quantize.embedding.weight"][None]).argmin(-1)


def test_visual_codes_by_their_formula(tmp_path: Path) -> None:
    state = published_vqkd()
    torch.save({"model": state}, tmp_path / "vqkd.pth")
    tokenizer = load_visual_tokenizer(tmp_path / "vqkd.pth")
    assert isinstance(tokenizer, VisualTokenizer)
    image = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = tokenizer(image)
    assert found.shape == (6, 4)
    assert len(found.unique()) > 3
    assert torch.equal(found, codes_by_hand(state, image))
    sizes = architecture_for("toy", 32, vocab_size=10)
    target = make_target(f"codes:{tmp_path / 'vqkd.pth'}", sizes)
    assert target.chance == pytest.approx(math.log(50))
    flat = target.loss(torch.zeros(24, 50), target.of(image).flatten())
    assert float(flat) == pytest.approx(24 * math.log(50), rel=1e-5)
    with pytest.raises(SettingError, match="another number of codes"):
        make_target(f"codes:{tmp_path / 'vqkd.pth'}", architecture_for("toy", 64, vocab_size=10))


def test_bad_targets(tmp_path: Path) -> None:
    sizes = architecture_for("toy", 32, vocab_size=10)
    for name in ("pixel", "teacher:", "codes", "pixels:x"):
        with pytest.raises(SettingError, match="Unknown target"):
            make_target(name, sizes)
    state = published_vqkd()
    del state["encoder.fc_norm.bias"]
    torch.save({"model": state}, tmp_path / "less.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    for name in ("less", "junk", "absent"):
        with pytest.raises(FeatureError, match="not a visual tokenizer"):
            make_target(f"codes:{tmp_path / name}.pth", sizes)


# The corpus ---------------------------------------------------------------------------------------


def test_corpus_holds_what_is_there(items, tokenizer, tmp_path, caplog) -> None:
    corpus = read_corpus(items, tokenizer, tmp_path, 32, settings(), progress=False)
    assert "1 of 39 images are missing or broken" in caplog.text
    assert np.flatnonzero(~corpus.has_image).tolist() == [5, 6]
    assert np.flatnonzero(~corpus.has_text).tolist() == [3]
    assert sorted([*corpus.train, *corpus.held]) == list(range(40))
    assert len(corpus.held) == 4
    colour = corpus.pixels[corpus.place[10]][0, 0].tolist()
    assert tuple(colour) == COLOURS[items.texts[10].split()[0]]
    again = read_corpus(items, tokenizer, tmp_path, 32, settings(), progress=False)
    assert np.array_equal(again.place, corpus.place)
    nothing = ItemTable(["a"], [""], [None], "t", [])
    with pytest.raises(DataError, match="too few items to learn from"):
        read_corpus(nothing, tokenizer, tmp_path, 32, settings(), progress=False)


# The loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["separate", "joint"])
def test_the_loss_by_its_definition(items, tokenizer, tmp_path, mode: str) -> None:
    """Against one item and one pass at a time."""
    chosen = settings(mode=mode)
    corpus = read_corpus(items, tokenizer, tmp_path, 32, chosen, progress=False)
    model = model_for(tokenizer).eval()
    target = Pixels(model.sizes)
    members = np.array([0, 3, 5, 6, 9])
    micro = microbatch.make_micro_batch(corpus, members, 2, 0, chosen)
    found = {"mlm": 0.0, "mim": 0.0}
    with torch.no_grad():
        for losses in objective.loss_sums(model, target, corpus, micro, mode, "cpu"):
            for kind, value in losses.items():
                found[kind] += float(value)
    expected = {"mlm": 0.0, "mim": 0.0}
    for row, i in enumerate(members):
        true, hidden = (torch.tensor(x[row])[None] for x in (micro.ids, micro.masked_ids))
        place, image = corpus.place[i], None
        if place >= 0:
            image = normalise(torch.from_numpy(corpus.pixels[place][None].copy()))
        patches = torch.from_numpy(micro.patches[row])
        words = torch.from_numpy(micro.chosen[row])
        masked = patches[None] if mode == "joint" and image is not None else None
        with torch.no_grad():
            if words.any():
                out = model(image, hidden, None, masked)
                logits = model.mlm_head(out.text[0][words])
                expected["mlm"] += float(
                    torch.nn.functional.cross_entropy(logits, true[0][words], reduction="sum")
                )
            if image is not None:
                out = model(image, hidden if mode == "joint" else true, None, patches[None])
                error = model.mim_head(out.vision[0, 1:][patches]) - target.of(image)[0][patches]
                expected["mim"] += float(error.square().mean(-1).sum())
    assert found == pytest.approx(expected, rel=1e-5)
    assert microbatch.count_targets(micro).tolist() == [sum(c.sum() for c in micro.chosen), 3 * 1]


def test_the_passes_of_an_item_have_drop_paths_of_their_own(items, tokenizer, tmp_path) -> None:
    chosen = settings()
    corpus = read_corpus(items, tokenizer, tmp_path, 32, chosen, progress=False)
    model = model_for(tokenizer).eval()
    target, members = Pixels(model.sizes), np.array([0, 1, 2])
    micro = microbatch.make_micro_batch(corpus, members, 2, 0, chosen)

    def sums(*of_passes: float) -> dict[str, float]:
        scale = np.ones((3, 2, 2, 2), dtype=np.float32) * np.array(of_passes)[:, None, None]
        scaled = replace(micro, drop_path_scale=scale.astype(np.float32))
        found: dict[str, float] = {}
        with torch.no_grad():
            for losses in objective.loss_sums(model, target, corpus, scaled, "separate", "cpu"):
                found |= {kind: float(value) for kind, value in losses.items()}
        return found

    whole, no_text, no_image = sums(1, 1), sums(0, 1), sums(1, 0)
    assert no_text["mim"] == whole["mim"] != no_image["mim"]
    assert no_image["mlm"] == whole["mlm"] != no_text["mlm"]


def test_changed_pixels_are_decoded_again(items, tmp_path, caplog) -> None:
    whole = np.array(_decode(items, tmp_path, 32, 0, False)[0])
    (path,) = tmp_path.glob("pixels*.npy")
    content = bytearray(path.read_bytes())
    content[-40_000] ^= 1
    path.write_bytes(content)
    assert np.array_equal(_decode(items, tmp_path, 32, 0, False)[0], whole)
    assert "decoded again" in caplog.text


def test_half_decoded_pixels_are_not_taken_for_whole_ones(items, tmp_path, monkeypatch) -> None:
    _decode(items, tmp_path, 32, 0, False)
    (path,) = tmp_path.glob("pixels*.npy")
    whole = path.read_bytes()
    path.unlink()
    decoded = corpus_module.decode_ahead

    def dying(*given: object):
        for n, found in enumerate(decoded(*given)):
            if n == 5:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(corpus_module, "decode_ahead", dying)
    with pytest.raises(KeyboardInterrupt):
        _decode(items, tmp_path, 32, 0, False)
    monkeypatch.setattr(corpus_module, "decode_ahead", decoded)
    _decode(items, tmp_path, 32, 0, False)
    assert path.read_bytes() == whole
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("drop_path", [0, 0.5])
def test_cutting_a_batch_changes_nothing(items, tokenizer, tmp_path, drop_path: float) -> None:
    """Accumulated over micro-batches of 1, 5 or 12, the steps are the same."""
    runs = []
    for size in (1, 5, 12):
        run = start(
            items, tokenizer, tmp_path / str(size), micro_batch=size, epochs=1, drop_path=drop_path
        )
        run.run()
        runs.append(run)
    for other in runs[1:]:
        for a, b in zip(runs[0].state.history, other.state.history, strict=True):
            assert a == pytest.approx(b, rel=2e-4)
        expected = pytest.approx(runs[0].state.validation[-1], rel=2e-4, abs=1e-6)
        assert other.state.validation[-1] == expected


@pytest.mark.parametrize(
    "other",
    [{}, {"ema": 0.9}, {"drop_path": 0.5}, {"mode": "joint", "drop_path": 0.5}, {"crop": 0.5}],
)
def test_a_resumed_run_is_the_same_run(items, tokenizer, tmp_path, other: dict) -> None:
    def fresh(folder: Path) -> pretraining.Pretraining:
        torch.rand(1)  # what else draws is no matter
        return start(items, tokenizer, folder, **other)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    one = fresh(whole)
    one.run()
    for _ in range(3):
        fresh(cut).run(stop_after=2)
    two = fresh(cut)
    assert two.run().step == one.steps == 6
    assert two.state == one.state
    for (name, a), b in zip(one.model.named_parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    note = {"origin": "t"}
    assert one.save_weights(note).read_bytes() == two.save_weights(note).read_bytes()
    with pytest.raises(SettingError, match="another pre-training run"):
        start(items, tokenizer, cut, learning_rate=9e-3).run()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_state(items, tokenizer, tmp_path, number) -> None:
    whole, cut = (start(items, tokenizer, tmp_path / name) for name in ("whole", "cut"))
    whole.run()
    step = cut._step

    def interrupted() -> dict[str, float]:
        if cut.state.step == 1:
            os.kill(os.getpid(), number)
        return step()

    cut._step = interrupted  # type: ignore[method-assign]
    before = signal.getsignal(number)
    assert cut.run().step == 2
    assert signal.getsignal(number) is before
    rest = start(items, tokenizer, tmp_path / "cut")
    assert rest.run().step == 6
    assert rest.state == whole.state
    note = {"origin": "t"}
    assert rest.save_weights(note).read_bytes() == whole.save_weights(note).read_bytes()


def test_a_second_signal_ends_the_run_at_once(items, tokenizer, tmp_path) -> None:
    run = start(items, tokenizer, tmp_path)

    def interrupted() -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the second signal was not seen")

    run._step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize("what", ["a weight of the last step", "a gradient"])
def test_what_is_not_finite_is_not_saved(
    items, tokenizer, tmp_path, what: str, monkeypatch
) -> None:
    run = start(items, tokenizer, tmp_path, epochs=1, save_every=1, ema=0.5)
    run.run(stop_after=2)
    saved = (tmp_path / "last.pt").read_bytes()
    bias = run.model.mlm_head.bias  # type: ignore[union-attr]
    if what == "a gradient":
        bias.register_hook(lambda gradient: gradient * torch.inf)
    else:
        update = run.optimizer.step

        def diverging() -> None:
            update()
            with torch.no_grad():
                bias[5] = torch.inf

        monkeypatch.setattr(run.optimizer, "step", diverging)
    with pytest.raises(DivergedError, match="Pre-training diverged"):
        run.run()
    assert (tmp_path / "last.pt").read_bytes() == saved
    bias.data[5] = torch.nan
    with pytest.raises(DivergedError):
        run.save_weights({})
    assert not (tmp_path / "model.safetensors").exists()


def test_the_image_loss_counts_as_much_as_its_weight(items, tokenizer, tmp_path) -> None:
    """Gradients of one step: those of weights 0 and 2 differ by twice those of the image loss."""
    gradients = []
    for weight in (0.0, 1.0, 3.0):
        run = start(items, tokenizer, tmp_path / str(weight), mim_weight=weight, clip_norm=1e6)
        monkey: dict[str, torch.Tensor] = {}
        run.optimizer.step = lambda run=run, monkey=monkey: monkey.update(  # type: ignore[method-assign]
            {k: v.grad.clone() for k, v in run.model.named_parameters()}
        )
        run._step()
        gradients.append(monkey)
    zero, one, three = gradients
    assert not zero["mim_head.weight"].any()
    for name in ("mim_head.weight", "patch_embed.weight"):
        expected = 3 * (one[name] - zero[name])
        torch.testing.assert_close(three[name] - zero[name], expected, atol=1e-6, rtol=1e-3)


def test_an_epoch_has_each_item_once_in_an_order_of_its_own(
    items, tokenizer, tmp_path, monkeypatch
) -> None:
    """Those that fill no batch are in a smaller one."""
    run = start(items, tokenizer, tmp_path, batch_size=10)
    assert len(run.corpus.train) % 10
    seen: dict[int, list[int]] = {0: [], 1: []}
    make = pretraining.make_micro_batch

    def noted(corpus, members, grid, epoch, *others, **named):
        seen[epoch] += members.tolist()
        return make(corpus, members, grid, epoch, *others, **named)

    monkeypatch.setattr(pretraining, "make_micro_batch", noted)
    while run.state.step < run.steps:
        run._step()
        run.state.step += 1
    assert sorted(seen[0]) == sorted(seen[1]) == run.corpus.train.tolist()
    assert seen[0] != seen[1]


def test_averages_follow_slowly(items, tokenizer, tmp_path) -> None:
    """One step with a decay of 0.9 moves the average by a tenth of the way."""
    run = start(items, tokenizer, tmp_path, ema=0.9)
    before = {k: v.detach().clone() for k, v in run.model.named_parameters()}
    run._step()
    assert run.average is not None
    name = "mlm_head.weight"
    moved = run.model.get_parameter(name).detach() - before[name]
    assert moved.any()
    torch.testing.assert_close(run.average[name] - before[name], 0.1 * moved, atol=1e-6, rtol=1e-3)


def test_random_words_are_no_special_tokens() -> None:
    drawn = set()
    for seed in range(300):
        ids = [0, *[9] * 12, 2]
        masked, chosen = mask_text(ids, 0.9, 12, generator(seed))
        drawn |= set(masked[chosen].tolist())
    assert drawn == set(range(UNK, 13))  # words and <mask>, no <s>, <pad> or </s>


def test_two_runs_do_not_share_a_folder(items, tmp_path: Path, capsys, monkeypatch) -> None:
    from alignrec_recbole.cli.main import main

    command = [*table_file(items, tmp_path), "--output", str(tmp_path / "out")]
    step, statuses = pretraining.Pretraining._step, []

    def second(self: pretraining.Pretraining) -> dict[str, float]:
        if not statuses:
            statuses.append(main(command))
        return step(self)

    monkeypatch.setattr(pretraining.Pretraining, "_step", second)
    assert main(command) == 0
    assert statuses == [2]
    assert "Another pre-training runs in this folder" in capsys.readouterr().err


def test_a_table_without_images_is_refused(tmp_path: Path) -> None:
    from trials import check_refused, run_verb

    rows = [f"{n}	red thing {n}" for n in range(20)]
    (tmp_path / "items.tsv").write_text("id\ttitle\n" + "\n".join(rows) + "\n")
    answer = run_verb(
        "pretrain", "--dataset", "d", "--items", tmp_path / "items.tsv", "--random-init",
        "--pieces", "40", "--epochs", "1", "--quiet", "--output", tmp_path / "out",
    )  # fmt: skip
    check_refused(answer, "no item with a text and a readable image", kind="DataError")
    assert not list((tmp_path / "out").glob("model*"))


def test_a_run_of_an_earlier_version_is_refused_with_its_reason(items, tokenizer, tmp_path) -> None:
    """Its identity has the images by name and size."""
    out = tmp_path / "run"
    start(items, tokenizer, out).run(stop_after=1)
    state = torch.load(out / "last.pt", weights_only=True)
    identity = json.loads(state["identity"])
    assert identity["corpus"]["items"] != items.name_and_size_hash()
    identity["corpus"]["items"] = items.name_and_size_hash()
    torch.save({**state, "identity": json.dumps(identity, sort_keys=True)}, out / "last.pt")
    with pytest.raises(SettingError, match=r"(?s)corpus\.items.*did not check the images' content"):
        start(items, tokenizer, out).run()


def test_another_run_is_refused(items, tokenizer, tmp_path) -> None:
    out = tmp_path / "run"
    start(items, tokenizer, out, origin={"weights": "a"}).run(stop_after=1)
    texts = [*items.texts[:-1], "red rope and more"]
    other = ItemTable(items.ids, texts, items.images, "colours", ["title"])
    train_tokenizer(items.texts, tmp_path / "same.spm", 40)
    train_tokenizer([*items.texts, "lamp lamp lamp"], tmp_path / "other.spm", 40)
    for table, pieces, origin, differs in (
        (other, tokenizer, "a", "corpus.items"),
        (items, Tokenizer(tmp_path / "other.spm", 16), "a", "corpus.tokenizer"),
        (items, Tokenizer(tmp_path / "same.spm", 9), "a", "corpus.max_tokens"),
        (items, tokenizer, "b", "origin.weights"),
    ):
        with pytest.raises(SettingError, match=rf"(?s)another pre-training run.*{differs}"):
            start(table, pieces, out, origin={"weights": origin}).run()
    same = start(items, tokenizer, out, origin={"weights": "a"})
    same.target.identity = {**same.target.identity, "teacher_sha256": "0" * 64}
    with pytest.raises(SettingError, match=r"(?s)another pre-training run.*target.teacher_sha256"):
        same.run()
    start(items, tokenizer, out, origin={"weights": "a"}).run()


def test_averaged_weights_are_the_average(items, tokenizer, tmp_path) -> None:
    run = start(items, tokenizer, tmp_path, ema=0.5, epochs=1)
    expected = {k: v.detach().clone() for k, v in run.model.named_parameters()}
    step = run._step

    def watched() -> dict[str, float]:
        losses = step()
        for name, value in run.model.named_parameters():
            expected[name] = 0.5 * expected[name] + 0.5 * value.detach()
        return losses

    run._step = watched  # type: ignore[method-assign]
    run.run()
    saved = weights.load(run.save_weights({})).state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(saved[name], value, atol=1e-6, rtol=1e-5)


def test_frozen_parts_stay(items, tokenizer, tmp_path) -> None:
    run = start(items, tokenizer, tmp_path, freeze_layers=1, freeze_embeddings=True, epochs=1)
    before = {k: v.detach().clone() for k, v in run.model.named_parameters()}
    run.run()
    same = {k for k, v in run.model.named_parameters() if torch.equal(v, before[k])}
    frozen = ("layers.0.", "text_embed", "patch_embed", "cls_token", "vision_pos", "text_pos")
    assert same == {k for k in before if k.startswith(frozen)}


def test_learning_rates(items, tokenizer, tmp_path) -> None:
    run = start(items, tokenizer, tmp_path, epochs=10, warmup_epochs=2, layer_decay=0.5)
    rates = [run.learning_rate(s) for s in range(run.steps)]
    assert run.per_epoch == 3
    assert rates[:6] == pytest.approx([1e-3 * k / 6 for k in range(1, 7)])
    cosine = [0.5e-3 * (1 + math.cos(math.pi * k / 24)) for k in range(24)]
    assert rates[6:] == pytest.approx(cosine)
    scales = {round(g["scale"], 4) for g in run.optimizer.param_groups}
    assert scales == {0.125, 0.25, 0.5, 1.0}
    assert {g["weight_decay"] for g in run.optimizer.param_groups} == {0.0, 0.05}


def test_embeddings_learn_slowest_and_image_positions_do_not_decay(
    items, tokenizer, tmp_path
) -> None:
    run = start(items, tokenizer, tmp_path, layer_decay=0.5, betas=(0.8, 0.95))
    assert {group["betas"] for group in run.optimizer.param_groups} == {(0.8, 0.95)}
    groups = {id(p): g for g in run.optimizer.param_groups for p in g["params"]}
    found = {
        name: (groups[id(p)]["scale"], groups[id(p)]["weight_decay"])
        for name, p in run.model.named_parameters()
    }
    slowest = {name.split(".")[0] for name, (scale, _) in found.items() if scale == 0.125}
    assert slowest == {"text_embed", "patch_embed", "cls_token", "mask_token", "vision_positions",
                       "text_positions"}  # fmt: skip
    assert found["layers.0.text.fc1.weight"] == (0.25, 0.05)
    assert found["mlm_head.weight"] == (1.0, 0.05)
    assert found["text_positions"] == (0.125, 0.05)
    assert found["vision_positions"] == (0.125, 0.0)
    assert found["cls_token"] == (0.125, 0.0)


def test_gradients_are_clipped_to_their_norm(items, tokenizer, tmp_path) -> None:
    run = start(items, tokenizer, tmp_path, clip_norm=0.01)
    assert run._step()["gradient_norm"] > 0.1
    clipped = torch.cat([value.grad.ravel() for value in run.model.parameters()]).norm()
    assert clipped.item() == pytest.approx(0.01, rel=1e-3)


def test_divergence_stops_the_run(items, tokenizer, tmp_path) -> None:
    run = start(items, tokenizer, tmp_path, epochs=1)
    with torch.no_grad():
        run.model.mlm_head.bias[5] = float("nan")  # type: ignore[union-attr]
    with pytest.raises(DivergedError, match=r"(?s)step 1.*learning-rate"):
        run.run()
    assert not (tmp_path / "last.pt").exists()


def test_a_head_of_another_codebook_is_noticed(items, tokenizer, tmp_path, caplog) -> None:
    torch.save({"model": published_vqkd()}, tmp_path / "vqkd.pth")
    model = model_for(tokenizer, mim=50)
    target = make_target(f"codes:{tmp_path / 'vqkd.pth'}", model.sizes)
    corpus = read_corpus(items, tokenizer, tmp_path, 32, settings(), progress=False)
    for strange, warned in ((0, False), (1, True)):
        caplog.clear()
        with torch.no_grad():
            model.mim_head.bias.copy_(strange * torch.linspace(-40, 40, 50))  # type: ignore[union-attr]
        run = pretraining.Pretraining(
            model, target, corpus, settings(), tmp_path / str(strange), progress=False
        )
        run.run(stop_after=1)
        assert ("another codebook" in caplog.text) == warned


def test_heads_are_kept_or_drawn(tokenizer) -> None:
    model = model_for(tokenizer, mim=768)
    out = pretraining.with_heads(model, 768, 5)
    assert torch.equal(out.mlm_head.weight, model.mlm_head.weight)  # type: ignore[union-attr]
    assert not torch.equal(out.mim_head.weight, model.mim_head.weight)  # type: ignore[union-attr]
    kept = pretraining.with_heads(model, 768, 5, keep_mim=True)
    assert torch.equal(kept.mim_head.weight, model.mim_head.weight)  # type: ignore[union-attr]
    assert pretraining.with_heads(model, 10, 5, keep_mim=True).sizes.mim == 10
    bare = Beit3(architecture_for("toy", 32, vocab_size=10))
    with pytest.raises(SettingError, match="cannot be pre-trained"):
        pretraining.Pretraining(bare, Pixels(bare.sizes), None, settings(), Path("."))  # type: ignore[arg-type]


# Learning -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.long
def test_it_learns_to_use_the_other_modality(tmp_path: Path, tokenizer) -> None:
    """Colour words are told by pictures alone; held out, with other pictures they are not."""
    items = make_items(tmp_path, 400)
    run = start(items, tokenizer, tmp_path / "run", epochs=40, batch_size=40, micro_batch=40,
                learning_rate=3e-3, warmup_epochs=2)  # fmt: skip
    state = run.run()
    first, last = state.validation[0], state.validation[-1]
    assert last["mlm true"] < 0.5 * first["mlm true"]
    assert last["mlm true"] < last["mlm shuffled"] - 0.5
    assert last["mlm true"] < last["mlm blind"] - 0.2


def test_controls_have_another_image_or_none(items, tokenizer, tmp_path, monkeypatch) -> None:
    run = start(items, tokenizer, tmp_path)
    both = np.flatnonzero(run.corpus.has_text & run.corpus.has_image)[:6]
    seen: list[tuple[int, int]] = []
    images = objective._images

    def noted(corpus, micro, rows, device):
        seen.extend(zip(micro.items[rows], micro.image_of[rows], strict=True))
        return images(corpus, micro, rows, device)

    monkeypatch.setattr(objective, "_images", noted)
    assert run.evaluate(both).keys() == {"mlm", "mim"}
    assert set(seen) == set(zip(both, both, strict=True))
    seen.clear()
    assert run.evaluate(both, "shuffled").keys() == {"mlm", "mim"}
    assert {text for text, _ in seen} == {image for _, image in seen} == set(both)
    assert all(text != image for text, image in seen)
    seen.clear()
    assert run.evaluate(both, "blind").keys() == {"mlm"}
    assert not seen


def test_the_last_evaluation_has_the_spread_of_ten_controls(items, tokenizer, tmp_path) -> None:
    run = start(items, tokenizer, tmp_path)
    run.evaluate = lambda members, pairs="true", draw=0: {"mlm": draw**2, "mim": 0}  # type: ignore[method-assign]
    for step in (run.steps - 1, run.steps):
        run.state.step = step
        run._validate(pretraining._Silent())
    before, last = run.state.validation
    assert (before["mlm shuffled"], last["mlm shuffled"]) == (0, 28.5)
    assert "mlm sd" not in before
    assert last["mlm sd"] == pytest.approx(statistics.stdev(n**2 for n in range(10)))


def test_a_derangement_leaves_nothing_in_its_place() -> None:
    for n in (2, 3, 10):
        for draw in range(3):
            order = pretraining.derangement(n, 0, draw)
            assert sorted(order) == list(range(n))
            assert not (order == np.arange(n)).any()
    draws = {tuple(pretraining.derangement(10, 0, draw)) for draw in range(5)}
    assert len(draws) == 5


# Processes and the command line -------------------------------------------------------------------


def table_file(items: ItemTable, folder: Path) -> list[str]:
    rows = [
        f"{i}\t{text}\t{image.name if image else ''}"
        for i, text, image in zip(items.ids, items.texts, items.images, strict=True)
    ]
    (folder / "items.tsv").write_text("id\ttitle\timage\n" + "\n".join(rows) + "\n")
    images = next(p for p in items.images if p).parent
    return ["pretrain", "--dataset", "d", "--items", str(folder / "items.tsv"), "--images",
            str(images), "--random-init", "--image-size", "32", "--pieces", "40", "--epochs", "1",
            "--batch-size", "12", "--micro-batch", "4", "--learning-rate", "1e-3", "--threads",
            "1", "--quiet"]  # fmt: skip


def with_weights(command: list[str]) -> list[str]:
    """The command without what random weights alone have."""
    place = command.index("--pieces")
    return [each for each in [*command[:place], *command[place + 2 :]] if each != "--random-init"]


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_train_as_one(items, tmp_path: Path) -> None:
    command = [*table_file(items, tmp_path), "--drop-path", "0.5"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank in range(2):
        environment = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                       "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                       "MASTER_PORT": str(port)}  # fmt: skip
        running.append(
            subprocess.Popen(
                [sys.executable, "run_benchmark.py", *command, "--output", str(tmp_path / "two")],
                cwd=ROOT,
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for one in running:
        _, said = one.communicate(timeout=300)
        assert one.returncode == 0, said
    subprocess.run(
        [sys.executable, "run_benchmark.py", *command, "--output", str(tmp_path / "one")],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    one, two = (
        json.loads((tmp_path / name / "history.json").read_text()) for name in ("one", "two")
    )
    assert len(one["history"]) == 3
    for a, b in zip(one["history"], two["history"], strict=True):
        assert a == pytest.approx(b, rel=2e-4)
    assert one["validation"][-1] == pytest.approx(two["validation"][-1], rel=2e-4, abs=1e-6)


def test_from_pretraining_to_features(items, tmp_path: Path, capsys) -> None:
    from alignrec_recbole.cli.main import main
    from alignrec_recbole.features.table import load_features

    command = table_file(items, tmp_path)
    out = tmp_path / "run"
    assert main([*command, "--output", str(out), "--stop-after", "1"]) == 130
    assert main([*command, "--output", str(out)]) == 0
    said = capsys.readouterr().out
    assert "other item's partner" in said
    assert (out / "curves.svg").read_text().lstrip().startswith("<?xml")
    assert list((out / "tensorboard").glob("events*"))
    source = command[command.index("--items") : command.index("--random-init")]
    assert main(["prepare", "--dataset", "d", *source, "--encoder", "beit3", "--weights",
                 str(out / "model.safetensors"), "--output", str(tmp_path / "features"),
                 "--name", "f", "--quiet", "--workers", "0"]) == 0  # fmt: skip
    manifest = load_features(tmp_path / "features" / "f.npy").manifest
    assert "pre-training started from random weights" in manifest.notes
    assert manifest.without_image == ["5", "6"]


def test_a_second_pretraining(items, tmp_path: Path, capsys) -> None:
    """It keeps what was noted of the first, and goes on with the same texts and weights alone."""
    from alignrec_recbole.cli.main import main

    command = table_file(items, tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*command, "--output", str(first)]) == 0
    made = first / "model.safetensors"
    again = with_weights(command)
    again += ["--output", str(second), "--target", f"teacher:{made}"]
    assert main([*again, "--weights", str(made)]) == 0
    done = second / "model.safetensors"
    assert weights.load_with_header(done)[1].notes == [
        "pre-trained on the items of d, MIM target pixels",
        "pre-training started from random weights",
        "pre-trained on the items of d, MIM target teacher",
    ]
    before = done.read_bytes()
    weights.save(weights.load(made).initialise(77), first / "z.safetensors", {"origin": "Z"})
    train_tokenizer([*items.texts, "other words"], tmp_path / "other.spm", 40)
    capsys.readouterr()
    for options, says in (
        (["--weights", str(first / "z.safetensors")], "origin.weights_sha256"),
        (["--weights", str(made), "--keep-mim-head"], "origin.keep_mim_head"),
        (["--weights", str(made), "--max-tokens", "4"], "corpus.max_tokens"),
        (["--weights", str(made), "--tokenizer", str(tmp_path / "other.spm")], "another tokenizer"),
    ):
        assert main([*again, *options]) == 2
        assert says in capsys.readouterr().err
    given = ["--tokenizer", str(first / "tokenizer.spm")]
    assert main([*again, "--weights", str(made), *given]) == 0
    assert done.read_bytes() == before


WORDS = [f"red bike and green car number {i} in the old town" for i in range(200)]


def options_for(folder: Path, **given: object) -> SimpleNamespace:
    """What `pretrain` reads of its options to find the tokenizer."""
    plain = {"random_init": True, "weights": None, "tokenizer": None, "vocab_size": 40,
             "max_tokens": None}  # fmt: skip
    return SimpleNamespace(output=folder, **{**plain, **given})


def test_a_fitted_tokenizer_is_that_of_the_items(items, tmp_path: Path) -> None:
    """One of a failed attempt is replaced; one that a saved state needs is not."""
    from alignrec_recbole.cli._pretrain import _tokenizer

    others = replace(items, texts=WORDS)
    train_tokenizer(others.texts, tmp_path / "fresh.spm", 90)
    out = tmp_path / "o"
    _tokenizer(options_for(out), items)
    wanted = options_for(out, vocab_size=90)
    assert _tokenizer(wanted, others).sha256 == Tokenizer(tmp_path / "fresh.spm").sha256
    (out / "last.pt").touch()
    _tokenizer(wanted, others)
    for given, table in ((options_for(out), others), (wanted, items)):
        with pytest.raises(SettingError, match=r"(?s)another tokenizer.*--vocab-size"):
            _tokenizer(given, table)


def test_a_tokenizer_is_that_of_the_weights(items, tmp_path: Path) -> None:
    from alignrec_recbole.cli._pretrain import _tokenizer

    for name, pieces in (("a", 40), ("b", 90)):
        train_tokenizer(WORDS, tmp_path / name / "tokenizer.spm", pieces)

    def found(name: str) -> Tokenizer:
        weights_file = str(tmp_path / name / "model.safetensors")
        return _tokenizer(
            options_for(tmp_path / "o", random_init=False, weights=weights_file), items
        )

    assert found("a").sha256 == found("a").sha256
    with pytest.raises(SettingError, match=r"(?s)another tokenizer.*--weights"):
        found("b")


@pytest.mark.parametrize("name", ["WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK"])
@pytest.mark.parametrize("value", ["x", "-1", "9" * 20, ""])
def test_numbers_of_processes(name, value, items, tmp_path, capsys, monkeypatch) -> None:
    from alignrec_recbole.cli.main import main

    monkeypatch.setenv(name, value)
    assert main([*table_file(items, tmp_path), "--output", str(tmp_path / "o")]) == 2
    assert f"The environment variable {name} cannot be used" in capsys.readouterr().err


def test_processes_that_do_not_come(items, tmp_path, capsys, monkeypatch) -> None:
    from alignrec_recbole.cli.main import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*table_file(items, tmp_path), "--output", str(tmp_path / "o")]) == 2
    assert "torchrun" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--text-mask", "1.5"], "--text-mask cannot be '1.5'"),
        (["--mode", "both"], "--mode cannot be 'both'"),
        (["--target", "clip"], "Unknown target 'clip'"),
        (["--epochs", "0"], "--epochs cannot be '0'"),
        (["--learning-rate", "inf"], "--learning-rate cannot be 'inf'"),
        (["--betas", "nan", "0.9"], "--betas cannot be 'nan'"),
        (["--betas", "2", "3"], "--betas cannot be '2'"),
        (["--seed", "9" * 20], "--seed cannot be"),
        (["--image-size", "33"], "image_size 33"),
        (["--image-size", "100000"], "image_size 100000"),
        (["--threads", "5000"], "5000 is not in the range"),
        (["--workers", "5000"], "5000 is not in the range"),
        (["--pieces", "10000000000"], "is not in the range"),
        (["--max-tokens", "5000"], "lower --max-tokens"),
        (["--target", "codes:/dev/zero"], "not a visual tokenizer"),
        (["--tokenizer", "t.spm", "--vocab-size", "9"], "--vocab-size is given with --tokenizer"),
    ],
)
def test_refusals(options: list[str], says: str, items, tmp_path: Path, capsys) -> None:
    from alignrec_recbole.cli.main import main

    assert main([*table_file(items, tmp_path), "--output", str(tmp_path / "o"), *options]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--size", "base"], "--size is given without --random-init"),
        (["--vocab-size", "9"], "--vocab-size is given with --weights"),
    ],
)
def test_given_weights_have_their_size_and_their_tokenizer(
    options: list[str], says: str, items, tmp_path: Path, capsys
) -> None:
    from alignrec_recbole.cli.main import main

    given = [*with_weights(table_file(items, tmp_path)), "--weights", "beit3.pth"]
    assert main([*given, "--output", str(tmp_path / "o"), *options]) == 2
    assert says in capsys.readouterr().err
