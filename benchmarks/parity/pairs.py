"""Which parameters and settings of our baselines are those of the code they are compared with."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.parity import reference_changes
from benchmarks.parity.forms import cohesion, mmgcf, rearm
from benchmarks.parity.spec import NODES, PROJECTIONS, TABLES, ParitySpec, layers, same
from benchmarks.reference import checkout


def _mmgcn_branch(theirs: str, ours: str) -> dict[str, str]:
    out = {f"{theirs}.preference": f"{ours}.users[1:]"}
    for n in range(3):
        own = {f"{theirs}__linear_layer{n + 1}": f"{ours}.own.{n}"}
        join = {f"{theirs}__g_layer{n + 1}": f"{ours}.join.{n}"}
        out |= {f"{theirs}.conv_embed_{n + 1}.weight": f"{ours}.messages.{n}"}
        out |= layers(**own, **join)
    return out


PAIRS: dict[str, ParitySpec] = {
    "VBPR": ParitySpec(
        {
            "u_embedding": "users[1:]",
            "i_embedding": "items[1:]",
            "item_linear.weight": "projection.weight",
            "item_linear.bias": "projection.bias",
        },
        same("reg_weight"),
        settings={"reg_weight": 0.1},
    ),
    "BM3": ParitySpec(
        {**NODES, **TABLES, **PROJECTIONS, **layers(predictor="predictor")},
        same("n_layers", "dropout", "reg_weight", "cl_weight"),
        settings={"n_layers": 1, "dropout": 0.5, "reg_weight": 0.1, "cl_weight": 2.0},
    ),
    "FREEDOM": ParitySpec(
        {**NODES, **TABLES, **{k: v for k, v in PROJECTIONS.items() if k.endswith("weight")}},
        same("n_ui_layers", "n_mm_layers", "knn_k", "mm_image_weight", "dropout", "reg_weight",
              embedding_size="feat_embed_dim"),
        settings={"dropout": 0.8, "reg_weight": 1e-3},
        unused=("image_trs.bias", "text_trs.bias"),
    ),
    "FREEDOM-nlgcl": ParitySpec(
        {**NODES, **TABLES, **{k: v for k, v in PROJECTIONS.items() if k.endswith("weight")}},
        lambda ours: {
            **same("n_ui_layers", "n_mm_layers", "knn_k", "mm_image_weight", "dropout",
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
            **same("n_ui_layers", "n_mm_layers", "knn_k", "mm_image_weight", "dropout",
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
            **same("n_layers", "knn_k", "lambda_coeff", "reg_weight",
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
            **layers(
                gate_v__0="gates.{image}", gate_t__0="gates.{text}",
                gate_image_prefer__0="preferences.{image}",
                gate_text_prefer__0="preferences.{text}",
                query_common__0="query.0",
            ),
            "query_common.2.weight": "query.2.weight",
        },
        same("n_ui_layers", "n_layers", "knn_k", "reg_weight", "cl_loss"),
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
            **layers(
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
        same("n_ui_layers", "n_layers", "image_knn_k", "text_knn_k", "reg_weight",
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
            **same("n_ui_layers", "n_mm_layers", "n_hyper_layer", "hyper_num", "keep_rate",
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
            **layers(
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
            **same("n_ui_layers", "n_mm_layers", "knn_k", "mm_image_weight", "dropout",
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
            **layers(
                v_gcn__MLP="projections.{image}", t_gcn__MLP="projections.{text}",
                v_gcn__MLP_1="outer.{image}", t_gcn__MLP_1="outer.{text}",
            ),
            "weight_u": "attention[1:]",
        },
        lambda ours: {
            **same("n_mm_layers", "knn_k", "mm_image_weight", "reg_weight",
                    embedding_size="feat_embed_dim")(ours),
            "aggr_mode": "add",
        },
        settings={"user_k": 5, "reg_weight": 0.1},  # every user who has neighbours has five
        unused=("image_embedding.weight", "text_embedding.weight", "weight_i", "MLP_v.weight",
              "MLP_t.weight", *layers(image_trs="", text_trs="", MLP_user="")),
        features=(("image", "text"),),
        adjust=lambda model, ours: setattr(model, "k", ours["user_k"]),
    ),
    "GUME": ParitySpec(
        {
            **NODES, **TABLES,
            "extended_image_user.weight": "users.{image}[1:]",
            "extended_text_user.weight": "users.{text}[1:]",
            **layers(
                image_reduce_dim="projections.{image}", text_reduce_dim="projections.{text}",
                image_trans_dim__0="gates.{image}", text_trans_dim__0="gates.{text}",
                image_behavior__0="preferences.{image}", text_behavior__0="preferences.{text}",
                separate_coarse__0="query.0",
            ),
            "separate_coarse.2.weight": "query.2.weight",
        },
        same("n_ui_layers", "n_layers", "knn_k", "vt_loss", "um_loss", "um_temp", "reg_weight_2",
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
            **layers(v_gcn__MLP="projections.{image}", t_gcn__MLP="projections.{text}"),
        },
        lambda ours: {**same("latent_embedding", "reg_weight")(ours), "n_layers": 3},
        settings={"n_routings": 0, "reg_weight": 0.1},
        features=(("image", "text"), ("image",)),  # MMRec's crashes with text alone
    ),
    "MMGCN": ParitySpec(
        {
            "id_embedding": "nodes.weight[nodes]",
            **layers(v_gcn__MLP="branches.{image}.reduce"),
            **_mmgcn_branch("v_gcn", "branches.{image}"),
            **_mmgcn_branch("t_gcn", "branches.{text}"),
        },
        same("reg_weight"),
        settings={"embedding_size": 16, "n_layers": 3, "reg_weight": 0.1, "train_vectors": True},
        non_parameters=("id_embedding", "v_gcn.preference", "t_gcn.preference"),
        features=(("image", "text"), ("text",), ("image",)),
    ),
    "DualGNN": ParitySpec(
        {
            "v_gcn.preference": "users.{image}[1:]", "t_gcn.preference": "users.{text}[1:]",
            **layers(
                v_gcn__MLP="hidden.{image}", t_gcn__MLP="hidden.{text}",
                v_gcn__MLP_1="projections.{image}", t_gcn__MLP_1="projections.{text}",
            ),
            "weight_u": "shares[1:]",
        },
        lambda ours: {**same("reg_weight")(ours), "aggr_mode": "add"},
        settings={"n_layers": 2, "user_k": 5, "reg_weight": 0.1},
        fusion=("weight_u",),
        unused=("weight_i", "MLP_v.weight", "MLP_t.weight", "MLP_user.weight", "MLP_user.bias"),
        features=(("image", "text"), ("text",), ("image",)),
        adjust=reference_changes.mend_dualgnn,
        drawn="users again, where a user has fewer than k others",
    ),
    "MENTOR": ParitySpec(
        {
            "v_gcn.preference": "preferences.{image}[1:]",
            "t_gcn.preference": "preferences.{text}[1:]",
            "id_gcn.preference": "id_users[1:]", "id_feat": "id_items[1:]",
            **layers(
                v_gcn__MLP="projections.{image}", t_gcn__MLP="projections.{text}",
                v_gcn__MLP_1="outer.{image}", t_gcn__MLP_1="outer.{text}",
                id_gcn__MLP="id_layers.0", id_gcn__MLP_1="id_layers.2", mlp="predictor",
            ),
            "weight_u": "attention[1:]",
        },
        same("n_mm_layers", "knn_k", "mm_image_weight", "reg_weight", "align_weight", "dropout",
              "mask_weight_f", "mask_weight_g", embedding_size="feat_embed_dim",
              temperature="temp"),
        settings={"reg_weight": 0.1, "mask_weight_f": 1.5, "mask_weight_g": 0.1,
                  "align_weight": 2.0},
        unused=("image_embedding.weight", "text_embedding.weight", "weight_i",
                *layers(image_trs="", text_trs="", MLP_user="")),
        features=(("image", "text"),),
        code="mentor",
        adjust=reference_changes.mend_mentor,
    ),
    "DAMRS": ParitySpec(
        NODES,
        same("n_ui_layers", "n_mm_layers", "knn_k", "kl_weight", "neighbor_weight"),
        settings={"knn_k": 25, "neighbor_weight": 0.1},  # some items have fewer neighbours
        unused=(*layers(image_trs="", text_trs=""),),
        features=(("image", "text"),),  # MMRec's needs both
    ),
    "MSCA": ParitySpec(
        {
            **NODES, **TABLES, **PROJECTIONS,
            **layers(gate_v__0="gates.{image}", gate_t__0="gates.{text}",
                      query_common__0="query.0"),
            "query_common.2.weight": "query.2.weight",
        },
        lambda ours: {
            **same("knn_k", "fusion_coeff", "cl_weight", "reg_weight", n_ui_layers="n_layers",
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
            **layers(map_v__0="gates.{image}", map_t__0="gates.{text}", attention__0="query.0"),
            "attention.2.weight": "query.2.weight",
        },
        same("n_ui_layers", "n_layers", "knn_k", "cl_loss", "cl_loss2", interest_k="knn_i",
              second_order_k="knn_a"),
        settings={"n_ui_layers": 2, "cl_loss": 0.1, "cl_loss2": 0.01, "interest_k": 5,
                  "second_order_k": 8},
        features=(("image", "text"),),  # the reference needs both
        code="soil",
        shift=1.3,  # no user's last place is between equally alike pairs
    ),
    "MILK": ParitySpec(
        {"user_embedding.weight": "users[1:]", **TABLES, **PROJECTIONS},
        same(embedding_size="feat_embed_dim", reg_weight="reg_coeff", align_weight="align_coeff",
              penalty_weight="penalty_coeff", concentration="alpha"),
        settings={"penalty_weight": 100.0, "align_weight": 0.4, "reg_weight": 0.1},
        unused=tuple(f"fusion_trs.{n}.{part}" for n in range(5) for part in ("weight", "bias")),
        features=(("image", "text"),),  # the reference needs both
        code="milk",
    ),
    "SiBraR": ParitySpec(
        {
            "user_embedding.weight": "users[1:]", "item_id_embedding.weight": "items[1:]",
            **TABLES, **PROJECTIONS, **layers(fc1="branch.0", fc2="branch.2"),
        },
        same(contrast_weight="lamb", temperature="temp"),
        settings={"contrast_weight": 0.5, "temperature": 0.5, "id_views": "all"},
        unused=tuple(layers(b_norm="")),
        features=(("image", "text"),),  # the reference needs both
        code="sibrar",
        reference="SIBRAR",
    ),
    "REARM": rearm(lambda model, ours: None, train_knowledge=False),
    "REARM-knowledge": rearm(reference_changes.learn_knowledge, train_knowledge=True),
    "COHESION": cohesion(lambda model, ours: None, train_id_view=False),
    "COHESION-ids": cohesion(reference_changes.learn_id_view, train_id_view=True),
    "MMGCF": mmgcf("equal", "mean", features=(("image", "text"), ("text",), ("image",))),
    "MMGCF-alpha": mmgcf("alpha", "sum", {"mm_alpha": "balance"}),
    "MMGCF-normalized": mmgcf("normalized", "sum"),
    "MMGCF-concat": mmgcf("equal", "concat", {
        "mm_concat_layer.weight": "join_content.weight", "id_mm_concat_layer.weight": "join.weight",
    }),
    "MMGCF-joined": mmgcf("normalized", "concat", {"all_concat_layer.weight": "join.weight"}),
}  # fmt: skip


def model_of(name: str) -> str:
    """The model of a comparison."""
    return PAIRS[name].model or name


def reference_of(name: str) -> str:
    """The class of the reference in a comparison."""
    return PAIRS[name].reference or model_of(name)


def of_checkout(reference: Path) -> list[str]:
    """The models that a checkout is compared in; all if it is none, for the error they end in."""
    marks = [mark for mark in checkout.SOURCES if checkout.is_of(reference, mark)]
    return [name for name, pair in PAIRS.items() if pair.code in marks] or list(PAIRS)
