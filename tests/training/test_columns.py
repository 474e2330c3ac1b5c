"""Columns divided among processes: the same losses, gradients, weights and records as in one."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist
from two_blocks import write_two_blocks

from alignrec_recbole.cli.main import main
from alignrec_recbole.errors import SettingError
from alignrec_recbole.ops import columns
from alignrec_recbole.registry.components import components
from alignrec_recbole.registry.models import MODELS
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.record import read_record
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runs.tasks import build_trainer, train_data
from alignrec_recbole.runtime import processes
from alignrec_recbole.training import divided

HELPER = Path(__file__).parents[1] / "helpers" / "column_steps.py"
BOTH = "vectors+sounds"
ALIGNED = "align.cca=0.1,align.uia=0.1,align.reg=0.1"
SEVERAL = "train_neg_sample_args.sample_num=3"
CASES = (
    "BPR",
    "LightGCN",
    "AlignRec:vectors",
    f"AlignRec:{BOTH}",
    "AlignRec:vectors:variant=paper",
    "AlignRec:vectors:fuser=attention",
    f"AlignRec:vectors:objective=softmax,{SEVERAL}",
    f"VBPR:{BOTH}",
    f"FREEDOM:{BOTH}:{ALIGNED}",
    f"FREEDOM:{BOTH}:nlgcl.weight=0.01,nlgcl.alpha=0.3,mdvt.weight=0.1",
    f"BM3:{BOTH}",
    "MGCN:vectors",
    f"MGCN:{BOTH}:{ALIGNED}",
    f"GUME:{BOTH}",
    f"SMORE:{BOTH}",
    f"SOIL:{BOTH}",
    f"LATTICE:{BOTH}:{ALIGNED}",
    f"PGL:{BOTH}",
    f"SLMRec:{BOTH}",
    f"DRAGON:{BOTH}",
    f"LGMRec:{BOTH}",
    f"DualGNN:{BOTH}",
)
REFUSED = {"MMGCN", "GRCN", "DAMRS", "MENTOR", "COHESION", "MMGCF", "MSCA", "REARM", "MILK",
           "SiBraR"}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Two blocks with two feature sets, an item without any of the first."""
    folder = tmp_path_factory.mktemp("data")
    rng = write_two_blocks(folder)
    for name, width in (("vectors", 7), ("sounds", 4)):
        values = rng.normal(size=(24, width)).astype(np.float32)
        values[:12, 0] += 5
        values[5] = 0
        np.save(folder / "two" / f"{name}.npy", values)
    return folder


