"""The settings that a cell has beside those of its command line: a hash tells whether they changed.

They come with the package (`properties/`) and with plug-ins, so an upgrade or an edit may change
them, and with them the records that the cell would leave.
"""

from __future__ import annotations

from alignrec_recbole.data.dataset_paths import CARD_KEYS, dataset_defaults
from alignrec_recbole.errors import AlignRecError
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml
from alignrec_recbole.registry.components import components
from alignrec_recbole.runs.config_hash import settings_hash
from alignrec_recbole.runs.effective_config import data_keys


def defaults_hash(model: str, dataset: str) -> str:
    """Hash of all default settings of a model on a data set that decide a result.

    Args:
        model: "" or the name of a ranker: the settings of the data set and its ranking alone.

    Returns:
        SHA-256; "" if they cannot be read, which the cell itself says.
    """
    try:
        found = components(model).defaults_for(dataset) if model else _of_data(dataset)
    except AlignRecError:
        return ""
    return settings_hash({key: value for key, value in found.items() if key not in CARD_KEYS})


def _of_data(dataset: str) -> dict[str, object]:
    every = {**read_yaml(properties_dir() / "overall.yaml"), **dataset_defaults(dataset)}
    return {key: value for key, value in every.items() if key in data_keys(dataset)}
