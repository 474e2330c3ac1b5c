"""The estimate of memory against what training really takes, and the refusal."""

import pytest
import torch

from alignrec_recbole import losses
from alignrec_recbole.errors import NotEnoughMemoryError
from alignrec_recbole.registry.models import MODELS
from alignrec_recbole.runs.prepare import prepare_data
from alignrec_recbole.runs.spec import DataSpec
from alignrec_recbole.runtime import control_groups
from alignrec_recbole.testing.testbed import Testbed, model_under_test
from alignrec_recbole.training import memory_estimate


class Tables(torch.nn.Module):
    def __init__(self, rows=20_000, frozen=False):
        super().__init__()
        self.ids = torch.nn.Parameter(torch.zeros(rows, 64))
        self.features = torch.nn.Parameter(torch.zeros(rows // 2, 256), requires_grad=not frozen)


def test_gradients_moments_and_best_weights_are_counted():
    model = Tables()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    (model.ids.sum() + model.features.sum()).backward()
    optimizer.step()
    parts = memory_estimate.training_bytes(model, "adam", 2048)
    moments = sum(
        value.nbytes
        for state in optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    )
    assert parts["optimizer"] == moments
    assert parts["gradients"] == sum(p.grad.nbytes for p in model.parameters())
    assert parts["best weights"] == sum(v.nbytes for v in model.state_dict().values())


def test_frozen_tables_need_no_gradient():
    frozen, trained = (
        memory_estimate.training_bytes(Tables(frozen=f), "adam", 64) for f in (True, False)
    )
    assert trained["gradients"] - frozen["gradients"] == 4 * 10_000 * 256


def test_another_form_of_a_constant_table_is_counted():
    model = Tables()
    before = memory_estimate.training_bytes(model, "adam", 64)["constant tables"]
    model.register_buffer("images", torch.zeros(100, 512), persistent=False)
    model.register_buffer("present", torch.zeros(100, dtype=torch.bool), persistent=False)
    assert (
        memory_estimate.training_bytes(model, "adam", 64)["constant tables"] - before
        == 4 * 100 * 512
    )


def test_the_step_follows_the_longest_table_and_the_batch():
    small, large = (
        memory_estimate.training_bytes(Tables(rows), "sgd", 10) for rows in (2_000, 4_000)
    )
    assert large["step"] - small["step"] == memory_estimate.NODE_TABLES * 2_000 * 64 * 4
    assert large["optimizer"] == 0


@pytest.mark.parametrize(
    ("contrasts", "device", "rows"),
    [(False, "cpu", 0), (True, "cpu", 1024), (True, "cuda", 256), (None, "cpu", 1 << 20)],
)
def test_only_contrasts_pay_for_the_scores_of_a_batch(contrasts, device, rows):
    model, batch = Tables(), 1 << 20
    if contrasts is not None:  # else a model of RecBole, which does not say
        model.contrasts_batch = contrasts
    large, small = (
        memory_estimate.training_bytes(model, "adam", size, device)["step"] for size in (batch, 0)
    )
    assert large - small == memory_estimate.SCORE_COPIES * 4 * rows * batch


@pytest.mark.parametrize("name", [n for n in MODELS if model_under_test(n).learns])
def test_models_say_whether_they_contrast_the_rows_of_a_batch(name, tmp_path, monkeypatch):
    asked, totals = [], losses._log_totals
    monkeypatch.setattr(losses, "_log_totals", lambda *a: asked.append(1) or totals(*a))
    settings = {"mask_weight_g": 0.1} if name == "MENTOR" else {}
    model = Testbed(name, tmp_path).fresh_fit(epochs=1, **settings).model
    assert model.contrasts_batch == bool(asked)


@pytest.mark.parametrize("align", [{"cca": 0.1}, {"uia": 0.1}])
def test_an_alignment_counts_where_it_contrasts(align, tmp_path):
    model = Testbed("FREEDOM", tmp_path).fresh_fit(epochs=1, align=align).model
    assert model.contrasts_batch == ("cca" in align)


def test_a_batch_counts_at_most_the_pairs_that_there_are(tmp_path, monkeypatch):
    asked, estimate = [], memory_estimate.training_bytes
    monkeypatch.setattr(
        memory_estimate, "training_bytes", lambda *a: asked.append(a[2]) or estimate(*a)
    )
    fit = Testbed("AlignRec", tmp_path).fresh_fit(epochs=1, train_batch_size=10**7)
    assert asked == [len(fit.splits[0])]


def test_a_training_that_does_not_fit_is_refused_with_the_figure(monkeypatch):
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda device: 1 << 20)
    with pytest.raises(NotEnoughMemoryError, match=r"need 0\.\d GiB more[\s\S]*0\.0 GiB free"):
        memory_estimate.check(Tables(), "adam", 2048, "cpu")


def memory_group(folder, limit, used, inactive, *, version=2):
    """The files of a control group."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        2: ("memory.max", "memory.current"),
    }[version]
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 1000\ninactive_file {inactive}\n")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups under a folder; what the kernel says of this process is to be written."""
    own = control_groups.own_and_around
    monkeypatch.setattr(
        control_groups,
        "own_and_around",
        lambda name="": own(name, root=tmp_path / "groups", listing=tmp_path / "listing"),
    )
    return tmp_path / "groups"


def test_a_container_limit_counts(groups):
    memory_group(groups, 3000, 2500, 700)
    assert memory_estimate.available_bytes() == 1200
    memory_group(groups, "max", 2500, 700)
    assert memory_estimate.available_bytes() > 3000


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_job_counts_like_that_of_its_container(groups, version):
    line = {1: "4:cpu,memory:/slurm/job_7/step_0", 2: "0::/slurm/job_7/step_0"}[version]
    (groups.parent / "listing").write_text(f"9:name=systemd:/\n{line}\n")
    root = groups / "memory" if version == 1 else groups
    memory_group(root, 1 << 60, 0, 0, version=version)
    memory_group(root / "slurm/job_7", 5000, 1000, 500, version=version)
    memory_group(root / "slurm/job_7/step_0", 1 << 60, 100, 0, version=version)
    assert memory_estimate.available_bytes() == 4500


@pytest.mark.parametrize("model", ["AlignRec", "LightGCN"])
def test_a_real_run_is_refused_before_it_starts(model, tmp_path, monkeypatch):
    from alignrec_recbole.runs.prepare import prepare_run
    from alignrec_recbole.runs.spec import RunSpec
    from alignrec_recbole.runs.tasks import build_trainer, train_data

    spec = RunSpec(model, "ml-100k", ("lsa",) if model == "AlignRec" else (), output=tmp_path)
    prepared = prepare_run(spec)
    trainer = build_trainer(prepared, None)
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda device: 1 << 20)
    with pytest.raises(NotEnoughMemoryError):
        trainer.fit(train_data(prepared))
    assert not trainer.history


