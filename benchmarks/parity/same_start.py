"""Do both sides learn the same from the same start? Equal initial weights, batches and settings.

    python -m benchmarks.parity.same_start --reference CHECKOUT [--model M,…] --data-path DIR
        --dataset D --text STEM --other STEM [--epochs 3 --learning-rate X --seed 999
        --cache FILE.json]

Training draws initial weights, batches, negatives and dropout, and each side draws them in its own
order, so that trained results differ by chance; few seeds do not show more than 3 %. Here the
reference starts from our initial weights and gets our batches with their negatives, its optimizer
is torch's with our learning rate and weight decay, dropout drops every fourth column on both sides,
and what it keeps for its scores is computed again after the last step. What then differs is the
computation. Both run in float32: differences grow with the steps. How fast they grow by rounding
alone is seen on a third side, "rounded": our model again, each of its initial weights multiplied by
1 + 2^-23 or 1 - 2^-23. Each epoch has the relative difference of the loss of its first step, the
largest of a step, and every side's Recall@20 and NDCG@20 on validation. The "initial spread" is the
standard deviation of our initial weights over that of the reference's own, per parameter of 1,000
values or more. A model in FILE is not trained again. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from tabulate import tabulate

from alignrec_recbole.evaluation.ranking import rank
from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.runs import prepare, provenance, tasks
from alignrec_recbole.runs.spec import RunSpec
from benchmarks.parity.errors import relative_error
from benchmarks.parity.one_epoch import fixed_chance
from benchmarks.parity.pairs import PAIRS, model_of, of_checkout
from benchmarks.parity.reference_model import opened
from benchmarks.parity.spec import place
from benchmarks.reference.options import add_cache
from benchmarks.reference.result_cache import changed_results, read_results

METRICS, K = ("Recall", "NDCG"), 20
LARGE = 1000  # values of a parameter whose standard deviation says how it is drawn
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class Ours:
    """Our model with its trainer, on the data set."""

    def __init__(self, name: str, options: argparse.Namespace, scratch: Path) -> None:
        files = {"text": options.text, "image": options.other}
        self.pair = PAIRS[name]
        self.kinds = self.pair.features[0]
        rate = {} if options.learning_rate is None else {"learning_rate": options.learning_rate}
        spec = RunSpec(
            model_of(name), options.dataset, tuple(files[kind] for kind in self.kinds),
            setting="mmrec", seed=options.seed, data_path=options.data_path, output=scratch,
            overrides=rate, progress=False, device="cpu",
        )  # fmt: skip
        prepared = prepare.prepare_run(spec)
        self.trainer = tasks.build_trainer(prepared, None)
        self.model, self.config = self.trainer.model, prepared.config
        batch = {"train_batch_size": self.config["train_batch_size"]}
        self.settings = {**self.model.settings.model_dump(), **batch}
        self.task = tasks.valid_task(prepared)
        self.batches = tasks.train_data(prepared)
        train = prepared.splits[0]
        user, item = train.pairs()
        shape = train.user_num - 1, train.item_num - 1
        self.interactions = sp.csr_matrix((np.ones(len(user)), (user - 1, item - 1)), shape)
        fields = train.uid_field, train.iid_field
        self.places = [tie_ranks(train.field2id_token[field])[1:] for field in fields]
        self.spreads: dict[str, float] = {}

    def features(self) -> dict[str, np.ndarray]:
        """The model's features [I, f] without PAD, by kind."""
        tables = self.model.tables
        return {
            kind: tables[number].detach()[1:].numpy().copy()
            for number, kind in enumerate(self.kinds)
        }

    def weights(self, theirs: str, address: str, drawn: torch.Tensor) -> torch.Tensor | None:
        """The rows of a parameter that the reference's has, if our settings build it.

        Of large ones, our standard deviation over that of what the reference drew is kept.
        """
        name, rows = place(address, *self.interactions.shape)
        built = self.model.state_dict()
        if name not in built:
            return None
        weights = built[name][rows]
        if weights.numel() >= LARGE and drawn.std() > 0:
            self.spreads[theirs] = (weights.std() / drawn.std()).item()
        return weights

    def round_weights(self, seed: int) -> None:
        """Change every parameter by one unit of its rounding, up or down by chance."""
        chance = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weights in self.model.parameters():
                up = torch.randint(2, weights.shape, generator=chance)
                weights.mul_(1 + (2 * up - 1) * torch.finfo(torch.float32).eps)

    def begin_epoch(self) -> None:
        """What the model draws per epoch, the same in every model."""
        self.model.train()
        if hasattr(self.model, "begin_epoch"):
            self.model.begin_epoch(torch.Generator())

    def step(self, batch: Any) -> np.ndarray:
        """The loss of a batch, after which the optimizer makes its step."""
        with fixed_chance():  # whose patterns begin anew on every side
            return self.trainer._step(batch).values.sum().numpy()

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        """Scores [users, items with PAD], in the reference's form."""
        return self.pair.scores(self.trainer.scorer(self.interactions.shape[1] + 1)(users))

    def metrics(self, scores: Any) -> list[float]:
        """Recall@20 and NDCG@20 on validation of a function of users."""
        means = rank(scores, self.task, K, "cpu").means(METRICS, (K,))
        return [means[f"{metric}@{K}"] for metric in METRICS]


