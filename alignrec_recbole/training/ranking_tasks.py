"""What is ranked, and which items are excluded: the same for every way to start a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from alignrec_recbole.errors import SettingError
from alignrec_recbole.evaluation.ranking import EvalTask
from alignrec_recbole.features.item_order import tie_ranks

SAMPLE_STREAM = 1  # of a seed, for the users of `valid_users`
EARLIER_SPLITS = "splits_before"  # attribute of RecBole's loaders of validation and test rows


def valid_task(splits: Sequence[Any]) -> EvalTask:
    """Validation: training items are excluded under both evaluation conventions."""
    train, valid, _ = splits
    return _task(valid, [train])


def test_task(splits: Sequence[Any], setting: str) -> EvalTask:
    """Test: mmrec excludes the training items, recbole the validation items too."""
    train, valid, test = splits
    return _task(test, [train, valid] if setting == "recbole" else [train])


def sampled(task: EvalTask, size: int, seed: int) -> EvalTask:
    """The task of `size` of its users, drawn without replacement, always the same for a seed."""
    if size >= len(task.users):
        return task
    drawn = np.random.Generator(np.random.PCG64([seed, SAMPLE_STREAM]))
    chosen = np.sort(drawn.choice(len(task.users), size, replace=False))
    return replace(
        task, users=task.users[chosen], masked=task.masked[chosen], targets=task.targets[chosen]
    )


def remember_splits(train: Any, valid: Any, test: Any) -> None:
    """Let RecBole's loaders of one data set know each other's rows, which `as_task` needs."""
    setattr(valid, EARLIER_SPLITS, [train._dataset])
    setattr(test, EARLIER_SPLITS, [train._dataset, valid._dataset])


def as_task(data: Any, setting: str) -> EvalTask | None:
    """A ranking task from ours or from RecBole's full-sort loader; None stays None.

    Raises:
        SettingError: the ranking is not a full one, or `mmrec` is asked of a loader of test rows
            that does not know the training rows.
    """
    if data is None or isinstance(data, EvalTask):
        return data
    if not hasattr(data, "uid2positive_item"):
        raise SettingError(
            "Only full ranking is supported.",
            found=f"a {type(data).__name__}",
            expected="eval_args.mode = full, and a general recommender",
        )
    earlier = getattr(data, EARLIER_SPLITS, None)
    if earlier is not None:
        return _task(data._dataset, earlier if setting == "recbole" else earlier[:1])
    if setting == "mmrec" and getattr(data._sampler, "phase", None) == "test":
        raise SettingError(
            "setting=mmrec excludes the training items alone, and RecBole's loader of test rows "
            "does not tell them from the validation items.",
            expected="loaders made by recbole.data.data_preparation, or setting=recbole",
        )
    users = data.uid_list.numpy()
    shape = (len(data.uid2positive_item), data._dataset.item_num)
    return EvalTask.from_pairs(
        _flatten(users, data.uid2positive_item),
        [_flatten(users, data.uid2history_item)],
        shape,
        _tie_rank(data._dataset),
    )


def _task(split: Any, excluded: Sequence[Any]) -> EvalTask:
    shape = (split.user_num, split.item_num)
    seen = [_pairs(other) for other in excluded]
    return EvalTask.from_pairs(_pairs(split), seen, shape, _tie_rank(split))


def _tie_rank(split: Any) -> np.ndarray:
    return tie_ranks(split.field2id_token[split.iid_field])


def _pairs(split: Any) -> tuple[np.ndarray, np.ndarray]:
    """(users, items) of a split; of any RecBole data set class."""
    return (
        split.inter_feat[split.uid_field].numpy(),
        split.inter_feat[split.iid_field].numpy(),
    )


def _flatten(users: np.ndarray, by_user: Any) -> tuple[np.ndarray, np.ndarray]:
    lists = [np.asarray(by_user[user], dtype=np.int64).ravel() for user in users]
    return np.repeat(users, [len(part) for part in lists]), np.concatenate(lists)
