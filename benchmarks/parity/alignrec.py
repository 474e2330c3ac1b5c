"""Is our AlignRec, variant official, the official AlignRec? Same inputs, every term and gradient.

    python -m benchmarks.parity.alignrec --reference CHECKOUT
        [--data-path DIR --dataset D --features F --seeds 999,1000,1001 --epochs 1000]

First the same parameters, graph and batch, in float64 and float32: loss terms, gradients of all
seven tensors, both graphs, scores, then three Adam steps with the drift of REG's target. With a
data set (MMRec's layout, F.npy with row = itemID) both sides are also trained. The last line
printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from tabulate import tabulate

from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml
from benchmarks.parity.errors import relative_error
from benchmarks.reference import alignrec_official
from benchmarks.reference.checkout import NoneDict, default_dtype
from benchmarks.reference.options import add_cache
from benchmarks.reference.our_training import train_ours
from benchmarks.reference.result_cache import changed_results, read_results

USERS, ITEMS, WIDTH, STEPS = 60, 90, 48, 3


@dataclass(frozen=True)
class Case:
    """One set of inputs, drawn from a seeded generator."""

    name: str
    batch: int
    uia: bool
    seed: int

    def inputs(self) -> dict[str, Any]:
        """Features, interactions (an isolated user, an unsold item), parameters, batches."""
        rng = np.random.default_rng(self.seed)
        matrix = (rng.random((USERS, ITEMS)) < 0.08).astype(np.float64)
        matrix[0] = matrix[:, 1] = 0  # an isolated user, an item without training rows
        shapes = {
            "users": (USERS, 64), "items": (ITEMS, 64), "w1": (64, WIDTH), "b1": (64,),
            "w2": (64, 64), "b2": (64,),
        }  # fmt: skip
        user, item = np.nonzero(matrix)
        batches = []
        for _ in range(STEPS):
            pick = rng.integers(len(user), size=self.batch)
            batches.append(np.stack([user[pick], item[pick], rng.integers(ITEMS, size=self.batch)]))
        return {
            "features": rng.normal(size=(ITEMS, WIDTH)),
            "matrix": sp.csr_matrix(matrix),
            "parameters": {name: rng.normal(size=s) * 0.2 for name, s in shapes.items()},
            "batches": batches,
        }


CASES = (
    Case("batch 50, UIA on", 50, True, 1),
    Case("batch 50, UIA off", 50, False, 2),
    Case("batch 2048 with repeated items, UIA on", 2048, True, 3),
)
NAMES = {  # ours → official
    "users": "user_embedding.weight", "items": "item_id_embedding.weight",
    "features": "mm_embedding.weight", "w1": "mm_trs.weight", "b1": "mm_trs.bias",
    "w2": "gate_v.0.weight", "b2": "gate_v.0.bias",
}  # fmt: skip


def build_ours(case: Case, inputs: dict[str, Any], double: bool) -> Any:
    """Our model, variant official, on the case's inputs; row 0 of every table is PAD."""
    from alignrec_recbole.models.alignrec import AlignRec

    defaults = read_yaml(properties_dir() / "model" / "AlignRec.yaml")
    config = NoneDict(
        {
            **defaults,
            "USER_ID_FIELD": "u",
            "ITEM_ID_FIELD": "i",
            "NEG_PREFIX": "neg_",
            "device": "cpu",
            "train_batch_size": 2048,
            "variant": "official",
            "uia_weight": 0.1 if case.uia else 0.0,
        }
    )
    features = np.vstack([np.zeros((1, WIDTH)), inputs["features"]])
    user, item = inputs["matrix"].nonzero()
    dataset = types.SimpleNamespace(
        num=lambda field: {"u": USERS, "i": ITEMS}[field] + 1,
        features={
            "toy": types.SimpleNamespace(
                modality="fused", values=features, present=np.arange(ITEMS + 1) > 0
            )
        },
        pairs=lambda: (user + 1, item + 1),
        iid_field="i",
        field2id_token={"i": ["[PAD]", *map(str, range(ITEMS))]},
    )
    with default_dtype(torch.float64 if double else torch.float32):
        model = AlignRec(config, dataset)
    values = {k: torch.from_numpy(v) for k, v in inputs["parameters"].items()}
    with torch.no_grad():
        model.nodes.users[1:] = values["users"]
        model.nodes.items[1:] = values["items"]
        model.feature_projection.weight.copy_(values["w1"])
        model.feature_projection.bias.copy_(values["b1"])
        model.gate.weight.copy_(values["w2"])
        model.gate.bias.copy_(values["b2"])
    return model