def test_what_fits_exactly_is_allowed_and_a_byte_more_is_not(monkeypatch):
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda *_: 1 << 20)
    memory_estimate.check_bytes("A table", 1 << 20, "it")
    with pytest.raises(NotEnoughMemoryError, match="A table would need"):
        memory_estimate.check_bytes("A table", (1 << 20) + 1, "it")


def test_lists_and_negatives_are_counted_by_all_their_sizes(monkeypatch):
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda *_: 64 << 20)
    memory_estimate.check_lists(users=10_000, longest=50)
    memory_estimate.check_negatives(pairs=10_000, negatives=10, batch_size=1000, width=64)
    with pytest.raises(NotEnoughMemoryError, match="lists of 500 items"):
        memory_estimate.check_lists(users=10_000, longest=500)
    for larger in ({"pairs": 10**6}, {"negatives": 10**3}, {"batch_size": 10**4, "width": 640}):
        sizes = {"pairs": 10_000, "negatives": 10, "batch_size": 1000, "width": 64, **larger}
        with pytest.raises(NotEnoughMemoryError, match="negatives of each"):
            memory_estimate.check_negatives(**sizes)


def test_best_weights_do_not_count_on_a_gpu(monkeypatch):
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda device: 1 << 40)
    parts = memory_estimate.training_bytes(Tables(), "adam", 64)
    on_gpu = memory_estimate.check(Tables(), "adam", 64, "cuda")
    assert memory_estimate.check(Tables(), "adam", 64, "cpu") - on_gpu == parts["best weights"]


def test_interactions_that_cannot_fit_are_refused_before_they_are_read(tmp_path, monkeypatch):
    (tmp_path / "x.inter").write_bytes(b"?" * (10 << 20))
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda device: 30 << 20)
    memory_estimate.check_reading([tmp_path / "x.inter", tmp_path / "absent.inter"])
    (tmp_path / "y.inter").write_bytes(b"?")
    with pytest.raises(NotEnoughMemoryError, match="Reading the interactions would need"):
        memory_estimate.check_reading([tmp_path / "x.inter", tmp_path / "y.inter"])
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda device: 0)
    with pytest.raises(NotEnoughMemoryError, match="a part of the interactions"):
        prepare_data(DataSpec("ml-100k", output=tmp_path, device="cpu"))
