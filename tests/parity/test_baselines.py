"""Our baselines against numbers recorded from MMRec (float32, its files untouched).

`python tests/parity/test_baselines.py VBPR MMREC`, models and checkouts, records these again.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from alignrec_recbole.errors import DataError, RecordError
from benchmarks.parity import baselines, one_epoch
from benchmarks.parity.errors import largest, relative_error
from benchmarks.parity.pairs import PAIRS
from benchmarks.reference import checkout

RECORDED = Path(__file__).parent / "parity_baselines.npz"
BOUND = 5e-5  # the reference computes in float32; a bias before a softmax nearly cancels
CASES = [(name, kinds) for name, pair in PAIRS.items() for kinds in pair.features]


def project(value: np.ndarray) -> np.ndarray:
    """A matrix times fixed random vectors, which any wrong entry moves; vectors as they are."""
    if value.ndim < 2:
        return value
    return value @ np.random.default_rng(7).normal(size=(value.shape[-1], 4))


@pytest.mark.parametrize(("name", "kinds"), CASES, ids=lambda case: str(case))
def test_loss_gradients_and_scores_equal_the_recorded_ones(name, kinds):
    recorded = np.load(RECORDED, allow_pickle=False)
    case = f"{name} {'+'.join(kinds)}/"
    known = {key.removeprefix(case) for key in recorded.files if key.startswith(case)}
    for double in (True, False):
        ours = one_epoch.our_run(name, kinds, double=double)
        assert set(ours) == known
        for key, value in ours.items():
            error = relative_error(project(value), recorded[case + key])
            assert error < BOUND, f"{key}: {error:.1e}"


@pytest.mark.parametrize("sides", [(np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (np.inf, np.inf)])
def test_what_is_not_finite_is_the_largest_error(sides, monkeypatch):
    ours, theirs = (np.array([2.0, side]) for side in sides)
    assert relative_error(ours, theirs) == np.inf
    assert largest([0.1, abs(float("nan")), 0.2]) == np.inf
    monkeypatch.setattr(one_epoch, "their_run", lambda *_: {"scores": theirs})
    monkeypatch.setattr(one_epoch, "our_run", lambda *_, double: {"scores": ours})
    assert one_epoch.compare(Path(), "VBPR")["max_rel_error"] == np.inf


@pytest.mark.parametrize("code", checkout.SOURCES)
def test_a_folder_that_is_no_checkout_is_refused(tmp_path, code):
    refusal = pytest.raises(DataError, match=f"no checkout of {checkout.SOURCES[code]}")
    with refusal, checkout.importable(tmp_path, code):
        pass


def record(names: list[str], references: list[Path]) -> None:
    """Losses, gradients and scores of the models, as projections; those of others stay."""
    kept = dict(np.load(RECORDED, allow_pickle=False))
    for name, kinds in CASES:
        if name not in names:
            continue
        reference = next(one for one in references if checkout.is_of(one, PAIRS[name].code))
        case = f"{name} {'+'.join(kinds)}/"
        kept = {key: value for key, value in kept.items() if not key.startswith(case)}
        for key, value in one_epoch.their_run(reference, name, kinds).items():
            kept[case + key] = project(value).astype(np.float32)
    np.savez_compressed(RECORDED, **kept)


def test_trainings_are_kept_seed_by_seed_and_not_repeated(tmp_path, monkeypatch):
    asked = []

    def train(options, name, seed):
        asked.append((name, seed))
        if seed == 1001 and len(asked) < 4:
            raise KeyboardInterrupt
        return {
            "dataset": "toy", "features": ["text"], "settings": {"d": 64}, "most_epochs": 1000,
            "epochs": {"our": seed, "reference": 2 * seed},
            "metrics": {"Recall@20": {"ours": 0.3, "reference": 0.2 if seed == 999 else 0.4}},
        }  # fmt: skip

    monkeypatch.setattr(baselines, "train_both", train)
    store = tmp_path / "kept.json"
    options = argparse.Namespace(
        cache=store, model=["VBPR"], seeds=[999, 1000, 1001], dataset="toy", epochs=1000
    )
    with pytest.raises(KeyboardInterrupt):
        baselines.train_each(options)
    found = baselines.train_each(options)["VBPR"]
    assert asked == [("VBPR", 999), ("VBPR", 1000), ("VBPR", 1001), ("VBPR", 1001)]
    assert found["seeds"] == found["our_epochs"] == [999, 1000, 1001]
    assert found["reference Recall@20"] == [0.2, 0.4, 0.4]
    assert found["relative_difference"]["Recall@20"] == pytest.approx(-0.1)
    assert json.loads(store.read_text())["VBPR"] == found
    for other in ({"settings": {"d": 32}}, {"most_epochs": 5}):
        with pytest.raises(RecordError, match="another comparison"):
            baselines.with_seed(found, 1, {**train(options, "VBPR", 1), **other})
    options.epochs = 5
    with pytest.raises(RecordError, match="another comparison"):
        baselines.train_each(options)
    del found["most_epochs"]  # as earlier versions wrote it: 1000
    assert baselines.with_seed(found, 1, train(options, "VBPR", 1))["most_epochs"] == 1000
    with pytest.raises(RecordError, match="another comparison"):
        baselines.with_seed(found, 1, {**train(options, "VBPR", 1), "most_epochs": 5})


if __name__ == "__main__":
    import sys

    chosen = [argument for argument in sys.argv[1:] if argument in PAIRS]
    record(chosen, [Path(argument) for argument in sys.argv[1:] if argument not in PAIRS])
