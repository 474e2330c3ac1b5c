"""Inter-content alignment: BEiT-3 continued on item image-text pairs by masked prediction.

    L = L_MLM + λ L_MIM
    L_MLM  mean over masked words of the cross-entropy with the word
    L_MIM  mean over masked patches of the loss with the patch's target (targets.py)

Paper       AlignRec (CIKM 2024), L_ICA = L_MIM + L_MLM; masking ratios of BEiT-3's paper.
Deviations  neither paper says whether both modalities are masked at once: `mode` chooses, separate
            (each predicted with the other one unmasked) by default. AlignRec published no ratios,
            targets or code; only a run on BEiT v2's codes has its objective.
Exactness   a step's gradient is that of its whole batch: means are over all masked words and
            patches of the batch, however it is split into micro-batches and over processes.
            Masks, crops and drop path are functions of (seed, epoch, item): a resumed run, or one
            with other processes or micro-batches, uses the same ones.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm.auto import tqdm

from alignrec_recbole.encoders.beit3 import weights
from alignrec_recbole.encoders.beit3.architecture import Beit3
from alignrec_recbole.encoders.beit3.corpus import Corpus
from alignrec_recbole.encoders.beit3.masking import generator
from alignrec_recbole.encoders.beit3.microbatch import (
    VALIDATION_EPOCH,
    count_targets,
    make_micro_batch,
)
from alignrec_recbole.encoders.beit3.objective import loss_sums
from alignrec_recbole.encoders.beit3.pretrain_settings import PretrainSettings, logger
from alignrec_recbole.encoders.beit3.run_state import (
    KINDS,
    Progress,
    check_shapes,
    damaged,
    load_optimizer,
    read_run_state,
)
from alignrec_recbole.encoders.beit3.targets import Target
from alignrec_recbole.errors import DivergedError, SettingError, WriteError
from alignrec_recbole.io.files import atomic_write, named_write_errors
from alignrec_recbole.io.training_state import save_state
from alignrec_recbole.ops.optimizers import AdamW
from alignrec_recbole.runtime.stop_signals import stop_on_signal

CONTROL_DRAWS = 10  # of mismatched partners, in the last evaluation
EMBEDDINGS = {
    "text_embed", "patch_embed", "cls_token", "mask_token", "vision_positions", "text_positions"
}  # fmt: skip


class Pretraining:
    """A run: model, optimiser, data position.

    Args:
        model: with an MLM head, and a MIM head of the target's width.
        target: of masked patches.
        corpus: items.
        settings: all of them.
        folder: gets `last.pt` (to resume), `model.safetensors`, `history.json`, TensorBoard files.
        device: where it runs; with torch.distributed initialised, this process's.
        origin: what distinguishes the initial weights from others.

    Raises:
        SettingError: the model has no such heads.
    """

    def __init__(
        self,
        model: Beit3,
        target: Target,
        corpus: Corpus,
        settings: PretrainSettings,
        folder: Path,
        device: str = "cpu",
        progress: bool = True,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        if model.mlm_head is None or model.mim_head is None or model.sizes.mim != target.width:
            raise SettingError(
                "The model cannot be pre-trained.",
                found=f"mlm head {model.sizes.mlm}, mim head of {model.sizes.mim}",
                expected=f"both heads, the second of {target.width}",
            )
        self.model, self.target = model.to(device).train(), target.to(device)
        self.model.gradient_checkpointing = settings.recompute
        self.corpus, self.settings, self.folder = corpus, settings, Path(folder)
        self.origin = dict(origin or {})
        self.device, self.show = device, progress and _rank() == 0
        self.state, self._stop_requested = Progress(), False
        self.per_epoch = math.ceil(len(corpus.train) / settings.batch_size)
        self.steps = settings.epochs * self.per_epoch
        self._freeze()
        self.optimizer = AdamW(self._groups(), betas=settings.betas)
        self.average: dict[str, Tensor] | None = None
        if settings.ema:
            self.average = {k: v.detach().clone() for k, v in model.named_parameters()}

    def _freeze(self) -> None:
        layers = self.model.sizes.num_layers
        if self.settings.freeze_layers > layers:
            raise SettingError(
                "More layers are to be frozen than the model has.",
                found=f"--freeze-layers {self.settings.freeze_layers}",
                expected=f"at most {layers}",
            )
        frozen = tuple(f"layers.{i}." for i in range(self.settings.freeze_layers))
        if self.settings.freeze_embeddings:
            frozen += ("text_embed", "patch_embed", "cls_token", "vision_pos", "text_pos")
        for name, value in self.model.named_parameters():
            value.requires_grad_(not name.startswith(frozen) if frozen else True)

    def _groups(self) -> list[dict[str, Any]]:
        """One group per depth and kind: later layers have higher learning rates.

        As in unilm's fine-tuning, vectors and the images' positions don't decay.
        """
        groups: dict[tuple[int, bool], list[Tensor]] = {}
        layers = self.model.sizes.num_layers
        for name, value in self.model.named_parameters():
            if value.requires_grad:
                parts = name.split(".")
                depth = int(parts[1]) + 1 if parts[0] == "layers" else layers + 1
                if parts[0] in EMBEDDINGS:
                    depth = 0
                decays = value.ndim > 1 and name != "vision_positions"
                groups.setdefault((depth, decays), []).append(value)
        return [
            {
                "params": values,
                "scale": self.settings.layer_decay ** (layers + 1 - depth),
                "weight_decay": self.settings.weight_decay if decays else 0.0,
                "lr": 0.0,
            }
            for (depth, decays), values in sorted(groups.items(), key=lambda item: item[0])
        ]

    def learning_rate(self, step: int) -> float:
        """Linear from 0 over the warm-up, then half a cosine to 0."""
        warm = self.settings.warmup_epochs * self.per_epoch
        if step < warm:
            return self.settings.learning_rate * (step + 1) / max(1.0, warm)
        share = (step - warm) / max(1.0, self.steps - warm)
        return self.settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    def run(self, stop_after: int | None = None) -> Progress:
        """Train to the end, or for `stop_after` more steps, starting at `last.pt` if it exists.

        Ctrl-C or SIGTERM ends it after a step whose state is saved; then fewer steps are done than
        `steps`.

        Raises:
            DivergedError: a loss, gradient or weight is not finite.
            FeatureError: `last.pt` is damaged.
            SettingError: `last.pt` belongs to another run.
            WriteError: the folder cannot be written to, or the disk is full.
        """
        self._resume()
        with (
            named_write_errors(self.folder / "tensorboard"),
            stop_on_signal(self._request_stop, "stopping after this step"),
        ):
            return self._run(stop_after)

    def _request_stop(self) -> None:
        self._stop_requested = True

    def _run(self, stop_after: int | None) -> Progress:
        writer = self._writer()
        end = self.steps if stop_after is None else min(self.steps, self.state.step + stop_after)
        if not self.state.validation:
            self._validate(writer)
        with tqdm(
            total=self.steps, initial=self.state.step, desc="pre-training", unit="step",
            disable=not self.show,
        ) as bar:  # fmt: skip
            while self.state.step < end:
                losses = self._step()
                self.state.step += 1
                self.state.history.append(losses)
                for kind, value in losses.items():
                    writer.add_scalar(f"train/{kind}", value, self.state.step)
                bar.set_postfix({k: f"{v:.3f}" for k, v in losses.items() if k in KINDS})
                bar.update()
                if self.state.step % self.per_epoch == 0:
                    self._validate(writer)
                if self._stops():
                    end = self.state.step
                if self.state.step % self.settings.save_every == 0 or self.state.step == end:
                    self._save()
        writer.close()
        return self.state

    def _stops(self) -> bool:
        """Whether any process was asked to stop: all stop after the same step."""
        return bool(_reduced(torch.tensor([float(self._stop_requested)])) > 0)

    def _step(self) -> dict[str, float]:
        epoch, place = divmod(self.state.step, self.per_epoch)
        settings, corpus = self.settings, self.corpus
        order = corpus.train[generator(settings.seed, epoch).permutation(len(corpus.train))]
        batch = order[place * settings.batch_size : (place + 1) * settings.batch_size]
        parts_of_batch = [
            batch[i : i + settings.micro_batch] for i in range(0, len(batch), settings.micro_batch)
        ]
        sizes = self.model.sizes
        mine = [
            make_micro_batch(corpus, m, sizes.grid, epoch, settings, num_layers=sizes.num_layers)
            for m in parts_of_batch[_rank() :: _world()]
        ]
        # means over the whole batch: the counts of all processes come first
        total = _reduced(sum((count_targets(m) for m in mine), torch.zeros(2, dtype=torch.float64)))
        share = dict(zip(KINDS, total.clamp(min=1).tolist(), strict=True))
        factor = {"mlm": 1.0, "mim": settings.mim_weight}
        sums = dict.fromkeys(KINDS, 0.0)
        self.model.train()
        rate = self.learning_rate(self.state.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.zero_grad()
        for micro in mine:
            with self._autocast():
                parts = loss_sums(
                    self.model, self.target, corpus, micro, settings.mode, self.device
                )
                for losses in parts:
                    terms = [factor[kind] / share[kind] * v for kind, v in losses.items()]
                    if terms:
                        torch.stack(terms).sum().backward()
                    for kind, value in losses.items():
                        sums[kind] += float(value.detach())
        summed = _reduced(torch.tensor([sums[k] for k in KINDS], dtype=torch.float64))
        means = {k: float(v) / share[k] for k, v in zip(KINDS, summed, strict=True)}
        if not all(map(math.isfinite, means.values())):
            raise self._diverged(f"losses {means}")
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        for value in parameters:
            if value.grad is None:  # a modality without items in this batch
                value.grad = torch.zeros_like(value)
            if _world() > 1:
                dist.all_reduce(value.grad)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm))
        if not math.isfinite(norm):
            raise self._diverged(f"a gradient of norm {norm}")
        self.optimizer.step()
        if self.average is not None and settings.ema:
            for name, value in self.model.named_parameters():
                self.average[name].lerp_(value.detach(), 1 - settings.ema)
        return {**means, "gradient_norm": norm, "learning_rate": rate}

    def _diverged(self, found: str) -> DivergedError:
        return DivergedError(
            "Pre-training diverged.",
            found=f"step {self.state.step + 1}, {found}",
            expected="finite losses, gradients and weights",
            hint="lower --learning-rate or lengthen --warmup-epochs; last.pt is unharmed",
        )

    def _check_weights(self) -> None:
        """Refuse to save weights that are not finite."""
        for name, value in self.model.named_parameters():
            if not torch.isfinite(value).all():
                raise self._diverged(f"{name} holds NaN or infinity")

    def _autocast(self) -> Any:
        return torch.autocast(
            self.device.partition(":")[0], torch.bfloat16, enabled=self.settings.bfloat16
        )

    @torch.no_grad()
    def evaluate(self, members: np.ndarray, pairs: str = "true", draw: int = 0) -> dict[str, float]:
        """Mean losses on items with fixed masks, in evaluation mode.

        Args:
            members: item indices with both modalities.
            pairs: true; shuffled (each text with another item's image); blind (no image).
            draw: which of several shuffles.
        """
        corpus, settings = self.corpus, self.settings
        other = derangement(len(members), settings.seed, draw) if pairs == "shuffled" else None
        images = members if other is None else members[other]
        total, sums = torch.zeros(2, dtype=torch.float64), dict.fromkeys(KINDS, 0.0)
        self.model.eval()
        starts = list(range(0, len(members), settings.micro_batch))
        for start in starts[_rank() :: _world()]:
            rows = slice(start, start + settings.micro_batch)
            micro = make_micro_batch(
                corpus,
                members[rows],
                self.model.sizes.grid,
                VALIDATION_EPOCH,
                settings,
                images[rows],
            )
            total += count_targets(micro)
            with self._autocast():
                for losses in loss_sums(
                    self.model, self.target, corpus, micro, settings.mode, self.device,
                    no_image=pairs == "blind",
                ):  # fmt: skip
                    for kind, value in losses.items():
                        sums[kind] += float(value)
        self.model.train()
        total = _reduced(total)
        summed = _reduced(torch.tensor([sums[k] for k in KINDS], dtype=torch.float64))
        kinds = ("mlm",) if pairs == "blind" else KINDS
        return {
            k: float(summed[KINDS.index(k)] / total[KINDS.index(k)].clamp(min=1)) for k in kinds
        }

    def _validate(self, writer: Any) -> None:
        held = self.corpus.held
        both = held[self.corpus.has_text[held] & self.corpus.has_image[held]]
        row: dict[str, float] = {"step": self.state.step}
        if len(both) > 1:
            draws = CONTROL_DRAWS if self.state.step == self.steps else 1
            others = [self.evaluate(both, "shuffled", draw) for draw in range(draws)]
            results = {
                "true": self.evaluate(both),
                "shuffled": {k: float(np.mean([o[k] for o in others])) for k in KINDS},
                "blind": self.evaluate(both, "blind"),
            }
            if draws > 1:
                results["sd"] = {k: float(np.std([o[k] for o in others], ddof=1)) for k in KINDS}
            for pairs, values in results.items():
                for kind, value in values.items():
                    row[f"{kind} {pairs}"] = value
                    writer.add_scalar(f"held-out/{kind} {pairs}", value, self.state.step)
        elif self.state.step == 0:
            logger.warning("No held-out pairs: validation losses cannot be computed")
        self.state.validation.append(row)
        if self.state.step == 0 and self.target.chance and "mim true" in row:
            self._check_codebook(row["mim true"], self.target.chance)

    def _check_codebook(self, loss: float, chance: float) -> None:
        """Warn of a loss above chance: a head trained on these codes starts far below it."""
        if loss > chance + 0.5:
            logger.warning(
                "The MIM loss starts at %.2f, above chance (%.2f): the head was trained on another "
                "codebook than the target's; start with a fresh one",
                loss,
                chance,
            )

    def _writer(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        if _rank():
            return _Silent()
        path = self.folder / "tensorboard"
        try:
            return SummaryWriter(str(path), purge_step=self.state.step)
        except FileExistsError as error:
            raise WriteError(
                f"{path} is in the way of the curves.",
                found="a file",
                expected="a folder, or nothing",
                hint="move it, or choose another --output",
            ) from error

    # State -------------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        free = {"micro_batch", "save_every", "recompute"}  # these do not change the result
        return {
            "settings": self.settings.model_dump(mode="json", exclude=free),
            "target": self.target.identity,
            "architecture": self.model.sizes.stored(),
            "corpus": self.corpus.identity,
            "items": [len(self.corpus.train), len(self.corpus.held)],
            "origin": self.origin,
        }

    def _save(self) -> None:
        self._check_weights()
        if _rank() == 0:
            save_state(
                self.folder / "last.pt",
                {
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "average": self.average,
                },
                {"identity": self._identity(), "progress": vars(self.state)},
            )
            with atomic_write(self.folder / "history.json", "w") as handle:
                handle.write(json.dumps(vars(self.state), indent=1))
        if _world() > 1:
            dist.barrier()

    def _resume(self) -> None:
        path = self.folder / "last.pt"
        if not os.path.lexists(path):
            return
        state = read_run_state(path)
        before, now = state.identity, json.loads(json.dumps(self._identity()))
        if before != now:
            corpus = before.get("corpus")
            items = corpus.get("items") if isinstance(corpus, dict) else None
            earlier = items == self.corpus.name_and_size_hash
            raise SettingError(
                f"{self.folder} belongs to another pre-training run.",
                found=f"{path.name} with {_differing(before, now)}",
                expected="the settings, items, tokenizer and weights it was started with",
                hint="an earlier version did not check the images' content: start again in another "
                "--output"
                if earlier
                else "repeat them, or choose another --output",
            )
        if state.progress.step > self.steps or (state.average is None) != (self.average is None):
            raise damaged(path, f"step {state.progress.step} of {self.steps}")
        check_shapes(path, state.model, self.model.state_dict())
        self.model.load_state_dict(state.model)
        load_optimizer(path, self.optimizer, state.optimizer)
        if state.average is not None:
            check_shapes(path, state.average, dict(self.model.named_parameters()))
            self.average = {k: v.to(self.device) for k, v in state.average.items()}
        self.state = state.progress
        logger.info("resuming after step %d of %d", self.state.step, self.steps)

    def save_weights(self, note: dict[str, Any]) -> Path:
        """Write `model.safetensors`, the averaged weights where there are any."""
        path = self.folder / "model.safetensors"
        self._check_weights()
        if self.average is not None:
            self.model.load_state_dict(
                {k: self.average.get(k, v) for k, v in self.model.state_dict().items()}
            )
        if _rank() == 0:
            weights.save(self.model, path, {"pretraining": self._identity(), **note})
        return path


def derangement(n: int, seed: int, draw: int = 0) -> np.ndarray:
    """A permutation of n ≥ 2 without fixed points.

    >>> bool((derangement(9, 0) != np.arange(9)).all())
    True
    """
    order = generator(seed, 11, *([draw] if draw else [])).permutation(n)
    out = np.empty(n, dtype=np.int64)
    out[order] = np.roll(order, 1)
    return out


def _differing(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The keys in which two identities differ."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += [f"{key}.{k}" for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]
        elif a != b:
            found.append(key)
    return f"another {', another '.join(found)}"


class _Silent:
    def add_scalar(self, *_: Any) -> None:
        """Only the first process writes."""

    def close(self) -> None:
        """Nothing to close."""


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _reduced(value: Tensor) -> Tensor:
    """Sum over the processes."""
    if _world() > 1:
        on = value.cuda() if dist.get_backend() == "nccl" else value
        dist.all_reduce(on)
        return on.cpu()
    return value


def with_heads(model: Beit3, mim: int, seed: int, keep_mim: bool = False) -> Beit3:
    """The model with both heads, the missing ones and the MIM head newly initialised.

    (The published MIM head predicts codes of a codebook that was not released.)
    """
    keep = keep_mim and model.sizes.mim == mim
    sizes = model.sizes.model_copy(update={"mlm": True, "mim": mim})
    out = Beit3(sizes).initialise(seed)
    copied = {k: v for k, v in model.state_dict().items() if keep or not k.startswith("mim_head")}
    out.load_state_dict(copied, strict=False)
    return out
