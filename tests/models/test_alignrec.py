"""AlignRec's switches: variants, ablations, replaceable parts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alignrec_recbole.models._content import ModalityFeatures
from alignrec_recbole.runs import prepare, tasks
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.testing.testbed import Testbed


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(1)
    lines = ["userID\titemID\tx_label"]
    for user in range(30):
        items = rng.permutation(12) + 12 * (user % 2)
        lines += [f"{user}\t{i}\t{y}" for i, y in zip(items, [0] * 8 + [1, 2], strict=False)]
    (folder / "two").mkdir()
    (folder / "two" / "two.inter").write_text("\n".join(lines) + "\n")
    for name, width in (("vectors", 6), ("sounds", 3)):
        features = rng.normal(size=(24, width)).astype(np.float32)
        features[:12, 0] += 5
        np.save(folder / "two" / f"{name}.npy", features)
    return folder


def build(world, tmp_path, features=("vectors",), epochs=3, **overrides):
    spec = RunSpec(
        "AlignRec", "two", features, data_path=world, output=tmp_path, epochs=epochs,
        progress=False, overrides={"train_batch_size": 64, "learning_rate": 0.02, **overrides},
    )  # fmt: skip
    return spec, tasks.build_trainer(prepare.prepare_run(spec), None).model


BATCH = torch.tensor([1, 2, 3]), torch.tensor([1, 14, 1]), torch.tensor([15, 2, 16])


def test_the_variants_differ_where_the_module_says(world, tmp_path):
    _, paper = build(world, tmp_path, variant="paper")
    _, official = build(world, tmp_path, variant="official")
    assert set(paper.loss_terms(*BATCH)) == {"rec", "cca", "reg", "uia"}
    assert set(official.loss_terms(*BATCH)) == {"rec", "l2", "cca", "reg", "uia"}
    assert not paper.tables[0].requires_grad
    assert official.tables[0].requires_grad
    # same seed, same weights: what both share is equal, what differs differs
    torch.testing.assert_close(paper.loss_terms(*BATCH)["rec"], official.loss_terms(*BATCH)["rec"])
    for term in ("cca", "reg"):
        assert paper.loss_terms(*BATCH)[term] != official.loss_terms(*BATCH)[term]


def test_a_switch_that_is_set_comes_before_the_variants(world, tmp_path):
    """Also one that is set to false or to 0."""
    _, paper = build(world, tmp_path, variant="paper")
    _, model = build(
        world, tmp_path, variant="official", train_features=False, cca_normalise=False,
        reg_left="cosine", l2_weight=0.0,
    )  # fmt: skip
    assert not model.tables[0].requires_grad
    found, expected = model.loss_terms(*BATCH), paper.loss_terms(*BATCH)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("objective", ["bpr", "bce", "softmax"])
def test_objectives_by_their_formulas(world, tmp_path, objective):
    """With two negatives of each row."""
    _, model = build(world, tmp_path, objective=objective)
    users, positives, _ = BATCH
    negatives = torch.tensor([[15, 3], [2, 5], [16, 4]])
    all_users, all_items = model.embeddings()
    right = (all_users[users] * all_items[positives]).sum(1)[:, None]
    wrong = (all_users[users][:, None] * all_items[negatives]).sum(2)
    expected = {
        "bpr": -torch.sigmoid(right - wrong).log().mean(),
        "bce": (-torch.sigmoid(right).log() - (1 - torch.sigmoid(wrong)).log()).mean(),
        "softmax": -(right.exp() / (right.exp() + wrong.exp().sum(1, keepdim=True))).log().mean(),
    }[objective]
    terms = model.loss_terms(users, positives, negatives)
    torch.testing.assert_close(terms["rec"], expected)


def test_the_papers_terms_by_their_formulas(world, tmp_path):
    _, model = build(world, tmp_path, variant="paper")
    users, positives, _ = BATCH
    nodes = torch.cat([model.nodes.users, model.nodes.items])
    adjacency = torch.from_numpy(model.graph.csr.toarray()).float()
    ids = (nodes + adjacency @ nodes + adjacency @ adjacency @ nodes) / 3
    gate = torch.sigmoid(model.gate(model.feature_projection(model.tables[0])))
    items = torch.from_numpy(model.item_item.csr.toarray()).float() @ (model.nodes.items * gate)
    content_users = torch.from_numpy(model.user_item.csr.toarray()).float() @ items
    id_users, id_items = ids[: model.n_users], ids[model.n_users :]
    h_users, h_items = id_users + content_users, id_items + items

    def nce(x, y):
        return -torch.log_softmax(x @ y.T / 0.2, 1).diagonal().mean()

    def cosines(x):
        unit = torch.nn.functional.normalize(x)
        return unit @ unit.T

    terms = model.loss_terms(*BATCH)
    torch.testing.assert_close(
        terms["cca"],
        nce(items[positives], id_items[positives]) + nce(content_users[users], id_users[users]),
    )
    distance = cosines(items[positives]) - cosines(model.tables[0][positives])
    torch.testing.assert_close(terms["reg"], distance.norm() / 3, rtol=1e-4, atol=1e-5)
    cosine = torch.nn.functional.cosine_similarity(h_users[users], h_items[positives])
    torch.testing.assert_close(terms["uia"], 1 - cosine.mean())
    final_users, final_items = model.embeddings()
    torch.testing.assert_close(final_users, h_users)
    torch.testing.assert_close(final_items, h_items)


@pytest.mark.parametrize(
    ("key", "term"), [("cca_weight", "cca"), ("uia_weight", "uia"), ("reg_sim_weight", "reg")]
)
def test_an_ablation_removes_its_term_and_nothing_else(world, tmp_path, key, term):
    _, whole = build(world, tmp_path)
    _, without = build(world, tmp_path, **{key: 0})
    full, rest = whole.loss_terms(*BATCH), without.loss_terms(*BATCH)
    assert set(full) - set(rest) == {term}
    for name, value in rest.items():
        torch.testing.assert_close(value, full[name])


@pytest.mark.parametrize("fuser", ["sum", "attention"])
@pytest.mark.parametrize("objective", ["bpr", "bce", "softmax"])
def test_every_fuser_and_objective_learns(world, tmp_path, fuser, objective):
    spec, _ = build(
        world, tmp_path, epochs=12, fuser=fuser, objective=objective,
        train_neg_sample_args={"distribution": "uniform", "sample_num": 3, "dynamic": False,
                               "alpha": 1.0, "candidate_num": 0},
    )  # fmt: skip
    record = run_one(spec)
    assert record.history[-1]["loss"] < 0.7 * record.history[0]["loss"]


def test_attention_weighs_the_two_views(world, tmp_path):
    _, model = build(world, tmp_path, fuser="attention")
    ids, content = torch.randn(2, 5, 64)
    fused = model._fuse(ids, content)
    share = (fused - content) / (ids - content)
    torch.testing.assert_close(share, share[:, :1].expand_as(share), rtol=1e-3, atol=1e-3)
    assert ((share > 0) & (share < 1)).all()


def test_several_sets_are_normalised_and_concatenated(world, tmp_path):
    _, model = build(world, tmp_path, features=("vectors", "sounds"))
    assert model.tables[0].shape == (25, 9)
    rows = model.tables[0].detach()[1:]
    torch.testing.assert_close(rows[:, :6].norm(dim=1), torch.ones(24))
    torch.testing.assert_close(rows[:, 6:].norm(dim=1), torch.ones(24))


def test_one_modality_is_fused_as_it_is_and_several_as_unit_rows(tmp_path):
    testbed = Testbed("AlignRec", tmp_path)
    dataset = testbed.build(features=["text"]).splits[0]
    alone = torch.from_numpy(dataset.features["text"].values)
    assert torch.equal(ModalityFeatures(dataset, train=False, fuse=True)[0], alone)
    assert (alone[1:].norm(dim=1) - 1).abs().max() > 0.1
    dataset = testbed.build(features=["text", "image"]).splits[0]
    sets = [torch.from_numpy(table.values) for table in dataset.features.values()]
    expected = torch.cat([F.normalize(values, dim=1) for values in sets], 1)
    assert torch.equal(ModalityFeatures(dataset, train=False, fuse=True)[0], expected)
    assert list(dataset.features) == ["text", "image"]


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_unit_rows_of_extreme_features(tmp_path, scale):
    dataset = Testbed("AlignRec", tmp_path).build(features=["text", "image"]).splits[0]
    items = torch.arange(1, 9)
    rows, unit, fused = [], [], []
    for factor in (1.0, scale):
        for name, table in dataset.features.items():
            dataset.features[name] = replace(table, values=table.values * np.float32(factor))
        rows.append(ModalityFeatures(dataset, train=False).unit_rows(0, items))
        unit.append(ModalityFeatures(dataset, train=False, unit=True)[1])
        fused.append(ModalityFeatures(dataset, train=False, fuse=True)[0])
    for found in (rows, unit, fused):
        torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("trained", [True, False])
def test_checkpoints_name_the_features_as_they_always_did(tmp_path, trained):
    fit = Testbed("AlignRec", tmp_path).fit(epochs=1, train_features=trained)
    state = fit.model.state_dict()
    others = {
        "nodes.weight", "feature_projection.weight", "feature_projection.bias", "gate.weight",
        "gate.bias",
    }  # fmt: skip
    assert set(state) == others | ({"features"} if trained else set())
    assert not trained or torch.equal(state["features"], fit.model.tables[0].detach())
    other = Testbed("AlignRec", tmp_path / "other").build(seed=5, train_features=trained)
    other.model.load_state_dict(state)
    assert torch.equal(other.scores(), fit.scores())
