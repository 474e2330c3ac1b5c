"""Which parameters and settings of our baselines are those of the code they are compared with."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.reference import checkout, mmrec, rearm

WIDTHS = {"text": 32, "image": 48}


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of a parameter, drawn from its name."""
    return np.asarray(np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape) * 0.2)


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


def model_of(name: str) -> str:
    """The model of a comparison."""
    return PAIRS[name].model or name


def of_checkout(reference: Path) -> list[str]:
    """The models that a checkout is compared in; all if it is none, for the error they end in."""
    marks = [mark for mark in checkout.SOURCES if checkout.is_of(reference, mark)]
    return [name for name, pair in PAIRS.items() if pair.code in marks] or list(PAIRS)
