"""PGL: training on a drawn part of the user-item graph, scoring on the whole.

Paper       Yu et al., "Mind Individual Information! Principal Graph Learning for Multimedia
            Recommendation", AAAI 2025; its local form.
Followed    enoche/MMRec@e775373 src/models/pgl.py (mode local), the authors' own port of
            demonph10/PGL; compared gradient by gradient by
            `python -m benchmarks.parity.baselines --model PGL` (no code taken).

    z_m = norm(W_m f_m + b_m),   x_i = [z_1 … z_M],   x_u = [p_u,1 … p_u,M]
    S   = Σ_m w_m D^-½ A_m D^-½ as in FREEDOM;   Â_e = graph of 30 % of the edges, drawn each epoch
          without replacement with probability ∝ (d_u d_i)^-½; all edges for scoring
    h_u = mean_l (Â_eˡ x)_u,   h_i = mean_l (Â_eˡ x)_i + (Sⁿ x)_i,   s(u, i) = ⟨h_u, h_i⟩
    loss = BPR + reg_weight · ½ (NCE(drop h_u → drop h_u) + NCE(drop h_i → drop h_i)), τ = 0.2

Deviations  D1 an item without a modality has a zero z_m and only a self edge in A_m.
            D2 only the batch's rows of the last layers are computed.
            D3 the global form is not here: it multiplies two factors of a singular value
               decomposition into a dense matrix of (users + items)².
Shapes      users [user_num, d] and features [item_num, f_m], one per modality; row 0 is PAD.
Cost        2L + n sparse products of width M d and M products I × f_m × d per step (three with
            trained features).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.user_item import bipartite_adjacency, sample_edges
from alignrec_recbole.models._base import GraphSettings, padded, pair_scores
from alignrec_recbole.models._content import ContentRecommender, ItemGraphSettings, ModalityFeatures
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.ops.rows import gather_rows
from alignrec_recbole.settings import MAX_LAYERS


class PGLSettings(GraphSettings, ItemGraphSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/PGL.yaml."""

    n_mm_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the item graph n")
    mm_image_weight: float = Field(ge=0, le=1, description="weight of all that is not text")
    edge_share: float = Field(gt=0, le=1, description="share of the edges in an epoch")
    dropout: float = Field(ge=0, lt=1, description="of the contrasted vectors")
    reg_weight: float = Field(ge=0, description="weight of the contrast")
    temperature: float = Field(gt=0, description="τ")
    train_features: bool = Field(description="the feature tables are trained, as in MMRec")


class PGL(ContentRecommender):
    """PGL, local form, on any number of modalities."""

    settings_class = PGLSettings
    contrasts_batch = True
    capture_refused = ""
    columns_refused = ""
    id_only_features = "random"  # items have no ID vectors: features in their place tell them apart
    id_only_settings: ClassVar[dict[str, Any]] = {"n_mm_layers": 0}  # and no graph of them

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys = self.settings
        self.weights = {"bpr": 1.0, "contrast": keys.reg_weight}
        self.tables = ModalityFeatures(dataset, train=keys.train_features)
        self.projections = self.tables.projections(keys.embedding_size)
        self.users = nn.ParameterList(
            padded(self.n_users, keys.embedding_size, nn.init.xavier_uniform_) for _ in self.tables
        )
        self.graph = bipartite_adjacency(self.interactions)
        self.epoch_graph = self.graph
        self.item_item = self.tables.item_graph(keys.mm_image_weight, keys)

    def begin_epoch(self, generator: torch.Generator) -> None:
        """Draw this epoch's edges."""
        self.epoch_graph = sample_edges(self.interactions, self.settings.edge_share, generator)

    def changing_parts(self) -> tuple[Any, ...]:
        """The graph of the epoch."""
        return (self.epoch_graph,)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items on the whole graph."""
        start = torch.cat(self._start())
        nodes = layer_mean(self.graph, start, self.settings.n_ui_layers)
        users, items = nodes[: self.n_users], nodes[self.n_users :]
        return users, items + self._content_items(start[self.n_users :])

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """BPR and the contrast of the batch's vectors with themselves."""
        keys, batch = self.settings, len(users)
        items = torch.cat([positives, negatives.ravel()])
        all_users, all_items = self._start()
        rows = torch.cat([users, items + self.n_users])
        nodes = layer_mean(
            self.epoch_graph, torch.cat([all_users, all_items]), keys.n_ui_layers, rows
        )
        user, item = nodes.split([batch, len(items)])
        item = item + gather_rows(self._content_items(all_items), items)
        positive, negative = item.split([batch, len(items) - batch])
        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["contrast"]:
            terms["contrast"] = (self._contrast(user) + self._contrast(positive)) / 2
        return terms

    def _contrast(self, vectors: Tensor) -> Tensor:
        whole = columns.gather(vectors.view(len(vectors), len(self.tables), -1)).flatten(1)
        one, other = (F.dropout(whole, self.settings.dropout, self.training) for _ in range(2))
        return losses.info_nce(one, other, self.settings.temperature, whole=True)

    def _start(self) -> tuple[Tensor, Tensor]:
        """x of users [user_num, M d] and items [item_num, M d]."""
        items = [
            columns.normalize_rows(self.tables.project(number, layer))
            * self.tables.present(number)[:, None]
            for number, layer in enumerate(self.projections)
        ]
        return torch.cat(list(self.users), 1), torch.cat(items, 1)

    def _content_items(self, content: Tensor) -> Tensor:
        for _ in range(self.settings.n_mm_layers):
            content = self.item_item @ content
        return content
