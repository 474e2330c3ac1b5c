"""On a GPU everything gives what it gives on the CPU. Run with `-m gpu`; skipped without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec_recbole import losses
from alignrec_recbole.evaluation.ranking import EvalTask, rank
from alignrec_recbole.graphs import item_item
from alignrec_recbole.ops import linear, neighbours, propagation, sparse
from alignrec_recbole.ops.edge_weights import EdgeWeights
from alignrec_recbole.ops.frozen_matrix import FrozenMatrix
from alignrec_recbole.ops.rows import gather_rows, l2_normalize_rows
from alignrec_recbole.ops.topk import top_k
from alignrec_recbole.registry import models
from alignrec_recbole.registry.components import components
from alignrec_recbole.runtime import hardware
from alignrec_recbole.testing.synthetic import make_blocks
from alignrec_recbole.testing.testbed import Testbed
from alignrec_recbole.training import captured, memory_estimate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

ROWS = [7, 0, 7, 39, 12]
SQUARE = sp.random(40, 40, 0.2, "csr", rng=np.random.default_rng(0))
GRAPH = sparse.SparseOperator(SQUARE)
EDGES = EdgeWeights((np.array([1, 1, 2, 3, 3]), np.array([1, 2, 2, 1, 3])), (20, 20))
NEIGHBOURS = [[i, (i * 7) % 40, -1] for i in range(40)]


def index(x: Tensor, values: list) -> Tensor:
    return torch.tensor(values, device=x.device)


def edge_sums(x: Tensor) -> Tensor:
    edges = EDGES.to(x.device)
    return edges.aggregate(edges.softmax(edges.dot(torch.tanh(x))), x)


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "product": lambda x: GRAPH @ x,
    "rows of a product": lambda x: GRAPH.rows(index(x, ROWS), x),
    "layer mean": lambda x: propagation.layer_mean(GRAPH, x, 3),
    "layer mean at rows": lambda x: propagation.layer_mean(GRAPH, x, 2, index(x, ROWS)),
    "layer mean at rows, and a part": lambda x: torch.cat(
        propagation.layer_mean(GRAPH, x, 2, index(x, ROWS), slice(5, None))
    ),
    "layer mean at rows, and some": lambda x: torch.cat(
        propagation.layer_mean(GRAPH, x, 1, index(x, ROWS), index(x, [3, 3]))
    ),
    "edges": edge_sums,
    "neighbour products": lambda x: neighbours.neighbour_products(x, index(x, NEIGHBOURS)),
    "neighbour sums": lambda x: neighbours.neighbour_sums(x[:, :3], index(x, NEIGHBOURS), x),
    "linear": lambda x: linear.linear(x, x[:3], x[0, :3]),
    "linear of rows": lambda x: linear.linear(x, x[:3], rows=index(x, ROWS)),
    "linear of a constant": lambda x: FrozenMatrix().linear(x.detach(), x[:3]),
    "take rows": lambda x: gather_rows(x, index(x, ROWS)),
    "unit rows": l2_normalize_rows,
    "info nce": lambda x: losses.info_nce(x, x.flip(0), 0.2),
    "info nce of ids": lambda x: losses.info_nce(x, x * x, 0.2, ids=index(x, list(range(40)))),
    "info nce, not normalised": lambda x: losses.info_nce(x, x.flip(0), 0.5, normalise=False),
    "info nce of a table": lambda x: losses.info_nce_all_negatives(x[:5], x, index(x, ROWS), 0.2),
    "gram distance": lambda x: losses.similarity_matrix_distance(x, x.detach().flip(1)),
    "gram distance, counted": lambda x: losses.similarity_matrix_distance(
        x, x.detach().flip(1), index(x, [1.0, 2.0] * 20)
    ),
    "cosine distance": lambda x: losses.cosine_distance(x, x.flip(0)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients_are_the_cpus(name: str) -> None:
    values = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = []
    for device in ("cpu", "cuda"):
        x = values.to(device).requires_grad_()
        out = CASES[name](x)
        assert out.device.type == device
        weight = torch.linspace(-1, 2, out.numel(), dtype=x.dtype, device=device).view(out.shape)
        (gradient,) = torch.autograd.grad((out * weight).sum(), x)
        found.append((out.detach().cpu(), gradient.cpu()))
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-9, atol=1e-9)


def test_neighbours_are_the_cpus() -> None:
    features = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    features[[0, 9]] = 0
    for memory_bytes in (4000, 1 << 20):
        values, places = item_item.nearest_neighbours(features, 5, memory_bytes=memory_bytes)
        on_gpu = item_item.nearest_neighbours(features.cuda(), 5, memory_bytes=memory_bytes)
        assert torch.equal(on_gpu[1].cpu(), places)
        torch.testing.assert_close(on_gpu[0].cpu(), values)


@pytest.mark.parametrize(("width", "k"), [(30, 20), (5000, 7)])
def test_lists_are_the_cpus(width: int, k: int) -> None:
    rng = np.random.default_rng(0)
    target, hidden = rng.random((2, 200, width)) < 0.05
    target[:, 0] = hidden[:, 0] = target[0] = False
    task = EvalTask.from_pairs(np.nonzero(target & ~hidden), [np.nonzero(hidden)], (200, width))
    scores = torch.from_numpy(rng.permutation(200 * width).reshape(200, width)).float()
    expected = rank(lambda users: scores[users], task, k, "cpu")
    table = scores.cuda()
    found = rank(lambda users: table[users], task, k, "cuda")
    assert np.array_equal(found.items, expected.items)
    assert np.array_equal(found.hits, expected.hits)
    assert torch.equal(top_k(table, k)[0].cpu(), scores.topk(k, 1).values)


@pytest.mark.parametrize("model", ["AlignRec", "FREEDOM", "LATTICE"])
def test_a_resumed_training_goes_on(tmp_path: Path, model: str) -> None:
    """Sums on a GPU come in no fixed order, so the runs agree to rounding."""
    testbed = Testbed(model, tmp_path, device="cuda")
    whole = testbed.fresh_fit(epochs=4)
    half = testbed.build(epochs=2)
    half.trainer.state_file = tmp_path / "state.pt"
    half.trainer.fit(half.batches(), None, saved=False)
    rest = testbed.build(epochs=4)
    rest.trainer.state_file = tmp_path / "state.pt"
    rest.trainer.fit(rest.batches(), None, saved=False)
    assert [entry["epoch"] for entry in rest.trainer.history] == [0, 1, 2, 3]
    for one, other in zip(whole.trainer.history, rest.trainer.history, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-3)


@pytest.mark.parametrize("model", ["AlignRec", "FREEDOM", "MGCN"])
def test_bfloat16_is_near_float32(tmp_path: Path, model: str) -> None:
    assert hardware.has_bfloat16("cuda")
    testbed = Testbed(model, tmp_path, device="cuda")
    found = {}
    for precision in ("float32", "bfloat16"):
        found[precision] = testbed.fit(epochs=3, precision=precision).trainer.history[-1]["loss"]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=2e-2)


def test_repeated_trainings_differ_by_rounding_only(tmp_path: Path) -> None:
    testbed = Testbed("AlignRec", tmp_path, device="cuda")
    one, other = (testbed.fresh_fit(epochs=2).scores().cpu() for _ in range(2))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def recordings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with a number per recording of a step."""
    found: list[int] = []
    record = captured.CudaGraphs.record

    def counted(self: captured.CudaGraphs, function: Callable[[], None]) -> captured.Recording:
        found.append(len(found))
        return record(self, function)

    monkeypatch.setattr(captured.CudaGraphs, "record", counted)
    return found


