"""The file format of a trained model: what ranks for known users, without the data it came from.

A model is two files: tensors (safetensors) and a card (JSON) with their SHA-256. There are three
kinds, by what a score is computed from:

    vectors     s(u, i) = ⟨h_u, h_i⟩: final vectors of users and items
    similarity  s(u, ·) = Σ_{i ∈ N_u} S_i: a matrix of items × items, dense or sparse
    scores      a table of all scores

With them are the tokens, the training and validation pairs, which lists may exclude, and the users
that the test ranking had, since scores are computed for the same users together: the last bits of
a product may depend on them, and with them the order of almost equal scores.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignrec_recbole.errors import RecordError
from alignrec_recbole.features.content_map import NUMBERS, TENSORS, VECTORS, ContentMap, Rule
from alignrec_recbole.io.files import atomic_write, sha256_file
from alignrec_recbole.io.opening import open_input, read_bytes
from alignrec_recbole.runs.record import RunRecord, record_folder
from alignrec_recbole.runs.record_fields import (
    Count,
    Label,
    Metrics,
    Name,
    Seed,
    Sha256,
    Text,
    Values,
    first_problem,
)

if TYPE_CHECKING:
    from safetensors import safe_open

Kind = Literal["vectors", "similarity", "scores"]
MAX_CARD_BYTES = 16 << 20
MAX_BYTES = 16 << 30
MAX_NEIGHBOURS = 10**9
FOLDER = "models"  # in the output folder
SUFFIX, CARD_SUFFIX = ".safetensors", ".json"
FOLDER_NAMES = "model.safetensors", "config.json"  # in a folder of its own
_TYPES = {
    "tokens": "U8",
    "ends": "I64",
    "ids": "I32",
    "numbers": "F32",
    "means": "F64",
}


class ContentCard(BaseModel):
    """How the model scores new items by their features; see `features/content_map.py`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Rule
    sets: Annotated[dict[Label, Count], Field(min_length=1, max_length=100)]  # name → columns
    numbers: Metrics


class ModelCard(BaseModel):
    """What a saved model is: the JSON file beside its tensors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    kind: Kind
    model: Name
    dataset: Name
    features: Text
    setting: Literal["mmrec", "recbole"]
    seed: Seed
    users: Count
    items: Count
    list_length: Count  # of the test ranking
    tie_seed: Annotated[Seed, Field(ge=0)] | None = None  # of equal scores; None: the search's
    metrics: Metrics  # of the test ranking
    config: Values  # the run's effective configuration
    config_sha256: Sha256
    package_version: Label
    sha256: Sha256  # of the tensors' file
    content: ContentCard | None = None  # None: the model does not score new items
    content_refused: Text = ""  # why not; "" in cards of earlier versions


@dataclass(frozen=True)
class SavedModel:
    """A trained model as it is stored; row and column 0 of every table are PAD.

    Attributes:
        card: what it is.
        users, items: tokens [user_num - 1] and [item_num - 1]; internal id n is token n - 1.
        train, valid: CSR bool [user_num, item_num].
        ranked: internal ids of the users of the test ranking, ascending.
        content: how new items are scored; None: not at all.
        tables: by kind: `users` [user_num, d] and `items` [item_num, d]; `similarity`, an array or
            CSR [item_num, item_num]; `scores` [user_num, item_num]. float32.
    """

    card: ModelCard
    users: np.ndarray
    items: np.ndarray
    train: sp.csr_matrix
    valid: sp.csr_matrix
    ranked: np.ndarray
    tables: Mapping[str, Any]
    content: ContentMap | None = None


def model_paths(record: RunRecord, record_path: Path) -> tuple[Path, Path]:
    """Where the model of a record is: its tensors and its card, under `models` beside `runs`."""
    record_path = Path(os.path.abspath(record_path))
    folder = record_folder(record.dataset, record.protocol, record.model)
    runs = record_path.parents[len(folder.parts)]
    path = runs.parent / FOLDER / folder / record_path.name
    return path.with_suffix(SUFFIX), path


def sums_of_rows(histories: sp.csr_matrix, table: np.ndarray | sp.csr_matrix) -> np.ndarray:
    """Σ_{i ∈ N_u} S_i [b, item_num] of histories, CSR [b, item_num]."""
    product = histories.astype(np.float32) @ table
    return product.toarray() if sp.issparse(product) else np.asarray(product)


# Writing -----------------------------------------------------------------------------------------


def write_model(path: Path, card_path: Path, model: SavedModel) -> ModelCard:
    """Write a model's two files, each whole or not at all; returns the card with the hash."""
    from safetensors.numpy import save

    tensors = {
        **_packed_tokens("users", model.users),
        **_packed_tokens("items", model.items),
        **_packed_rows("train", model.train),
        **_packed_rows("valid", model.valid),
        "ranked": model.ranked.astype(np.int32),
    }
    for name, table in model.tables.items():
        if sp.issparse(table):
            rows = sp.csr_matrix(table)
            tensors[f"{name}.ends"] = rows.indptr.astype(np.int64)
            tensors[f"{name}.columns"] = rows.indices.astype(np.int32)
            tensors[f"{name}.values"] = rows.data.astype(np.float32)
        else:
            tensors[f"table.{name}"] = np.ascontiguousarray(table, dtype=np.float32)
    if model.content is not None:
        for name, tensor in model.content.tensors.items():
            tensors[f"content.{name}"] = np.ascontiguousarray(tensor)
    with atomic_write(path) as handle:
        handle.write(save(tensors, metadata={"format": "np"}))
    card = model.card.model_copy(update={"sha256": sha256_file(path)})
    with atomic_write(card_path, "w") as handle:
        handle.write(card.model_dump_json(indent=1) + "\n")
    return card


