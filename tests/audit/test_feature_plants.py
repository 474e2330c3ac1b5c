"""Feature sets with a planted fault, each with its clean twin, under the audit's checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from alignrec_recbole.audit.definition import Finding
from alignrec_recbole.audit.feature_leaks import _hits
from alignrec_recbole.audit.registry import CHECKS, audit
from alignrec_recbole.audit.subject import Subject, open_subject
from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.features.row_order import SURE
from alignrec_recbole.features.table import save_features
from alignrec_recbole.runs.spec import DataSpec

USERS, ITEMS, TASTES, WIDTH, EACH = 600, 300, 12, 48, 14
BY_NAME = {check.name: check for check in CHECKS if check.group == "features"}
NAMES = [str(item) for item in range(ITEMS)]


@dataclass(frozen=True)
class World:
    """Users who choose items near their taste; rows [n, 3] of user, item and label.

    Attributes:
        rows: as in the file.
        items: content of the items [ITEMS, WIDTH].
    """

    rows: np.ndarray
    items: np.ndarray


@pytest.fixture(scope="module")
def world() -> World:
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(TASTES, TASTES))
    users, items = (axes[rng.integers(0, TASTES, size)] for size in (USERS, ITEMS))
    users = users + rng.normal(size=users.shape)
    items = items + 0.7 * rng.normal(size=items.shape)
    wanted = users @ items.T + 2 * rng.gumbel(size=(USERS, ITEMS))
    chosen = np.argsort(-wanted, axis=1)[:, :EACH]
    labels = np.tile([0] * 10 + [1, 1, 2, 2], (USERS, 1))
    labels = rng.permuted(labels, axis=1)
    rows = np.stack([np.repeat(np.arange(USERS), EACH), chosen.ravel(), labels.ravel()], 1)
    rows = rows[rng.permutation(len(rows))]
    content = items @ rng.normal(size=(TASTES, WIDTH)) / TASTES**0.5
    content += 0.8 * rng.normal(size=(ITEMS, WIDTH))
    return World(rows, content.astype(np.float32))


@pytest.fixture(scope="module")
def subject(world: World, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("data") / "tastes"
    folder.mkdir()
    lines = ["userID\titemID\tx_label", *("\t".join(map(str, row)) for row in world.rows)]
    (folder / "tastes.inter").write_text("\n".join(lines) + "\n")
    spec = DataSpec("tastes", data_path=folder.parent)
    return open_subject(spec, seeds=(0,), progress=False)


def write(subject: Subject, values: np.ndarray, name: str = "planted") -> Path:
    """A feature file."""
    assert subject.folder
    path = subject.folder / f"{name}.npy"
    save_features(
        path,
        values.astype(np.float32),
        name=name,
        modality="text",
        encoder="a test",
        settings={},
        source="a test",
        items=NAMES,
        missing=[NAMES[row] for row in np.flatnonzero(~values.any(1))],
    )
    return path


def found(subject: Subject, check: str) -> Finding:
    (finding,) = BY_NAME[check].run(replace(subject, spec=with_features(subject)))
    assert isinstance(finding, Finding)
    assert finding.subject == "planted"
    return finding


def with_features(subject: Subject) -> DataSpec:
    return replace(subject.spec, features=("planted",))


def incidence(world: World, labels: tuple[int, ...]) -> sp.csr_matrix:
    rows = world.rows[np.isin(world.rows[:, 2], labels)]
    return sp.csr_matrix((np.ones(len(rows)), (rows[:, 0], rows[:, 1])), shape=(USERS, ITEMS))


def of_rows(*labels: int, width: int = WIDTH) -> Callable[[World], np.ndarray]:
    """Vectors of the items by SVD of the rows with these labels."""

    def make(world: World) -> np.ndarray:
        _, values, vectors = svds(incidence(world, labels), k=width, random_state=0)
        return (vectors * values[:, None]).T

    return make


def of_profiles(*labels: int) -> Callable[[World], np.ndarray]:
    """LSA of item texts that name the users with the item in these rows, beside content words."""

    def make(world: World) -> np.ndarray:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        of_item = incidence(world, labels).T.tocsr()
        kinds = np.argsort(-world.items, axis=1)[:, :3]
        texts = [
            " ".join(
                [f"u{user}" for user in of_item[item].indices] + [f"w{k}" for k in kinds[item]]
            )
            for item in range(ITEMS)
        ]
        words = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
        return TruncatedSVD(2 * WIDTH, random_state=0).fit_transform(words)

    return make


def content(world: World) -> np.ndarray:
    return world.items


def beside_content(world: World) -> np.ndarray:
    leak = of_rows(0, 2)(world)
    scale = np.linalg.norm(world.items) / np.linalg.norm(leak)
    return np.concatenate([world.items, scale * leak], axis=1)


def beside_content_of_training(world: World) -> np.ndarray:
    known = of_rows(0)(world)
    scale = np.linalg.norm(world.items) / np.linalg.norm(known)
    return np.concatenate([world.items, scale * known], axis=1)


def repeated(world: World) -> np.ndarray:
    values = world.items.copy()
    values[: ITEMS // 2] = values[:4].repeat(ITEMS // 8 + 1, 0)[: ITEMS // 2]
    return values


def dead(world: World) -> np.ndarray:
    values = world.items.copy()
    values[:, : WIDTH // 4] = 1.0
    return values


def huge_row(world: World) -> np.ndarray:
    values = world.items.copy()
    values[7] *= 1000
    return values


def huge_column(world: World) -> np.ndarray:
    values = world.items.copy()
    values[:, 7] *= 1000
    return values


def shifted(world: World) -> np.ndarray:
    return np.roll(world.items, 1, axis=0)


@dataclass(frozen=True)
class Plant:
    """Features, the check that finds them, its verdict, and a twin in which there is nothing."""

    check: str
    planted: Callable[[World], np.ndarray]
    verdict: str = "suspicious"
    twin: Callable[[World], np.ndarray] = content


PLANTS = {
    "equal rows": Plant("feature-rows", repeated),
    "dead columns": Plant("feature-columns", dead),
    "a row far larger": Plant("feature-columns", huge_row),
    "a column far larger": Plant("feature-columns", huge_column),
    "rows of the next item": Plant("feature-order", shifted),
    "vectors of training and test rows": Plant(
        "feature-neighbours", of_rows(0, 2), "leak", of_rows(0)
    ),
    "vectors of training and validation rows": Plant(
        "feature-neighbours", of_rows(0, 1), "suspicious", of_rows(0)
    ),
    "texts that name users with the item in test": Plant(
        "feature-neighbours", of_profiles(0, 2), "leak", of_profiles(0)
    ),
    "test rows beside content": Plant(
        "feature-probe", beside_content, "leak", beside_content_of_training
    ),
    "vectors of all rows": Plant(
        "feature-level", of_rows(0, 1, 2, width=150), "suspicious", of_rows(0, width=150)
    ),
}


@pytest.mark.parametrize("name", PLANTS)
def test_planted_features_are_found_and_their_twin_is_clean(
    name: str, world: World, subject: Subject
) -> None:
    plant = PLANTS[name]
    write(subject, plant.planted(world))
    assert found(subject, plant.check).verdict == plant.verdict
    write(subject, plant.twin(world))
    assert found(subject, plant.check).verdict == "clean"


@pytest.mark.parametrize("name", ["content", "training rows"])
def test_features_without_held_out_rows_are_clean_under_every_check(
    name: str, world: World, subject: Subject
) -> None:
    write(subject, content(world) if name == "content" else of_rows(0)(world))
    assert {check: found(subject, check).verdict for check in BY_NAME} == dict.fromkeys(
        BY_NAME, "clean"
    )


def with_texts(subject: Subject, texts: list[str]) -> Subject:
    table = ItemTable(
        ids=NAMES, texts=texts, images=[None] * ITEMS, source="items.tsv", text_columns=["title"]
    )
    return replace(subject, table=table)


def test_equal_rows_of_equal_texts_are_no_fault(world: World, subject: Subject) -> None:
    write(subject, repeated(world))
    copies = [f"kind {item // (ITEMS // 8 + 1)}" for item in range(ITEMS // 2)]
    others = [f"item {item}" for item in range(ITEMS // 2, ITEMS)]
    finding = found(with_texts(subject, copies + others), "feature-rows")
    assert (finding.value, finding.control) == (0.5, 0.5)
    assert finding.verdict == "clean"
    assert found(subject, "feature-rows").verdict == "suspicious"


def test_the_order_of_rows_is_seen_by_texts_of_other_items(world: World, subject: Subject) -> None:
    """An item's own text, which is most like itself, says nothing of the order."""
    kinds = np.argsort(-world.items, axis=1)[:, :3]
    texts = [f"t{item} " + " ".join(f"w{k}" for k in kinds[item]) for item in range(ITEMS)]
    write(subject, content(world))
    finding = found(with_texts(subject, texts), "feature-order")
    assert finding.details["by common texts"] > SURE
    assert finding.verdict == "clean"
    write(subject, np.random.default_rng(1).permutation(content(world)))
    finding = found(with_texts(subject, texts), "feature-order")
    assert finding.details["by common texts"] < SURE
    assert finding.verdict == "suspicious"