@pytest.mark.parametrize(("model", "recorded"), [("AlignRec", 1), ("LightGCN", 1), ("FREEDOM", 3)])
def test_captured_steps_train_as_others_do(tmp_path, monkeypatch, model, recorded) -> None:
    testbed, made = Testbed(model, tmp_path, device="cuda"), recordings(monkeypatch)
    settings = {"epochs": 3, "train_batch_size": 100, "lr_decay": [0.9, 1]}
    one, other = (
        testbed.fresh_fit(validate=True, captured_steps=flag, **settings) for flag in (False, True)
    )
    assert len(made) == recorded
    for before, after in zip(one.trainer.history, other.trainer.history, strict=True):
        assert after["losses"] == pytest.approx(before["losses"], rel=1e-3)
    torch.testing.assert_close(one.scores(), other.scores(), rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize(
    "name",
    [name for name in models.MODELS if not getattr(
        components(name).model_class, "capture_refused", "not a pairwise model")],
)  # fmt: skip
def test_every_model_that_allows_it_is_captured(tmp_path, monkeypatch, name: str) -> None:
    made = recordings(monkeypatch)
    testbed = Testbed(name, tmp_path, device="cuda")
    fit = testbed.fresh_fit(captured_steps=True, train_batch_size=64, epochs=10)
    assert made
    assert fit.losses[-1] < fit.losses[0]


def test_the_gpus_memory_is_what_counts() -> None:
    free, total = torch.cuda.mem_get_info()
    assert 0 < memory_estimate.available_bytes("cuda") <= total
    assert memory_estimate.available_bytes("cuda") == pytest.approx(free, rel=0.2)


def test_a_run_from_the_command_line(tmp_path: Path) -> None:
    from alignrec_recbole.cli.main import main

    folder = make_blocks().write(tmp_path / "data" / "blocks")
    features = sorted(path.stem for path in folder.rglob("*.npy"))
    base = ["--model", "AlignRec", "--dataset", folder.name, "--data-path", str(folder.parent),
            "--features", features[0], "--epochs", "2", "--quiet", "--device", "cuda",
            "--output", str(tmp_path / "out")]  # fmt: skip
    assert main(base) == 0
    (path,) = (tmp_path / "out" / "runs").rglob("*.json")
    record = json.loads(path.read_text())
    assert record["machine"]["device"] == torch.cuda.get_device_name()
    assert record["peak_gpu_bytes"] > 0


def test_beit3_encodes_as_on_the_cpu() -> None:
    pytest.importorskip("sentencepiece", reason="extra 'beit3' is not installed")
    from alignrec_recbole.encoders.beit3.architecture import Beit3, architecture_for

    model = Beit3(architecture_for("toy", 32, vocab_size=50, num_layers=2)).initialise(0).eval()
    image = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[0, 5, 9, 2], [0, 7, 2, 1], [0, 2, 1, 1]])
    with torch.inference_mode():
        here = model(image, ids, ids == 1)
        there = model.cuda()(image.cuda(), ids.cuda(), (ids == 1).cuda())
    torch.testing.assert_close(there.vision.cpu(), here.vision, rtol=1e-3, atol=1e-4)
    real = ids != 1
    torch.testing.assert_close(there.text.cpu()[real], here.text[real], rtol=1e-3, atol=1e-4)


def test_pretraining_and_features_from_it(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece", reason="extra 'beit3' is not installed")
    from test_beit3_pretraining import make_items, table_file

    from alignrec_recbole.cli.main import main

    out = tmp_path / "run"
    given = table_file(make_items(tmp_path), tmp_path)
    pretrain = [*given, "--ema", "0.9", "--drop-path", "0.3", "--device", "cuda"]
    pretrain += ["--output", str(out)]
    assert main([*pretrain, "--stop-after", "1"]) == 130
    assert main(pretrain) == 0
    source = given[given.index("--items") : given.index("--random-init")]
    rows = []
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        assert main(["prepare", "--dataset", "d", *source, "--encoder", "beit3", "--weights",
                     str(out / "model.safetensors"), "--output", str(folder), "--name", "f",
                     "--device", device, "--quiet", "--workers", "0"]) == 0  # fmt: skip
        rows.append(np.load(folder / "f.npy"))
    cosine = (
        (rows[0] * rows[1]).sum(1)
        / np.linalg.norm(rows[0], axis=1)
        / np.linalg.norm(rows[1], axis=1)
    )
    assert cosine[~np.isnan(cosine)].min() > 0.999  # products in bfloat16 where there are units
