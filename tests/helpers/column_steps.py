"""Steps of models in one process or, started by torchrun, in several: losses, gradients, weights.

`python column_steps.py DATA_PATH OUTPUT STEPS TYPE MODEL[:FEATURES[:KEY=VALUE,…]] …` writes
one file of whole arrays per model, OUTPUT/<number>.npz. TYPE is float32 or float64.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import numpy as np
import torch

from alignrec_recbole.cli._overrides import assignment
from alignrec_recbole.ops import columns
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runs.tasks import build_trainer, train_data
from alignrec_recbole.settings import nested
from alignrec_recbole.training import divided
from alignrec_recbole.training.trainer import losses_by_name


def steps_of(spec: RunSpec, steps: int) -> dict[str, np.ndarray]:
    """Losses of every step, gradients of the first, weights after the last, all whole."""
    prepared = prepare_run(spec)
    trainer = build_trainer(prepared, None)
    model, out, done = trainer.model, {}, 0
    losses = []
    model.train()
    if hasattr(model, "begin_epoch"):
        model.begin_epoch(torch.Generator().manual_seed(1))
    batches = train_data(prepared)
    while done < steps:
        for batch in batches:
            trainer.optimizer.zero_grad()
            for table in model.parameters():  # gradients are formed whole
                table.__dict__.pop("factored_gradient", None)
            terms = torch.stack([*losses_by_name(model.calculate_loss(batch)).values()])
            terms.sum().backward()
            if not done:
                for name, table in model.named_parameters():
                    if table.grad is not None:
                        out[f"gradient/{name}"] = columns.whole_of(table.grad, table).numpy()
            trainer.optimizer.step()
            if hasattr(model, "after_step"):
                model.after_step()
            losses.append(terms.detach().numpy())
            done += 1
            if done == steps:
                break
    for name, value in divided.whole_state(model).items():
        out[f"weight/{name}"] = value.numpy()
    return {**out, "losses": np.stack(losses)}


def main(data_path: str, output: str, steps: str, dtype: str, *models: str) -> None:
    """Write the steps of each model."""
    torch.set_default_dtype(getattr(torch, dtype))
    several = "TORCHELASTIC_RUN_ID" in os.environ
    if several:
        torch.distributed.init_process_group("gloo")
    with columns.divided() if several else contextlib.nullcontext() as within:
        for number, text in enumerate(models):
            model, features, settings = [*text.split(":"), "", ""][:3]
            pairs = [assignment(pair) for pair in settings.split(",") if pair]
            overrides = nested(pairs)
            spec = RunSpec(
                model, "two", tuple(features.split("+")) if features else (),
                data_path=Path(data_path), output=Path(output) / "results", progress=False,
                overrides={
                    "train_batch_size": 64, **overrides,
                    **({"zero_rows_missing": True} if features else {}),
                },
            )  # fmt: skip
            found = steps_of(spec, int(steps))
            if within is None or within.rank == 0:
                np.savez(Path(output) / f"{number}.npz", **found)
    if several:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
