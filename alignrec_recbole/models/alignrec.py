"""AlignRec: an ID view and a content view of users and items, trained to agree.

Paper       "AlignRec: Aligning and Training in Multimodal Recommendations", CIKM 2024,
            arXiv 2403.12384, doi 10.1145/3627673.3679626.
Followed    both: `variant: paper` the published formulas, `variant: official` the behaviour of
            sjtulyf123/AlignRec_CIKM24@bf351b6, compared term by term and gradient by gradient by
            `python -m benchmarks.parity.alignrec` (no code taken).

    F   item features [I, f], one vector an item          Â   normalised user-item graph, no loops
    R̂   its user-item block [U, I]                        S   item kNN graph from F, built once
    H_id = (1/(L+1)) Σ_l Âˡ [E_u; E_i]                    P   = E_i ⊙ σ(W₂(W₁F + b₁) + b₂)
    h_mm^i = S^n P,  h_mm^u = R̂ h_mm^i                    h   = H_id + H_mm,  s(u, i) = ⟨h_u, h_i⟩
    loss = REC + l2·L2 + cca·CCA + reg·REG + uia·UIA

    CCA = NCE(h_mm^i → h_id^i) + NCE(h_mm^u → h_id^u) over the batch's positives and users
    UIA = mean 1 − cos(h_u, h_i)      REG = ‖C(h_mm^i) − C(F)‖_F / b over the batch's positives
    L2  = ½ Σ ‖h‖² / train_batch_size

Where the variants differ (any switch may be set by itself, null takes the variant's value):

    switch          paper            official         official source
    train_features  false            true             models/alignrec.py:56, features are in Adam
    cca_normalise   false (inner     true (cosine)    alignrec.py:222-229; direction mm → ID in
                    products)                         both, temperature 0.2 (line 266)
    reg_left        cosine           gram (h hᵀ, not  alignrec.py:231-235: the normalised line is
                                     normalised)      commented out
    l2_weight       0                1e-4             alignrec.py:212-218, divided by 2048 whatever
                                                      the size of the last batch
    uia_weight      0.1              0.1              alignrec.py:270; off without --ui_cosine_loss,
                                                      which scripts.sh passes; 0 switches it off

    The target of REG is the current feature table, detached (alignrec.py:56,273: shared storage).
    With frozen features that is F itself, so one rule serves both variants. S stays as built from
    the first F in both (alignrec.py:57-60).

Ablations: `cca_weight: 0`, `uia_weight: 0`, `reg_sim_weight: 0`. Replaceable parts (the paper
names them): `fuser` sum | attention, `objective` bpr | bce | softmax.

Deviations  D1 an item with a zero feature row has only a self edge in S and is no item's
               neighbour (the reference turns all of S into NaN).
            D2 the reference's layers that get no gradient (query_common, gate_mm_prefer) are not
               built, so equal seeds give other initial weights.
            D3 no items × items matrix: S is computed in blocks, REG through ‖·‖² of small products.
            D4 `attention` is ours: h = Σ_v a_v h_v, a = softmax_v(qᵀ tanh(W h_v + b)).
            D5 what an item does not have is not learnt: its columns of F stay zero where F is
               trained, and REG leaves out items with no feature at all.
Shapes      node table [user_num + item_num, d], features [item_num, f]; row 0 is PAD and zero.
Cost        2L + n + 1 sparse products, one I × f × d product (three with trained features) and two
            b × b matrices per step.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.item_item import item_graph
from alignrec_recbole.graphs.user_item import bipartite_adjacency
from alignrec_recbole.models._base import GraphSettings, UserItemEmbedding, pair_scores
from alignrec_recbole.models._content import ContentRecommender, ItemGraphSettings, ModalityFeatures
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.ops.rows import gather_rows
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import MAX_LAYERS

_TABLE, _STORED_TABLE = "tables.set0", "features"  # F in this module, and in checkpoints

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {
        "train_features": False,
        "cca_normalise": False,
        "reg_left": "cosine",
        "l2_weight": 0.0,
    },
    "official": {
        "train_features": True,
        "cca_normalise": True,
        "reg_left": "gram",
        "l2_weight": 1e-4,
    },
}


class AlignRecSettings(GraphSettings, ItemGraphSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/AlignRec.yaml."""

    variant: Literal["paper", "official"] = Field(description="paper or official")
    n_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the item graph n")
    temperature: float = Field(gt=0, description="τ of CCA")
    cca_weight: float = Field(ge=0, description="α")
    uia_weight: float = Field(ge=0, description="β")
    reg_sim_weight: float = Field(ge=0, description="λ")
    fuser: Literal["sum", "attention"] = Field(description="sum or attention")
    objective: Literal["bpr", "bce", "softmax"] = Field(description="bpr, bce or softmax")
    train_features: bool | None = Field(description="null: the variant's")
    cca_normalise: bool | None = Field(description="null: the variant's")
    reg_left: Literal["cosine", "gram"] | None = Field(description="null: the variant's")
    l2_weight: float | None = Field(ge=0, description="null: the variant's")

    def resolved(self) -> AlignRecSettings:
        """The same with every null replaced by the variant's value."""
        chosen = {k: v for k, v in VARIANTS[self.variant].items() if getattr(self, k) is None}
        return self.model_copy(update=chosen)