@pytest.fixture
def one_process_group():
    """A group of this process alone: every exchange is made, with nobody else."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def spec_of(world: Path, output: Path, model: str, features=("vectors",), **settings) -> RunSpec:
    return RunSpec(
        model, "two", features if MODELS[model].needs_features else (),
        data_path=world, output=output, epochs=3, progress=False,
        overrides={"train_batch_size": 64, "zero_rows_missing": True, **settings},
    )  # fmt: skip


TRAINED = [
    name
    for name in MODELS
    if hasattr(components(name).model_class, "columns_refused")
    and components(name).model_class.type.name == "GENERAL"
]


def test_every_pairwise_model_says_whether_its_columns_can_be_divided() -> None:
    tested = {case.partition(":")[0] for case in CASES}
    allowed = {name for name in TRAINED if not components(name).model_class.columns_refused}
    assert allowed == tested
    assert set(TRAINED) - allowed == REFUSED


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in REFUSED])
def test_the_exchanging_formulas_equal_the_others(
    name: str, world: Path, tmp_path: Path, one_process_group
) -> None:
    """In a group of one, where only the formulas differ: loss terms and gradients."""
    found = []
    for several in (False, True):
        trainer = build_trainer(
            prepare_run(spec_of(world, tmp_path, name, ("vectors", "sounds"))), None
        )
        model = trainer.model
        if hasattr(model, "begin_epoch"):
            model.begin_epoch(torch.Generator().manual_seed(1))
        batch = next(iter(train_data(prepare_run(spec_of(world, tmp_path, name)))))
        torch.manual_seed(3)
        if several:
            with columns.divided() as within:
                columns.divide(model)
                terms = torch.stack(list(model.calculate_loss(batch)))
                terms.sum().backward()
            assert within.exchanged > 0
        else:
            terms = torch.stack(list(model.calculate_loss(batch)))
            terms.sum().backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append((terms.detach(), gradients))
    (terms, gradients), (other_terms, other_gradients) = found
    torch.testing.assert_close(other_terms, terms, rtol=1e-6, atol=1e-9)
    assert gradients.keys() == other_gradients.keys()
    largest = max(float(g.abs().max()) for g in gradients.values())
    for key, gradient in gradients.items():
        torch.testing.assert_close(
            other_gradients[key], gradient, rtol=1e-4, atol=1e-6 * largest, msg=key
        )


def test_shares_cover_every_column_once(one_process_group) -> None:
    with columns.divided() as within:
        for width in (1, 5, 64):
            for size in (1, 2, 3, 8):
                within.size = size
                parts = columns.shares(width, within)
                covered = [column for start, stop in parts for column in range(start, stop)]
                assert covered == list(range(width))
                assert max(b - a for a, b in parts) - min(b - a for a, b in parts) <= 1
        within.size = 1


def test_what_cannot_be_divided_is_refused(world: Path, tmp_path: Path, one_process_group) -> None:
    def config_of(name: str, **settings):
        return prepare_run(spec_of(world, tmp_path, name, **settings)).config

    with columns.divided() as within:
        within.size = 3
        for name, settings, text in (
            ("MMGCN", {}, "cannot be trained by several processes: the dense layers"),
            ("BPR", {}, "in equal parts"),
            ("BPR", {"embedding_size": 6, "clip_grad_norm": {"max_norm": 1}}, "clip_grad_norm"),
        ):
            with pytest.raises(SettingError, match=text):
                divided.check(components(name).model_class, config_of(name, **settings))
        divided.check(components("BPR").model_class, config_of("BPR", embedding_size=6))
        within.size = 1
    with pytest.raises(SettingError, match="not a pairwise model"):
        columns.check_model(components("EASE").model_class, 2)


@pytest.mark.parametrize(
    ("device", "number", "gpus", "refused"),
    [
        ("cuda:3", 2, 4, True),
        ("cuda:3", 1, 4, False),
        ("cuda", 3, 2, True),
        ("cuda", 2, 2, False),
        ("cpu", 9, 0, False),
    ],
)
def test_each_process_has_a_gpu_of_its_own(
    device: str, number: int, gpus: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if refused:
        with pytest.raises(SettingError, match=f"{number} processes cannot compute on {device}"):
            processes.check_gpus(device, number)
    else:
        processes.check_gpus(device, number)


@pytest.mark.parametrize("value", ["x", "0", "9" * 20])
def test_a_number_of_processes_that_is_none_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", value)
    with pytest.raises(SettingError, match="WORLD_SIZE cannot be used"):
        processes.count()


def environment() -> dict[str, str]:
    helpers = str(HELPER.parent)
    return {
        **os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": os.pathsep.join([str(HELPER.parents[2]), helpers]),
    }  # fmt: skip


def steps(world: Path, output: Path, dtype: str, processes: int) -> list[dict[str, np.ndarray]]:
    output.mkdir(parents=True)
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(start if processes > 1 else []), str(HELPER)]
    done = subprocess.run(
        [*command, str(world), str(output), "20", dtype, *CASES],
        env=environment(), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [dict(np.load(output / f"{number}.npz")) for number in range(len(CASES))]


def difference(one: dict[str, np.ndarray], two: dict[str, np.ndarray], part: str) -> float:
    """Largest difference of a part's arrays over the largest number of the array.

    A gradient that is below a thousandth of the model's largest is measured against that: it is a
    sum that cancels, and what is left is rounding.
    """
    names = [name for name in one if name.startswith(part)]
    largest = max(np.abs(one[name]).max() for name in names)
    return max(
        np.abs(one[name] - two[name]).max() / max(np.abs(one[name]).max(), 1e-3 * largest)
        for name in names
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "losses", "gradients", "weights"),
    # Adam divides a gradient by its size: where it is rounding alone, so is the step. In float32
    # LGMRec's memberships, softmaxes with τ = 0.2 of noise, multiply rounding up from step to step,
    # so its first two losses are compared; float64 shows that its gradients are the same.
    [
        pytest.param("float64", 1e-12, 1e-11, 1e-11, id="float64"),
        pytest.param("float32", 1e-6, 1e-5, 5e-5, id="float32", marks=pytest.mark.long),
    ],
)
def test_two_processes_equal_one(
    world: Path, tmp_path: Path, dtype: str, losses: float, gradients: float, weights: float
) -> None:
    """20 steps of every model that allows it."""
    ones, twos = (steps(world, tmp_path / str(n), dtype, n) for n in (1, 2))
    table, wrong = [], []
    for case, one, two in zip(CASES, ones, twos, strict=True):
        assert one.keys() == two.keys()
        if case.startswith("LGMRec") and dtype == "float32":
            one["losses"], two["losses"] = one["losses"][:2], two["losses"][:2]
            found = (difference(one, two, "losses"), 0.0, 0.0)
        else:
            found = tuple(difference(one, two, p) for p in ("losses", "gradient", "weight"))
        table.append(f"{case:50} " + " ".join(f"{value:.1e}" for value in found))
        if not all(v <= b for v, b in zip(found, (losses, gradients, weights), strict=True)):
            wrong.append(table[-1])
    sys.stdout.write("\n".join(["", *table, ""]))
    assert not wrong, "\n".join(wrong)


def command(*arguments: str) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "alignrec_recbole", "run", *arguments],
        env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    sys.stdout.write(done.stdout + done.stderr)
    return done.returncode


def arguments(world: Path, output: Path, epochs: int) -> list[str]:
    return [
        "--model", "LightGCN,AlignRec", "--dataset", "two", "--features", "vectors",
        "--data-path", str(world), "--output", str(output), "--epochs", str(epochs),
        "--set", "zero_rows_missing=true", "train_batch_size=64", "--no-progress",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.long
def test_records_are_equal_and_states_change_between_one_and_two_processes(
    world: Path, tmp_path: Path
) -> None:
    """A run in one process equals one that goes on in two, and one that goes on in one."""
    assert main(["run", *arguments(world, tmp_path / "one", 6)]) == 0
    for name, first, second in (("12", [], ["--nproc", "2"]), ("21", ["--nproc", "2"], [])):
        assert command(*arguments(world, tmp_path / name, 3), *first) == 0
        assert command(*arguments(world, tmp_path / name, 6), *second) == 0
    expected = sorted((tmp_path / "one" / "runs").rglob("*.json"))
    assert len(expected) == 2
    for path in expected:
        one = read_record(path)
        for name in ("12", "21"):
            other = read_record(tmp_path / name / path.relative_to(tmp_path / "one"))
            assert other.metrics == one.metrics
            assert other.config_sha256 == one.config_sha256
            assert other.parameters == one.parameters
            assert other.machine.get("processes", 1) == (2 if name == "12" else 1)
            np.testing.assert_allclose(
                [entry["loss"] for entry in other.history],
                [entry["loss"] for entry in one.history],
                rtol=1e-6,
            )


@contextlib.contextmanager
def long_run(world: Path, output: Path) -> Iterator[tuple[subprocess.Popen, list[psutil.Process]]]:
    """A run in two processes without an end, after its first epochs, and these processes."""
    command = [
        sys.executable, "-m", "alignrec_recbole", "run", "--model", "BPR", "--dataset", "two",
        "--data-path", str(world), "--output", str(output), "--nproc", "2",
        "--set", "train_batch_size=64", "stopping_step=1000000", "epochs=1000000",
    ]  # fmt: skip
    started = subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert started.stderr is not None
        line = next((line for line in started.stderr if "epoch 2 of" in line), None)
        assert line, "it ended before its second epoch"
        yield started, psutil.Process(started.pid).children(recursive=True)
    finally:
        if started.poll() is None:
            for process in psutil.Process(started.pid).children(recursive=True):
                process.kill()
            started.kill()
        started.wait()


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_one_sentence(world: Path, tmp_path: Path) -> None:
    with long_run(world, tmp_path) as (started, parts):
        several = [part for part in parts if "run" in part.cmdline()]
        assert len(several) == 2
        several[1].kill()
        _, said = started.communicate(timeout=90)
        assert started.returncode == 2
        errors = [line for line in said.splitlines() if not line.startswith(("BPR", " "))]
        assert len(errors) == 1
        assert errors[0].startswith("ProcessFailed: Process")
        assert "SIGKILL" in said
        assert not any(part.is_running() for part in parts)


@pytest.mark.slow
def test_a_stopped_run_saves_its_state(world: Path, tmp_path: Path) -> None:
    with long_run(world, tmp_path) as (started, _):
        started.send_signal(signal.SIGTERM)
        _, said = started.communicate(timeout=90)
    assert started.returncode == 130
    assert said.count("Interrupted after epoch") == 1
    (state,) = (tmp_path / "checkpoints").rglob("*.state.pt")
    assert state.stat().st_size > 1000
