"""Weights & Biases: offline unless WANDB_MODE says otherwise; `wandb sync` uploads later."""

from __future__ import annotations

import os

from alignrec_recbole.tracking.base import RunFacts, RunResult

PROJECT = "alignrec-recbole"  # unless WANDB_PROJECT names another


class WandB:
    """One W&B run per run: curves by epoch, final metrics in the summary, a record as artifact."""

    def start(self, run: RunFacts) -> None:
        """Open a run in the folder `wandb`."""
        import wandb

        folder = run.folder / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            group=run.group,
            config={**run.config, "run_id": run.run_id},
            dir=str(folder),
            mode=mode,  # type: ignore[arg-type]  # a word that wandb checks
            reinit="create_new",  # a run that the user has open stays theirs
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True
            ),
        )

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Log a step."""
        self._run.log(values, step=number)

    def energy(self) -> None:
        """Nothing is measured."""

    def end(self, result: RunResult | None) -> None:
        """Set the summary, log the record and end the run."""
        if result is None:
            self._run.finish(exit_code=1)
            return
        import wandb

        for kind, metrics in (("test", result.metrics), ("best", result.valid_metrics)):
            for name, value in metrics.items():
                self._run.summary[f"{kind}/{name}"] = value
        artifact = wandb.Artifact(f"record-{self._run.id}", type="record")
        artifact.add_file(str(result.record.resolve()))
        self._run.log_artifact(artifact)
        self._run.finish()