class AlignRec(ContentRecommender):
    """AlignRec in its published and its official form."""

    settings_class = AlignRecSettings
    contrasts_batch = True
    capture_refused = ""
    columns_refused = ""
    paper_features = "BEiT-3 with inter-content pre-training"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings = keys = self.settings.resolved()
        self.weights = {
            "rec": 1.0,
            "l2": keys.l2_weight or 0.0,
            "cca": keys.cca_weight,
            "reg": keys.reg_sim_weight,
            "uia": keys.uia_weight,
        }
        self.l2_divisor = config["train_batch_size"]
        size = keys.embedding_size
        self.tables = ModalityFeatures(dataset, train=bool(keys.train_features), fuse=True)
        self.nodes = UserItemEmbedding(self.n_users, self.n_items, size, nn.init.xavier_uniform_)
        self.feature_projection = nn.Linear(self.tables.dims[0], size)
        self.gate = nn.Linear(size, size)
        if keys.fuser == "attention":
            self.attention = nn.Sequential(
                nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1, bias=False)
            )

        self.user_item = SparseOperator(self.interactions)
        self.graph = bipartite_adjacency(self.interactions)
        self.item_item = SparseOperator(
            item_graph(
                self.tables[0].detach(),
                keys.knn_k,
                method=keys.knn,
                memory_bytes=keys.knn_memory_mb << 20,
                place=self.tables.place,
            )
        )

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As of every module; trained features are stored under the name `features`."""
        state = super().state_dict(*args, **kwargs)
        for name in [name for name in state if name.endswith(_TABLE)]:
            state[name.removesuffix(_TABLE) + _STORED_TABLE] = state.pop(name)
        return state

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """As of every module; takes the names of `state_dict()`."""
        given = {_TABLE if name == _STORED_TABLE else name: v for name, v in state_dict.items()}
        return super().load_state_dict(given, *args, **kwargs)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Fused vectors of all users and items."""
        nodes = layer_mean(self.graph, self.nodes.weight, self.settings.n_ui_layers)
        items = self._content_items(self.nodes.items)
        users = self.user_item @ items
        return (
            self._fuse(nodes[: self.n_users], users),
            self._fuse(nodes[self.n_users :], items),
        )

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """The terms with a non-zero weight: rec, l2, cca, reg, uia."""
        keys, batch = self.settings, len(users)
        drawn = negatives.ravel()
        rows = torch.cat([users, positives + self.n_users, drawn + self.n_users])
        ids, items = layer_mean(
            self.graph, self.nodes.weight, keys.n_ui_layers, rows, slice(self.n_users, None)
        )
        id_user, id_positive, id_negative = ids.split([batch, batch, len(drawn)])
        content = self._content_items(items)
        mm_user = self.user_item.rows(users, content)
        mm_positive, mm_negative = gather_rows(content, torch.cat([positives, drawn])).split(
            [batch, len(drawn)]
        )
        user = self._fuse(id_user, mm_user)
        positive = self._fuse(id_positive, mm_positive)
        negative = self._fuse(id_negative, mm_negative)

        terms = {"rec": self._objective(user, positive, negative)}
        if self.weights["l2"]:
            terms["l2"] = losses.l2_squared_penalty(
                user, positive, negative, divisor=self.l2_divisor
            )
        if self.weights["cca"]:
            agree = functools.partial(
                losses.info_nce, temperature=keys.temperature, normalise=bool(keys.cca_normalise)
            )
            terms["cca"] = agree(mm_positive, id_positive, ids=positives) + agree(
                mm_user, id_user, ids=users
            )
        if self.weights["reg"]:
            first, count = losses.unique_with_counts(positives)
            own = gather_rows(mm_positive, first)
            if keys.reg_left == "cosine":
                own = columns.normalize_rows(own)
            items = positives.index_select(0, first)
            target = self.tables.unit_rows(0, items)
            count = count * self.tables.present(0).index_select(0, items).to(own.dtype)
            terms["reg"] = losses.similarity_matrix_distance(own, target, count)
        if self.weights["uia"]:
            terms["uia"] = losses.cosine_distance(user, positive)
        return terms

    def _content_items(self, ids: Tensor) -> Tensor:
        """h_mm of all items [item_num, d] from their ID vectors; the gate's two maps are one."""
        content = ids * torch.sigmoid(self.tables.project(0, self.feature_projection, self.gate))
        for _ in range(self.settings.n_layers):
            content = self.item_item @ content
        return content

    def _fuse(self, ids: Tensor, content: Tensor) -> Tensor:
        if self.settings.fuser == "sum":
            return ids + content
        views = torch.stack([columns.gather(ids), columns.gather(content)], 1)  # [n, 2, d]
        return columns.own((torch.softmax(self.attention(views), 1) * views).sum(1))

    def _objective(self, user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        right, wrong = pair_scores(user, positive, negative)
        if self.settings.objective == "bpr":
            return losses.bpr(right, wrong)
        if self.settings.objective == "bce":
            return losses.binary_cross_entropy(right, wrong)
        return losses.sampled_softmax(right[:, 0], wrong)