@pytest.mark.parametrize("manifest", [True, False])
def test_rows_of_the_next_item_are_seen_where_neighbours_in_the_file_are_alike(
    manifest: bool, tmp_path: Path
) -> None:
    """Users choose whole series of items, whose rows lie side by side, and the rows are off by one.

    Most items have a row of their own series, so the rows fit well above chance.
    """
    rng = np.random.default_rng(0)
    series, users, every = 150, 400, 600
    values = np.repeat(rng.normal(size=(series, 16)), 4, axis=0)
    values = (values + 0.3 * rng.normal(size=values.shape)).astype(np.float32)
    chosen = np.stack([rng.permutation(series)[:3] for _ in range(users)])
    items = (4 * chosen[:, :, None] + np.arange(4)).reshape(users, 12)
    labels = rng.permuted(np.tile([0] * 10 + [1, 2], (users, 1)), axis=1)
    lines = [
        f"{user}\t{item}\t{label}"
        for user in range(users)
        for item, label in zip(items[user], labels[user], strict=True)
    ]
    lines += [f"{users}\t{item}\t0" for item in range(every)]  # every item is there
    folder = tmp_path / "series"
    folder.mkdir()
    text = "\n".join(["userID\titemID\tx_label", *rng.permutation(lines)])
    (folder / "series.inter").write_text(text + "\n")
    for name, rows in (("right", values), ("off", np.roll(values, 1, axis=0))):
        np.save(folder / f"{name}.npy", rows)
        if manifest:
            save_features(
                folder / f"{name}.npy", rows, name=name, modality="text", encoder="a test",
                settings={}, source="a test", items=[str(item) for item in range(every)],
            )  # fmt: skip
    spec = DataSpec("series", data_path=tmp_path, features=("right", "off"))
    right, off = BY_NAME["feature-order"].run(open_subject(spec, seeds=(0,), progress=False))
    assert isinstance(right, Finding)
    assert isinstance(off, Finding)
    assert (right.verdict, right.details["best shift"]) == ("clean", 0)
    assert off.value > SURE
    assert (off.verdict, off.details["best shift"]) == ("suspicious", 1)