def epochs(
    reference: Path, name: str, ours: Ours, rounded: Ours, count: int
) -> list[dict[str, Any]]:
    """Train the three sides step by step."""
    out = []
    given = ours.settings, ours.features(), ours.interactions, ours.weights, ours.places
    with fixed_chance(), opened(reference, name, *given) as built:
        theirs = built.model
        kind = OPTIMIZERS[ours.config["learner"].lower()]
        optimizer = kind(
            [p for p in theirs.parameters() if p.requires_grad],
            lr=ours.config["learning_rate"],
            weight_decay=ours.config["weight_decay"] or 0.0,
        )

        def their_scores(users: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                scores = theirs.full_sort_predict([users - 1])
            return torch.cat([scores.new_full((len(users), 1), -torch.inf), scores], 1)

        sides = {"ours": ours.scores, "reference": their_scores, "rounded": rounded.scores}
        for epoch in range(count):
            ours.begin_epoch()
            rounded.begin_epoch()
            theirs.train()
            theirs.pre_epoch_processing()
            steps, roundings = [], []
            for batch in ours.batches:
                ids = [batch[field] for field in _fields(ours.config)]
                value = ours.step(batch)
                optimizer.zero_grad()
                with fixed_chance():
                    loss = theirs.calculate_loss(torch.stack(ids) - 1).sum()
                loss.backward()
                optimizer.step()
                steps.append(relative_error(value, loss.detach().numpy()))
                roundings.append(relative_error(value, rounded.step(batch)))
            theirs.eval()
            with torch.no_grad():  # some score with vectors of before the last step
                theirs.calculate_loss(torch.stack(ids) - 1)
            row = {
                "epoch": epoch + 1,
                "first loss": steps[0],
                "worst loss": max(steps),
                "worst loss by rounding": max(roundings),
            }
            for side, scores in sides.items():
                for metric, found in zip(METRICS, ours.metrics(scores), strict=True):
                    row[f"{side} {metric}@{K}"] = found
            print(row, file=sys.stderr)
            out.append(row)
    return out


def _fields(config: Any) -> list[str]:
    user, item = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
    return [user, item, config["NEG_PREFIX"] + item]


def compare(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The epochs of a model, with what they were made of."""
    with tempfile.TemporaryDirectory() as scratch:
        ours, rounded = (Ours(name, options, Path(scratch)) for _ in range(2))
        rounded.round_weights(options.seed)
        rows = epochs(options.reference, name, ours, rounded, options.epochs)
    return {
        "dataset": options.dataset,
        "features": [options.text, options.other],
        "learning_rate": ours.config["learning_rate"],
        "seed": options.seed,
        "initial spread": ours.spreads,
        "epochs": rows,
        "code": provenance.code(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="benchmarks.parity.same_start")
    parser.add_argument("--reference", type=Path, required=True, help="a checkout, see baselines")
    parser.add_argument(
        "--model", type=lambda text: text.split(","), help="default: all of the checkout"
    )
    parser.add_argument("--data-path", type=Path, required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--text", required=True, help="stem of the text features, row = itemID")
    parser.add_argument("--other", required=True, help="stem of the set taken for the image")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, help="of both sides, not the default")
    parser.add_argument("--seed", type=int, default=999)
    add_cache(parser)
    options = parser.parse_args(arguments)
    trained = [
        name
        for name, pair in PAIRS.items()
        if pair.trainable and model_of(name) == name and not pair.drawn
    ]
    models = options.model or [n for n in of_checkout(options.reference) if n in trained]
    if unknown := sorted(set(models) - set(trained)):
        parser.error(f"no comparison for {', '.join(unknown)}; there are {', '.join(trained)}")
    found = read_results(options.cache)
    for name in models:
        if name in found:
            continue
        entry = compare(name, options)
        with changed_results(options.cache, found) as found:
            found[name] = entry
    rows = [[name, *entry["epochs"][-1].values()] for name, entry in found.items()]
    head = ["model", *next(iter(found.values()))["epochs"][-1]]
    print(tabulate(rows, head, tablefmt="github"))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
