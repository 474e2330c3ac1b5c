"""Are our baselines MMRec's? Same parameters, graph and batch: loss, gradients, scores.

    python -m benchmarks.parity.baselines --reference CHECKOUT [--model M,…]
        [--data-path DIR --dataset D --text STEM --other STEM --seeds 999,1000,1001 --epochs 1000]

CHECKOUT is one of enoche/MMRec. Its models run in float32, ours in float64 and float32; two batches
of one epoch, so that what is made once an epoch is seen both made and kept. With a data set
(MMRec's layout, feature files with row = itemID) both sides are also trained with the defaults of
properties/model, once a seed. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
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

from alignrec_recbole import register
from benchmarks.parity import checkout, mmrec
from benchmarks.parity.checkout import default_dtype

USERS, ITEMS, WIDTHS, BATCH, BATCHES = 60, 90, {"text": 32, "image": 48}, 64, 2


@dataclass(frozen=True)
class Pair:
    """How a model of ours and MMRec's are made equal.

    Attributes:
        tensors: MMRec's parameter → ours; `[users]`, `[items]`, `[1:]` behind ours cut PAD rows.
        theirs: our settings → MMRec's.
        settings: ours in the comparison, so that tuning a default does not move what is recorded.
        fusing: MMRec's parameters that ours has, and MMRec uses, with several sets only.
        idle: MMRec's parameters that cancel, so that we don't have them.
        features: cases by the sets that are given.
        learns: it has a loss.
        scores: MMRec's scores from ours.
    """

    tensors: dict[str, str]
    theirs: Callable[[dict[str, Any]], dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    fusing: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    features: tuple[tuple[str, ...], ...] = (("text", "image"), ("text",), ("image",))
    learns: bool = True
    scores: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.clone

    def names(self, kinds: tuple[str, ...]) -> dict[str, str]:
        """`tensors` of a case: `{n}` in ours is the number of the set, `image` and `text` the set.

        Parameters of a set that is not given are left out.
        """
        out = {}
        for theirs, ours in self.tensors.items():
            kind = next((kind for kind in WIDTHS if f"{{{kind}}}" in ours), None)
            if len(kinds) == 1 and theirs in self.fusing:
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


PAIRS: dict[str, Pair] = {
    "VBPR": Pair(
        {
            "u_embedding": "users[1:]",
            "i_embedding": "items[1:]",
            "item_linear.weight": "projection.weight",
            "item_linear.bias": "projection.bias",
        },
        _same("reg_weight"),
        settings={"reg_weight": 0.1},
    ),
    "BM3": Pair(
        {**NODES, **TABLES, **PROJECTIONS, **_layers(predictor="predictor")},
        _same("n_layers", "dropout", "reg_weight", "cl_weight"),
        settings={"n_layers": 1, "dropout": 0.5, "reg_weight": 0.1, "cl_weight": 2.0},
    ),
    "FREEDOM": Pair(
        {**NODES, **TABLES, **{k: v for k, v in PROJECTIONS.items() if k.endswith("weight")}},
        _same("n_ui_layers", "n_mm_layers", "knn_k", "mm_image_weight", "dropout", "reg_weight",
              embedding_size="feat_embed_dim"),
        settings={"dropout": 0.8, "reg_weight": 1e-3},
        idle=("image_trs.bias", "text_trs.bias"),
    ),
    "LATTICE": Pair(
        {**NODES, **TABLES, **PROJECTIONS, "modal_weight": "set_weights"},
        lambda ours: {
            **_same("n_layers", "knn_k", "lambda_coeff", "reg_weight",
                    embedding_size="feat_embed_dim")(ours),
            "cf_model": "lightgcn",
            "weight_size": [ours["embedding_size"]] * ours["n_ui_layers"],
        },
        settings={"n_layers": 1, "reg_weight": 1e-4},
        fusing=("modal_weight",),
        features=(("image", "text"), ("text",), ("image",)),
    ),
    "MGCN": Pair(
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
}  # fmt: skip


# Inputs -----------------------------------------------------------------------------------------


def inputs(kinds: tuple[str, ...]) -> dict[str, Any]:
    """Features, interactions (an isolated user, an unsold item), batches."""
    rng = np.random.default_rng(len(kinds))
    matrix = (rng.random((USERS, ITEMS)) < 0.08).astype(np.float64)
    matrix[0] = matrix[:, 1] = 0
    user, item = np.nonzero(matrix)
    picks = [rng.integers(len(user), size=BATCH) for _ in range(BATCHES)]
    return {
        "matrix": sp.csr_matrix(matrix),
        "features": {k: rng.normal(size=(ITEMS, WIDTHS[k])).astype(np.float32) for k in kinds},
        "batches": [
            np.stack([user[pick], item[pick], rng.integers(ITEMS, size=BATCH)]) for pick in picks
        ],
    }


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of a parameter, drawn from its name."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape) * 0.2


@contextlib.contextmanager
def fixed_chance() -> Iterator[None]:
    """No chance: dropout drops every fourth column, Gumbel noise is none, edges are given."""

    def dropout(
        x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        kept = torch.arange(x.shape[-1], device=x.device) % 4 > 0
        return x * kept / (1 - p) if p and training else x

    def gumbel(logits: torch.Tensor, tau: float = 1, **_: Any) -> torch.Tensor:
        return torch.softmax(logits / tau, -1)

    def multinomial(weights: torch.Tensor, n: int, *_: Any, **__: Any) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng(5).permutation(len(weights))[:n])

    with (
        mock.patch("torch.nn.functional.dropout", dropout),
        mock.patch("torch.nn.functional.gumbel_softmax", gumbel),
        mock.patch("torch.multinomial", multinomial),
    ):
        yield


# Ours -------------------------------------------------------------------------------------------


class _Config(dict):
    def __missing__(self, key: str) -> None:
        return None


def our_settings(name: str) -> dict[str, Any]:
    """A model's defaults with the pair's own."""
    return {**register.model_defaults(name), **PAIRS[name].settings}


def build_ours(name: str, kinds: tuple[str, ...], *, double: bool) -> Any:
    """Our model on a case's inputs; row 0 of every table is PAD."""
    given = inputs(kinds)
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
    )
    config = _Config(
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
        model = register.load_class(name)(config, dataset)
    own = dict(model.named_parameters())
    names = PAIRS[name].names(kinds)
    covered = {ours.partition("[")[0] for ours in names.values()}
    assert covered == set(own) or not PAIRS[name].learns, (
        f"parameters without a partner: {set(own) ^ covered}"
    )
    with torch.no_grad():
        for theirs, ours in names.items():
            if not ours.startswith("tables."):  # these keep the features
                place = _cut(own, ours)
                place.copy_(torch.from_numpy(values(theirs, tuple(place.shape))))
    return model


def _cut(tensors: dict[str, torch.Tensor], address: str) -> torch.Tensor:
    name, _, rows = address.partition("[")
    cut = {
        "": slice(None),
        "1:]": slice(1, None),
        "users]": slice(1, USERS + 1),
        "items]": slice(USERS + 2, None),
    }[rows]
    return tensors[name][cut]


def our_run(name: str, kinds: tuple[str, ...], *, double: bool) -> dict[str, np.ndarray]:
    """Loss and gradients of each batch, then scores, as arrays."""
    batches = [torch.from_numpy(batch) + 1 for batch in inputs(kinds)["batches"]]
    out = {}
    with fixed_chance(), default_dtype(torch.float64 if double else torch.float32):
        model = build_ours(name, kinds, double=double)
        model.train()
        if hasattr(model, "begin_epoch"):
            model.begin_epoch(torch.Generator())
        for number, batch in enumerate(batches if PAIRS[name].learns else []):
            model.zero_grad()
            terms = model.loss_terms(*batch)
            loss = sum(model.weights[term] * value for term, value in terms.items())
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
    """The same of MMRec's model; feature tables keep the features."""
    given, pair = inputs(kinds), PAIRS[name]
    settings = {"train_batch_size": 2048, **pair.theirs(our_settings(name))}
    out: dict[str, Any] = {}
    with (
        fixed_chance(),
        mmrec.built(reference, name, settings, given["features"], given["matrix"]) as model,
    ):
        names = pair.names(kinds)
        every = {n: p for n, p in model.named_parameters() if p.requires_grad}
        idle = [n for n in every if n not in names and n in pair.fusing + pair.idle]
        own = {n: p for n, p in every.items() if n not in idle}
        assert set(own) == set(names), f"parameters without a partner: {set(own) ^ set(names)}"
        with torch.no_grad():
            for theirs, ours in names.items():
                if not ours.startswith("tables."):  # these keep the features
                    drawn = values(theirs, tuple(own[theirs].shape))
                    own[theirs].copy_(torch.from_numpy(drawn))
        model.train()
        model.pre_epoch_processing()
        for number, batch in enumerate(given["batches"] if pair.learns else []):
            model.zero_grad()
            loss = model.calculate_loss(torch.from_numpy(batch)).sum()
            loss.backward()
            out[f"loss {number}"] = loss.detach()
            for theirs, parameter in own.items():
                if parameter.grad is not None:
                    out[f"gradient {number} {theirs}"] = parameter.grad.clone()
            for parameter in idle:
                gradient = every[parameter].grad
                assert gradient is None or gradient.abs().max() < 1e-6, f"{parameter} is not idle"
        model.eval()
        with torch.no_grad():
            out["scores"] = model.full_sort_predict([torch.arange(USERS)])
    return {key: value.numpy().astype(np.float64) for key, value in out.items()}


# Comparison -------------------------------------------------------------------------------------


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference ÷ largest reference value."""
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))


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


def train_both(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Mean test metrics of both sides at the best validation epoch, same hyper-parameters."""
    from benchmarks.runner import RunSpec, run_one

    folder = options.data_path / options.dataset
    files = {"text": options.text, "image": options.other}
    stems = [files[kind] for kind in PAIRS[name].features[0] if files[kind]]
    settings = register.load_defaults(name, options.dataset)
    given = {
        **PAIRS[name].theirs(settings),
        "learning_rate": settings["learning_rate"],
        "learning_rate_scheduler": settings["lr_decay"],
        "stopping_step": settings["stopping_step"],
        "weight_decay": settings.get("weight_decay", 0.0),
        "epochs": options.epochs,
    }
    theirs = checkout.train(
        options.reference, mmrec.MARK, name, folder,
        {kind: folder / f"{stem}.npy" for kind, stem in files.items() if stem}, given,
        options.seeds,
    )  # fmt: skip
    ours = []
    with tempfile.TemporaryDirectory() as output:
        for seed in options.seeds:
            record = run_one(
                RunSpec(
                    name,
                    options.dataset,
                    tuple(stems),
                    setting="mmrec",
                    seed=seed,
                    data_path=options.data_path,
                    output=Path(output),
                    epochs=options.epochs,
                    progress=False,
                )
            )
            print(f"ours: {name} seed {seed} {record.metrics}", file=sys.stderr)
            ours.append(record)
    out: dict[str, Any] = {
        "dataset": options.dataset, "features": stems, "seeds": options.seeds,
        "settings": {key: settings[key] for key in register.model_defaults(name)},
        "reference_epochs": [t["epochs"] for t in theirs],
        "our_epochs": [record.epochs for record in ours], "relative_difference": {},
    }  # fmt: skip
    for metric in ("Recall@20", "NDCG@20"):
        mine = [record.metrics[metric] for record in ours]
        other = [float(t["test"][metric.lower()]) for t in theirs]
        out[f"ours {metric}"], out[f"reference {metric}"] = mine, other
        out["relative_difference"][metric] = float(np.mean(mine) / np.mean(other) - 1)
    return out


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="benchmarks.parity.baselines")
    parser.add_argument("--reference", type=Path, required=True, help="checkout of enoche/MMRec")
    parser.add_argument(
        "--model", type=lambda text: text.split(","), default=list(PAIRS), help="default: all"
    )
    parser.add_argument("--data-path", type=Path)
    parser.add_argument("--dataset", help="also train both sides on it")
    parser.add_argument("--text", help="stem of the text features, row = itemID")
    parser.add_argument("--other", help="stem of the set that MMRec takes for the image")
    parser.add_argument(
        "--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[999, 1000, 1001]
    )
    parser.add_argument("--epochs", type=int, default=1000)
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.model) - set(PAIRS))
    if unknown:
        parser.error(f"no comparison for {', '.join(unknown)}; there are {', '.join(PAIRS)}")
    models: dict[str, Any] = {name: compare(options.reference, name) for name in options.model}
    worst = max(entry["max_rel_error"] for entry in models.values())
    if options.dataset:
        for name in options.model:
            models[name].update(train_both(options, name))
    print(json.dumps({"max_rel_error": worst, "models": models}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
