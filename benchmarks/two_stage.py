"""Is pre-training before the recommendation better than training both at once? (AlignRec, §4.3)

    python -m benchmarks.two_stage --items ml-100k-posters/items.tsv --work FOLDER

Three arms per seed, on ml-100k with posters, a small BEiT-3 of random weights and AlignRec (its
official variant with features that are given, not trained):

    two-stage   N updates of the encoder by L_ICA; its features of all items, computed once; then N
                updates of the recommender by L_REC
    joint       N updates of both by L_ICA + L_REC, the encoder in the loop
    untrained   the second stage alone, on the features of the encoder's initial weights

So the encoder and the recommender get N updates each in the first two arms. All arms of a seed have
the same initial weights, the same blocks of items with the same masks and the same batches of
interactions in the same order; learning rates and schedules are equal.

In the joint arm the items of an update's block are encoded with their gradient, unmasked, and take
their places in the feature table; the rows of the other items are as computed before, at most
`--every` updates ago, since encoding all items in every update would cost many times as much. The
item graph is built again whenever all rows are.

Every `--every` updates: held-out losses of words (MLM) and patches (MIM), the BPR loss of
validation pairs with fixed negatives, validation Recall@20, and in the joint arm the norms of both
losses' gradients in the encoder. The test split is ranked once per arm, with the vectors of the
best validation. Seconds are of the process's CPU time without these evaluations.

Writes FOLDER/s<seed>.json after each arm; what is there is not made again, and an arm that was
stopped goes on from its last evaluation.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from alignrec_recbole.data.items import read_item_table
from alignrec_recbole.encoders.beit3.architecture import Beit3, checked_architecture
from alignrec_recbole.encoders.beit3.corpus import Corpus, read_corpus
from alignrec_recbole.encoders.beit3.encoder import normalise
from alignrec_recbole.encoders.beit3.masking import generator
from alignrec_recbole.encoders.beit3.microbatch import (
    VALIDATION_EPOCH,
    count_targets,
    make_micro_batch,
)
from alignrec_recbole.encoders.beit3.objective import loss_sums
from alignrec_recbole.encoders.beit3.pretrain_settings import PretrainSettings
from alignrec_recbole.encoders.beit3.targets import Pixels
from alignrec_recbole.encoders.beit3.tokenizer import Tokenizer, pad, train_tokenizer
from alignrec_recbole.evaluation.metrics import recall
from alignrec_recbole.evaluation.ranking import EvalTask, rank
from alignrec_recbole.graphs.item_item import item_graph
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.ops.optimizers import Adam, AdamW
from alignrec_recbole.ops.rows import l2_normalize_rows
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.runs import provenance
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.prepared import PreparedRun
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runs.tasks import build_trainer, test_task, train_data, valid_task
from alignrec_recbole.training.trainer import losses_by_name
from benchmarks import command_line

ARMS = ("two-stage", "joint", "untrained")
FOLDER = Path("results/shipped/two-stage")
TOP = 20


@dataclass(frozen=True)
class Setting:
    """Data, sizes and lengths, the same in all arms."""

    dataset: str
    items_sha256: str
    updates: int
    every: int
    block: int  # items per update of the encoder
    batch: int  # interactions per update of the recommender
    encoder_rate: float
    recommender_rate: float
    width: int
    layers: int
    image_size: int
    vocabulary: int
    tokens: int


FIELDS = set(Setting.__dataclass_fields__)


class GivenFeatures(nn.Module):
    """Item features that are put in from outside, [item_num, f], with their gradient if any."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows

    def project(self, number: int, layer: Any, then: Any) -> Tensor:
        """The rows through two affine layers."""
        return then(layer(self.rows))

    def unit_rows(self, number: int, items: Tensor) -> Tensor:
        """Rows of items divided by their norm, as constants."""
        return l2_normalize_rows(self.rows.detach().index_select(0, items))

    def present(self, number: int) -> Tensor:
        """bool [item_num]: all items but PAD."""
        return torch.arange(len(self.rows)) > 0


