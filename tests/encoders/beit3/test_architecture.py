"""BEiT-3: names, shapes, counts and outputs of the published models; safe and strict loading.

The expected sums were made with torchscale 0.3.0 from the same seeds; benchmarks/parity/beit3.py
compares element by element where torchscale is there.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alignrec_recbole.encoders.beit3 import attention, weights
from alignrec_recbole.encoders.beit3.architecture import Architecture, Beit3, architecture_for
from alignrec_recbole.encoders.beit3.encoder import normalise
from alignrec_recbole.errors import FeatureError, SettingError
from alignrec_recbole.runtime import hardware

D, F, LAYERS = 64, 256, 2


def torchscale_shapes(d: int, f: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of torchscale's BEiT3 at 224 px, in the order of its state dict."""
    out: dict[str, tuple[int, ...]] = {
        "text_embed.weight": (64010, d),
        "vision_embed.mask_token": (1, 1, d),
        "vision_embed.cls_token": (1, 1, d),
        "vision_embed.proj.weight": (d, 3, 16, 16),
        "vision_embed.proj.bias": (d,),
        "encoder.embed_positions.A.weight": (199, d),
        "encoder.embed_positions.B.weight": (1024, d),
    }

    def both(name: str, *inner: tuple[str, tuple[int, ...], int]) -> None:
        for letter in "AB":
            for part, weight, bias in inner:
                out[f"{name}.{letter}{part}.weight"] = weight
                out[f"{name}.{letter}{part}.bias"] = (bias,)

    for i in range(layers):
        layer = f"encoder.layers.{i}"
        for z in ("k", "v", "q", "out"):
            both(f"{layer}.self_attn.{z}_proj", ("", (d, d), d))
        both(f"{layer}.self_attn.inner_attn_ln", ("", (d,), d))
        both(f"{layer}.self_attn_layer_norm", ("", (d,), d))
        both(
            f"{layer}.ffn",
            (".fc1", (f, d), f), (".fc2", (d, f), d), (".ffn_layernorm", (f,), f),
        )  # fmt: skip
        both(f"{layer}.final_layer_norm", ("", (d,), d))
    both("encoder.layer_norm", ("", (d,), d))
    return out


def seeded_state(seed: int = 7) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in torchscale_shapes(D, F, LAYERS).items():
        value = torch.randn(shape, generator=generator) * (0.05 if len(shape) > 1 else 0.02)
        norm = len(shape) == 1 and name.endswith("weight")
        state[name] = value + 1 if norm else value
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return seeded_state()


@pytest.fixture(scope="module")
def model(state: dict[str, Tensor]) -> Beit3:
    return weights.from_torchscale(state, num_heads=4).eval()


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(3, 3, 224, 224, generator=generator)
    ids = torch.randint(4, 64000, (3, 20), generator=generator)
    ids[:, 0] = 0
    masked = torch.rand(3, 196, generator=generator) < 0.4
    padding = torch.zeros(3, 20, dtype=torch.bool)
    padding[1, 12:] = padding[2, 5:] = True
    return {
        "image": image,
        "ids": ids.masked_fill(padding, 1),
        "padding": padding,
        "masked": masked,
    }


@pytest.mark.parametrize(
    ("size", "tensors", "backbone", "with_heads"),
    [("base", 491, 220_987_392, 276_510_730), ("large", 971, 672_702_464, 746_709_514)],
)
def test_published_sizes_name_by_name(size, tensors, backbone, with_heads) -> None:
    with torch.device("meta"):
        bare, full = (
            Beit3(architecture_for(size)),
            Beit3(architecture_for(size, mlm=True, mim=8192)),
        )
    sizes = architecture_for(size)
    expected = torchscale_shapes(sizes.width, sizes.ffn_dim, sizes.num_layers)
    assert len(expected) == tensors
    assert {k: tuple(v.shape) for k, v in weights.to_torchscale(bare).items()} == expected
    assert sum(p.numel() for p in bare.parameters()) == backbone
    assert sum(p.numel() for p in full.parameters()) == with_heads


