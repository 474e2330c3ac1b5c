"""Items without a set: its row stays zero, and moves neither scores nor losses."""

from __future__ import annotations

import pytest
import torch

from alignrec_recbole.models._content import ModalityFeatures
from alignrec_recbole.testing.testbed import Testbed

TRAINED = ["AlignRec", "BM3", "FREEDOM", "GUME", "LATTICE", "MGCN", "MSCA", "PGL", "REARM", "SMORE",
           "MILK", "SiBraR"]  # fmt: skip
MASKED = [
    "BM3", "COHESION", "DAMRS", "DRAGON", "DualGNN", "GRCN", "LATTICE", "MENTOR", "MMGCN", "PGL",
    "REARM", "SLMRec", "MILK", "SiBraR",
]  # fmt: skip


def with_missing_features(name, folder):
    """Images of a quarter of the items gone, texts of another; some have neither."""
    world = (
        Testbed(name, folder).world.with_missing("image", 0.25).with_missing("text", 0.25, seed=2)
    )
    assert set(world.missing["image"]) & set(world.missing["text"])
    return Testbed(name, folder, world)


def tables_and_gaps(fit):
    """Of each set the values [item_num, f] that the model holds, and where they are absent."""
    tables, sets = list(fit.model.tables), fit.splits[0].features.values()
    if len(tables) < len(sets):  # fused
        tables = tables[0].split([one.values.shape[1] for one in sets], dim=1)
    return [(t, torch.from_numpy(~s.present)) for t, s in zip(tables, sets, strict=True)]


@pytest.mark.parametrize("name", TRAINED)
def test_what_an_item_lacks_is_not_learnt(tmp_path, name):
    fit = with_missing_features(name, tmp_path).fit(epochs=3, train_features=True)
    for number, (table, gone) in enumerate(tables_and_gaps(fit)):
        first = list(fit.splits[0].features.values())[number]
        assert gone.sum() > 1
        assert not table[gone].any()
        assert not torch.equal(table[~gone], torch.from_numpy(first.values)[~gone])


@pytest.mark.parametrize("name", MASKED)
def test_an_absent_row_says_nothing(tmp_path, name):
    """Whatever stands in it, and though an affine layer makes something of nothing."""
    testbed = with_missing_features(name, tmp_path)

    def outcome(noise: float):
        fit = testbed.build()
        assert isinstance(fit.model.tables, ModalityFeatures)
        with torch.no_grad():
            for bias in (p for n, p in fit.model.named_parameters() if n.endswith("bias")):
                bias.fill_(1.0)
            for table, gone in tables_and_gaps(fit):
                table[gone] = noise
        batch = fit.batch()
        torch.manual_seed(0)
        if hasattr(fit.model, "begin_epoch"):
            fit.model.begin_epoch(torch.Generator().manual_seed(0))
        fit.model.train()
        terms = torch.stack([term.detach() for term in fit.model.calculate_loss(batch)])
        return terms, fit.scores()

    (terms, scores), (same_terms, same_scores) = outcome(0.0), outcome(7.0)
    torch.testing.assert_close(terms, same_terms)
    torch.testing.assert_close(scores, same_scores)


def cosines(rows):
    return torch.nn.functional.normalize(rows, dim=1) @ torch.nn.functional.normalize(rows, dim=1).T


@pytest.mark.parametrize("train", [True, False])
def test_reg_leaves_out_what_has_no_features(tmp_path, train):
    fit = with_missing_features("AlignRec", tmp_path).build(train_features=train, reg_left="cosine")
    model, batch = fit.model, fit.batch()
    positives = batch[model.ITEM_ID]
    content = model._content_items(model.nodes.items).detach()
    here = positives[model.tables[0].detach().norm(dim=1)[positives] > 0]
    assert 0 < len(here) < len(positives)
    expected = (cosines(content[here]) - cosines(model.tables[0].detach()[here])).norm() / len(here)
    users, negatives = batch[model.USER_ID], batch[model.NEG_ITEM_ID]
    terms = model.loss_terms(users, positives, negatives)
    torch.testing.assert_close(terms["reg"].detach(), expected)


def test_aligned_models_leave_it_out_too(tmp_path):
    align = {"cca": 0.0, "uia": 0.0, "reg": 1.0, "temperature": 0.2}
    fit = with_missing_features("MGCN", tmp_path).build(align=align)
    model, batch = fit.model, fit.batch()
    positives = batch[model.ITEM_ID]
    ids = batch[model.USER_ID], positives, batch[model.NEG_ITEM_ID]
    loss = model.weighted_losses(*ids)["align_reg"].detach()
    rows = model.terms_and_views(*ids)[1].item_content.detach()
    target = ModalityFeatures(fit.splits[0], train=False, fuse=True)[0]
    kept = target.norm(dim=1)[positives] > 0
    assert 0 < kept.sum() < len(kept)
    expected = (cosines(rows[kept]) - cosines(target[positives[kept]])).norm() / kept.sum()
    torch.testing.assert_close(loss, expected)