def our_tensors(model: Any, gradient: bool) -> dict[str, torch.Tensor]:
    """Parameters or their gradients under the short names, PAD rows cut off."""
    pick = (lambda p: p.grad) if gradient else (lambda p: p.detach())
    nodes = pick(model.nodes.weight)
    return {
        "users": nodes[1 : USERS + 1],
        "items": nodes[USERS + 2 :],
        "features": pick(model.tables[0])[1:],
        "w1": pick(model.feature_projection.weight),
        "b1": pick(model.feature_projection.bias),
        "w2": pick(model.gate.weight),
        "b2": pick(model.gate.bias),
    }


def our_run(case: Case, double: bool) -> dict[str, Any]:
    """Terms, total, gradients, graphs, scores and the state after three Adam steps, as arrays."""
    inputs = case.inputs()
    model = build_ours(case, inputs, double)
    batches = [torch.from_numpy(batch) + 1 for batch in inputs["batches"]]
    terms = model.loss_terms(*batches[0])
    total = sum(model.weights[name] * value for name, value in terms.items())
    total.backward()
    out = {f"term {name}": value.detach() for name, value in terms.items()}
    out["total"] = total.detach()
    out.update({f"gradient {k}": v.clone() for k, v in our_tensors(model, True).items()})
    out["S"] = torch.from_numpy(model.item_item.csr.toarray())[1:, 1:]
    out["R"] = torch.from_numpy(model.user_item.csr.toarray())[1:, 1:]
    out["R as the official code builds it"] = out["R"]  # float32 there: right to 1e-7
    model.eval()
    users, items = model.embeddings()
    out["scores"] = (users[1:] @ items[1:].T).detach()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for step, batch in enumerate(batches):
        optimizer.zero_grad()
        terms = model.loss_terms(*batch)
        loss = sum(model.weights[name] * value for name, value in terms.items())
        loss.backward()
        optimizer.step()
        out[f"loss of step {step}"] = loss.detach()
    out.update({f"after steps {k}": v.clone() for k, v in our_tensors(model, False).items()})
    return {name: value.numpy().astype(np.float64) for name, value in out.items()}


def official_run(reference: Path, case: Case) -> dict[str, Any]:
    """The same of the official model, in float64 (its losses start from a default-dtype zero)."""
    with default_dtype(torch.float64):
        return _official_run(reference, case)


def _official_run(reference: Path, case: Case) -> dict[str, Any]:
    inputs = case.inputs()
    model = alignrec_official.build(
        reference, inputs["features"], inputs["matrix"], batch_size=2048, uia=case.uia, double=True
    )
    own = dict(model.named_parameters())
    with torch.no_grad():
        for short, values in inputs["parameters"].items():
            own[NAMES[short]].copy_(torch.from_numpy(values))
    batches = [torch.from_numpy(batch) for batch in inputs["batches"]]
    out = _official_terms(model, batches[0], case.uia)
    total = model.calculate_loss(batches[0])
    total.sum().backward()
    out["total"] = total.detach().reshape(())
    out.update({f"gradient {k}": own[name].grad.clone() for k, name in NAMES.items()})
    out["S"] = model.mm_original_adj.to_dense()
    out["R"] = model.R.to_dense()
    out["R as the official code builds it"] = model.built_r.double()
    out["scores"] = model.full_sort_predict([torch.arange(USERS)]).detach()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step, batch in enumerate(batches):
        optimizer.zero_grad()
        loss = model.calculate_loss(batch)
        loss.sum().backward()
        optimizer.step()
        out[f"loss of step {step}"] = loss.detach().reshape(())
    out.update({f"after steps {k}": own[name].detach().clone() for k, name in NAMES.items()})
    return {name: value.numpy() for name, value in out.items()}


def _official_terms(model: Any, batch: torch.Tensor, uia: bool) -> dict[str, torch.Tensor]:
    """Each term through the official methods."""
    user, positive, negative = batch
    with torch.no_grad():
        users, items, content, ids = model.forward(model.norm_adj, user, train=True)
        vectors = users[user], items[positive], items[negative]
        rec, l2, _ = model.bpr_loss(*vectors)
        mm_user, mm_item = content[:USERS], content[USERS:]
        cca = model.InfoNCE(mm_item[positive], ids[USERS:][positive], 0.2) + model.InfoNCE(
            mm_user[user], ids[:USERS][user], 0.2
        )
        from utils.utils import build_sim

        reg = model.sim_loss(mm_item[positive], build_sim(model.v_feat[positive]))
        out = {"rec": rec, "l2": l2 / model.reg_weight, "cca": cca, "reg": reg}
        if uia:
            cosine = torch.nn.functional.cosine_similarity(vectors[0], vectors[1], dim=-1)
            out["uia"] = 1 - cosine.mean()
    return {f"term {name}": value.reshape(()) for name, value in out.items()}


