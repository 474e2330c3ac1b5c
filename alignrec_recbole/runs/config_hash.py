"""The hash that identifies a configuration: everything that decides a result except the seed.

Record file names contain it, so it must not change when a setting is added to the package. Rule: a
setting added after the first records enters the hash only where its value differs from the
behaviour before it existed (`ADDED_SETTINGS`). To add a setting, add its key and that value here.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import Any

NON_RESULT_KEYS = {"gpu_id", "show_progress", "threads", "seed"}  # cannot change a result
ADDED_SETTINGS: dict[str, Any] = {  # key → what runs did before it existed
    "precision": "float32",
    "knn": "exact",
    "valid_users": None,
    "nlgcl": {},
    "mdvt": {},
    "captured_steps": False,
}
# Added before the rule above: records exist whose hash includes the value.
HASHED_WITHOUT_RULE = ("precision",)
INTERACTIONS = ".inter"  # the first records hashed these files only, not .item and .user


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration with the settings that were added after it was written.

    >>> complete({"epochs": 5, "knn": "auto"})["knn"], complete({"epochs": 5})["precision"]
    ('auto', 'float32')
    """
    return {**ADDED_SETTINGS, **config}


def config_hashes(
    *,
    model: str,
    dataset: str,
    protocol: str,
    config: dict[str, Any],
    data: dict[str, Any],
    feature_files: dict[str, Any],
) -> list[str]:
    """SHA-256 of a configuration: that of new records, then those that older records may have.

    The last is the same for records of any age: it tells whether two are of one configuration.

    Args:
        config: effective configuration, of any age.
        data: with the hashes of the interaction files and the split.
        feature_files: name → manifest summary with the hash of the values.
    """
    kept = _deciding(config)
    if "feature_mask" in kept:  # its seed follows the run's
        kept["feature_mask"] = {k: v for k, v in kept["feature_mask"].items() if k != "seed"}
    identity = {
        "model": model,
        "dataset": dataset,
        "protocol": protocol,
        "split": data["split"],
        "features": {
            name: [file["sha256"], file.get("items_sha256")] for name, file in feature_files.items()
        },
    }
    older = {**{key: ADDED_SETTINGS[key] for key in HASHED_WITHOUT_RULE}, **kept}
    files = data["files"]
    interactions = {name: sha for name, sha in files.items() if name.endswith(INTERACTIONS)}
    forms = itertools.product((files, interactions), (kept, older))
    return list(
        dict.fromkeys(_sha256({"config": form, "data": of, **identity}) for of, form in forms)
    )


def settings_hash(settings: dict[str, Any]) -> str:
    """SHA-256 of settings by the rule of `config_hashes`.

    >>> settings_hash({"epochs": 5, "knn": "exact", "threads": 2}) == settings_hash({"epochs": 5})
    True
    """
    return _sha256(_deciding(settings))


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that enter a hash."""
    return {
        key: value
        for key, value in settings.items()
        if key not in NON_RESULT_KEYS
        and not (key in ADDED_SETTINGS and ADDED_SETTINGS[key] == value)
    }


def same_data(stored: dict[str, Any], present: dict[str, Any]) -> bool:
    """Whether a record's data are the present ones: split, counts and every file it hashed.

    A record from before item and user files were hashed is compared by the interactions and the
    counts of users and items.
    """
    files, now = stored["files"], present["files"]
    unhashed = [name for name in now if name not in files]
    others = [key for key in present if key != "files"]
    return (
        all(now.get(name) == sha for name, sha in files.items())
        and not any(name.endswith(INTERACTIONS) for name in unhashed)
        and all(stored.get(key) == present[key] for key in others)
    )


def _sha256(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
