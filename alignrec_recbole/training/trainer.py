"""One trainer for every model: epochs of exact pairs, full ranking on validation, safe state.

Follows RecBole's Trainer interface (fit, evaluate), so stock `run_recbole` uses it too.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from recbole.trainer.trainer import AbstractTrainer
from recbole.utils import ModelType

from alignrec_recbole.errors import DivergedError, RecordError, SettingError
from alignrec_recbole.evaluation.ranking import EvalTask, Ranking, Scores
from alignrec_recbole.io import training_state
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.matmul import precision
from alignrec_recbole.runtime import hardware, random_state, waiting
from alignrec_recbole.runtime.progress import announce
from alignrec_recbole.runtime.slow_epochs import SlowEpochs
from alignrec_recbole.training import captured, divided, memory_estimate, optimizer
from alignrec_recbole.training.batches import PairBatches, replace_loader
from alignrec_recbole.training.early_stopping import EarlyStopping
from alignrec_recbole.training.metric_names import (
    canonical,
    canonical_at_k,
    cutoffs,
    recbole_names,
)
from alignrec_recbole.training.progress import TrainingProgress
from alignrec_recbole.training.ranking_tasks import as_task, sampled
from alignrec_recbole.training.saved_training import PairsState, SavedTraining
from alignrec_recbole.training.steps import Steps, Terms

SAVE_EVERY_SECONDS = 60.0  # at the end of an epoch; more if writing is slow:
QUICK_SECONDS = 3.0  # a state that takes longer to write is saved proportionally less often
RESUME_REMEDY = "delete {path}, or start again with --overwrite"
FLOAT_DIGITS = 15  # decimal digits that every float64 holds

logger = logging.getLogger(__name__)


class MultimodalTrainer(Trainer):
    """Trains a RecBole general recommender; selects on validation only.

    `setting` mmrec: an epoch improves only if its validation score is larger than the best;
    recbole: larger or equal. Training stops when more than `stopping_step` evaluations in a row
    bring no improvement. `lr_decay: [g, every]`: the learning rate of epoch e is lr·g^(e/every).

    Attributes:
        history: one dict per epoch: epoch, seconds, loss (mean over the batches), losses (its
            terms by name), and valid and evaluate_seconds where the epoch was evaluated.
        stop_requested: set it (from a signal handler) to stop after the running epoch.
        state_file: where the state is saved, and resumed from if it exists.
        continued_from: another state to resume from if that one does not exist; it is not changed.
        identity: what distinguishes the run from others; its saved state is resumed by no other.
        item_searches: approximate searches of the model's item graphs, for the record.
        valid_users: numbers of users in the sample that is validated (`valid_users: N`) and in all.
        on_epoch: called with the history after each epoch.
        steps: makes the steps of an epoch, one operator at a time or, with `captured_steps: true`,
            as one graph each.
    """

    def __init__(self, config: Any, model: Any, state_file: Path | None = None) -> None:
        AbstractTrainer.__init__(self, config, model)
        self.logger = logger  # RecBole's optimizers warn with it
        self.device = config["device"]
        self.learning_rate = config["learning_rate"]
        self.learner, self.weight_decay = config["learner"], config["weight_decay"]
        self.epochs, self.eval_step = config["epochs"], config["eval_step"]
        self.precision = torch.bfloat16 if config["precision"] == "bfloat16" else None
        if self.precision:
            _check_bfloat16(type(model))
        if self.precision and not hardware.has_bfloat16(str(self.device)):
            logger.warning(
                "precision=bfloat16: this processor has no bfloat16 units, so products take many "
                "times longer than in float32; --set precision=float32 is faster here"
            )
        self.clip_grad_norm = config["clip_grad_norm"]
        self.metrics = canonical(config["metrics"])
        self.valid_metric = canonical_at_k(config["valid_metric"])
        self.valid_metric_bigger = config["valid_metric_bigger"]
        self.test_batch_size = config["eval_batch_size"]
        self.cutoffs = cutoffs(config)
        self.decimals = config["metric_decimal_place"]
        self.checkpoint_dir = config["checkpoint_dir"]
        self.saved_model_file = str(
            Path(self.checkpoint_dir) / f"{config['model']}-{time.time_ns():x}.pth"
        )
        self.state_file = state_file
        within = columns.division()
        self.writes = within is None or within.rank == 0  # the others' files would be the same
        self.continued_from: Path | None = None
        self.identity: dict[str, Any] = {}
        self.item_searches: list[dict[str, Any]] = []
        self.valid_users: dict[str, int] = {}
        self.on_epoch: Callable[[list[dict[str, Any]]], None] | None = None
        graphs = captured.graphs_for(type(model), config)
        self.steps = captured.CapturedSteps(model.changing_parts, graphs) if graphs else Steps()
        self.optimizer = self._build_optimizer()
        self.stopping = EarlyStopping(
            self.valid_metric,
            larger_is_better=config["valid_metric_bigger"],
            patience=config["stopping_step"],
            ties_improve=config["setting"] == "recbole",
        )
        self.start_epoch = 0
        self.history: list[dict[str, Any]] = []
        self.stop_requested = False
        self.stop_reason = "not started"
        self._best_weights: dict[str, torch.Tensor] | None = None
        self._pair_batches: PairBatches | None = None
        self._loader_rng: torch.Generator | None = None  # of RecBole's loaders
        self.seconds_before = 0.0  # of earlier sessions of this run
        self._started = self._saved_at = time.monotonic()
        self._writing_seconds = 0.0  # of the last saved state
        self._saved_epochs = -1  # epochs in the state that this object wrote last
        self.train_loss_dict: dict[int, float] = {}

    # Training -----------------------------------------------------------------------------------

    def fit(  # type: ignore[override]
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float] | None]:
        """Train to early stopping and leave the model with its best weights.

        Returns:
            best validation score and all validation metrics of that epoch.

        Raises:
            DivergedError: the loss became NaN or infinite.
            NotEnoughMemoryError: the estimate exceeds what is free; nothing was started.
        """
        batches = replace_loader(train_data, type(self.model), self.config)
        self._pair_batches = batches if isinstance(batches, PairBatches) else None
        batch_size = self.config["train_batch_size"]
        if self._pair_batches:
            batch_size = min(batch_size, len(self._pair_batches.sampler))
        memory_estimate.check(self.model, self.learner, batch_size, self.device)
        rng = getattr(batches, "generator", None)
        self._loader_rng = rng if isinstance(rng, torch.Generator) else None
        task = as_task(valid_data, self.config["setting"])
        if task is not None and self.config["valid_users"]:
            whole = len(task.users)
            task = sampled(task, self.config["valid_users"], self.config["split_seed"] or 0)
            self.valid_users = {"users": len(task.users), "users_with_targets": whole}
        source = self._saved_state()
        if source is not None:
            self._resume(source, self._pair_batches)
            if self.start_epoch:
                announce(f"continuing after epoch {self.start_epoch}")
        if type(self.model).type == ModelType.TRADITIONAL:  # an instance may have its own `type`
            return self._fit_without_training(task)
        self.stop_reason = "epochs"
        with (
            waiting.considerate(torch.get_num_threads()),
            TrainingProgress(
                self.config["model"],
                self.start_epoch,
                self.epochs,
                self.eval_step,
                self.stopping,
                show_progress,
            ) as progress,
        ):
            try:
                self._run_epochs(progress, batches, task, callback_fn)
            finally:
                self.steps.release()
        if self.stopping.exhausted and self.stop_reason == "epochs":
            self.stop_reason = "patience"
        if self.state_file and self._saved_epochs != len(self.history):
            self.save_state()
        if task is None:
            self.stopping.best_epoch = len(self.history) - 1
        if self._best_weights is not None and self.stop_reason != "interrupted":
            self.model.load_state_dict(self._best_weights)
        if saved and not self.state_file and self.writes:
            self._save_checkpoint(self.stopping.best_epoch, verbose=False)
        return self.stopping.best_score, recbole_names(self.stopping.best_result)

    def _run_epochs(
        self,
        progress: TrainingProgress,
        batches: Any,
        task: EvalTask | None,
        callback_fn: Callable[[int, float], None] | None,
    ) -> None:
        """Train and evaluate, epoch by epoch, until early stopping or an interruption."""
        slow_epochs = SlowEpochs()
        for epoch in progress.steps():
            if self.stopping.exhausted:
                break
            (stop,) = divided.any_of(self.stop_requested)  # a signal reaches them one by one
            if stop:
                self.stop_reason = "interrupted"
                break
            self._set_learning_rate(epoch)
            cpu = time.process_time()
            entry = self._run_epoch(batches, epoch)
            slow_epochs.add(entry["seconds"], time.process_time() - cpu)
            if task is not None and (epoch + 1) % self.eval_step == 0:
                started = time.perf_counter()
                result = self._metrics(self.rank(task, max(self.cutoffs)))
                entry["evaluate_seconds"] = time.perf_counter() - started
                entry["valid"] = result[self.valid_metric]
                self._update_best(epoch, result)
                if callback_fn is not None:
                    callback_fn(epoch, result[self.valid_metric])
            self.history.append(entry)
            progress.update(entry)
            if self.on_epoch is not None:
                self.on_epoch(self.history)
            due = self.writes and time.monotonic() - self._saved_at > self._save_after()
            (due,) = divided.any_of(due)
            if self.state_file and due:
                self.save_state()

    def _fit_without_training(self, task: EvalTask | None) -> tuple[float, Any]:
        self.stop_reason, self.stopping.best_epoch = "nothing to train", 0
        if task is not None:
            self.stopping.update(0, self._metrics(self.rank(task, max(self.cutoffs))))
        return self.stopping.best_score, recbole_names(self.stopping.best_result)

    def _run_epoch(self, batches: Any, epoch: int) -> dict[str, Any]:
        started = time.perf_counter()
        self.model.train()
        self.model.epoch_losses = [entry["loss"] for entry in self.history]
        if hasattr(self.model, "begin_epoch"):  # what a model draws or builds once an epoch
            self.model.begin_epoch(epoch_generator(self.config["seed"], epoch))
        on_device = (batch.to(self.device) for batch in batches)
        total, count = self.steps.epoch(self._step, on_device)
        divided.align(self.optimizer)
        means = (value / count for value in total.values.tolist())
        losses = dict(zip(total.names, means, strict=True))
        if not all(map(math.isfinite, losses.values())):
            raise DivergedError(
                f"The training loss is not finite in epoch {epoch}.",
                found=", ".join(f"{name} = {value}" for name, value in losses.items()),
                expected="finite numbers",
                hint="lower learning_rate or a loss weight",
            )
        self.train_loss_dict[epoch] = sum(losses.values())
        return {
            "epoch": epoch,
            "seconds": time.perf_counter() - started,
            "loss": self.train_loss_dict[epoch],
            "losses": losses,
        }

    def _step(self, batch: Interaction) -> Terms:
        """One step of the optimizer."""
        self.optimizer.zero_grad()
        with precision(self.precision):
            parts = losses_by_name(self.model.calculate_loss(batch))
            terms = torch.stack([part.reshape(()) for part in parts.values()])
            terms.sum().backward()
        if self.clip_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), **self.clip_grad_norm)
        self.optimizer.step()
        if hasattr(self.model, "after_step"):  # what a model's weights must keep to
            self.model.after_step()
        return Terms(tuple(parts), terms.detach())

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        """Adam or AdamW of ours, by the config's `learner`; RecBole's for every other."""
        if self.learner.lower() == "sparse_adam":
            optimizer.check_sparse(self.model, self.weight_decay or 0.0)
        ours = optimizer.build(
            self.model,
            self.learner,
            self.learning_rate,
            self.weight_decay or 0.0,
            clipped=bool(self.clip_grad_norm),
            captured=isinstance(self.steps, captured.CapturedSteps),
        )
        return super()._build_optimizer(**kwargs) if ours is None else ours

    def _set_learning_rate(self, epoch: int) -> None:
        factor, every = self.config["lr_decay"] or (1.0, 1)
        optimizer.set_learning_rate(self.optimizer, self.learning_rate * factor ** (epoch / every))

    @property
    def cur_step(self) -> int:
        """Under RecBole's name, which its checkpoints have."""
        return self.stopping.misses

    @cur_step.setter
    def cur_step(self, value: int) -> None:
        self.stopping.misses = value

    @property
    def best_valid_score(self) -> float:
        """Under RecBole's name, which its checkpoints have."""
        return self.stopping.best_score

    @best_valid_score.setter
    def best_valid_score(self, value: float) -> None:
        self.stopping.best_score = value

    def _update_best(self, epoch: int, result: dict[str, float]) -> None:
        if self.stopping.update(epoch, result):
            self._best_weights = None  # freed before the new ones: they can be hundreds of MB
            self._best_weights = _on_host(self.model.state_dict())

    # Evaluation ---------------------------------------------------------------------------------

    def rank(self, task: EvalTask, k: int) -> Ranking:
        """Top-k lists of a task under the model's present weights."""
        scores = self.scorer(task.masked.shape[1])
        if columns.division() is not None:
            self.model.scoring_vectors()  # by all processes, also by those that rank nobody
        return divided.rank_by_users(scores, task, k, self.device)

    def scorer(self, n_items: int) -> Scores:
        """The model's scores as `rank` asks for them; `n_items` counts PAD."""
        self.model.eval()
        field = self.config["USER_ID_FIELD"]
        return lambda users: self.model.full_sort_predict(Interaction({field: users}))

    def _metrics(self, ranking: Ranking) -> dict[str, float]:
        means = ranking.means(self.metrics, self.cutoffs)
        return {name: round(value, self.decimals) for name, value in means.items()}

    def evaluate(  # type: ignore[override]
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> dict[str, float] | None:
        """Metrics of a split under RecBole's names ("recall@20").

        They are rounded to `metric_decimal_place`; from 15, which a float64 holds, they are not.
        """
        if not eval_data:
            return None
        if load_best_model and model_file is not None:
            checkpoint = torch.load(model_file, map_location=self.device, weights_only=True)
            self.model.load_state_dict(checkpoint["state_dict"])
        elif load_best_model and self._best_weights is not None:
            self.model.load_state_dict(self._best_weights)
        task = as_task(eval_data, self.config["setting"])
        assert task is not None
        ranking = self.rank(task, max(self.cutoffs))
        exact = self.decimals >= FLOAT_DIGITS  # then as in a record
        means = ranking.means(self.metrics, self.cutoffs) if exact else self._metrics(ranking)
        return recbole_names(means)

    # State --------------------------------------------------------------------------------------

    def save_state(self) -> None:
        """Write everything that is needed to go on as if nothing had happened."""
        assert self.state_file is not None
        batches, loader = self._pair_batches, self._loader_rng
        tensors = {
            "model": divided.whole_state(self.model),
            "best": self._best_weights and divided.whole_state(self.model, self._best_weights),
            "optimizer": divided.whole_optimizer(self.optimizer),
            "counters": self._counters(),
        }
        self._saved_epochs = len(self.history)
        if not self.writes:
            return
        plain = SavedTraining.model_validate(
            {
                "next_epoch": len(self.history),
                "history": self.history,
                "best_result": self.stopping.best_result,
                "seconds": self.seconds_before + time.monotonic() - self._started,
                "random": random_state.RandomStates.now(),
                "pairs": PairsState.of(batches.generator) if batches else None,
                "loader": random_state.as_hex(loader.get_state()) if loader else None,
            }
        )
        started = time.monotonic()
        training_state.save_run(self.state_file, tensors, plain, self.identity)
        self._writing_seconds = time.monotonic() - started
        self._saved_at = time.monotonic()

    def _counters(self) -> dict[str, torch.Tensor]:
        """What a training changes in the model and no `state_dict` holds."""
        return {}

    def _set_counters(self, counters: dict[str, torch.Tensor]) -> None:
        """Take over the counters of a state."""

    def _save_after(self) -> float:
        """Seconds between two saved states: at least 20 times what writing the last one took."""
        return SAVE_EVERY_SECONDS * max(1.0, self._writing_seconds / QUICK_SECONDS)

    def _saved_state(self) -> Path | None:
        """The state to resume from."""
        for path in (self.state_file, self.continued_from):
            if path is not None and path.is_file():
                return path
        return None

    def _resume(self, source: Path, batches: PairBatches | None) -> None:
        """Continue from a state.

        Raises:
            RecordError: the file is damaged or belongs to another run.
        """
        state = training_state.read_run(
            source, SavedTraining, self.identity, device=self.device, remedy=RESUME_REMEDY
        )
        try:
            self._apply(state.tensors, state.plain, batches)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise RecordError(
                f"The saved state {source.name} cannot be resumed.",
                found=training_state.first_line(error),
                expected="the state of the same model and training",
                hint=RESUME_REMEDY.format(path=source),
            ) from error

    def _apply(
        self, tensors: dict[str, Any], plain: SavedTraining, batches: PairBatches | None
    ) -> None:
        """Take over a state that was read.

        Raises:
            ValueError, KeyError, TypeError, RuntimeError: it is not one of this training.
        """
        if plain.next_epoch > self.epochs:
            raise ValueError(f"{plain.next_epoch} epochs are done, of at most {self.epochs}")
        self.history, stopping = plain.entries(), self.stopping
        for entry in self.history:
            if "valid" in entry:
                stopping.update(entry["epoch"], {self.valid_metric: entry["valid"]})
        best = tensors["best"] and divided.part_of_state(self.model, tensors["best"])
        if (plain.best_result is None) != (stopping.best_epoch is None) or (best is None) != (
            stopping.best_epoch is None
        ):
            raise ValueError("the best epoch of the history is not the one whose weights are saved")
        if plain.best_result and plain.best_result.get(self.valid_metric) != stopping.best_score:
            raise ValueError("the best score is not that of the history")
        stopping.best_result = plain.best_result
        if best is not None:
            self.model.load_state_dict(best)  # refuses other names and shapes
        self.model.load_state_dict(divided.part_of_state(self.model, tensors["model"]))
        moments = divided.part_of_optimizer(self.optimizer, tensors["optimizer"])
        self.optimizer.load_state_dict(moments)
        self._best_weights = best and _on_host(best)
        self._set_counters(tensors.get("counters", {}))
        if (plain.pairs is None) != (batches is None) or (plain.loader is None) != (
            self._loader_rng is None
        ):
            raise ValueError("the training data were drawn by another loader")
        if batches is not None and plain.pairs is not None:
            batches.generator.bit_generator.state = plain.pairs.model_dump()
        if self._loader_rng is not None and plain.loader is not None:
            self._loader_rng.set_state(random_state.from_hex(plain.loader))
        plain.random.restore(self.device)
        self.start_epoch, self.seconds_before = plain.next_epoch, plain.seconds


def _check_bfloat16(model_class: Any) -> None:
    """Refuse precision=bfloat16 where it would change nothing.

    Raises:
        SettingError: the model computes no product in that type.
    """
    reason = getattr(model_class, "bfloat16_refused", "a model of RecBole computes in float32")
    if reason:
        raise SettingError(
            f"precision=bfloat16 has no effect on {model_class.__name__}: {reason}.",
            found="precision=bfloat16",
            expected="precision=float32",
            hint="models with content have large products, which bfloat16 makes faster",
        )


def _on_host(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A copy in the host's memory: a GPU's is needed for the training."""
    return {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}


def losses_by_name(losses: Any) -> dict[str, torch.Tensor]:
    """The loss terms that a model's `calculate_loss` returns.

    Names are those of a named tuple; loss0, loss1 … for another tuple; loss for one tensor.

    >>> losses_by_name((torch.tensor(1.0), torch.tensor(2.0)))
    {'loss0': tensor(1.), 'loss1': tensor(2.)}
    """
    if not isinstance(losses, tuple):
        return {"loss": losses}
    names = getattr(losses, "_fields", [f"loss{number}" for number in range(len(losses))])
    return dict(zip(names, losses, strict=True))


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The generator of a model's own draws in an epoch; a resumed run draws the same."""
    (state,) = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state))