def _packed_tokens(name: str, tokens: np.ndarray) -> dict[str, np.ndarray]:
    parts = [str(token).encode("utf-8", "surrogatepass") for token in tokens]
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    return {
        f"{name}.tokens": np.frombuffer(b"".join(parts), dtype=np.uint8),
        f"{name}.ends": ends,
    }


def _packed_rows(name: str, rows: sp.csr_matrix) -> dict[str, np.ndarray]:
    return {
        f"{name}.ends": rows.indptr.astype(np.int64),
        f"{name}.items": rows.indices.astype(np.int32),
    }


# Reading -----------------------------------------------------------------------------------------


def read_card(path: Path) -> ModelCard:
    """Read a model's card.

    Raises:
        RecordError: it is missing or no card of this format.
    """
    data = read_bytes(path, what="model card", error=RecordError, max_bytes=MAX_CARD_BYTES)
    try:
        return ModelCard.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise RecordError(
            f"{Path(path).name} is not the card of a saved model.",
            found=first_problem(error),
            expected="the JSON file that a run wrote beside its model, of format 1",
        ) from None


def read_model(path: Path, card_path: Path) -> SavedModel:
    """Read a model and check it whole; nothing in it is executed.

    Raises:
        RecordError: a file is missing, damaged, too large, or not the one that its card describes.
    """
    from safetensors import SafetensorError, safe_open

    card = read_card(card_path)
    with open_input(path, what="saved model", error=RecordError, max_bytes=MAX_BYTES):
        found = sha256_file(path)
    if found != card.sha256:
        raise RecordError(
            f"{Path(path).name} is not the file that its card describes.",
            found=f"SHA-256 {found[:12]}…",
            expected=f"{card.sha256[:12]}…, from {Path(card_path).name}",
            hint="copy both files again, or run the model again with --overwrite",
        )
    try:
        with safe_open(os.fspath(path), framework="np") as file:
            return _unpacked(card, _Tensors(file))
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise RecordError(
            f"{Path(path).name} is not a saved model.",
            found=f"{type(error).__name__}: {error}",
            expected=f"tensors of {card.users:,} users and {card.items:,} items, kind {card.kind}",
            hint="copy it again, or run the model again with --overwrite",
        ) from error


