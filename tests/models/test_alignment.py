"""Terms that are switched on in other models, with shared losses and nothing in the model.

They are AlignRec's alignment terms, NLGCL+ and MDVT.
"""

import importlib
import inspect
import itertools

import pytest
import torch
import torch.nn.functional as F

from alignrec_recbole.errors import SettingError
from alignrec_recbole.models._content import ModalityFeatures
from alignrec_recbole.models._two_views import TwoViewRecommender
from alignrec_recbole.registry.components import components
from alignrec_recbole.registry.models import MODELS
from alignrec_recbole.settings import check_keys
from alignrec_recbole.testing.testbed import Testbed

TWO_VIEWS = [
    name
    for name, entry in MODELS.items()
    if entry.family == "native"
    and isinstance(kind := components(name).model_class, type)
    and issubclass(kind, TwoViewRecommender)
]
WEIGHTS = {"cca": 0.5, "uia": 0.25, "reg": 2.0}


@pytest.fixture(scope="module", params=TWO_VIEWS)
def testbed(request, tmp_path_factory) -> Testbed:
    return Testbed(request.param, tmp_path_factory.mktemp(request.param))


def test_the_models_that_the_paper_names_have_two_views():
    assert {"MGCN", "LATTICE", "FREEDOM"} <= set(TWO_VIEWS)


def begin(model):
    """Start an epoch; LATTICE learns its item graph in the first batch of one."""
    if hasattr(model, "begin_epoch"):
        model.begin_epoch(torch.Generator().manual_seed(0))
    torch.manual_seed(3)


def views_of(model, batch):
    """The views of a batch."""
    ids = batch[model.USER_ID], batch[model.ITEM_ID], batch[model.NEG_ITEM_ID]
    return model.terms_and_views(*ids)[1]


def fused(dataset):
    """The features of a data set as one matrix."""
    return ModalityFeatures(dataset, train=False, fuse=True)[0]


def dense_terms(views, target, temperature):
    """The three terms with whole b × b matrices."""
    diagonal = torch.arange(len(target))

    def contrast(x, y):
        return F.cross_entropy(F.normalize(x) @ F.normalize(y).T / temperature, diagonal)

    content, unit = F.normalize(views.item_content), F.normalize(target)
    return {
        "cca": contrast(views.item_content, views.item_id)
        + contrast(views.user_content, views.user_id),
        "uia": (1 - F.cosine_similarity(views.user, views.item)).mean(),
        "reg": (content @ content.T - unit @ unit.T).norm() / len(target),
    }


@pytest.mark.parametrize("chosen", [["cca"], ["uia"], ["reg"], ["cca", "uia", "reg"]], ids=str)
def test_the_switch_adds_the_weighted_terms_and_nothing_else(testbed, chosen):
    align = {name: WEIGHTS[name] for name in chosen}
    plain, aligned = testbed.build(), testbed.build(align=align)
    aligned.model.load_state_dict(plain.model.state_dict())
    batch = plain.batch()
    models = plain.model.train(), aligned.model.train()
    begin(models[0])
    before = sum(models[0].calculate_loss(batch))
    begin(models[1])
    views = views_of(models[1], batch)
    begin(models[1])
    after = sum(models[1].calculate_loss(batch))
    target = fused(plain.splits[0])[batch[plain.splits[0].iid_field]]
    terms = dense_terms(views, target, 0.2)
    expected = sum(weight * terms[name] for name, weight in align.items())
    torch.testing.assert_close(after - before, expected, rtol=1e-4, atol=1e-5)
    after.backward()
    for name, parameter in models[1].named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_the_views_are_those_that_score(testbed):
    fit = testbed.build(align=WEIGHTS)
    fit.model.eval()  # no dropout
    views = views_of(fit.model, batch := fit.batch())
    users, items = fit.model.embeddings()
    dataset = fit.splits[0]
    torch.testing.assert_close(views.user, users[batch[dataset.uid_field]])
    torch.testing.assert_close(views.item, items[batch[dataset.iid_field]])
    torch.testing.assert_close(views.item, views.item_id + views.item_content)


@pytest.mark.parametrize("align", [{"cac": 1.0}, {"cca": -1.0}], ids=str)
def test_a_wrong_switch_is_refused(testbed, align):
    with pytest.raises(SettingError, match="align"):
        testbed.build(align=align)


@pytest.mark.parametrize("name", ["BPR", "VBPR", "BM3"])
def test_a_model_without_two_views_refuses_the_switch(name):
    known = components(name).known_keys | components(name).defaults_for("none").keys()
    with pytest.raises(SettingError, match="Unknown setting 'align'"):
        check_keys({"align": {"cca": 1.0}}, known, name)


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_no_line_of_alignment_in_the_models_own_file(name):
    module = importlib.import_module(MODELS[name].target.partition(":")[0])
    assert "align." not in inspect.getsource(module)


# NLGCL+ ----------------------------------------------------------------------------------------

NLGCL = {"weight": 0.01, "alpha": 0.3, "temperature": 0.4}


