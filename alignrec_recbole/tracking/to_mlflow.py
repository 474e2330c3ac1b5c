"""MLflow: a local database unless MLFLOW_TRACKING_URI names another store."""

from __future__ import annotations

import os
import time
from pathlib import Path

from alignrec_recbole.tracking.base import RunFacts, RunResult

MAX_VALUE = 500  # characters of a parameter, which older stores bound


class MLflow:
    """One MLflow run per run, in an experiment per data set."""

    def start(self, run: RunFacts) -> None:
        """Open a run; the configuration becomes its parameters and the file config.json."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        folder = (run.folder / "mlflow").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        given = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(tracking_uri=given or f"sqlite:///{folder / 'mlflow.db'}")
        artifacts = None if given else (folder / "artifacts").as_uri()
        self._id = self._client.create_run(
            self._experiment(run.group, artifacts), run_name=run.name
        ).info.run_id
        self._client.set_tag(self._id, "run_id", run.run_id)
        for key, value in run.config.items():
            self._client.log_param(self._id, key, str(value)[:MAX_VALUE])
        self._client.log_dict(self._id, run.config, "config.json")

    def _experiment(self, name: str, artifacts: str | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        return self._client.create_experiment(name, artifact_location=artifacts)

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Log a step."""
        for name, value in values.items():
            self._client.log_metric(self._id, _name(name), value, int(time.time() * 1000), number)

    def energy(self) -> None:
        """Nothing is measured."""

    def end(self, result: RunResult | None) -> None:
        """Log the final metrics and the record, and end the run."""
        if result is None:
            self._client.set_terminated(self._id, "KILLED")
            return
        for kind, metrics in (("test", result.metrics), ("best", result.valid_metrics)):
            for name, value in metrics.items():
                self._client.log_metric(self._id, _name(f"{kind}/{name}"), value)
        self._client.log_artifact(self._id, str(Path(result.record).resolve()))
        self._client.set_terminated(self._id)


def _name(metric: str) -> str:
    """A name that MLflow accepts, which has no @.

    >>> _name("test/Recall@20")
    'test/Recall at 20'
    """
    return metric.replace("@", " at ")