# Sum and sum of magnitudes of torchscale 0.3.0's encoder_out, padded rows included.
GOLDEN = {
    "vision": (-110.0785, 30443.9523),
    "text": (-1.2757, 3113.1052),
    "fused": (-108.3617, 33553.65),
    "fused and masked": (-117.8465, 33328.371),
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_outputs_are_torchscales(model: Beit3, batch: dict[str, Tensor], kind: str) -> None:
    with torch.inference_mode():
        rows = model(
            None if kind == "text" else batch["image"],
            None if kind == "vision" else batch["ids"],
            None if kind == "vision" else batch["padding"],
            batch["masked"] if "masked" in kind else None,
        )
    found = torch.cat([r for r in (rows.vision, rows.text) if r is not None], 1).double()
    total, magnitude = GOLDEN[kind]
    assert float(found.sum()) == pytest.approx(total, abs=2e-3)
    assert float(found.abs().sum()) == pytest.approx(magnitude, rel=1e-6)


def test_files_have_the_sizes_under_the_names_that_they_always_had(tmp_path: Path) -> None:
    stored = {
        "width": 32, "heads": 2, "layers": 1, "hidden": 64, "image_size": 32, "patch_size": 16,
        "vocabulary": 50, "text_positions": 130, "final_norm": True, "mlm": False, "mim": 0,
    }  # fmt: skip
    sizes = Architecture.model_validate(stored)
    assert (sizes.num_heads, sizes.num_layers, sizes.ffn_dim, sizes.vocab_size) == (2, 1, 64, 50)
    assert sizes.stored() == stored
    weights.save(Beit3(sizes).initialise(0), tmp_path / "a.safetensors")
    model, header = weights.load_with_header(tmp_path / "a.safetensors")
    assert header.model_dump(by_alias=True, exclude_unset=True)["architecture"] == stored
    assert model.sizes == sizes


@pytest.mark.parametrize("kind", ["vision", "text", "fused"])
def test_first_rows_alone_are_the_first_rows(model, batch, kind: str) -> None:
    given = (
        None if kind == "text" else batch["image"],
        *((None, None) if kind == "vision" else (batch["ids"], batch["padding"])),
    )
    with torch.inference_mode():
        whole, first = model(*given), model(*given, cls_only=True)
    for all_rows, row in ((whole.vision, first.vision), (whole.text, first.text)):
        assert (all_rows is None) == (row is None)
        if row is not None:
            assert row.shape == (3, 1, D)
            torch.testing.assert_close(row, all_rows[:, :1], atol=1e-5, rtol=0)


def test_padding_changes_nothing_real(model: Beit3, batch: dict[str, Tensor]) -> None:
    with torch.inference_mode():
        padded = model(batch["image"], batch["ids"], batch["padding"])
        alone = model(batch["image"][2:], batch["ids"][2:, :5])
        no_text = model(batch["image"], batch["ids"], torch.ones(3, 20, dtype=torch.bool))
        vision = model(batch["image"])
    torch.testing.assert_close(padded.vision[2:], alone.vision, atol=1e-5, rtol=0)
    torch.testing.assert_close(padded.text[2:, :5], alone.text, atol=1e-5, rtol=0)
    torch.testing.assert_close(no_text.vision, vision.vision, atol=1e-5, rtol=0)


def test_the_modalities_see_each_other(model: Beit3, batch: dict[str, Tensor]) -> None:
    with torch.inference_mode():
        true = model(batch["image"], batch["ids"], batch["padding"])
        other = model(batch["image"].flip(0), batch["ids"], batch["padding"])
    assert (true.text[0] - other.text[0]).abs().max() > 0.01


def test_masked_patches_hide_the_image(model: Beit3, batch: dict[str, Tensor]) -> None:
    everything = torch.ones(3, 196, dtype=torch.bool)
    with torch.inference_mode():
        one = model(batch["image"], batch["ids"], None, everything).vision
        two = model(-batch["image"], batch["ids"], None, everything).vision
        shown = model(-batch["image"], batch["ids"]).vision
    assert torch.equal(one, two)
    assert not torch.allclose(one, shown, atol=0.01)


def test_round_trips(state: dict[str, Tensor], model: Beit3, tmp_path: Path) -> None:
    back = weights.to_torchscale(model)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())
    digest = weights.save(model, tmp_path / "own.safetensors", {"origin": "test"})
    again = weights.load(tmp_path / "own.safetensors")
    assert again.sizes == model.sizes
    assert again.sizes.num_heads == 4  # not width / 64
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert digest == weights.save(again, tmp_path / "twice.safetensors", {"origin": "test"})