def test_hits_leave_out_training_items_and_the_padding_row() -> None:
    """They have the largest scores; the 20 items behind them are the targets."""
    vectors = np.arange(40, 10, -1, dtype=np.float32)[:, None]
    history, targets = (
        sp.csr_matrix((np.ones(len(items)), ([0] * len(items), items)), shape=(1, 30))
        for items in (range(1, 6), range(6, 29))
    )
    hits, count = _hits(history, vectors, targets)
    assert (hits.tolist(), count.tolist()) == ([20], [23])


def test_a_changed_file_is_found_and_the_restored_one_is_clean(
    world: World, subject: Subject
) -> None:
    path = write(subject, content(world))
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    finding = found(subject, "feature-file")
    assert finding.verdict == "suspicious"
    assert "sha256" in finding.notes[0]
    path.write_bytes(before)
    assert found(subject, "feature-file").verdict == "clean"


def test_a_value_that_is_not_finite_is_found(world: World, subject: Subject) -> None:
    path = write(subject, content(world))
    path.with_suffix(".json").unlink()
    values = content(world).copy()
    values[3, 5] = np.nan
    np.save(path, values)
    assert found(subject, "feature-file").verdict == "suspicious"


@pytest.mark.parametrize("items", [2, 6])
def test_a_set_of_few_items_does_not_end_the_checks_of_the_next(
    items: int, world: World, subject: Subject
) -> None:
    """With two items no check can be made; with six, none of held-out rows but `feature-level`."""
    few = np.zeros((ITEMS, WIDTH))
    few[:items] = content(world)[:items]
    write(subject, few, "few")
    write(subject, content(world))
    spec = replace(subject.spec, features=("few", "planted"))
    checks = [check for name, check in BY_NAME.items() if name != "feature-file"]
    report = audit(replace(subject, spec=spec), checks)
    assert [c.name for c in report.checks if c.subject == "planted"] == [c.name for c in checks]
    skipped = {entry.name: entry.reason for entry in report.skipped}
    assert "feature-probe" in skipped
    assert all(reason.startswith("few: ") for reason in skipped.values())
    assert len(report.checks) + len(report.skipped) == 2 * len(checks)