def compare(reference: Path) -> dict[str, float]:
    """Print a table of errors; returns the largest ones."""
    rows, worst = [], {"max_rel_error": 0.0, "max_rel_error_float32": 0.0}
    for case in CASES:
        theirs = official_run(reference, case)
        exact, single = our_run(case, True), our_run(case, False)
        for name, value in theirs.items():
            errors = relative_error(exact[name], value), relative_error(single[name], value)
            rows.append([case.name, name, *(f"{e:.1e}" for e in errors)])
            if not name.startswith("R as"):  # a float32 matrix
                worst["max_rel_error"] = max(worst["max_rel_error"], errors[0])
            if not name.startswith("after"):  # Adam divides by |gradient|: float32 noise decides
                worst["max_rel_error_float32"] = max(worst["max_rel_error_float32"], errors[1])
    print(tabulate(rows, ["case", "quantity", "float64", "float32"], disable_numparse=True))
    return worst


def train_both(options: argparse.Namespace) -> dict[str, Any]:
    """Mean test metrics of both sides at the best validation epoch, same hyper-parameters.

    Each finished training is written to `--cache`, from which an interrupted comparison continues.
    """
    cache = options.cache
    found = read_results(cache)
    folder = (options.data_path / options.dataset).resolve()
    place = f"{options.dataset} {options.features} at most {options.epochs} epochs"
    for seed in options.seeds:
        for side, train in (("official", _train_official), ("ours", _train_ours)):
            name = f"{place}, seed {seed}, {side}"
            if name not in found:
                run = train(options, folder, seed)
                with changed_results(cache, found) as found:
                    found[name] = run
            print(f"{name}: {found[name]}", file=sys.stderr)
    out: dict[str, Any] = {
        "dataset": options.dataset,
        "features": options.features,
        "seeds": options.seeds,
        "relative_difference": {},
    }
    for side in ("official", "ours"):
        runs = [found[f"{place}, seed {seed}, {side}"] for seed in options.seeds]
        out[side] = {name: [run[name] for run in runs] for name in runs[0]}
    for metric in METRICS:
        mean = {side: float(np.mean(out[side][metric])) for side in ("official", "ours")}
        out["relative_difference"][metric] = mean["ours"] / mean["official"] - 1
    return out


METRICS = ("Recall@20", "NDCG@20")


def _train_official(options: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    file = folder / f"{options.features}.npy"
    (run,) = alignrec_official.train(options.reference, folder, file, [seed], options.epochs)
    return {
        **{metric: float(run["test"][metric.lower()]) for metric in METRICS},
        "epochs": run["epochs"],
        "first losses": run["losses"][:3],
    }


def _train_ours(options: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    given = alignrec_official.HYPER_PARAMETERS
    overrides = {
        "variant": "official",
        "cca_weight": given["cl_loss"],
        "learning_rate": given["learning_rate"],
        "reg_sim_weight": given["sim_weight"],
        "uia_weight": 0.1,
    }
    record = train_ours("AlignRec", options, [options.features], seed, overrides)
    return {
        **{metric: record.metrics[metric] for metric in METRICS},
        "epochs": record.epochs,
        "first losses": [entry["loss"] for entry in record.history[:3]],
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="benchmarks.parity.alignrec")
    parser.add_argument(
        "--reference", type=Path, required=True, help="checkout of the official code"
    )
    parser.add_argument("--data-path", type=Path)
    parser.add_argument("--dataset")
    parser.add_argument("--features", default="image_feat", help="stem of the .npy, row = itemID")
    parser.add_argument(
        "--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[999, 1000, 1001]
    )
    parser.add_argument("--epochs", type=int, default=1000)
    add_cache(parser)
    options = parser.parse_args(arguments)
    if options.dataset and not options.data_path:
        parser.error("--dataset needs --data-path, the folder that it is in")
    result: dict[str, Any] = compare(options.reference)
    if options.dataset:
        result.update(train_both(options))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