@pytest.mark.parametrize("layout", ["bare", "beit3.", "model", "module", "fine-tuned"])
def test_published_layouts(state: dict[str, Tensor], tmp_path: Path, layout: str) -> None:
    prefix = "" if layout == "bare" else "beit3."
    content: dict = {f"{prefix}{k}": v for k, v in state.items()}
    content |= {
        "mlm_head.weight": torch.randn(64010, D), "mlm_head.bias": torch.zeros(64010),
        "mim_head.weight": torch.randn(8192, D), "mim_head.bias": torch.zeros(8192),
    }  # fmt: skip
    if layout == "fine-tuned":
        content = {"model": content, "epoch": 3, "args": argparse.Namespace(lr=1e-4)}
    elif layout in ("model", "module"):
        content = {layout: content}
    torch.save(content, tmp_path / "x.pth")
    loaded = weights.load(tmp_path / "x.pth")
    assert (loaded.sizes.mlm, loaded.sizes.mim) == (True, 8192)
    assert torch.equal(loaded.text_embed.weight, state["text_embed.weight"])


def test_other_tasks_heads_are_allowed(state: dict[str, Tensor]) -> None:
    extra = {"language_head.weight": torch.zeros(D, D), "logit_scale": torch.tensor(1.0),
             "head.norm1.weight": torch.zeros(4), "pooler.dense.bias": torch.zeros(4)}  # fmt: skip
    assert weights.from_torchscale({**state, **extra}).sizes.num_layers == LAYERS


@pytest.mark.parametrize("name", list(torchscale_shapes(D, F, LAYERS)))
def test_no_tensor_may_be_absent(state: dict[str, Tensor], name: str) -> None:
    less = {k: v for k, v in state.items() if k != name}
    if name == "encoder.layer_norm.A.weight":  # without a final norm the other three are unknown
        with pytest.raises(FeatureError, match=r"3 unknown, for example encoder\.layer_norm"):
            weights.from_torchscale(less)
        return
    with pytest.raises(FeatureError, match="not a BEiT-3 state dict"):
        weights.from_torchscale(less)


def test_unknown_and_misshapen_tensors(state: dict[str, Tensor]) -> None:
    with pytest.raises(FeatureError, match=r"1 unknown, for example decoder\.bias"):
        weights.from_torchscale({**state, "decoder.bias": torch.zeros(1)})
    with pytest.raises(FeatureError, match=r"qkv\.bias: \(191,\), not \(192,\)"):
        weights.from_torchscale(
            {**state, "encoder.layers.1.self_attn.k_proj.A.bias": torch.zeros(D - 1)}
        )
    key = "encoder.layers.1.self_attn.k_proj.A.weight"
    with pytest.raises(FeatureError, match=rf"k_proj\.A\.weight: \({D}, {D - 1}\)"):
        weights.from_torchscale({**state, key: state[key][:, 1:]})


