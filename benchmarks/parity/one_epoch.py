"""Loss, gradients and scores of both sides on equal parameters, graph and batches."""

from __future__ import annotations

import contextlib
import itertools
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import scipy.sparse as sp
import torch
from tabulate import tabulate

from alignrec_recbole.features.item_order import TIE_SEED, seeded_order
from alignrec_recbole.registry.components import components
from benchmarks.parity.errors import relative_error
from benchmarks.parity.pairs import PAIRS, model_of
from benchmarks.parity.reference_model import opened
from benchmarks.parity.spec import WIDTHS, place
from benchmarks.reference.checkout import NoneDict, default_dtype

USERS, ITEMS, BATCH, BATCHES = 60, 90, 64, 2


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


@contextlib.contextmanager
def fixed_chance() -> Iterator[None]:
    """No chance: dropout drops every fourth column, Gumbel noise is none, edges are given.

    Uniform noise is one of two patterns, in turn; a draw of Dirichlet's is a ramp.
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

    def multinomial(weights: torch.Tensor, n: int = 0, **given: Any) -> torch.Tensor:
        n = n or given["num_samples"]
        if weights.ndim == 2:  # of each row, columns next to each other
            first = torch.arange(len(weights))[:, None]
            return (first + torch.arange(n)) % weights.shape[1]
        return torch.from_numpy(np.random.default_rng(5).permutation(len(weights))[:n])

    def shares(concentration: Any) -> np.ndarray:
        ramp = np.arange(1.0, len(concentration) + 1)
        return ramp / ramp.sum()

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

    def dirichlet(self: torch.distributions.Dirichlet) -> torch.Tensor:
        return torch.tensor(shares(self.concentration))

    with (
        mock.patch("numpy.random.dirichlet", shares),
        mock.patch("torch.distributions.Dirichlet.sample", dirichlet),
        mock.patch("torch.nn.functional.scaled_dot_product_attention", attention),
        mock.patch("torch.rand_like", rand_like),
        mock.patch("torch.nn.functional.dropout", dropout),
        mock.patch("alignrec_recbole.ops.entry_attention.draw_kept", draw_kept),
        mock.patch("torch.nn.functional.gumbel_softmax", gumbel),
        mock.patch("torch.multinomial", multinomial),
    ):
        yield


# Ours -------------------------------------------------------------------------------------------


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
    name, rows = place(address, USERS, ITEMS)
    return tensors[name], rows


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
    settings = {"train_batch_size": 2048, **our_settings(name)}
    out: dict[str, Any] = {}

    def values(theirs: str, ours: str, drawn: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(pair.values(theirs, tuple(drawn.shape)))

    data = given["features"], given["matrix"]
    with fixed_chance(), opened(reference, name, settings, *data, values) as theirs:
        model = theirs.model
        every = {**theirs.compared, **theirs.unused}
        model.train()
        model.pre_epoch_processing()
        for number, batch in enumerate(given["batches"] if pair.trainable else []):
            for parameter in every.values():
                parameter.grad = None
            loss = model.calculate_loss(torch.from_numpy(batch)).sum()
            loss.backward()
            out[f"loss {number}"] = loss.detach()
            for their, parameter in theirs.compared.items():
                if parameter.grad is not None:
                    out[f"gradient {number} {their}"] = parameter.grad.clone()
            for other, parameter in theirs.unused.items():
                gradient = parameter.grad
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