class _Tensors:
    """Tensors of a file by name, checked before they are allocated."""

    def __init__(self, file: safe_open) -> None:
        self._file, self._names = file, set(file.keys())
        self.used: set[str] = set()

    def get(self, name: str, kind: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """One tensor.

        Raises:
            ValueError: it is missing, or of another type or shape; None fits any length.
        """
        if name not in self._names:
            raise ValueError(f"no tensor {name}")
        entry = self._file.get_slice(name)
        sizes, stored = list(entry.get_shape()), entry.get_dtype()
        fits = len(sizes) == len(shape) and all(
            want is None or want == size for want, size in zip(shape, sizes, strict=True)
        )
        if stored != _TYPES[kind] or not fits:
            raise ValueError(f"{name} is {stored} {sizes}, not {_TYPES[kind]} {list(shape)}")
        self.used.add(name)
        return self._file.get_tensor(name)

    def width(self, name: str) -> int:
        """Columns of a matrix."""
        return int(self._file.get_slice(name).get_shape()[1])

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def check_all_used(self) -> None:
        """Refuse a file with more than a model has.

        Raises:
            ValueError: with an example.
        """
        if more := sorted(self._names - self.used):
            raise ValueError(f"{len(more)} unknown tensors, for example {more[0]}")


def _unpacked(card: ModelCard, tensors: _Tensors) -> SavedModel:
    n_users, n_items = card.users + 1, card.items + 1
    ranked = tensors.get("ranked", "ids", (None,))
    if len(ranked) and (ranked[0] < 1 or ranked[-1] >= n_users or (np.diff(ranked) <= 0).any()):
        raise ValueError("ranked is no ascending list of users")
    model = SavedModel(
        card,
        users=_tokens(tensors, "users", card.users),
        items=_tokens(tensors, "items", card.items),
        train=_rows(tensors, "train", "items", (n_users, n_items)),
        valid=_rows(tensors, "valid", "items", (n_users, n_items)),
        ranked=ranked.astype(np.int64),
        tables=_tables(tensors, card.kind, n_users, n_items),
        content=None if card.content is None else _content(tensors, card, n_items),
    )
    tensors.check_all_used()
    return model


def _tables(tensors: _Tensors, kind: Kind, n_users: int, n_items: int) -> dict[str, Any]:
    if kind == "vectors":
        users = tensors.get("table.users", "numbers", (n_users, None))
        items = tensors.get("table.items", "numbers", (n_items, users.shape[1]))
        return {"users": _finite("users", users), "items": _finite("items", items)}
    if kind == "scores":
        scores = tensors.get("table.scores", "numbers", (n_users, n_items))
        return {"scores": _finite("scores", scores)}
    if "table.similarity" in tensors:
        square = tensors.get("table.similarity", "numbers", (n_items, n_items))
        return {"similarity": _finite("similarity", square)}
    return {"similarity": _rows(tensors, "similarity", "columns", (n_items, n_items), "values")}


def _content(tensors: _Tensors, card: ModelCard, n_items: int) -> ContentMap:
    given = card.content
    assert given is not None
    rule, width = given.rule, sum(given.sets.values())
    if (rule in VECTORS) != (card.kind == "vectors") or card.kind == "scores":
        raise ValueError(f"a model of kind {card.kind} has no new items by {rule}")
    if set(given.numbers) != set(NUMBERS[rule]) or (
        rule == "hybrid" and not 1 <= given.numbers["k"] <= MAX_NEIGHBOURS
    ):
        raise ValueError(f"the numbers of the rule {rule} are {given.numbers}")
    shapes: dict[str, tuple[int, ...]] = {
        "mean": (width,), "rows": (n_items, width), "left": (n_items, width), "least": (n_items,),
    }  # fmt: skip
    if rule == "layers":
        size = tensors.width("table.items")
        shapes |= {"weights": (size, width), "biases": (len(given.sets), size)}
    found = {}
    for name in TENSORS[rule]:
        kind = "means" if name == "mean" else "numbers"
        tensor = tensors.get(f"content.{name}", kind, shapes[name])
        if name != "least":
            _finite(f"content.{name}", tensor)
        elif np.isnan(tensor).any():
            raise ValueError("content.least holds NaN")
        found[name] = tensor
    if rule == "rows" and tensors.width("table.items") != width:
        raise ValueError(f"vectors of another length than the {width} features")
    return ContentMap(rule, dict(given.sets), dict(given.numbers), found)


def _finite(name: str, table: np.ndarray) -> np.ndarray:
    if not np.isfinite(table).all():
        raise ValueError(f"{name} holds NaN or infinity")
    return table


def _tokens(tensors: _Tensors, name: str, count: int) -> np.ndarray:
    raw = tensors.get(f"{name}.tokens", "tokens", (None,)).tobytes()
    ends = tensors.get(f"{name}.ends", "ends", (count,))
    starts = np.concatenate([[0], ends[:-1]]) if count else ends
    if (starts > ends).any() or (ends[-1] if count else 0) != len(raw):
        raise ValueError(f"the ends of the {name} do not fit their text")
    found = [
        raw[start:end].decode("utf-8", "surrogatepass")
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    if len(set(found)) != count:
        raise ValueError(f"{name} repeat")
    return np.array(found, dtype=object)


def _rows(
    tensors: _Tensors, name: str, columns: str, shape: tuple[int, int], values: str = ""
) -> sp.csr_matrix:
    ends = tensors.get(f"{name}.ends", "ends", (shape[0] + 1,))
    where = tensors.get(f"{name}.{columns}", "ids", (None,))
    if ends[0] != 0 or ends[-1] != len(where) or (np.diff(ends) < 0).any():
        raise ValueError(f"the ends of {name} do not fit its entries")
    if len(where) and (where.min() < 0 or where.max() >= shape[1]):
        raise ValueError(f"{name} names items outside of the table")
    data = np.ones(len(where), dtype=bool)
    if values:
        data = _finite(name, tensors.get(f"{name}.{values}", "numbers", (len(where),)))
    return sp.csr_matrix((data, where, ends), shape=shape)
