"""What single models are known to fail, or are checked with."""

from __future__ import annotations

import math
from typing import Any

from alignrec_recbole.testing.testbed import ModelUnderTest

# (model, check) → reason. Strict: one that starts to pass must be removed from the list.
EXPECTED_FAILURES: dict[tuple[str, str], str] = {
    ("Pop", "check_right_top_item"): "popularity is the same for every user",
    **{
        (name, "check_memory_ceiling"): "its item-item matrix is dense by definition"
        for name in ("EASE", "CEASE", "AddEASE")
    },
}

_IN_BLOCKS = (
    "AlignRec", "COHESION", "DAMRS", "DRAGON", "FREEDOM", "GUME", "ItemKNNCBF", "ItemKNNHybrid",
    "LATTICE", "MENTOR", "MGCN", "MSCA", "PGL", "SMORE", "SOIL",
)  # fmt: skip

# (class, check) → settings of the check's own. The bound of a block of similarities is taken from
# the configuration. LGMRec contrasts sets whose memberships are drawn with noise of their own: here
# this term stays where chance puts it, three quarters of an epoch's loss; the rest must fall.
# REARM's graphs order these items before the first step: without them there is much to learn.
CHECK_SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    **{(name, "check_memory_ceiling"): {"knn_memory_mb": 1} for name in _IN_BLOCKS},
    ("MMGF", "check_memory_ceiling"): {"knn_memory_mb": 1, "knn_k": 20},  # k entries per item
    ("REARM", "check_memory_ceiling"): {
        "knn_memory_mb": 1, "embedding_size": 64, "train_batch_size": 256,
    },
    ("LGMRec", "check_loss_falls"): {"cl_weight": 0.0},
    ("REARM", "check_loss_falls"): {"n_ui_layers": 0, "n_mm_layers": 0, "n_user_layers": 0},
}  # fmt: skip

# model → what its loss cannot fall below, and why; the fall is measured above it.
LOSS_FLOORS: dict[str, tuple[float, str]] = {
    "SLMRec": (
        math.log(256 / 4),
        "softmax over a batch of 256 in which the users of each of 4 blocks are interchangeable",
    ),
}


def own_settings(under_test: ModelUnderTest, check: str) -> dict[str, Any]:
    """Settings of a check's own for the model, from CHECK_SETTINGS."""
    names = [kind.__name__ for kind in under_test.model_class.__mro__]
    return next(
        (CHECK_SETTINGS[name, check] for name in names if (name, check) in CHECK_SETTINGS), {}
    )
