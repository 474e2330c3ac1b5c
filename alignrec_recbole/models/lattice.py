"""LATTICE: item graphs learnt from features while their vectors are learnt.

Paper       Zhang et al., "Mining Latent Structures for Multimedia Recommendation", MM 2021, arXiv
            2104.09036; equations 1-10, with LightGCN as the collaborative part.
Followed    enoche/MMRec@e775373 src/models/lattice.py (cf_model lightgcn), which follows the
            authors' CRIPAC-DIG/LATTICE; compared gradient by gradient by
            `python -m benchmarks.parity.baselines --model LATTICE` (no code taken).

    z_m = W_m f_m + b_m                          α = softmax(a) over the modalities
    A_m, Ã_m = k largest cosines per row, of f_m (fixed) and of z_m (learnt)
    S   = λ Σ_m α_m L(A_m) + (1 − λ) L(Σ_m α_m Ã_m),   L(A) = D^-½ A D^-½, D row sums
    h_i = mean_l (Bˡ E)_i + norm((Sⁿ E_i)_i),  h_u = mean_l (Bˡ E)_u,  B = D⁻¹(A_ui + I)
    loss = BPR + reg_weight · ½ Σ ‖h‖² / train_batch_size

    The learnt graph is computed again at the first batch of an epoch, the only one whose gradient
    reaches W, b, a and the feature tables, and at scoring; between them S is constant.

Deviations  D1 never an items × items matrix: the k nearest are found in blocks without gradient,
               their cosines are then computed with gradient. That is the dense code's gradient.
            D2 negative cosines count 0 (a negative row sum turns the reference into NaN).
            D3 an item without a modality has only a self edge in L(A_m) and none in Ã_m.
            D4 the reference under torch < 2 went on moving W, a and the tables by Adam's momentum
               on the other batches (its gradients were zero, not absent); under torch 2 it does
               not, nor does this.
Shapes      node table [user_num + item_num, d], features [item_num, f_m]; row 0 is PAD.
Cost        2L + n sparse products per step; a kNN search over z per epoch and per ranking.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.item_item import item_graph, nearest_neighbours
from alignrec_recbole.graphs.user_item import random_walk_adjacency
from alignrec_recbole.models._base import GraphSettings, UserItemEmbedding, pair_scores
from alignrec_recbole.models._content import KnnSettings, ModalityFeatures
from alignrec_recbole.models._two_views import TwoViewRecommender, TwoViewSettings, Views
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.neighbours import neighbour_products, neighbour_sums
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.ops.rows import gather_rows, l2_normalize_rows
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import MAX_LAYERS


class LATTICESettings(TwoViewSettings, GraphSettings, KnnSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/LATTICE.yaml."""

    n_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the item graph n")
    lambda_coeff: float = Field(ge=0, le=1, description="λ, share of the fixed graph")
    reg_weight: float = Field(ge=0, description="weight of the vectors' squares")
    train_features: bool = Field(description="the feature tables are trained, as in MMRec")