def dense_contrast(model, users, items):
    """Both contrasts of successive layers, summed over the batch, with whole layers."""
    graph = torch.from_numpy(model._propagated_graph().csr.toarray()).to(model.nodes.weight.dtype)
    layers, diagonal = [model.nodes.weight], torch.arange(len(users))
    for _ in range(model.settings.n_ui_layers):
        layers.append(graph @ layers[-1])
    total = torch.zeros(())
    for before, now in itertools.pairwise(layers):
        for share, left, right in (
            (NLGCL["alpha"], now[items + model.n_users], before[users]),
            (1 - NLGCL["alpha"], now[users], before[items + model.n_users]),
        ):
            scores = F.normalize(left) @ F.normalize(right).T / NLGCL["temperature"]
            total = total + share * F.cross_entropy(scores, diagonal, reduction="sum")
    return total


def test_the_switch_adds_the_weighted_contrast_and_nothing_else(testbed):
    plain, switched = testbed.build(), testbed.build(nlgcl=NLGCL)
    switched.model.load_state_dict(plain.model.state_dict())
    batch, losses = plain.batch(), []
    for model in (plain.model.train(), switched.model.train()):
        begin(model)
        losses.append(sum(model.calculate_loss(batch)))
    ids = batch[model.USER_ID], batch[model.ITEM_ID]
    expected = NLGCL["weight"] * dense_contrast(model, *ids)
    torch.testing.assert_close(losses[1] - losses[0], expected, rtol=1e-4, atol=1e-5)
    ours, textbook = (
        torch.autograd.grad(value, model.nodes.weight)[0]
        for value in (NLGCL["weight"] * model._neighbour_contrast(*ids), expected)
    )
    torch.testing.assert_close(ours, textbook, rtol=1e-3, atol=1e-7)


def test_a_wrong_switch_of_the_contrast_is_refused(testbed):
    with pytest.raises(SettingError, match="nlgcl"):
        testbed.build(nlgcl={"wieght": 1.0})


# MDVT --------------------------------------------------------------------------------------------

MDVT = {"weight": 0.25, "k": 3, "warm_up": 2}


def dense_triplets(users, items):
    """Mean over users of −log₂ σ of the mean score of the nearest less that of the farthest."""
    order = (F.normalize(users) @ F.normalize(items).T).argsort(1)
    scores = (users @ items.T).gather(1, order)
    wins = scores[:, -MDVT["k"] :].mean(1) - scores[:, : MDVT["k"]].mean(1)
    return -torch.log2(torch.sigmoid(wins)).mean()


def test_the_triplets_take_their_share_of_the_loss_after_warming_up(testbed):
    plain, switched = testbed.build(), testbed.build(mdvt=MDVT)
    switched.model.load_state_dict(plain.model.state_dict())
    batch, losses = plain.batch(), []
    for model, epoch in ((plain.model, 2), (switched.model, 1), (switched.model, 2)):
        model.train()
        model.epoch_losses = [1.0] * epoch
        begin(model)
        losses.append(sum(model.calculate_loss(batch)))
    begin(model)
    if model.settings.model_dump().get("dropout_rate") is None:  # else drawn again
        users, items = model._training_embeddings()
        expected = 0.75 * losses[0] + 0.25 * dense_triplets(users[1:], items[1:])
        torch.testing.assert_close(losses[2], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses[1], losses[0])
    assert not torch.equal(losses[2], losses[0])


def test_triplets_of_lattice_leave_its_item_graph_as_it_is_between_the_first_batches(tmp_path):
    fit = Testbed("LATTICE", tmp_path).build(mdvt={**MDVT, "warm_up": 0})
    model, batch = fit.model, fit.batch()
    model.train()
    begin(model)
    for learns in (True, False, False):
        model.zero_grad()
        sum(model.calculate_loss(batch)).backward()
        found = [layer.weight.grad is not None for layer in model.projections]
        assert found == [learns] * len(found)


def test_a_contrast_of_neighbours_without_a_layer_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r"nlgcl\.weight, needs a layer"):
        Testbed("MGCN", tmp_path).build(nlgcl={"weight": 0.1}, n_ui_layers=0)


def test_the_trainer_counts_the_epochs_of_warming_up(tmp_path):
    bed = Testbed("MGCN", tmp_path)
    plain, switched = bed.smoke_fit(), bed.smoke_fit(mdvt={**MDVT, "warm_up": 1})
    assert plain.losses[0] == switched.losses[0]
    assert plain.losses[1] != switched.losses[1]


def test_with_a_threshold_the_triplets_begin_once_the_loss_falls_slowly(tmp_path):
    bed, triplets = Testbed("MGCN", tmp_path), {"weight": 0.25, "k": 3}
    losses = bed.fit(epochs=6).losses
    falls = [(before - now) / now for before, now in itertools.pairwise(losses)]
    assert falls[2] > falls[3] > 0  # so that a threshold between them is reached by the fifth
    threshold = (falls[2] + falls[3]) / 2
    switched = bed.fit(epochs=6, mdvt={**triplets, "threshold": threshold})
    assert switched.losses[:5] == losses[:5]
    assert switched.losses[5] != losses[5]


def test_two_beginnings_of_the_triplets_are_refused(testbed):
    with pytest.raises(SettingError, match="two ways to begin"):
        testbed.build(mdvt={**MDVT, "threshold": 0.2})
