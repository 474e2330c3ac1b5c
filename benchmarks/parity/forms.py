"""Models that are compared in several forms: COHESION, REARM and MMGCF."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.parity.spec import NODES, PROJECTIONS, TABLES, ParitySpec, layers, same
from benchmarks.reference import rearm as reference_rearm


def mmgcf(
    weighting: str,
    fusion: str,
    tensors: dict[str, str] | None = None,
    features: tuple[tuple[str, ...], ...] = (("image", "text"),),
) -> ParitySpec:
    """MMGCF with one of its ways to fuse; biases that cancel have no partner."""
    biased = weighting == "normalized"
    used = {k: v for k, v in PROJECTIONS.items() if biased or not k.endswith("bias")}
    used |= tensors or {}
    built = layers(all_concat_layer="", mm_concat_layer="", id_mm_concat_layer="")
    return ParitySpec(
        {**NODES, **used},
        same("n_ui_layers", "reg_weight", "fusion_mode", "weighting", "dropout",
              embedding_size="feat_embed_dim"),
        settings={"n_ui_layers": 2, "reg_weight": 0.1, "dropout": 0.8, "weighting": weighting,
                  "fusion_mode": fusion},
        unused=tuple(name for name in (*PROJECTIONS, *built) if name not in used),
        features=features,
        model="MMGCF",
    )  # fmt: skip


def cohesion(adjust: Callable[[Any, dict[str, Any]], None], **settings: Any) -> ParitySpec:
    """COHESION with a view of IDs that is learnt or not."""

    def adjusted(model: Any, ours: dict[str, Any]) -> None:
        model.k = ours["user_k"]  # every user who has neighbours has as many
        adjust(model, ours)

    return ParitySpec(
        {
            "v_gcn.preference": "preferences.{image}[1:]",
            "t_gcn.preference": "preferences.{text}[1:]",
            "id_gcn.preference": "id_users[1:]", "id_feat": "id_items[1:]",
            **layers(
                v_gcn__MLP="projections.{image}", t_gcn__MLP="projections.{text}",
                v_gcn__MLP_1="outer.{image}", t_gcn__MLP_1="outer.{text}",
                id_gcn__MLP="id_layers.0", id_gcn__MLP_1="id_layers.2",
            ),
        },
        lambda ours: {
            **same("n_mm_layers", "knn_k", "mm_image_weight", "reg_weight",
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


def rearm(adjust: Callable[[Any, dict[str, Any]], None], **settings: Any) -> ParitySpec:
    """REARM with layers of knowledge that are learnt or not."""
    tensors = {
        "user_id_embedding.weight": "nodes.weight[users]",
        "item_id_embedding.weight": "nodes.weight[items]",
        **TABLES,
        "user_v_prefer": "users.{image}[1:]", "user_t_prefer": "users.{text}[1:]",
        **layers(
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
            tensors |= layers(**{f"{their}__linear_pre": f"{our}.0",
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
        code=reference_rearm.MARK,
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
