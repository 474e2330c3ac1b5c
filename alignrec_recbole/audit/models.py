"""Whether a model reads what no recommender may: numbers, held-out rows, other users, places.

The model is built and trained on small made-up data with the shipped checks of
`alignrec_recbole.testing`, not on the data set that is audited: there the answer is known exactly.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignrec_recbole.audit.definition import Definition, Finding
from alignrec_recbole.audit.subject import Subject

if TYPE_CHECKING:
    from alignrec_recbole.testing.testbed import Testbed

SYNTHETIC = "Measured on made-up data of 4 blocks of users and items, not on this data set."


def _on_testbed(figures: Callable[[Testbed], Finding]) -> Callable[[Subject], Iterator[Finding]]:
    """A check's function of the subject from one of a testbed for its model."""

    def run(subject: Subject) -> Iterator[Finding]:
        from alignrec_recbole.testing.testbed import Testbed  # imports RecBole
        from alignrec_recbole.training.recbole_trainers import model_errors

        assert subject.model is not None
        with (
            tempfile.TemporaryDirectory() as folder,
            model_errors(subject.model, "be trained on the data of the checks"),
        ):
            found = figures(Testbed(subject.model, Path(folder)))
        yield Finding(
            value=found.value,
            verdict=found.verdict,
            control=found.control,
            chance=found.chance,
            subject=subject.model,
            details=found.details,
            notes=(*found.notes, SYNTHETIC),
        )

    return run


def _renumbered(testbed: Testbed) -> Finding:
    from alignrec_recbole.testing import renumbering

    one, other = renumbering.both_outcomes(testbed)
    same = renumbering.both_outcomes(testbed, renumber=False)
    found = renumbering.differences(one, other)
    value = max(found.values())
    details, notes = {f"difference of {name}": number for name, number in found.items()}, []
    clean = value <= renumbering.TOLERANCE
    if unknown := one.unknown | other.unknown:
        p = renumbering.p_value(renumbering.figures_by_seed(testbed))
        clean = clean and p >= renumbering.SURE
        details["p of Welch's test"] = p
        notes.append(
            f"Training draws in a way that cannot be held fixed ({', '.join(sorted(unknown))}): "
            "scores before training are compared, and five seeds of three epochs per numbering."
        )
    return Finding(
        value=value,
        control=max(renumbering.differences(*same).values()),
        verdict="clean" if clean else "leak",
        details=details,
        notes=tuple(notes),
    )


def _held_out(testbed: Testbed) -> Finding:
    from alignrec_recbole.testing import renumbering

    value = renumbering.difference_by_held_out_rows(testbed)
    control = renumbering.difference_by_held_out_rows(testbed, other=False)
    notes: tuple[str, ...] = ()
    if control:
        notes = ("Two trainings with the same rows and seed differ, so the figure says little.",)
    return Finding(
        value=value,
        control=control,
        verdict="clean" if value == 0 else "suspicious" if control else "leak",
        notes=notes,
    )


def _batches(testbed: Testbed) -> Finding:
    from alignrec_recbole.testing import renumbering

    value = renumbering.difference_by_batch(testbed.smoke_fit())
    return Finding(
        value=value,
        control=0.0,
        verdict="clean" if value <= renumbering.TOLERANCE else "suspicious",
    )


def _ties(testbed: Testbed) -> Finding:
    from alignrec_recbole.testing import renumbering

    value = renumbering.lists_that_follow_numbers(testbed)
    details: dict[str, Any] = {}
    share = 0.5
    if not testbed.under_test.learns:
        share = renumbering.share_by_number(testbed)
        details["larger number, larger score"] = share
    return Finding(
        value=value,
        control=renumbering.lists_that_follow_numbers(testbed, renumber=False),
        verdict="clean" if value == 0 and abs(share - 0.5) < 0.45 else "leak",
        details=details,
    )


CHECKS = (
    Definition(
        name="model-numbers",
        group="models",
        question="Does the model read the numbers of users, items or rows?",
        method="The same three steps of training under two numberings: first values and batches "
        "are moved with the numbers, draws are replaced by constants. Control: one numbering, "
        "twice.",
        metric="largest difference of losses and scores",
        rule="leak: above 1e-3 of the losses' size or the scores' spread; where draws cannot be "
        "held fixed, also p < 1e-3 in Welch's test over five seeds per numbering.",
        remedy="Find what is computed from a number: a position, a sort, a tie broken by number.",
        run=_on_testbed(_renumbered),
    ),
    Definition(
        name="model-held-out-rows",
        group="models",
        question="Does training read validation or test rows?",
        method="Three epochs with other validation and test rows, and the same training rows and "
        "seed. Control: the same rows, trained again.",
        metric="largest difference of losses and scores",
        rule="leak: not zero, bit by bit; suspicious: training with the same rows differs, too.",
        remedy="Build graphs and histories from the training rows alone.",
        run=_on_testbed(_held_out),
    ),
    Definition(
        name="model-batches",
        group="models",
        question="Do a user's scores depend on the other users of the batch?",
        method="Scores of all users together, in another order, and in batches of seven.",
        metric="largest difference of scores",
        rule="suspicious: above 1e-3 of the scores' spread.",
        remedy="Compute statistics over the training rows, not over the batch that is scored.",
        run=_on_testbed(_batches),
    ),
    Definition(
        name="model-ties",
        group="models",
        question="Are ties broken by the number of the item?",
        method="Lists of scores with three values under two numberings, ranked by the model's "
        "trainer; for a model that is not trained, scores of items with the same rows and "
        "features. Control: one numbering, twice.",
        metric="share of lists that change",
        rule="leak: above zero; or the larger number has the larger score in more than 95 % or "
        "fewer than 5 % of unequal pairs.",
        remedy="Break ties by a fixed random order of the items, as `evaluation/ties.py` does.",
        run=_on_testbed(_ties),
    ),
)