def test_hostile_and_damaged_files(tmp_path: Path, state: dict[str, Tensor]) -> None:
    ran = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return (Path.touch, (ran,))

    torch.save({"model": {"x": Attack()}}, tmp_path / "attack.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Attack()))
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 nothing else")
    (tmp_path / "empty.pth").touch()
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"model": {"x": "text"}}, tmp_path / "text.pth")
    for name in ("attack", "plain", "cut", "empty", "list", "text"):
        with pytest.raises(FeatureError, match="cannot be read as weights"):
            weights.load(tmp_path / f"{name}.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(FeatureError, match="cannot be read as weights"):
        weights.load(tmp_path / "cut.safetensors")
    with pytest.raises(FeatureError, match="no BEiT-3 weights"):
        weights.load(tmp_path / "absent.pth")
    assert not ran.exists()


def test_positions_are_interpolated(model: Beit3) -> None:
    larger = weights.resized(model, 384)
    assert larger.vision_positions.shape == (579, D)
    assert torch.equal(larger.vision_positions[:3], model.vision_positions[:3])
    assert weights.resized(model, 224) is model
    corner = larger.vision_positions[3:].view(24, 24, D)[12, 12]
    near = model.vision_positions[3:].view(14, 14, D)[6:9, 6:9]
    assert near.amin((0, 1)).sub(0.1).le(corner).all()
    with torch.inference_mode():
        assert larger.eval()(torch.zeros(1, 3, 384, 384)).vision.shape == (1, 577, D)
    with pytest.raises(ValueError, match="images are"):
        larger(torch.zeros(1, 3, 224, 224))


def test_smooth_positions_stay_smooth(model: Beit3) -> None:
    """A table linear in the row stays linear inside: the resized grid is not turned or shifted."""
    ramp = weights.resized(model, 224)
    with torch.no_grad():
        saved = ramp.vision_positions.clone()
        rows = torch.arange(14.0).repeat_interleave(14)
        ramp.vision_positions[3:] = rows[:, None]
    table = weights.resized(ramp, 448).vision_positions[3:].view(28, 28, D)
    with torch.no_grad():
        model.vision_positions.copy_(saved)
    # torch's bicubic kernel (a = −0.75) is off a straight line by 0.047 of a step
    expected = (torch.arange(28.0) + 0.5) / 2 - 0.5
    torch.testing.assert_close(table[4:-4, 5, 0].detach(), expected[4:-4], atol=0.06, rtol=0)
    assert (table[:, 3] - table[:, 20]).abs().max() < 1e-4


def test_sizes_are_checked() -> None:
    with pytest.raises(SettingError, match="base, large, toy"):
        architecture_for("giant")
    with pytest.raises(ValueError, match="heads must divide width"):
        Architecture(width=10, num_heads=3, num_layers=1, ffn_dim=8, image_size=224)
    toy = Beit3(architecture_for("toy", vocab_size=10))
    with pytest.raises(ValueError, match="131 tokens, at most 128"):
        toy(None, torch.zeros(1, 131, dtype=torch.long))


def test_initialisation_is_seeded_and_training_reaches_every_parameter() -> None:
    sizes = architecture_for("toy", 32, vocab_size=50, num_layers=2, mlm=True, mim=7)
    one, two, other = (Beit3(sizes).initialise(s) for s in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.text_embed.weight, other.text_embed.weight)
    masked = torch.tensor([[True, False, False, True]] * 2)
    rows = one.train()(torch.randn(2, 3, 32, 32), torch.randint(4, 50, (2, 6)), None, masked)
    (one.mlm_head(rows.text).square().mean() + one.mim_head(rows.vision).square().mean()).backward()
    dead = [n for n, p in one.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_a_factor_scales_an_items_branch_in_both_modalities() -> None:
    torch.manual_seed(0)
    layer = Beit3(architecture_for("toy", 32, vocab_size=50, num_layers=1)).initialise(3).layers[0]
    streams = [torch.randn(3 * 5, 128), torch.randn(3 * 4, 128)]

    def out(factors: list | None) -> list[Tensor]:
        given = None if factors is None else torch.tensor(factors)
        rows = layer(streams, ["vision", "text"], 3, None, drop_path_scale=given)
        return [x.view(3, -1, 128) for x in rows]

    whole, ones = out(None), out([[1.0, 1.0]] * 3)
    attended = out([[1.0, 0.0]] * 3)
    mixed = out([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0]])
    for x, a, b, c, d in zip(streams, whole, ones, attended, mixed, strict=True):
        x = x.view(3, -1, 128)
        torch.testing.assert_close(a, b)
        assert not torch.allclose(x, c, atol=1e-3)
        assert not torch.allclose(a, c, atol=1e-3)
        torch.testing.assert_close(d[0], x[0])
        torch.testing.assert_close(d[1], x[1] + 2 * (c[1] - x[1]))
        torch.testing.assert_close(d[2], a[2])


def test_each_layer_has_its_own_factors() -> None:
    model = Beit3(architecture_for("toy", 32, vocab_size=50, num_layers=2)).initialise(3)
    image, ids = torch.randn(2, 3, 32, 32), torch.randint(4, 50, (2, 6))
    factors = torch.ones(2, 2, 2)
    factors[:, 1] = 0
    with torch.no_grad():
        found = model(image, ids, drop_path_scale=factors).text
        model.layers = model.layers[:1]
        torch.testing.assert_close(found, model(image, ids).text)


def test_recomputing_gives_the_same_gradients() -> None:
    sizes = architecture_for("toy", 32, vocab_size=50, num_layers=2)
    image, ids = torch.randn(2, 3, 32, 32), torch.randint(4, 50, (2, 6))
    grads = []
    for recompute in (False, True):
        model = Beit3(sizes).initialise(3).train()
        model.gradient_checkpointing = recompute
        factors = torch.tensor([[[1.0, 0.0], [2.0, 1.0]]] * 2)
        model(image, ids, drop_path_scale=factors).text.square().mean().backward()
        grads.append(model.patch_embed.weight.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("streams", [1, 2])
def test_attention_by_items_is_softmax_of_scores(streams: int, masked: bool, first: bool) -> None:
    torch.manual_seed(0)
    qkv = [torch.randn(3, n, 3, 2, 5, dtype=torch.float64) for n in (4, 6)[:streams]]
    lengths = [x.shape[1] for x in qkv]
    keys = torch.rand(3, 1, 1, sum(lengths)) < 0.6
    keys[..., 0] = True
    attend = keys if masked else None
    q, k, v = torch.cat(qkv, 1).permute(2, 0, 3, 1, 4)
    scores = q @ k.mT / 5**0.5
    if masked:
        scores = scores.masked_fill(~keys, -torch.inf)
    whole = (scores.softmax(-1) @ v).transpose(1, 2).split(lengths, 1)
    expected = [(x[:, :1] if first else x).reshape(-1, 10) for x in whole]
    asking, shares = attention.queries(lengths, first)
    for way in (attention._fused, attention._item_by_item):
        for mine, other in zip(way(qkv, attend, asking, shares), expected, strict=True):
            torch.testing.assert_close(mine, other)


def test_attention_goes_by_items_only_in_bfloat16_and_outside_autograd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = []
    for name in ("_fused", "_item_by_item"):
        way = getattr(attention, name)
        monkeypatch.setattr(attention, name, lambda *a, n=name, w=way: (taken.append(n), w(*a))[1])
    monkeypatch.setattr(attention, "_batched_is_faster", lambda device: True)
    low = torch.randn(1, 3, 3, 2, 8, dtype=torch.bfloat16)
    for qkv in (low, low.float(), low.clone().requires_grad_()):
        attention.joint_attention([qkv])
    with torch.no_grad():
        attention.joint_attention([low.clone().requires_grad_()])
    assert taken == ["_item_by_item", "_fused", "_fused", "_item_by_item"]
    monkeypatch.setattr(attention, "_batched_is_faster", lambda device: False)
    attention.joint_attention([low])
    assert taken[4:] == ["_fused"]


@pytest.mark.parametrize(
    ("flags", "faster"), [("avx512_bf16", True), ("avx512_bf16 amx_bf16", False), ("avx2", False)]
)
def test_batched_attention_is_for_processors_without_matrix_units(
    flags: str, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "_flag", lambda *names: bool({*names} & {*flags.split()}))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    undecided = attention._batched_is_faster.__wrapped__
    assert undecided(torch.device("cpu")) == faster
    assert not undecided(torch.device("cuda"))


def test_pixels_become_numbers_from_minus_one_to_one_where_they_are() -> None:
    """As BEiT-3 was trained: x / 255 by colour, less a mean of 0.5, over a deviation of 0.5."""
    image = torch.tensor([[[[0, 51, 102], [255, 204, 153]]]], dtype=torch.uint8)  # two dots
    red, green, blue = [[-1.0, 1.0]], [[-0.6, 0.6]], [[-0.2, 0.2]]
    torch.testing.assert_close(normalise(image), torch.tensor([[red, green, blue]]))