class LATTICE(TwoViewRecommender):
    """LATTICE on any number of modalities."""

    settings_class = LATTICESettings
    capture_refused = ""
    columns_refused = ""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys = self.settings
        self.weights = {"bpr": 1.0, "l2": keys.reg_weight}
        self.l2_divisor = config["train_batch_size"]
        self.nodes = UserItemEmbedding(
            self.n_users, self.n_items, keys.embedding_size, nn.init.xavier_uniform_
        )
        self.tables = ModalityFeatures(dataset, train=keys.train_features)
        self.projections = self.tables.projections(keys.embedding_size)
        if len(self.tables) > 1:
            self.set_weights = nn.Parameter(torch.full((len(self.tables),), 0.5))
        self.graph = random_walk_adjacency(dataset.pairs(), (self.n_users, self.n_items))
        self.user_item = SparseOperator(self.interactions)
        self._memory = keys.knn_memory_mb << 20
        self.fixed_graphs = [
            SparseOperator(
                item_graph(
                    table.detach(),
                    keys.knn_k,
                    memory_bytes=self._memory,
                    place=self.tables.place,
                )
            )
            for table in self.tables
        ]
        self._epoch_graph: SparseOperator | None = None  # None: the next batch makes it

    def begin_epoch(self, generator: torch.Generator) -> None:
        """The next batch learns the item graph."""
        self._epoch_graph = None

    def changing_parts(self) -> tuple[Any, ...]:
        """The item graph of the epoch, which its first batch makes."""
        return (*super().changing_parts(), self._epoch_graph)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items; the item graph is that of the present weights."""
        return self._with_content(self._through(self._learn(), self.nodes.items))

    def _training_embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors on the item graph of the epoch, after its first batch has made it."""
        if self._epoch_graph is None:
            return self.embeddings()
        return self._with_content(self._through_constant(self.nodes.items))

    def _with_content(self, content: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items, given the items' part of the item graph [item_num, d]."""
        nodes = layer_mean(self.graph, self.nodes.weight, self.settings.n_ui_layers)
        return nodes[: self.n_users], nodes[self.n_users :] + columns.normalize_rows(content)

    def terms_and_views(
        self, users: Tensor, positives: Tensor, negatives: Tensor
    ) -> tuple[dict[str, Tensor], Views | None]:
        """BPR and the squares of the batch's vectors."""
        batch, drawn = len(users), negatives.ravel()
        items = torch.cat([positives, drawn])
        ids, content = layer_mean(
            self.graph,
            self.nodes.weight,
            self.settings.n_ui_layers,
            torch.cat([users, items + self.n_users]),
            slice(self.n_users, None),
        )
        if self._epoch_graph is None:
            learnt = self._learn()
            content = self._through(learnt, content)
            self._epoch_graph = self._constant(learnt)
        else:
            content = self._through_constant(content)
        user, id_item = ids.split([batch, len(items)])
        content_item = columns.normalize_rows(gather_rows(content, items))
        positive, negative = (id_item + content_item).split([batch, len(drawn)])
        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["l2"]:
            terms["l2"] = losses.l2_squared_penalty(
                user, positive, negative, divisor=self.l2_divisor
            )
        if not self.needs_views:
            return terms, None
        return terms, Views(
            user_id=user,
            user_content=self.user_item.rows(users, columns.normalize_rows(content)),
            item_id=id_item[:batch],
            item_content=content_item[:batch],
            user=user,
            item=positive,
        )

    def _learn(self) -> tuple[Tensor, Tensor, Tensor]:
        """(1 − λ) L(Σ α_m Ã_m) as weights and neighbours [I, M k], and λ α [M]."""
        keys = self.settings
        one = torch.ones(1, device=self.nodes.weight.device, dtype=self.nodes.weight.dtype)
        shares = torch.softmax(self.set_weights, 0) if len(self.tables) > 1 else one
        weights, neighbours = [], []
        for number in range(len(self.tables)):
            content = columns.gather(self.tables.project(number, self.projections[number]))
            unit = l2_normalize_rows(content)
            unit = unit * self.tables.present(number)[:, None]
            with torch.no_grad():
                _, nearest = nearest_neighbours(
                    unit, keys.knn_k, memory_bytes=self._memory, place=self.tables.place
                )
            cosines = neighbour_products(unit, nearest).clamp(min=0)
            weights.append(shares[number] * cosines)
            neighbours.append(nearest)
        weight, neighbour = torch.cat(weights, 1), torch.cat(neighbours, 1)
        degree = weight.sum(1)
        root = torch.where(degree > 0, degree, torch.ones_like(degree)).rsqrt()
        weight = weight * root[:, None] * root[neighbour.clamp(min=0)]
        return (1 - keys.lambda_coeff) * weight, neighbour, keys.lambda_coeff * shares

    def _through(self, learnt: tuple[Tensor, Tensor, Tensor], content: Tensor) -> Tensor:
        """Sⁿ X, differentiable in the learnt weights."""
        weight, neighbour, shares = columns.spread(learnt[0]), learnt[1], columns.spread(learnt[2])
        for _ in range(self.settings.n_layers):
            fixed = [
                share * (graph @ content)
                for share, graph in zip(shares, self.fixed_graphs, strict=True)
            ]
            content = neighbour_sums(weight, neighbour, content) + torch.stack(fixed).sum(0)
        return content

    def _through_constant(self, content: Tensor) -> Tensor:
        """Sⁿ X with the item graph of the epoch."""
        assert self._epoch_graph is not None
        for _ in range(self.settings.n_layers):
            content = self._epoch_graph @ content
        return content

    def _constant(self, learnt: tuple[Tensor, Tensor, Tensor]) -> SparseOperator:
        """S as a constant, for the rest of the epoch."""
        weight, neighbour, shares = (part.detach().cpu().numpy() for part in learnt)
        kept = neighbour >= 0
        row = np.repeat(np.arange(len(neighbour)), kept.sum(1))
        graph = sp.csr_matrix(
            (weight[kept].astype(np.float64), (row, neighbour[kept])), shape=[self.n_items] * 2
        )
        for share, fixed in zip(shares, self.fixed_graphs, strict=True):
            graph = graph + float(share) * fixed.csr
        return SparseOperator(graph)
