"""Our AlignRec against numbers recorded from the official code (float64, its files untouched).

`python tests/test_parity_alignrec.py CHECKOUT` records them again.
"""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.parity import alignrec, official

RECORDED = Path(__file__).parent / "data" / "parity_alignrec.npz"
# The official REG passes through float32 (EmbLoss starts from a float32 zero): that is 5e-8.
DOUBLE, SINGLE = 2e-7, 1e-5


@pytest.mark.parametrize("case", alignrec.CASES, ids=lambda case: case.name)
def test_terms_gradients_and_steps_equal_the_official_ones(case):
    recorded = np.load(RECORDED, allow_pickle=False)
    ours = {True: alignrec.our_run(case, True), False: alignrec.our_run(case, False)}
    names = [key for key in recorded.files if key.startswith(f"{case.name}/")]
    assert len(names) >= 8
    for key in names:
        name = key.partition("/")[2]
        assert alignrec.relative_error(ours[True][name], recorded[key]) < DOUBLE, key
        if not name.startswith("after"):  # Adam divides by |gradient|
            assert alignrec.relative_error(ours[False][name], recorded[key]) < SINGLE, key


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    from alignrec_recbole.errors import DataError

    with (
        pytest.raises(DataError, match="no checkout of the official AlignRec"),
        official.importable(tmp_path),
    ):
        pass


def record(reference: Path) -> None:
    """Terms and losses of every case; all gradients of the first."""
    kept = {}
    for case in alignrec.CASES:
        for name, value in alignrec.official_run(reference, case).items():
            if value.size == 1 or (case is alignrec.CASES[0] and name.startswith("gradient")):
                kept[f"{case.name}/{name}"] = value
    RECORDED.parent.mkdir(exist_ok=True)
    np.savez_compressed(RECORDED, **kept)


if __name__ == "__main__":
    import sys

    record(Path(sys.argv[1]))
