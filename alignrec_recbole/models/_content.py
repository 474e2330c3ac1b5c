"""Parts of models with item features: the features themselves and the class of such models.

A model reads any number of feature sets, fused or of one modality each, and treats each of them as
a modality.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.graphs.item_item import item_graph
from alignrec_recbole.graphs.searches import Method
from alignrec_recbole.graphs.user_item import normalised_interactions
from alignrec_recbole.models._base import PairwiseRecommender
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.frozen_matrix import FrozenMatrix
from alignrec_recbole.ops.linear import linear
from alignrec_recbole.ops.rows import extreme_exponents, l2_normalize_rows, scaled_into_range
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import Settings


class KnnSettings(Settings):
    """Settings of models with a graph of each item's nearest neighbours by features."""

    knn_k: int = Field(gt=0, description="neighbours per item, itself included")
    knn_memory_mb: int = Field(gt=0, description="memory bound of a block of similarities, in MiB")


class ItemGraphSettings(KnnSettings):
    """Settings of models whose item graph is searched once, before the training."""

    knn: Method = Field(description="exact, auto or approximate")


class ModalityFeatures(nn.Module):
    """The item features of a data set, one table [item_num, f_m] per modality.

    Rows of items without a modality are zero. Where tables are trained, `clear_missing` keeps them
    so after each step of the optimizer.

    Args:
        dataset: with `features`, see `MultimodalDataset`.
        train: the tables are parameters, as in most of MMRec's models; else constants.
        unit: divide each row by its L2 norm.
        fuse: one table of all modalities side by side; if there are several, the rows of each are
            divided by their norm first.

    Attributes:
        modalities: text, image, audio or fused, per table.
        dims: f_m per table.
    """

    def __init__(
        self, dataset: Any, *, train: bool, unit: bool = False, fuse: bool = False
    ) -> None:
        super().__init__()
        features = list(dataset.features.values())
        groups = [features] if fuse else [[one] for one in features]
        self.modalities = tuple(g[0].modality if len(g) == 1 else "fused" for g in groups)
        self.dims = tuple(sum(one.values.shape[1] for one in group) for group in groups)
        self._tokens = dataset.field2id_token[dataset.iid_field]
        self._frozen = [FrozenMatrix() for _ in groups]
        self._inverse_norms: dict[int, tuple[Tensor, Tensor]] = {}
        self._extreme: list[bool] = []  # whether a table has rows whose norm may be no number
        self._missing: list[list[tuple[str, slice]]] = []  # buffer of rows, columns; per table
        for number, group in enumerate(groups):
            values = _side_by_side(group).to(torch.get_default_dtype())
            values = l2_normalize_rows(scaled_into_range(values)) if unit else values
            self._extreme.append(extreme_exponents(values) is not None)
            if train:
                table = columns.mark(nn.Parameter(values.clone()))
                self.register_parameter(f"set{number}", table)
            else:
                self.register_buffer(f"set{number}", values, persistent=False)
            present = torch.from_numpy(np.any([one.present for one in group], axis=0))
            self.register_buffer(f"present{number}", present, persistent=False)
            self._missing.append(self._register_missing(number, group))

    def _register_missing(self, number: int, group: list[Any]) -> list[tuple[str, slice]]:
        out, start = [], 0
        for part, one in enumerate(group):
            name, stop = f"missing{number}_{part}", start + one.values.shape[1]
            rows = torch.from_numpy(np.flatnonzero(~one.present))
            self.register_buffer(name, rows, persistent=False)
            out.append((name, slice(start, stop)))
            start = stop
        return out

    def __len__(self) -> int:
        return len(self.dims)

    def __getitem__(self, number: int) -> Tensor:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return getattr(self, f"set{number}")

    def __iter__(self) -> Iterator[Tensor]:
        return (self[number] for number in range(len(self)))

    @functools.cached_property
    def place(self) -> np.ndarray:
        """Of each item among equally near ones [item_num]; only item graphs ask for it."""
        return tie_ranks(self._tokens)

    def present(self, number: int, items: Tensor | None = None) -> Tensor:
        """bool [item_num], or [m] of `items`: which have the modality, or any of a fused table."""
        present: Tensor = getattr(self, f"present{number}")
        return present if items is None else present[items]

    @torch.no_grad()
    def clear_missing(self) -> None:
        """Zero what an optimizer's step may have moved: modalities that items do not have."""
        for table, blocks in zip(self, self._missing, strict=True):
            if table.requires_grad:
                for name, part in blocks:
                    table[:, columns.own_part(part, table)].index_fill_(0, getattr(self, name), 0.0)

    def blocks(self) -> list[tuple[int, slice, Tensor]]:
        """Of each feature set: its table, its columns there, and which items have it [item_num]."""
        out = []
        for number, blocks in enumerate(self._missing):
            for name, part in blocks:
                has = torch.ones(len(self[number]), dtype=torch.bool, device=self[number].device)
                out.append((number, part, has.index_fill_(0, getattr(self, name), False)))
        return out

    @torch.no_grad()
    def replace(self, number: int, values: Tensor) -> None:
        """Put values [item_num, f_m] in the place of a table, trained or not."""
        table = getattr(self, f"set{number}")
        if isinstance(table, nn.Parameter):
            table.data = values
        else:
            setattr(self, f"set{number}", values)

    def projections(self, size: int, *, bias: bool = True) -> nn.ModuleList:
        """One linear layer f_m → size per table."""
        return nn.ModuleList(nn.Linear(dim, size, bias=bias) for dim in self.dims)

    def linear(
        self,
        number: int,
        weight: Tensor,
        bias: Tensor | None = None,
        items: Tensor | None = None,
    ) -> Tensor:
        """Table `number` times Wᵀ, plus b: [item_num, d], or [m, d] for `items` [m].

        Where columns are divided among processes, W and b are whole and the result is divided.
        """
        table, product = self[number], self._frozen[number].linear
        if columns.division() is None:
            return product(table, weight, bias, items)
        bias = None if bias is None else columns.own(bias)
        if not columns.is_divided(table):
            return product(table, columns.own(weight, 0), bias, items)
        out = columns.scatter_total(product(table, columns.own(weight, 1), None, items))
        return out if bias is None else out + bias

    def project(
        self, number: int, layer: Any, then: Any = None, items: Tensor | None = None
    ) -> Tensor:
        """Table `number` through an affine layer f_m → d, or through two, multiplied into one."""
        weight, bias = layer.weight, layer.bias
        if then is not None:
            weight, bias = then.weight @ weight, then.weight @ bias + then.bias
        return self.linear(number, weight, bias, items)

    def unit_rows(self, number: int, items: Tensor) -> Tensor:
        """Rows of `items` [m, f_m] divided by their norm, as a constant; zero rows stay zero."""
        table = self[number]
        if table.requires_grad:
            rows = columns.gather(table.detach().index_select(0, items), self.dims[number])
            return l2_normalize_rows(rows)
        if self._extreme[number]:
            rows = table.index_select(0, items)
            largest = torch.linalg.vector_norm(rows, torch.inf, dim=1, keepdim=True)
            return l2_normalize_rows(rows / largest.masked_fill_(largest == 0, 1.0))
        if self._inverse_norms.get(number, (None,))[0] is not table:  # else: of this table
            norms = table.norm(dim=1, keepdim=True)
            inverse = norms.reciprocal().masked_fill_(norms == 0, 0.0)
            self._inverse_norms[number] = table, inverse
        rows = self._frozen[number].rounded(table).index_select(0, items)
        return rows.mul_(self._inverse_norms[number][1].index_select(0, items))

    def modality_weights(self, non_text_weight: float) -> list[float]:
        """A weight per table, sum 1: `non_text_weight` divided among those that are not text.

        If all are text, or none is, every table gets the same.
        """
        text = [modality == "text" for modality in self.modalities]
        if all(text) or not any(text):
            return [1 / len(text)] * len(text)
        each, other = (1 - non_text_weight) / sum(text), non_text_weight / (len(text) - sum(text))
        return [each if is_text else other for is_text in text]

    def item_graph(self, non_text_weight: float, keys: ItemGraphSettings) -> SparseOperator:
        """Mean of the tables' unweighted kNN graphs [item_num]², weighted by `modality_weights`."""
        return SparseOperator(
            sum(
                weight
                * item_graph(
                    table.detach(),
                    keys.knn_k,
                    method=keys.knn,
                    weighted=False,
                    memory_bytes=keys.knn_memory_mb << 20,
                    place=self.place,
                )
                for weight, table in zip(self.modality_weights(non_text_weight), self, strict=True)
            )
        )