class Encoder:
    """A BEiT-3 of random weights with its items, and L_ICA on them."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, setting: Setting, seed: int) -> None:
        sizes = checked_architecture(
            {
                "width": setting.width, "num_heads": 4, "num_layers": setting.layers,
                "ffn_dim": 2 * setting.width, "image_size": setting.image_size,
                "vocab_size": tokenizer.vocabulary, "text_positions": setting.tokens + 2,
                "mlm": True, "mim": 3 * 16**2,
            }
        )  # fmt: skip
        self.model = Beit3(sizes).initialise(seed)
        self.target = Pixels(sizes)
        self.corpus, self.setting, self.seed = corpus, setting, seed
        self.masks = PretrainSettings(seed=seed)
        self.optimizer = AdamW(self.model.parameters(), lr=0.0, weight_decay=0.05)
        self.in_training = np.isin(np.arange(len(corpus.ids)), corpus.train)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Blocks of nearly equal size without end, with the number of their pass over all items."""
        count = len(self.corpus.ids)
        for number in itertools.count():
            order = generator(self.seed, 4, number).permutation(count)
            for block in np.array_split(order, -(-count // self.setting.block)):
                if self.in_training[block].any():  # of others L_ICA is not defined
                    yield number, block

    def loss(self, members: np.ndarray, number: int) -> dict[str, Tensor]:
        """Mean losses over the masked words and patches of some items."""
        micro = make_micro_batch(self.corpus, members, self.model.sizes.grid, number, self.masks)
        counts = dict(zip(("mlm", "mim"), count_targets(micro).clamp(min=1).tolist(), strict=True))
        means = {"mlm": torch.zeros(()), "mim": torch.zeros(())}
        for part in loss_sums(self.model, self.target, self.corpus, micro, self.masks.mode, "cpu"):
            for kind, value in part.items():
                means[kind] = means[kind] + value / counts[kind]
        return means

    def train_loss(self, members: np.ndarray, number: int) -> Tensor:
        """L_ICA of a block, without the items that are held out."""
        return torch.stack([*self.loss(members[self.in_training[members]], number).values()]).sum()

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Losses of held-out items with fixed masks."""
        means = self.loss(self.corpus.held, VALIDATION_EPOCH)
        return {kind: float(value) for kind, value in means.items()}

    def encode(self, members: np.ndarray) -> Tensor:
        """Unmasked features [m, width]: the image's summary row, else the text's."""
        out = torch.empty(len(members), self.model.sizes.width)
        has_image = self.corpus.place[members] >= 0
        for rows in (np.flatnonzero(has_image), np.flatnonzero(~has_image)):
            if not len(rows):
                continue
            ids, padding = pad([self.corpus.ids[i] for i in members[rows]])
            image = None
            if has_image[rows[0]]:
                pixels = np.stack([self.corpus.pixels[self.corpus.place[i]] for i in members[rows]])
                image = normalise(torch.from_numpy(pixels))
            found = self.model(
                image, torch.from_numpy(ids), torch.from_numpy(padding), cls_only=True
            )
            first = found.text if image is None else found.vision
            out = out.index_put((torch.from_numpy(rows),), first[:, 0])
        return out

    @torch.no_grad()
    def encode_all(self) -> Tensor:
        """Features of all items [n, width]."""
        parts = np.array_split(np.arange(len(self.corpus.ids)), 8)
        return torch.cat([self.encode(part) for part in parts])

    def norm(self, loss: Tensor) -> float:
        """Norm of the gradient that a loss has in the encoder."""
        weights = list(self.model.parameters())
        found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        return math.sqrt(sum(float(one.square().sum()) for one in found if one is not None))

    def step(self, update: int) -> None:
        """A step of AdamW: linear warm-up over one evaluation interval, then half a cosine."""
        warm, updates = self.setting.every, self.setting.updates
        if update < warm:
            scale = (update + 1) / warm
        else:
            scale = 0.5 * (1 + math.cos(math.pi * (update - warm) / max(1, updates - warm)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.setting.encoder_rate * scale
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 3.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Recommender:
    """AlignRec on given features, with its batches and its validation."""

    def __init__(self, spec: RunSpec, tokens: list[str], setting: Setting) -> None:
        prepared = prepare_run(spec)
        self.model: Any = build_trainer(prepared, None).model
        names = prepared.splits[0].field2id_token[prepared.splits[0].iid_field]
        place = {token: i for i, token in enumerate(tokens)}
        self.of_item = np.array([place[str(name)] for name in names[1:]])  # rows of the corpus
        self.row = np.zeros(len(tokens), dtype=np.int64)  # and back; 0 without interactions
        self.row[self.of_item] = np.arange(1, len(names))
        self.rows = torch.zeros(len(names), setting.width)
        torch.manual_seed(spec.seed)
        self.model.feature_projection = nn.Linear(setting.width, self.model.gate.in_features)
        self.place = self.model.tables.place
        self.model.tables = GivenFeatures(self.rows)
        self.optimizer = Adam(self.model.parameters(), lr=setting.recommender_rate)
        self.batches = itertools.chain.from_iterable(itertools.repeat(train_data(prepared)))
        self.valid, self.test = valid_task(prepared), test_task(prepared)
        self.pairs = _validation_pairs(prepared, spec.seed)
        self.best: tuple[float, Tensor, Tensor] | None = None

    def give(self, features: Tensor) -> None:
        """Put in features of all items, in the order of the corpus, and build the item graph."""
        rows = torch.zeros_like(self.rows)
        rows[1:] = features[torch.from_numpy(self.of_item)]
        self.put(rows)

    def put(self, rows: Tensor) -> None:
        """Put in rows of all items and build the item graph."""
        self.rows = self.model.tables.rows = rows
        keys = self.model.settings
        self.model.item_item = SparseOperator(item_graph(rows, keys.knn_k, place=self.place))

    def skip(self, updates: int) -> None:
        """Go past the batches of earlier updates."""
        for _ in itertools.islice(self.batches, updates):
            pass

    def replace(self, members: np.ndarray, features: Tensor) -> None:
        """Put in rows of some items of the corpus, with their gradient."""
        known = self.row[members] > 0
        where = torch.from_numpy(self.row[members][known])
        fresh = features[torch.from_numpy(known)]
        self.model.tables.rows = self.rows.index_put((where,), fresh)
        self.rows[where] = fresh.detach()

    def train_loss(self) -> Tensor:
        """The whole loss on the next batch."""
        self.model.train()
        terms = losses_by_name(self.model.calculate_loss(next(self.batches)))
        return torch.stack([term.reshape(()) for term in terms.values()]).sum()

    def step(self) -> None:
        """A step of Adam."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """BPR loss of the validation pairs and Recall@20; remembers the best vectors."""
        users, items = self.model.embeddings()
        user, positive, negative = self.pairs
        margin = (users[user] * (items[positive] - items[negative])).sum(1)
        found = float(self.recalls(self.valid, users, items).mean())
        if self.best is None or found > self.best[0]:
            self.best = found, users, items
        return {"bpr": float(softplus(-margin).mean()), "recall": found}

    @staticmethod
    def recalls(task: EvalTask, users: Tensor, items: Tensor) -> np.ndarray:
        """Recall@20 of each user of a task."""
        ranking = rank(lambda ids: users[ids] @ items.T, task, TOP, "cpu")
        return recall(ranking.hits, ranking.targets, TOP)

    def test_recalls(self) -> list[float]:
        """Recall@20 of each test user, with the vectors of the best validation."""
        assert self.best is not None
        return [round(float(x), 6) for x in self.recalls(self.test, *self.best[1:])]


def _validation_pairs(prepared: PreparedRun, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Validation pairs with one uniform negative each that the user has no pair with."""
    users, items = prepared.splits[1].pairs()
    known = [set(zip(*map(np.ndarray.tolist, split.pairs()), strict=True))
             for split in prepared.splits[:2]]  # fmt: skip
    rng = np.random.default_rng(seed)
    negatives = rng.integers(1, prepared.splits[0].item_num, len(items))
    for place, user in enumerate(users.tolist()):
        while any((user, int(negatives[place])) in pairs for pairs in known):
            negatives[place] = rng.integers(1, prepared.splits[0].item_num)
    return torch.from_numpy(users), torch.from_numpy(items), torch.from_numpy(negatives)


class Clock:
    """CPU seconds between `go` and `stop`, in all."""

    def __init__(self, total: float = 0.0) -> None:
        self.total = total
        self._since: float | None = None

    def go(self) -> None:
        """Start, or go on."""
        self._since = time.process_time()

    def stop(self) -> float:
        """Stop, if it goes, and say how long it went in all."""
        if self._since is not None:
            self.total += time.process_time() - self._since
            self._since = None
        return self.total


class Training:
    """An arm, whose state is saved after each evaluation, so that it can be stopped at any time.

    Args:
        state_file: of the state; removed by the caller once the result is stored.
    """

    def __init__(
        self, arm: str, encoder: Encoder, recommender: Recommender, state_file: Path
    ) -> None:
        self.arm, self.encoder, self.recommender = arm, encoder, recommender
        self.setting, self.state_file = encoder.setting, state_file
        self.stage, self.update = (0 if arm == "two-stage" else 1), 0
        self.curves: dict[str, list[dict[str, float]]] = {"ica": [], "rec": [], "gradients": []}
        self.clock = Clock()

    def run(self) -> dict[str, Any]:
        """The curves of the arm and its test result."""
        resumed = self._resume()
        if self.stage == 0:
            if not resumed:
                self._note("ica")
            self._train(("ica",))
            self.stage, self.update, resumed = 1, 0, False
        both = self.arm == "joint"
        if not resumed:
            self.clock.go()
            self.recommender.give(self.encoder.encode_all())
            self._note(*(("ica", "rec") if both else ("rec",)))
        self.recommender.skip(self.update)
        self._train(("ica", "rec") if both else ("rec",))
        assert self.recommender.best is not None
        return {
            "curves": self.curves,
            "seconds": self.clock.total,
            "valid_recall": self.recommender.best[0],
            "test_recalls": self.recommender.test_recalls(),
        }

    def _train(self, tasks: tuple[str, ...]) -> None:
        """The remaining updates by the losses of these tasks."""
        self.clock.go()
        blocks = itertools.islice(self.encoder.blocks(), self.update, self.setting.updates)
        for number, members in blocks:
            self.update += 1
            evaluate = self.update % self.setting.every == 0
            losses: dict[str, Tensor] = {}
            if len(tasks) > 1:
                self.recommender.replace(members, self.encoder.encode(members))
            if "ica" in tasks:
                losses["ica"] = self.encoder.train_loss(members, number)
            if "rec" in tasks:
                losses["rec"] = self.recommender.train_loss()
            if len(tasks) > 1 and evaluate:
                self.clock.stop()
                norms = {task: self.encoder.norm(loss) for task, loss in losses.items()}
                self.curves["gradients"].append({"update": self.update, **norms})
                self.clock.go()
            torch.stack([*losses.values()]).sum().backward()
            if "ica" in tasks:
                self.encoder.step(self.update - 1)
            if "rec" in tasks:
                self.recommender.step()
            if evaluate:
                if len(tasks) > 1:
                    self.recommender.give(self.encoder.encode_all())
                self._note(*tasks)
                self.clock.go()
        self.clock.stop()

    def _note(self, *tasks: str) -> None:
        """Evaluate these tasks and save the state."""
        at = {"update": self.update, "seconds": self.clock.stop()}
        if "ica" in tasks:
            self.curves["ica"].append({**at, **self.encoder.held_out()})
        if "rec" in tasks:
            self.curves["rec"].append({**at, **self.recommender.validate()})
        state = {
            "stage": self.stage,
            "update": self.update,
            "setting": asdict(self.setting),
            "curves": self.curves,
            "seconds": self.clock.total,
            "encoder": _state(self.encoder),
            "recommender": _state(self.recommender),
            "rows": self.recommender.rows,
            "best": self.recommender.best,
        }
        with atomic_write(self.state_file) as handle:
            torch.save(state, handle)

    def _resume(self) -> bool:
        """Load the state, if one is stored that is of these settings."""
        if not self.state_file.exists():
            return False
        state = torch.load(self.state_file, weights_only=True)
        if state["setting"] != asdict(self.setting):
            print(f"{self.state_file} is of other settings: the arm starts again", flush=True)
            return False
        self.stage, self.update, self.curves = state["stage"], state["update"], state["curves"]
        self.clock = Clock(state["seconds"])
        for part in ("encoder", "recommender"):
            _load(getattr(self, part), state[part])
        if self.stage == 1:
            self.recommender.put(state["rows"])
            self.recommender.best = state["best"]
        return True


def _state(part: Encoder | Recommender) -> dict[str, Any]:
    """Weights and state of the optimizer."""
    weights = {name: value.detach() for name, value in part.model.named_parameters()}
    return {"weights": weights, "optimizer": part.optimizer.state_dict()}


@torch.no_grad()
def _load(part: Encoder | Recommender, state: dict[str, Any]) -> None:
    for name, value in part.model.named_parameters():
        value.copy_(state["weights"][name])
    part.optimizer.load_state_dict(state["optimizer"])


def main(arguments: list[str] | None = None) -> int:
    """Train the arms that are missing."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.two_stage", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--items", type=Path, required=True, help="items.tsv with an image column")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--data-path", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="tokenizer and decoded images")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="results")
    parser.add_argument(
        "--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[999, 1000, 1001]
    )
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--updates", type=int, default=540, help="of encoder and recommender each")
    parser.add_argument("--every", type=int, default=54, help="updates between evaluations")
    parser.add_argument("--block", type=int, default=32, help="items per update")
    parser.add_argument("--batch", type=int, default=2048, help="interactions per update")
    parser.add_argument("--encoder-rate", type=float, default=1e-3, help="its peak")
    parser.add_argument("--recommender-rate", type=float, default=5e-3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=24)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if unknown := sorted(set(options.arms.split(",")) - set(ARMS)):
        parser.error(f"no arm {', '.join(unknown)}; there are {', '.join(ARMS)}")
    if options.every < 1 or options.updates % options.every:
        parser.error("--updates must be a multiple of --every: the last update is evaluated")
    options.work.mkdir(parents=True, exist_ok=True)
    items = read_item_table(options.items)
    given = {name: value for name, value in vars(options).items() if name in FIELDS}
    setting = Setting(**given, items_sha256=items.content_hash())
    model_file = options.work / f"tokenizer-{setting.vocabulary}-{setting.items_sha256[:12]}.spm"
    if not model_file.exists():
        train_tokenizer(items.texts, model_file, setting.vocabulary)
    tokenizer = Tokenizer(model_file, setting.tokens)
    for seed in options.seeds:
        path = options.folder / f"s{seed}.json"
        result = json.loads(path.read_text()) if path.exists() else {}
        if result and result["setting"] != asdict(setting):
            parser.error(f"{path} is of other settings: {result['setting']}")
        for arm in options.arms.split(","):
            if arm in result.get("arms", {}):
                continue
            corpus = read_corpus(
                items, tokenizer, options.work, setting.image_size,
                PretrainSettings(seed=seed), progress=False,
            )  # fmt: skip
            spec = RunSpec(
                "AlignRec",
                options.dataset,
                ("random",),
                seed=seed,
                data_path=options.data_path,
                output=options.work,
                overrides={"train_features": False, "train_batch_size": setting.batch},
                device="cpu",
                progress=False,
            )
            encoder = Encoder(corpus, tokenizer, setting, seed)
            recommender = Recommender(spec, items.ids, setting)
            state_file = options.work / f"two-stage-s{seed}-{arm}.pt"
            found = Training(arm, encoder, recommender, state_file).run()
            arms = {**result.get("arms", {}), arm: found}
            result = {
                "seed": seed,
                "setting": asdict(setting),
                "code": provenance.code(),
                "arms": arms,
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, "w") as handle:
                handle.write(json.dumps(result) + "\n")
            state_file.unlink()
            test = np.mean(arms[arm]["test_recalls"])
            print(f"seed {seed}, {arm}: {arms[arm]['seconds']:.0f} s, Recall@{TOP} {test:.4f}")
    return 0


if __name__ == "__main__":
    command_line.end(main)
