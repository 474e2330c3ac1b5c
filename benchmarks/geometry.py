"""How AlignRec's vectors lie on the sphere while it is trained, with and without its alignment.

    python -m benchmarks.geometry --dataset ml-100k --features lsa
    python -m benchmarks.geometry --data-path DIR --dataset lfm2k --features all-MiniLM-L6-v2,vggish

Trains AlignRec for `--epochs` epochs without early stopping, per seed once with its default weights
(`all`), once without REG (`no-reg`) and once without CCA, UIA and REG (`none`), and after every
epoch writes the figures of `protocols.diagnostics.geometry` for the ID view h_id, the content view
h_mm and their sum h, beside the validation score. One CSV per run,
`FOLDER/<dataset>-<form>-s<seed>.csv`; a run whose file is complete is not made again. What it was
made with is in the .json beside it. `--summary` prints the mean over seeds at chosen epochs as a
table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from alignrec_recbole.errors import RecordError
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.models.alignrec import AlignRec
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.protocols.diagnostics import geometry
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runs.tasks import build_trainer, train_data, valid_task
from benchmarks import command_line

FORMS: dict[str, dict[str, float]] = {
    "all": {},
    "no-reg": {"reg_sim_weight": 0.0},
    "none": {"cca_weight": 0.0, "uia_weight": 0.0, "reg_sim_weight": 0.0},
}
FOLDER = Path("results/shipped/geometry")
SHOWN = (0, 1, 5, 10, 20, 40, 59)


@torch.no_grad()
def views(model: AlignRec) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """User and item vectors of h_id, h_mm and h, without the PAD rows."""
    nodes = layer_mean(model.graph, model.nodes.weight, model.settings.n_ui_layers)
    ids = nodes[: model.n_users], nodes[model.n_users :]
    items = model._content_items(model.nodes.items)
    content = model.user_item @ items, items
    both = tuple(model._fuse(one, other) for one, other in zip(ids, content, strict=True))
    named = {"id": ids, "mm": content, "sum": both}
    return {name: (users[1:], items[1:]) for name, (users, items) in named.items()}


def train(spec: RunSpec) -> pd.DataFrame:
    """Figures per epoch; the first row, epoch −1, is of the initial weights."""
    prepared = prepare_run(spec)
    users, items = prepared.splits[0].pairs()
    pairs = users - 1, items - 1
    trainer = build_trainer(prepared, None)
    model = trainer.model
    features = model.tables[0].detach()[1:].clone()  # before training moves them
    rows = [{"epoch": -1, "valid": np.nan, **geometry(views(model), pairs, features)}]

    def note(history: list[dict]) -> None:
        entry = history[-1]
        figures = geometry(views(model), pairs, features)
        rows.append({"epoch": entry["epoch"], "valid": entry["valid"], **figures})

    trainer.on_epoch = note
    trainer.fit(train_data(prepared), valid_task(prepared), saved=False)
    return pd.DataFrame(rows)


def check_made(path: Path, made: dict[str, Any]) -> None:
    """Refuse a run's file that was made with something else; one that does not say is taken.

    Raises:
        RecordError: the .json beside it says that it was.
    """
    noted = path.with_suffix(".json")
    before = json.loads(noted.read_text("utf-8")) if noted.exists() else made
    if before != made:
        raise RecordError(
            f"The figures in {path.name} are of another run.",
            found=f"stored {before}, now {made}",
            expected="the same features and settings",
            hint="write the new figures to another --folder",
        )


def summary(folder: Path, dataset: str) -> str:
    """Means over the seeds at some epochs, as Markdown."""
    out = []
    for form in FORMS:
        runs = [pd.read_csv(path) for path in sorted(folder.glob(f"{dataset}-{form}-s*.csv"))]
        if runs:
            mean = pd.concat(runs).groupby("epoch").mean()
            shown = mean.loc[[epoch for epoch in SHOWN if epoch in mean.index]]
            title = f"**{dataset}, {form}, mean of {len(runs)} seeds**"
            out.append(f"{title}\n\n{shown.T.to_markdown(floatfmt='.3f')}")
    return "\n\n".join(out)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing, or print the summary."""
    parser = argparse.ArgumentParser(prog="benchmarks.geometry")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data-path", type=Path)
    parser.add_argument("--features", default="lsa", help="feature sets, joined by commas")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--forms", default=",".join(FORMS), help="some of the forms")
    parser.add_argument("--seeds", type=_numbers, default=[999, 1000, 1001])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--output", type=Path, default=Path("results"), help="encoded features")
    parser.add_argument("--summary", action="store_true", help="print the table, train nothing")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.forms.split(",")) - set(FORMS)):
        parser.error(f"no form {', '.join(unknown)}; there are {', '.join(FORMS)}")
    if options.summary:
        print(summary(options.folder, options.dataset))
        return 0
    for seed in options.seeds:
        for form in options.forms.split(","):
            path = options.folder / f"{options.dataset}-{form}-s{seed}.csv"
            made = {"features": options.features.split(","), "settings": FORMS[form]}
            check_made(path, made)
            if path.exists() and len(pd.read_csv(path)) == options.epochs + 1:
                continue
            spec = RunSpec(
                "AlignRec",
                options.dataset,
                tuple(options.features.split(",")),
                seed=seed,
                data_path=options.data_path,
                output=options.output,
                epochs=options.epochs,
                overrides={"stopping_step": options.epochs, **FORMS[form]},
                device="cpu",
                progress=False,
            )
            frame = train(spec)
            command_line.store(path.with_suffix(".json"), made)
            with atomic_write(path, "w") as handle:
                frame.to_csv(handle, index=False, float_format="%.6g", lineterminator="\n")
            print(path, flush=True)
    return 0


if __name__ == "__main__":
    command_line.end(main)