def _side_by_side(group: list[Any]) -> Tensor:
    """Features as given, or the unit rows of several side by side [item_num, Σ f_m]."""
    values = [torch.from_numpy(one.values) for one in group]
    if len(values) == 1:
        return values[0]
    return torch.cat([l2_normalize_rows(scaled_into_range(one)) for one in values], 1)


def project(table: Tensor, layer: Any) -> Tensor:
    """A large matrix [n, f] that differs from step to step, through an affine layer f → d."""
    if columns.division() is None:
        return linear(table, layer.weight, layer.bias)
    out = columns.scatter_total(linear(table, columns.own(layer.weight, 1)))
    return out + columns.own(layer.bias)


class ContentRecommender(PairwiseRecommender):
    """A pairwise model that cannot be built without item features.

    Attributes:
        interactions: R̂ [user_num, item_num], scipy CSR.
        id_only_features: control features, zero or random, that make this model its own twin
            without content; None if it is nothing without content.
        id_only_settings: settings of the twin beside them.
    """

    bfloat16_refused = ""
    new_items_refused = "it learns a part of each item's vector from interactions"
    id_only_features: str | None = "zero"
    id_only_settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        if not dataset.features:
            raise FeatureError(
                f"{type(self).__name__} needs item features.",
                found="features: none",
                expected="at least one feature set",
                hint="name an encoder, such as lsa, or a feature file in `features`",
            )
        self.interactions = normalised_interactions(dataset.pairs(), (self.n_users, self.n_items))

    def after_step(self) -> None:
        """Keep the rows of missing modalities zero; the trainer calls it after each step."""
        for part in self.children():
            if isinstance(part, ModalityFeatures):
                part.clear_missing()
