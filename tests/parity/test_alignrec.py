"""Our AlignRec against numbers recorded from the official code (float64, its files untouched).

`python tests/test_parity_alignrec.py CHECKOUT` records them again.
"""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.parity import alignrec

RECORDED = Path(__file__).parent / "parity_alignrec.npz"
DOUBLE, SINGLE = 1e-10, 1e-5


def project(value: np.ndarray) -> np.ndarray:
    """A matrix times fixed random vectors; scalars and vectors as they are."""
    if value.ndim < 2:
        return value
    return value @ np.random.default_rng(7).normal(size=(value.shape[1], 4))


@pytest.mark.parametrize("case", alignrec.CASES, ids=lambda case: case.name)
def test_terms_gradients_and_steps_equal_the_official_ones(case):
    recorded = np.load(RECORDED, allow_pickle=False)
    ours = {True: alignrec.our_run(case, True), False: alignrec.our_run(case, False)}
    names = [key for key in recorded.files if key.startswith(f"{case.name}/")]
    assert len(names) >= 25
    for key in names:
        name = key.partition("/")[2]
        double = alignrec.relative_error(project(ours[True][name]), recorded[key])
        single = alignrec.relative_error(project(ours[False][name]), recorded[key])
        assert double < (SINGLE if name.startswith("R as") else DOUBLE), key
        if not name.startswith("after"):  # Adam divides by |gradient|
            assert single < SINGLE, key


def record(reference: Path) -> None:
    """Terms, gradients, graphs, scores and the state after the steps of every case.

    Matrices are kept as their products with fixed random vectors, which any wrong entry moves.
    """
    kept = {}
    for case in alignrec.CASES:
        for name, value in alignrec.official_run(reference, case).items():
            kept[f"{case.name}/{name}"] = project(value)
    RECORDED.parent.mkdir(exist_ok=True)
    np.savez_compressed(RECORDED, **kept)


if __name__ == "__main__":
    import sys

    record(Path(sys.argv[1]))
