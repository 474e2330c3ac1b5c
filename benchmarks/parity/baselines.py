"""Are our baselines MMRec's? Same parameters, graph and batch: loss, gradients, scores.

    python -m benchmarks.parity.baselines --reference CHECKOUT [--model M,…]
        [--data-path DIR --dataset D --text STEM --other STEM --seeds 999,1000,1001 --epochs 1000
        --learning-rate X --cache FILE.json --output DIR]

CHECKOUT is one of enoche/MMRec, with its pull request 63 for MSCA, or of another code of
benchmarks/README.md. Its models run in float32, ours in float64 and float32; two batches of one
epoch, so that what is computed once per epoch is compared when it is new and when it is reused.
With a data set (MMRec's layout, feature files with row = itemID) both sides are also trained with
the defaults of properties/model, once per seed; a larger learning rate X on both sides needs fewer
epochs. A seed in FILE is not trained again. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import operator
import sys
import types
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import scipy.sparse as sp
import torch
from tabulate import tabulate

from alignrec_recbole.errors import RecordError
from alignrec_recbole.features.item_order import TIE_SEED, seeded_order
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.registry.components import components
from alignrec_recbole.runs import provenance
from benchmarks.parity.errors import relative_error
from benchmarks.reference import checkout, mmrec, rearm
from benchmarks.reference.checkout import NoneDict, default_dtype
from benchmarks.reference.options import add_cache
from benchmarks.reference.our_training import train_ours

USERS, ITEMS, WIDTHS, BATCH, BATCHES = 60, 90, {"text": 32, "image": 48}, 64, 2


@dataclass(frozen=True)
class ParitySpec:
    """How a model of ours is compared with MMRec's.

    Attributes:
        tensors: MMRec's parameter → ours; `[users]`, `[items]`, `[nodes]` (both),
            `[1:]` behind ours cut PAD rows.
        theirs: our settings → MMRec's.
        settings: ours in the comparison, so that tuning a default does not move what is recorded.
        fusion: MMRec's parameters that ours has, and MMRec uses, with several modalities only.
        unused: MMRec's parameters that cancel or affect no score and that ours lacks; set to 0
            unless they are feature tables.
        features: cases, by their modalities.
        trainable: the model has a loss.
        scores: MMRec's scores from ours.
        non_parameters: tensors of MMRec's that get gradients but are not parameters.
        code: whose model it is, one of `checkout.SOURCES`.
        adjust: changes on a built model of MMRec, by our settings, what its settings cannot.
        shift: added to all features, so that no two items have a negative cosine.
        reference: name of the reference's class, if it is not ours.
        model: whose name differs from that of the comparison, which has other settings.
        isolated: one user has no interactions.
        scaled: MMRec's parameter → factor of its values.
    """

    tensors: dict[str, str]
    theirs: Callable[[dict[str, Any]], dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    fusion: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    features: tuple[tuple[str, ...], ...] = (("text", "image"), ("text",), ("image",))
    trainable: bool = True
    scores: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.clone
    non_parameters: tuple[str, ...] = ()
    code: str = mmrec.MARK
    adjust: Callable[[Any, dict[str, Any]], None] = lambda model, ours: None
    reference: str = ""
    model: str = ""
    shift: float = 0.0
    isolated: bool = True
    scaled: dict[str, float] = field(default_factory=dict)

    def values(self, theirs: str, shape: tuple[int, ...]) -> np.ndarray:
        """The values of MMRec's parameter and of ours."""
        return np.asarray(values(theirs, shape) * self.scaled.get(theirs, 1.0))

    def names(self, kinds: tuple[str, ...]) -> dict[str, str]:
        """`tensors` of a case: `{n}` in ours is the number of the set, `image` and `text` the set.

        Parameters of a set that is not given are left out.
        """
        out = {}
        for theirs, ours in self.tensors.items():
            kind = next((kind for kind in WIDTHS if f"{{{kind}}}" in ours), None)
            if len(kinds) == 1 and theirs in self.fusion:
                continue
            if kind is None:
                out[theirs] = ours
            elif kind in kinds:
                out[theirs] = ours.replace(f"{{{kind}}}", str(kinds.index(kind)))
        return out


