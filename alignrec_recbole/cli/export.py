"""The verb `export`: a trained model or a feature file as a folder for other programs."""

from __future__ import annotations

from pathlib import Path

import cloup
from cloup.constraints import RequireExactly

from alignrec_recbole.cli._types import FILE, FOLDER
from alignrec_recbole.cli._verb import option, verb


@verb(
    examples=(
        "export --run results/runs/ml-100k/BPR/RECORD.json --to exported --index",
        "export --feature-file data/shop/mine.npy --to card",
    ),
)
@cloup.option_group(
    "What to export",
    option(
        "--run",
        "source",
        type=FILE,
        metavar="RECORD",
        help="Record of a finished run, or its .safetensors.",
    ),
    option(
        "--feature-file",
        type=FILE,
        metavar="FILE",
        help="A feature file (.npy) with its manifest.",
    ),
    constraint=RequireExactly(1),
)
@cloup.option_group(
    "Files",
    option(
        "--to",
        "folder",
        required=True,
        type=FOLDER,
        metavar="DIR",
        help="A new folder.",
    ),
    option(
        "--index",
        is_flag=True,
        help="Of a model with vectors: also a FAISS index of the items, checked against the full "
        "ranking (extra `ann`).",
    ),
)
def export(source: Path | None, feature_file: Path | None, folder: Path, index: bool) -> int:
    """Write a trained model and its vectors, or features.

    Vectors have the tokens of their users and items, and a card describes the model. The folder can
    be published on the Hugging Face Hub; `recommend --run DIR` and load_model read it.
    """
    from alignrec_recbole.api.export import export_features, export_model
    from alignrec_recbole.api.tables import can_write_parquet
    from alignrec_recbole.api.trained_model import load_model
    from alignrec_recbole.errors import SettingError, printable

    if source is None:
        if index:
            raise SettingError("A feature file has no index.", found="--index with --feature-file")
        assert feature_file is not None
        files = export_features(feature_file, folder)
    else:
        model = load_model(source)
        files = export_model(model, folder, index=index)
        if model.card.kind != "vectors":
            print(f"no vectors: {printable(model.card.model)} scores by {model.card.kind}")
        elif not can_write_parquet():
            print("no Parquet files: they need the extra 'parquet'")
    for path in files:
        print(printable(str(path)))
    return 0
