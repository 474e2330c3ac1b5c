"""TensorBoard: event files in a folder of the run."""

from __future__ import annotations

import json
from typing import Any

from alignrec_recbole.tracking.base import RunFacts, RunResult


class TensorBoard:
    """Curves by epoch, final metrics, configuration and record as text."""

    def start(self, run: RunFacts) -> None:
        """Open the folder; epochs of an earlier session are replaced by those that follow."""
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard" / run.run_id
        self._writer = SummaryWriter(str(folder), purge_step=0)
        self._writer.add_text("config", _as_text(run.config), 0)

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, number)

    def energy(self) -> None:
        """Nothing is measured."""

    def end(self, result: RunResult | None) -> None:
        """Add the final metrics and close the file."""
        if result is not None:
            for kind, metrics in (("test", result.metrics), ("best", result.valid_metrics)):
                for name, value in metrics.items():
                    self._writer.add_scalar(f"{kind}/{name}", value, 0)
            record = json.loads(result.record.read_text("utf-8"))
            self._writer.add_text("record", _as_text(record), 0)
        self._writer.close()


def _as_text(value: Any) -> str:
    """JSON as a block of code in Markdown."""
    return f"```json\n{json.dumps(value, indent=1, default=str)}\n```"
