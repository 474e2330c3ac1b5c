"""Trainers for models of RecBole, of RecBole-GNN and of plug-ins.

Such models cache tensors for scoring (`restore_user_e`) and may not support inference mode.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from alignrec_recbole.errors import AlignRecError, DivergedError, MissingDependencyError, ModelError
from alignrec_recbole.evaluation.ranking import EvalTask, Ranking, Scores
from alignrec_recbole.runtime.progress import announce
from alignrec_recbole.training.trainer import MultimodalTrainer


@contextlib.contextmanager
def model_errors(name: str, doing: str) -> Iterator[None]:
    """Errors of a model that is not this package's become one that names it.

    Raises:
        ModelError: the model's code raised an error or tried to exit.
    """
    try:
        yield
    except (AlignRecError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"The model {name!r} cannot {doing}.",
            found=f"{type(error).__name__}: {error}",
            expected="a model that RecBole itself can train and rank with these settings",
        ) from error


PAIRS = 1 << 18  # user-item pairs scored at once by models that score pairs only
# a class of RecBole → its attributes that every step changes and no `state_dict` holds
COUNTERS = {
    "MultiVAE": ("update",),
    "MacridVAE": ("update",),
    "DiffRec": ("Lt_history", "Lt_count"),
    "LDiffRec": ("update_count", "update_count_vae"),
    "LINE": ("random_list", "random_pr"),
}


class RecBoleModelTrainer(MultimodalTrainer):
    """Ranks without inference mode, and clears the tensors that a model cached for scoring."""

    def rank(self, task: EvalTask, k: int) -> Ranking:
        """Top-k lists of a task under the model's present weights."""
        try:
            return super().rank(task, k)
        except DivergedError as error:
            raise DivergedError(
                f"The model {self.config['model']!r} scored NaN or infinity.",
                expected=error.expected,
                hint=error.hint,
            ) from error

    def scorer(self, n_items: int) -> Scores:
        """The model's scores as `rank` asks for them; `n_items` counts PAD."""
        self.model.eval()
        for name in vars(self.model):
            if name.startswith("restore_") or name == "i_embedding":  # the latter is DMF's
                setattr(self.model, name, None)
        field = self.config["USER_ID_FIELD"]

        def scores(users: Tensor) -> Tensor:
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                model_errors(self.config["model"], "score"),
            ):
                try:
                    table = self.model.full_sort_predict(Interaction({field: users.clone()}))
                except NotImplementedError:  # it has `predict` alone
                    table = self._scores_of_pairs(users.clone(), n_items)
                return self._checked(table, (len(users), n_items))

        return scores

    def _counters(self) -> dict[str, Tensor]:
        kinds = [kind.__name__ for kind in type(self.model).__mro__]
        names = [name for kind in kinds for name in COUNTERS.get(kind, ())]
        return {name: torch.as_tensor(getattr(self.model, name)) for name in names}

    def _set_counters(self, counters: dict[str, Tensor]) -> None:
        present = self._counters()
        if {n: t.shape for n, t in counters.items()} != {n: t.shape for n, t in present.items()}:
            raise ValueError(f"the state has the counters {sorted(counters)}")
        for name, value in counters.items():
            before = getattr(self.model, name)
            if isinstance(before, Tensor):
                setattr(self.model, name, value.to(before))
            else:  # a number or an array
                found = value.cpu().numpy()
                setattr(self.model, name, found if found.ndim else found.item())

    def _checked(self, table: Any, shape: tuple[int, int]) -> Tensor:
        """The scores [b, item_num] that a model returned, which may be flat."""
        if not isinstance(table, Tensor) or table.numel() != shape[0] * shape[1]:
            kind = list(table.shape) if isinstance(table, Tensor) else type(table).__name__
            raise ModelError(
                f"The model {self.config['model']!r} returns no score for every user and item.",
                found=f"{kind} from full_sort_predict or predict",
                expected=f"a tensor {list(shape)}: users of the batch, items with PAD",
            )
        return table.reshape(shape)

    def _run_epoch(self, batches: Any, epoch: int) -> dict[str, Any]:
        with model_errors(self.config["model"], "be trained"):
            return super()._run_epoch(batches, epoch)

    def _scores_of_pairs(self, users: Tensor, n_items: int) -> Tensor:
        """Scores [b · n_items] by the model's `predict`, in blocks of pairs."""
        fields = self.config["USER_ID_FIELD"], self.config["ITEM_ID_FIELD"]
        items = torch.arange(n_items, device=users.device).repeat(len(users))
        pairs = users.repeat_interleave(n_items).split(PAIRS), items.split(PAIRS)
        parts = [
            self.model.predict(Interaction(dict(zip(fields, part, strict=True)))).flatten()
            for part in zip(*pairs, strict=True)
        ]
        return torch.cat(parts)


def trainer_class(name: str) -> type[RecBoleModelTrainer]:
    """The trainer of a model by its name in RecBole or RecBole-GNN."""
    own: dict[str, type[RecBoleModelTrainer]] = {"NCL": NCLTrainer, "HMLET": HMLETTrainer}
    return own.get(name, RecBoleModelTrainer)


class NCLTrainer(RecBoleModelTrainer):
    """Clusters the embeddings every `m_step` epochs; no prototype loss before `warm_up_step`.

    Source: RecBole-GNN @ 632ef88 trainer.py, NCLTrainer.
    """

    def _saved_state(self) -> Path | None:
        """None where an epoch needs the clusters of an earlier one, which no state holds."""
        source = super()._saved_state()
        if source is not None and self.config["m_step"] > 1:
            announce(f"NCL begins again: {source.name} has no clusters, and m_step is not 1")
            return None
        return source

    def _run_epoch(self, batches: Any, epoch: int) -> dict[str, Any]:
        model = self.model
        if epoch % self.config["m_step"] == 0 or model.user_2cluster is None:
            try:
                model.e_step()
            except ImportError as error:
                raise MissingDependencyError(
                    "NCL clusters with faiss.",
                    found=str(error),
                    expected="faiss",
                    hint="pip install faiss-cpu",
                ) from error
        if epoch >= self.config["warm_up_step"]:
            return super()._run_epoch(batches, epoch)
        whole = model.calculate_loss
        model.calculate_loss = lambda batch: whole(batch)[:-1]
        try:
            return super()._run_epoch(batches, epoch)
        finally:
            del model.calculate_loss


class HMLETTrainer(RecBoleModelTrainer):
    """Gates stay as they are for `warm_up_epochs`, then learn while they cool down.

    Temperature max(t₀·exp(−γ·(epoch − warm-up)), t_min).
    Source: RecBole-GNN @ 632ef88 trainer.py, HMLETTrainer.
    """

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        self._let_gates_learn(True)  # the optimiser takes only what can learn
        optimizer = super()._build_optimizer(**kwargs)
        self._let_gates_learn(False)
        return optimizer

    def _let_gates_learn(self, learn: bool) -> None:
        for gate in self.model.gating_nets:
            self.model._gating_freeze(gate, learn)

    def _run_epoch(self, batches: Any, epoch: int) -> dict[str, Any]:
        config = self.config
        after = epoch - config["warm_up_epochs"]
        if after > 0:
            heat = config["ori_temp"] * math.exp(-config["gum_temp_decay"] * after)
            self.model.gum_temp = max(heat, config["min_temp"])
            self._let_gates_learn(True)
        return super()._run_epoch(batches, epoch)