def _same(*names: str, **renamed: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Settings under the same name, and ours=theirs under another."""

    def choose(ours: dict[str, Any]) -> dict[str, Any]:
        return {
            **{name: ours[name] for name in ("embedding_size", *names)},
            **{theirs: ours[name] for name, theirs in renamed.items()},
        }

    return choose


NODES = {
    "user_embedding.weight": "nodes.weight[users]",
    "item_id_embedding.weight": "nodes.weight[items]",
}

TABLES = {
    "image_embedding.weight": "tables.set{image}[1:]",
    "text_embedding.weight": "tables.set{text}[1:]",
}
PROJECTIONS = {
    f"{kind}_trs.{part}": f"projections.{{{kind}}}.{part}"
    for kind in ("image", "text")
    for part in ("weight", "bias")
}


def _layers(**renamed: str) -> dict[str, str]:
    """Weight and bias of linear layers, theirs=ours with `__` for a point."""
    return {
        f"{theirs.replace('__', '.')}.{part}": f"{ours}.{part}"
        for theirs, ours in renamed.items()
        for part in ("weight", "bias")
    }


def _mmgcn_branch(theirs: str, ours: str) -> dict[str, str]:
    out = {f"{theirs}.preference": f"{ours}.users[1:]"}
    for n in range(3):
        own = {f"{theirs}__linear_layer{n + 1}": f"{ours}.own.{n}"}
        join = {f"{theirs}__g_layer{n + 1}": f"{ours}.join.{n}"}
        out |= {f"{theirs}.conv_embed_{n + 1}.weight": f"{ours}.messages.{n}"}
        out |= _layers(**own, **join)
    return out


class _OutOfPlace(torch.Tensor):
    """`a += b` makes a new tensor."""

    def __iadd__(self, other: torch.Tensor) -> torch.Tensor:  # type: ignore[override, misc]
        return self + other


def _mend_dualgnn(model: Any, ours: dict[str, Any]) -> None:
    """As many users as ours; text's vectors are not added to the image's (dualgnn.py D1)."""
    model.k = ours["user_k"]
    sizes = {len(users) for users, _ in model.user_graph_dict.values()}
    assert not sizes & set(range(1, model.k)), "MMRec would draw users again"
    if hasattr(model, "v_gcn"):
        forward = model.v_gcn.forward

        def apart(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
            vectors, preference = forward(*arguments)
            return vectors.as_subclass(_OutOfPlace), preference

        model.v_gcn.forward = apart


def _mmgcf(
    weighting: str,
    fusion: str,
    tensors: dict[str, str] | None = None,
    features: tuple[tuple[str, ...], ...] = (("image", "text"),),
) -> ParitySpec:
    """MMGCF with one of its ways to fuse; biases that cancel have no partner."""
    biased = weighting == "normalized"
    used = {k: v for k, v in PROJECTIONS.items() if biased or not k.endswith("bias")}
    used |= tensors or {}
    built = _layers(all_concat_layer="", mm_concat_layer="", id_mm_concat_layer="")
    return ParitySpec(
        {**NODES, **used},
        _same("n_ui_layers", "reg_weight", "fusion_mode", "weighting", "dropout",
              embedding_size="feat_embed_dim"),
        settings={"n_ui_layers": 2, "reg_weight": 0.1, "dropout": 0.8, "weighting": weighting,
                  "fusion_mode": fusion},
        unused=tuple(name for name in (*PROJECTIONS, *built) if name not in used),
        features=features,
        model="MMGCF",
    )  # fmt: skip


def _mend_mentor(model: Any, ours: dict[str, Any]) -> None:
    """Noisy views of the model's own weights, a masked loss with a gradient (mentor.py D1)."""
    for kind in ("v", "t"):
        for number in (1, 2):
            setattr(model, f"{kind}_gcn_n{number}", getattr(model, f"{kind}_gcn"))
    loss = model.calculate_loss

    def with_gradient(batch: torch.Tensor) -> torch.Tensor:
        dropout = torch.nn.functional.dropout
        with (
            mock.patch("torch.no_grad", contextlib.nullcontext),
            mock.patch("torch.nn.functional.dropout", lambda x, p: dropout(x.detach(), p)),
        ):
            return loss(batch)

    model.calculate_loss = with_gradient


def _cohesion(adjust: Callable[[Any, dict[str, Any]], None], **settings: Any) -> ParitySpec:
    """COHESION with a view of IDs that is learnt or not."""

    def adjusted(model: Any, ours: dict[str, Any]) -> None:
        model.k = ours["user_k"]  # every user who has neighbours has as many
        adjust(model, ours)

    return ParitySpec(
        {
            "v_gcn.preference": "preferences.{image}[1:]",
            "t_gcn.preference": "preferences.{text}[1:]",
            "id_gcn.preference": "id_users[1:]", "id_feat": "id_items[1:]",
            **_layers(
                v_gcn__MLP="projections.{image}", t_gcn__MLP="projections.{text}",
                v_gcn__MLP_1="outer.{image}", t_gcn__MLP_1="outer.{text}",
                id_gcn__MLP="id_layers.0", id_gcn__MLP_1="id_layers.2",
            ),
        },
        lambda ours: {
            **_same("n_mm_layers", "knn_k", "mm_image_weight", "reg_weight",
                    embedding_size="feat_embed_dim", n_ui_layers="num_layer")(ours),
            "dropout": 0.0,
        },
        settings={"n_ui_layers": 3, "user_k": 5, "reg_weight": 0.1, **settings},
        unused=("image_embedding.weight", "text_embedding.weight", "weight_u"),
        features=(("image", "text"),),
        code="cohesion",
        adjust=adjusted,
        model="COHESION",
    )  # fmt: skip


class _Differentiable(torch.Tensor):
    """Its `data` has the tensor's gradient."""

    @property
    def data(self) -> torch.Tensor:  # type: ignore[override]
        return self.as_subclass(torch.Tensor)  # type: ignore[arg-type]


def _learn_id_view(model: Any, ours: dict[str, Any]) -> None:
    """A view of IDs with a gradient (cohesion.py D1)."""
    forward = model.id_gcn.forward

    def with_gradient(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        vectors, preference = forward(*arguments)
        return vectors.as_subclass(_Differentiable), preference

    model.id_gcn.forward = with_gradient


def _rearm(adjust: Callable[[Any, dict[str, Any]], None], **settings: Any) -> ParitySpec:
    """REARM with layers of knowledge that are learnt or not."""
    tensors = {
        "user_id_embedding.weight": "nodes.weight[users]",
        "item_id_embedding.weight": "nodes.weight[items]",
        **TABLES,
        "user_v_prefer": "users.{image}[1:]", "user_t_prefer": "users.{text}[1:]",
        **_layers(
            image_i_trs="item_projections.{image}", text_i_trs="item_projections.{text}",
            image_u_trs="user_projections.{image}", text_u_trs="user_projections.{text}",
            ly_norm="norm", meta_netu="user_maps.knowledge", meta_neti="item_maps.knowledge",
        ),
        "prl.weight": "activation.weight",
    }  # fmt: skip
    for theirs, ours in (("self_i_attn", "self_attention"), ("mutual_i_attn", "mutual_attention")):
        for number, kind in ((1, "image"), (2, "text")):
            for part in ("in_proj_weight", "in_proj_bias", "out_proj.weight"):
                tensors[f"{theirs}{number}.{part}"] = f"{ours}.{{{kind}}}.{part}"
    for kind in ("user", "item"):
        for number, side in ((1, "left"), (2, "right")):
            their, our = f"mlp_{kind[0]}{number}", f"{kind}_maps.{side}"
            tensors |= _layers(**{f"{their}__linear_pre": f"{our}.0",
                                  f"{their}__linear_out": f"{our}.2"})  # fmt: skip
            tensors[f"{their}.prl.weight"] = f"{our}.1.weight"
    return ParitySpec(
        tensors,
        lambda ours: {
            "embedding_dim": ours["embedding_size"], "num_layer": ours["n_ui_layers"],
            "n_ii_layers": ours["n_mm_layers"], "n_uu_layers": ours["n_user_layers"],
            "item_knn_k": ours["knn_k"], "user_knn_k": ours["user_k"],
            "i_mm_image_weight": ours["mm_image_weight"],
            "u_mm_image_weight": ours["user_image_weight"],
            "ii_co_weight": ours["item_co_weight"], "uu_co_weight": ours["user_co_weight"],
            "rank": ours["rank"], "s_drop": ours["self_dropout"],
            "m_drop": ours["mutual_dropout"], "cl_loss_weight": ours["cl_weight"],
            "diff_loss_weight": ours["diff_weight"], "cl_tmp": ours["temperature"],
        },
        settings={
            "n_ui_layers": 3, "n_mm_layers": 2, "n_user_layers": 1, "knn_k": 4, "user_k": 5,
            "mm_image_weight": 0.3, "user_image_weight": 0.2, "item_co_weight": 0.2,
            "user_co_weight": 0.4, "rank": 3, "self_dropout": 0.4, "mutual_dropout": 0.6,
            "cl_weight": 0.1, "diff_weight": 0.5, "temperature": 0.6, **settings,
        },
        unused=tuple(f"{kind}_i_attn{n}.out_proj.bias" for kind in ("self", "mutual")
                     for n in (1, 2)),
        features=(("image", "text"),),  # the reference needs both
        code=rearm.MARK,
        adjust=adjust,
        model="REARM",
        scaled={  # so that shares differ, and gradients do not nearly cancel
            name.format(n): factor for n in (1, 2) for name, factor in (
                ("self_i_attn{}.in_proj_weight", 150.0), ("self_i_attn{}.out_proj.weight", 0.2),
                ("mutual_i_attn{}.in_proj_weight", 40.0),
            )
        },
        isolated=False,  # the reference divides by the number of a user's items
    )  # fmt: skip


class _Attached(torch.Tensor):
    """Stays attached."""

    def detach(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)  # type: ignore[arg-type]


def _learn_knowledge(model: Any, ours: dict[str, Any]) -> None:
    """Layers of knowledge with a gradient (rearm.py D1)."""
    for layer in (model.meta_netu, model.meta_neti):
        forward = layer.forward
        layer.forward = lambda rows, own=forward: own(rows).as_subclass(_Attached)


PAIRS: dict[str, ParitySpec] = {
    "VBPR": ParitySpec(
        {
            "u_embedding": "users[1:]",
            "i_embedding": "items[1:]",
            "item_linear.weight": "projection.weight",
            "item_linear.bias": "projection.bias",
        },
        _same("reg_weight"),
        settings={"reg_weight": 0.1},
    ),
    "BM3": ParitySpec(
        {**NODES, **TABLES, **PROJECTIONS, **_layers(predictor="predictor")},
        _same("n_layers", "dropout", "reg_weight", "cl_weight"),
        settings={"n_layers": 1, "dropout": 0.5, "reg_weight": 0.1, "cl_weight": 2.0},
    ),
    "FREEDOM": ParitySpec(
        {**NODES, **TABLES, **{k: v for k, v in PROJECTIONS.items() if k.endswith("weight")}},
        _same("n_ui_layers", "n_mm_layers", "knn_k", "mm_image_weight", "dropout", "reg_weight",
              embedding_size="feat_embed_dim"),
        settings={"dropout": 0.8, "reg_weight": 1e-3},
        unused=("image_trs.bias", "text_trs.bias"),
    ),
    "FREEDOM-nlgcl": ParitySpec(
        {**NODES, **TABLES, **{k: v for k, v in PROJECTIONS.items() if k.endswith("weight")}},
        lambda ours: {
            **_same("n_ui_layers", "n_mm_layers", "knn_k", "mm_image_weight", "dropout",
                    "reg_weight", embedding_size="feat_embed_dim")(ours),
            "cl_reg": ours["nlgcl"]["weight"], "alpha": ours["nlgcl"]["alpha"],
            "cl_temp": ours["nlgcl"]["temperature"],
        },
        settings={"dropout": 0.8, "reg_weight": 1e-3,
                  "nlgcl": {"weight": 1e-3, "alpha": 0.4, "temperature": 0.3}},
        unused=("image_trs.bias", "text_trs.bias"),
        model="FREEDOM",
        reference="FREEDOM_Plus",
        code="freedom_plus",
    ),
    "FREEDOM-mdvt": ParitySpec(
        {**NODES, **TABLES, **{k: v for k, v in PROJECTIONS.items() if k.endswith("weight")}},
        lambda ours: {
            **_same("n_ui_layers", "n_mm_layers", "knn_k", "mm_image_weight", "dropout",
                    "reg_weight", embedding_size="feat_embed_dim")(ours),
            "k": ours["mdvt"]["k"], "s_weight": ours["mdvt"]["weight"],
        },
        settings={"dropout": 0.8, "reg_weight": 1e-3, "mdvt": {"weight": 0.2, "k": 2}},
        unused=("image_trs.bias", "text_trs.bias"),
        model="FREEDOM",
        reference="FREEDOM_VP",
        code="freedom_vp",
        adjust=lambda model, ours: setattr(model, "flag", True),  # its trainer's, after warming up
    ),
    "LATTICE": ParitySpec(
        {**NODES, **TABLES, **PROJECTIONS, "modal_weight": "set_weights"},
        lambda ours: {
            **_same("n_layers", "knn_k", "lambda_coeff", "reg_weight",
                    embedding_size="feat_embed_dim")(ours),
            "cf_model": "lightgcn",
            "weight_size": [ours["embedding_size"]] * ours["n_ui_layers"],
        },
        settings={"n_layers": 1, "reg_weight": 1e-4},
        fusion=("modal_weight",),
        features=(("image", "text"), ("text",), ("image",)),
    ),
    "MGCN": ParitySpec(
        {
            **NODES, **TABLES, **PROJECTIONS,
            **_layers(
                gate_v__0="gates.{image}", gate_t__0="gates.{text}",
                gate_image_prefer__0="preferences.{image}",
                gate_text_prefer__0="preferences.{text}",
                query_common__0="query.0",
            ),
            "query_common.2.weight": "query.2.weight",
        },
        _same("n_ui_layers", "n_layers", "knn_k", "reg_weight", "cl_loss"),
        settings={"n_ui_layers": 2, "reg_weight": 1e-4, "cl_loss": 0.01},
        features=(("image", "text"),),  # MMRec's needs both
    ),
    "ItemKNNCBF": ParitySpec(
        {},
        lambda ours: {"knn_k": ours["knn_k"], "shrink": ours["shrink"]},
        settings={"knn_k": 10, "shrink": 10.0},
        unused=("dummy_embeddings",),
        trainable=False,
    ),
    "SMORE": ParitySpec(
        {
            **NODES, **TABLES, **PROJECTIONS,
            **_layers(
                gate_v__0="gates.{image}", gate_t__0="gates.{text}", gate_f__0="gates.2",
                gate_image_prefer__0="preferences.{image}",
                gate_text_prefer__0="preferences.{text}",
                gate_fusion_prefer__0="preferences.2",
                query_v__0="queries.{image}.0", query_t__0="queries.{text}.0",
            ),
            "query_v.2.weight": "queries.{image}.2.weight",
            "query_t.2.weight": "queries.{text}.2.weight",
            "image_complex_weight": "filters.{image}",
            "text_complex_weight": "filters.{text}",
            "fusion_complex_weight": "filters.2",
        },
        _same("n_ui_layers", "n_layers", "image_knn_k", "text_knn_k", "reg_weight",
              "dropout_rate", "cl_loss"),
        settings={"n_ui_layers": 4, "image_knn_k": 10, "text_knn_k": 5, "dropout_rate": 0.1,
                  "reg_weight": 1e-4, "cl_loss": 0.01},  # no negative cosines among them
        features=(("image", "text"),),
    ),
    "LGMRec": ParitySpec(
        {
            **NODES,
            "item_image_trs": "projections.{image}", "item_text_trs": "projections.{text}",
            "v_hyper": "hyperedges.{image}", "t_hyper": "hyperedges.{text}",
        },
        lambda ours: {
            **_same("n_ui_layers", "n_mm_layers", "n_hyper_layer", "hyper_num", "keep_rate",
                    "alpha", "cl_weight", "reg_weight", embedding_size="feat_embed_dim")(ours),
            "cf_model": "lightgcn",
        },
        settings={"n_hyper_layer": 2, "hyper_num": 4, "keep_rate": 0.5, "alpha": 0.3,
                  "cl_weight": 1e-4, "reg_weight": 1e-6},
        features=(("image", "text"),),
    ),
    "SLMRec": ParitySpec(
        {
            "embedding_user.weight": "nodes.weight[users]",
            "embedding_item.weight": "nodes.weight[items]",
            **_layers(
                v_dense="projections.{image}", t_dense="projections.{text}",
                embedding_user_after_GCN="fuse_users", embedding_item_after_GCN="fuse_items",
                g_i_iv="fine.0", g_iv_iva="fine.1", g_iva_ivat="coarse.0",
            ),
            "g_v_iv.weight": "contents.0.weight", "g_t_ivat.weight": "contents.1.weight",
        },
        lambda ours: {
            "recdim": ours["embedding_size"], "layer_num": ours["n_layers"],
            "temp": ours["temperature"], "ssl_temp": ours["ssl_temperature"],
            "ssl_alpha": ours["ssl_alpha"], "mm_fusion_mode": "concat", "ssl_task": "FAC",
            "init": "xavier", "adj_type": "pre",
        },
        settings={"n_layers": 3, "temperature": 0.2, "ssl_temperature": 0.2, "ssl_alpha": 0.05},
        unused=("g_a_iva.weight", "g_a_iva.bias", "g_v_iv.bias", "g_t_ivat.bias"),
        features=(("image", "text"),),
        scores=torch.sigmoid,  # MMRec's scores are the sigmoid of ours
    ),
    "PGL": ParitySpec(
        {
            **TABLES, **PROJECTIONS,
            "user_image.weight": "users.{image}[1:]", "user_text.weight": "users.{text}[1:]",
        },
        lambda ours: {
            **_same("n_ui_layers", "n_mm_layers", "knn_k", "mm_image_weight", "dropout",
                    "reg_weight", embedding_size="feat_embed_dim")(ours),
            "mode": "local",
        },
        settings={"dropout": 0.2, "reg_weight": 0.05},
        features=(("image", "text"),),
    ),
    "DRAGON": ParitySpec(
        {
            "v_gcn.preference": "preferences.{image}[1:]",
            "t_gcn.preference": "preferences.{text}[1:]",
            **_layers(
                v_gcn__MLP="projections.{image}", t_gcn__MLP="projections.{text}",
                v_gcn__MLP_1="outer.{image}", t_gcn__MLP_1="outer.{text}",
            ),
            "weight_u": "attention[1:]",
        },
        lambda ours: {
            **_same("n_mm_layers", "knn_k", "mm_image_weight", "reg_weight",
                    embedding_size="feat_embed_dim")(ours),
            "aggr_mode": "add",
        },
        settings={"user_k": 5, "reg_weight": 0.1},  # every user who has neighbours has five
        unused=("image_embedding.weight", "text_embedding.weight", "weight_i", "MLP_v.weight",
              "MLP_t.weight", *_layers(image_trs="", text_trs="", MLP_user="")),
        features=(("image", "text"),),
        adjust=lambda model, ours: setattr(model, "k", ours["user_k"]),
    ),
    "GUME": ParitySpec(
        {
            **NODES, **TABLES,
            "extended_image_user.weight": "users.{image}[1:]",
            "extended_text_user.weight": "users.{text}[1:]",
            **_layers(
                image_reduce_dim="projections.{image}", text_reduce_dim="projections.{text}",
                image_trans_dim__0="gates.{image}", text_trans_dim__0="gates.{text}",
                image_behavior__0="preferences.{image}", text_behavior__0="preferences.{text}",
                separate_coarse__0="query.0",
            ),
            "separate_coarse.2.weight": "query.2.weight",
        },
        _same("n_ui_layers", "n_layers", "knn_k", "vt_loss", "um_loss", "um_temp", "reg_weight_2",
              reg_weight="reg_weight_1", cl_loss="bm_loss", temperature="bm_temp"),
        settings={"n_ui_layers": 3, "n_layers": 2, "knn_k": 10, "reg_weight": 0.01, "cl_loss": 0.1,
                  "temperature": 0.4, "vt_loss": 0.1, "um_loss": 0.01, "um_temp": 0.2,
                  "reg_weight_2": 0.1},
        features=(("image", "text"),),
        code="gume",
    ),
    "GRCN": ParitySpec(
        {
            "id_gcn.id_embedding": "nodes.weight[nodes]",
            "model_specific_conf": "trust.weight[nodes]",
            "v_gcn.preference": "users.{image}[1:]", "t_gcn.preference": "users.{text}[1:]",
            **_layers(v_gcn__MLP="projections.{image}", t_gcn__MLP="projections.{text}"),
        },
        lambda ours: {**_same("latent_embedding", "reg_weight")(ours), "n_layers": 3},
        settings={"n_routings": 0, "reg_weight": 0.1},
        features=(("image", "text"), ("image",)),  # MMRec's crashes with text alone
    ),
    "MMGCN": ParitySpec(
        {
            "id_embedding": "nodes.weight[nodes]",
            **_layers(v_gcn__MLP="branches.{image}.reduce"),
            **_mmgcn_branch("v_gcn", "branches.{image}"),
            **_mmgcn_branch("t_gcn", "branches.{text}"),
        },
        _same("reg_weight"),
        settings={"embedding_size": 16, "n_layers": 3, "reg_weight": 0.1, "train_vectors": True},
        non_parameters=("id_embedding", "v_gcn.preference", "t_gcn.preference"),
        features=(("image", "text"), ("text",), ("image",)),
    ),
    "DualGNN": ParitySpec(
        {
            "v_gcn.preference": "users.{image}[1:]", "t_gcn.preference": "users.{text}[1:]",
            **_layers(
                v_gcn__MLP="hidden.{image}", t_gcn__MLP="hidden.{text}",
                v_gcn__MLP_1="projections.{image}", t_gcn__MLP_1="projections.{text}",
            ),
            "weight_u": "shares[1:]",
        },
        lambda ours: {**_same("reg_weight")(ours), "aggr_mode": "add"},
        settings={"n_layers": 2, "user_k": 5, "reg_weight": 0.1},
        fusion=("weight_u",),
        unused=("weight_i", "MLP_v.weight", "MLP_t.weight", "MLP_user.weight", "MLP_user.bias"),
        features=(("image", "text"), ("text",), ("image",)),
        adjust=_mend_dualgnn,
    ),
    "MENTOR": ParitySpec(
        {
            "v_gcn.preference": "preferences.{image}[1:]",
            "t_gcn.preference": "preferences.{text}[1:]",
            "id_gcn.preference": "id_users[1:]", "id_feat": "id_items[1:]",
            **_layers(
                v_gcn__MLP="projections.{image}", t_gcn__MLP="projections.{text}",
                v_gcn__MLP_1="outer.{image}", t_gcn__MLP_1="outer.{text}",
                id_gcn__MLP="id_layers.0", id_gcn__MLP_1="id_layers.2", mlp="predictor",
            ),
            "weight_u": "attention[1:]",
        },
        _same("n_mm_layers", "knn_k", "mm_image_weight", "reg_weight", "align_weight", "dropout",
              "mask_weight_f", "mask_weight_g", embedding_size="feat_embed_dim",
              temperature="temp"),
        settings={"reg_weight": 0.1, "mask_weight_f": 1.5, "mask_weight_g": 0.1,
                  "align_weight": 2.0},
        unused=("image_embedding.weight", "text_embedding.weight", "weight_i",
                *_layers(image_trs="", text_trs="", MLP_user="")),
        features=(("image", "text"),),
        code="mentor",
        adjust=_mend_mentor,
    ),
    "DAMRS": ParitySpec(
        NODES,
        _same("n_ui_layers", "n_mm_layers", "knn_k", "kl_weight", "neighbor_weight"),
        settings={"knn_k": 25, "neighbor_weight": 0.1},  # some items have fewer neighbours
        unused=(*_layers(image_trs="", text_trs=""),),
        features=(("image", "text"),),  # MMRec's needs both
    ),
    "MSCA": ParitySpec(
        {
            **NODES, **TABLES, **PROJECTIONS,
            **_layers(gate_v__0="gates.{image}", gate_t__0="gates.{text}",
                      query_common__0="query.0"),
            "query_common.2.weight": "query.2.weight",
        },
        lambda ours: {
            **_same("knn_k", "fusion_coeff", "cl_weight", "reg_weight", n_ui_layers="n_layers",
                    temperature="tau")(ours),
            "is_sparse": True,
        },
        settings={"n_ui_layers": 3, "fusion_coeff": 0.3, "cl_weight": 0.05, "reg_weight": 1e-3,
                  "knn_k": 40},  # no item has so many with two common users: no ties to break
        features=(("image", "text"),),  # MMRec's needs both
        code="msca",
        shift=1.0,
    ),
    "SOIL": ParitySpec(
        {
            **NODES, **PROJECTIONS,
            **_layers(map_v__0="gates.{image}", map_t__0="gates.{text}", attention__0="query.0"),
            "attention.2.weight": "query.2.weight",
        },
        _same("n_ui_layers", "n_layers", "knn_k", "cl_loss", "cl_loss2", interest_k="knn_i",
              second_order_k="knn_a"),
        settings={"n_ui_layers": 2, "cl_loss": 0.1, "cl_loss2": 0.01, "interest_k": 5,
                  "second_order_k": 8},
        features=(("image", "text"),),  # the reference needs both
        code="soil",
        shift=1.3,  # no user's last place is between equally alike pairs
    ),
    "REARM": _rearm(lambda model, ours: None, train_knowledge=False),
    "REARM-knowledge": _rearm(_learn_knowledge, train_knowledge=True),
    "COHESION": _cohesion(lambda model, ours: None, train_id_view=False),
    "COHESION-ids": _cohesion(_learn_id_view, train_id_view=True),
    "MMGCF": _mmgcf("equal", "mean", features=(("image", "text"), ("text",), ("image",))),
    "MMGCF-alpha": _mmgcf("alpha", "sum", {"mm_alpha": "balance"}),
    "MMGCF-normalized": _mmgcf("normalized", "sum"),
    "MMGCF-concat": _mmgcf("equal", "concat", {
        "mm_concat_layer.weight": "join_content.weight", "id_mm_concat_layer.weight": "join.weight",
    }),
    "MMGCF-joined": _mmgcf("normalized", "concat", {"all_concat_layer.weight": "join.weight"}),
}  # fmt: skip


# Inputs -----------------------------------------------------------------------------------------


def inputs(kinds: tuple[str, ...], shift: float = 0.0, *, isolated: bool = True) -> dict[str, Any]:
    """Features, interactions (an isolated user, an unsold item), batches."""
    rng = np.random.default_rng(len(kinds))
    matrix = (rng.random((USERS, ITEMS)) < 0.08).astype(np.float64)
    if isolated:
        matrix[0] = 0
    matrix[:, 1] = 0
    user, item = np.nonzero(matrix)
    picks = [rng.integers(len(user), size=BATCH) for _ in range(BATCHES)]
    return {
        "matrix": sp.csr_matrix(matrix),
        "features": {
            k: rng.normal(shift, size=(ITEMS, WIDTHS[k])).astype(np.float32) for k in kinds
        },
        "batches": [
            np.stack([user[pick], item[pick], rng.integers(ITEMS, size=BATCH)]) for pick in picks
        ],
    }


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of a parameter, drawn from its name."""
    return np.asarray(np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape) * 0.2)


@contextlib.contextmanager
def fixed_chance() -> Iterator[None]:
    """No chance: dropout drops every fourth column, Gumbel noise is none, edges are given.

    Uniform noise is one of two patterns, in turn.
    """
    turns = itertools.count()

    def dropout(
        x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        selected = torch.arange(x.shape[-1], device=x.device) % 4 > 0
        return x * selected / (1 - p) if p and training else x

    def draw_kept(like: torch.Tensor, p: float) -> tuple[torch.Tensor, float]:
        return dropout(torch.ones_like(like)).sign().to(torch.uint8), 1 / (1 - p)

    def gumbel(logits: torch.Tensor, tau: float = 1, **_: Any) -> torch.Tensor:
        return torch.softmax(logits / tau, -1)

    def multinomial(weights: torch.Tensor, n: int, *_: Any, **__: Any) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng(5).permutation(len(weights))[:n])

    def rand_like(x: torch.Tensor, **_: Any) -> torch.Tensor:
        pattern = torch.arange(x.shape[-1]) * (3 + next(turns) % 2) % 7 + 1.0
        return pattern.to(x).expand(x.shape) / 8

    def attention(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, p: float, causal: bool
    ) -> torch.Tensor:
        assert mask is None
        assert not causal
        shares = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1)
        return (dropout(shares, p) if p else shares) @ v

    with (
        mock.patch("torch.nn.functional.scaled_dot_product_attention", attention),
        mock.patch("torch.rand_like", rand_like),
        mock.patch("torch.nn.functional.dropout", dropout),
        mock.patch("alignrec_recbole.ops.entry_attention.draw_kept", draw_kept),
        mock.patch("torch.nn.functional.gumbel_softmax", gumbel),
        mock.patch("torch.multinomial", multinomial),
    ):
        yield


# Ours -------------------------------------------------------------------------------------------


def model_of(name: str) -> str:
    """The model of a comparison."""
    return PAIRS[name].model or name


def our_settings(name: str) -> dict[str, Any]:
    """A model's defaults with the pair's own."""
    return {**components(model_of(name)).defaults, **PAIRS[name].settings}


def _inputs_of(name: str, kinds: tuple[str, ...]) -> dict[str, Any]:
    return inputs(kinds, PAIRS[name].shift, isolated=PAIRS[name].isolated)


def in_order_of_ids(count: int) -> list[str]:
    """Tokens [count + 1] of nodes that are among equals in the order of their ids, PAD first."""
    return ["[PAD]", *map(str, seeded_order(["[PAD]", *map(str, range(1, count + 1))], TIE_SEED))]


def build_ours(name: str, kinds: tuple[str, ...], *, double: bool) -> Any:
    """Our model on a case's inputs; row 0 of every table is PAD."""
    given = _inputs_of(name, kinds)
    user, item = given["matrix"].nonzero()
    present = np.arange(ITEMS + 1) > 0
    sets = {
        kind: types.SimpleNamespace(
            modality=kind, values=np.vstack([np.zeros_like(v[:1]), v]), present=present
        )
        for kind, v in given["features"].items()
    }
    dataset = types.SimpleNamespace(
        num=lambda field: {"u": USERS, "i": ITEMS}[field] + 1,
        features=sets,
        pairs=lambda: (user + 1, item + 1),
        uid_field="u",
        iid_field="i",
        field2id_token={"u": in_order_of_ids(USERS), "i": in_order_of_ids(ITEMS)},
    )
    config = NoneDict(
        {
            **our_settings(name),
            "USER_ID_FIELD": "u",
            "ITEM_ID_FIELD": "i",
            "NEG_PREFIX": "neg_",
            "device": "cpu",
            "train_batch_size": 2048,
        }
    )
    with default_dtype(torch.float64 if double else torch.float32):
        model = components(model_of(name)).model_class(config, dataset)
    own = dict(model.named_parameters())
    names = PAIRS[name].names(kinds)
    covered = {ours.partition("[")[0] for ours in names.values()}
    assert covered == set(own) or not PAIRS[name].trainable, (
        f"parameters without a partner: {set(own) ^ covered}"
    )
    with torch.no_grad():
        for theirs, ours in names.items():
            if not ours.startswith("tables."):  # these are the features
                tensor, rows = _place(own, ours)
                drawn = torch.from_numpy(PAIRS[name].values(theirs, tuple(tensor[rows].shape)))
                tensor[rows] = drawn.to(tensor.dtype)
    return model


def _place(tensors: dict[str, torch.Tensor], address: str) -> tuple[torch.Tensor, Any]:
    """A tensor and which of its rows are meant."""
    name, _, rows = address.partition("[")
    users, items = slice(1, USERS + 1), slice(USERS + 2, None)
    every = torch.arange(USERS + ITEMS + 2)
    cut = {
        "": ...,
        "1:]": slice(1, None),
        "users]": users,
        "items]": items,
        "nodes]": torch.cat([every[users], every[items]]),
    }[rows]
    return tensors[name], cut


def _cut(tensors: dict[str, torch.Tensor], address: str) -> torch.Tensor:
    tensor, rows = _place(tensors, address)
    return tensor[rows]


def our_run(name: str, kinds: tuple[str, ...], *, double: bool) -> dict[str, np.ndarray]:
    """Loss and gradients of each batch, then scores, as arrays."""
    batches = [torch.from_numpy(batch) + 1 for batch in _inputs_of(name, kinds)["batches"]]
    out = {}
    with fixed_chance(), default_dtype(torch.float64 if double else torch.float32):
        model = build_ours(name, kinds, double=double)
        model.train()
        if hasattr(model, "begin_epoch"):
            model.begin_epoch(torch.Generator())
        for number, batch in enumerate(batches if PAIRS[name].trainable else []):
            model.zero_grad()
            loss = sum(model.weighted_losses(*batch).values())
            loss.backward()
            out[f"loss {number}"] = loss.detach()
            gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            for theirs, ours in PAIRS[name].names(kinds).items():
                if ours.partition("[")[0] in gradients:
                    out[f"gradient {number} {theirs}"] = _cut(gradients, ours)
        model.eval()
        with torch.no_grad():
            everyone = {"u": torch.arange(1, USERS + 1)}
            out["scores"] = PAIRS[name].scores(model.full_sort_predict(everyone)[:, 1:])
    return {key: value.detach().numpy().astype(np.float64) for key, value in out.items()}


# MMRec's ----------------------------------------------------------------------------------------


def their_run(reference: Path, name: str, kinds: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The same of MMRec's model; its feature tables are the features."""
    given, pair = _inputs_of(name, kinds), PAIRS[name]
    settings = {"train_batch_size": 2048, **pair.theirs(our_settings(name))}
    out: dict[str, Any] = {}
    data = given["features"], given["matrix"]
    if pair.code == rearm.MARK:
        opened = rearm.built(reference, pair.theirs(our_settings(name)), *data)
    else:
        kind = pair.reference or model_of(name)
        opened = mmrec.built(reference, kind, settings, *data, pair.code)
    with fixed_chance(), opened as model:
        pair.adjust(model, our_settings(name))
        names = pair.names(kinds)
        every = {n: p for n, p in model.named_parameters() if p.requires_grad}
        every |= {n: operator.attrgetter(n)(model) for n in pair.non_parameters if n in names}
        unused = [n for n in every if n not in names and n in pair.fusion + pair.unused]
        own = {n: p for n, p in every.items() if n not in unused}
        assert set(own) == set(names), f"parameters without a partner: {set(own) ^ set(names)}"
        with torch.no_grad():
            for theirs, ours in names.items():
                if not ours.startswith("tables."):  # these are the features
                    drawn = pair.values(theirs, tuple(own[theirs].shape))
                    own[theirs].copy_(torch.from_numpy(drawn))
            for other in unused:
                if other not in TABLES:  # these share the features' memory
                    every[other].zero_()
        model.train()
        model.pre_epoch_processing()
        for number, batch in enumerate(given["batches"] if pair.trainable else []):
            for parameter in every.values():
                parameter.grad = None
            loss = model.calculate_loss(torch.from_numpy(batch)).sum()
            loss.backward()
            out[f"loss {number}"] = loss.detach()
            for theirs, parameter in own.items():
                if parameter.grad is not None:
                    out[f"gradient {number} {theirs}"] = parameter.grad.clone()
            for other in unused:
                gradient = every[other].grad
                assert gradient is None or gradient.abs().max() < 1e-6, f"{other} is used"
        model.eval()
        with torch.no_grad():
            out["scores"] = model.full_sort_predict([torch.arange(USERS)])
    return {key: value.numpy().astype(np.float64) for key, value in out.items()}


# Comparison -------------------------------------------------------------------------------------


def compare(reference: Path, name: str) -> dict[str, float]:
    """Print a table of errors; returns the largest of both precisions."""
    rows, worst = [], [0.0, 0.0]
    for kinds in PAIRS[name].features:
        theirs = their_run(reference, name, kinds)
        ours = [our_run(name, kinds, double=double) for double in (True, False)]
        assert set(theirs) == set(ours[0]), f"quantities differ: {set(theirs) ^ set(ours[0])}"
        for key, value in theirs.items():
            errors = [relative_error(side[key], value) for side in ours]
            worst = [max(pair) for pair in zip(worst, errors, strict=True)]
            rows.append([name, "+".join(kinds), key, *(f"{error:.1e}" for error in errors)])
    head = ["model", "features", "quantity", "float64", "float32"]
    print(tabulate(rows, head, disable_numparse=True))
    return {"max_rel_error": max(worst), "float64": worst[0], "float32": worst[1]}


METRICS = ("Recall@20", "NDCG@20")


def train_both(options: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Test metrics of both sides at the best validation epoch, same hyper-parameters."""
    folder = options.data_path / options.dataset
    files = {"text": options.text, "image": options.other}
    stems = [files[kind] for kind in PAIRS[name].features[0] if files[kind]]
    parts = components(name)
    settings = parts.defaults_for(options.dataset)
    chosen = {} if options.learning_rate is None else {"learning_rate": options.learning_rate}
    settings.update(chosen)
    given = {
        **PAIRS[name].theirs(settings),
        "learning_rate": settings["learning_rate"],
        "learning_rate_scheduler": settings["lr_decay"],
        "stopping_step": settings["stopping_step"],
        "weight_decay": settings.get("weight_decay", 0.0),
        "epochs": options.epochs,
    }
    paths = {kind: folder / f"{stem}.npy" for kind, stem in files.items() if stem}
    if PAIRS[name].code == rearm.MARK:
        theirs = rearm.train(options.reference, folder, paths, given, seed)
    else:
        (theirs,) = checkout.train(
            options.reference, PAIRS[name].code, name, folder, paths, given, [seed]
        )
    mine = train_ours(name, options, stems, seed, chosen, options.output)
    print(f"ours: {name} seed {seed} {mine.metrics}", file=sys.stderr)
    return {
        "dataset": options.dataset,
        "features": stems,
        "settings": {key: settings[key] for key in parts.defaults} | chosen,
        "epochs": {"our": mine.epochs, "reference": theirs["epochs"]},
        "metrics": {
            metric: {
                "ours": mine.metrics[metric],
                "reference": float(theirs["test"][metric.lower()]),
            }
            for metric in METRICS
        },
    }


def with_seed(entry: dict[str, Any], seed: int, found: dict[str, Any]) -> dict[str, Any]:
    """The results of a model, with one seed more.

    Raises:
        RecordError: the seeds before were trained with other settings, features or data.
    """
    same = {key: found[key] for key in ("dataset", "features", "settings")}
    before = {key: entry.get(key, value) for key, value in same.items()}
    if before != same:
        raise RecordError(
            "The cached trainings are of another comparison.",
            found=f"cached {before}, now {same}",
            expected="the same data, features and settings for all seeds",
            hint="write the new trainings to another --cache",
        )
    out: dict[str, Any] = {**same, "seeds": [*entry.get("seeds", []), seed]}
    for side, epochs in found["epochs"].items():
        out[f"{side}_epochs"] = [*entry.get(f"{side}_epochs", []), epochs]
    out["relative_difference"] = {}
    for metric, sides in found["metrics"].items():
        for side, value in sides.items():
            out[f"{side} {metric}"] = [*entry.get(f"{side} {metric}", []), value]
        ours, theirs = (np.mean(out[f"{side} {metric}"]) for side in ("ours", "reference"))
        out["relative_difference"][metric] = float(ours / theirs - 1)
    return {**out, "code": provenance.code()}


def train_each(options: argparse.Namespace) -> dict[str, Any]:
    """Train each chosen model, seed by seed; results in the cache are not repeated."""
    cache: Path | None = options.cache
    trained = json.loads(cache.read_text()) if cache and cache.exists() else {}
    for name in [name for name in options.model if model_of(name) == name]:
        for seed in options.seeds:
            if seed in trained.get(name, {}).get("seeds", []):
                continue
            found = train_both(options, name, seed)
            trained[name] = with_seed(trained.get(name, {}), seed, found)
            if cache:
                with atomic_write(cache, "w") as file:
                    json.dump(trained, file, indent=1)
    return trained


def trained_table(trained: dict[str, Any]) -> str:
    """Mean Recall@20 and NDCG@20 of both sides over the seeds, and how far ours is off."""
    rows = []
    for name, entry in trained.items():
        row = [name, str(len(entry["seeds"]))]
        for metric, off in entry["relative_difference"].items():
            ours, theirs = (np.mean(entry[f"{side} {metric}"]) for side in ("ours", "reference"))
            row += [f"{ours:.4f}", f"{theirs:.4f}", f"{off:+.1%}"]
        epochs = ("/".join(map(str, entry[f"{side}_epochs"])) for side in ("our", "reference"))
        rows.append([*row, *epochs])
    head = ["model", "seeds", "Recall@20", "reference", "off", "NDCG@20", "reference", "off",
            "epochs", "reference"]  # fmt: skip
    return tabulate(rows, head, tablefmt="github", disable_numparse=True)


def of_checkout(reference: Path) -> list[str]:
    """The models that a checkout is compared in; all if it is none, for the error they end in."""
    marks = [mark for mark in checkout.SOURCES if checkout.is_of(reference, mark)]
    return [name for name, pair in PAIRS.items() if pair.code in marks] or list(PAIRS)


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="benchmarks.parity.baselines")
    parser.add_argument(
        "--reference", type=Path, required=True, help="checkout of enoche/MMRec or GUME"
    )
    parser.add_argument(
        "--model", type=lambda text: text.split(","), help="default: all of the checkout"
    )
    parser.add_argument("--data-path", type=Path)
    parser.add_argument("--dataset", help="also train both sides on it")
    parser.add_argument("--text", help="stem of the text features, row = itemID")
    parser.add_argument("--other", help="stem of the set that MMRec takes for the image")
    parser.add_argument(
        "--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[999, 1000, 1001]
    )
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--learning-rate", type=float, help="of both sides, not the default")
    add_cache(parser)
    parser.add_argument("--output", type=Path, help="results folder for the records of our runs")
    options = parser.parse_args(arguments)
    options.model = options.model or of_checkout(options.reference)
    unknown = sorted(set(options.model) - set(PAIRS))
    if unknown:
        parser.error(f"no comparison for {', '.join(unknown)}; there are {', '.join(PAIRS)}")
    models: dict[str, Any] = {name: compare(options.reference, name) for name in options.model}
    worst = max(entry["max_rel_error"] for entry in models.values())
    if options.dataset:
        trained = train_each(options)
        print(trained_table(trained))
        for name in models:
            models[name].update(trained.get(name, {}))
    print(json.dumps({"max_rel_error": worst, "models": models}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
