"""How a check is declared, and what its function gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alignrec_recbole.audit.report import Group, Verdict

if TYPE_CHECKING:
    from alignrec_recbole.audit.subject import Subject


class NotApplicable(Exception):
    """A check cannot be made on this subject; the text says why, as part of a sentence."""


@dataclass(frozen=True)
class Finding:
    """The figures and the verdict of a check; see `report.Check` for the fields."""

    value: float | None
    verdict: Verdict
    control: float | None = None
    control_range: tuple[float, float] | None = None
    chance: float | None = None
    subject: str = ""
    details: Mapping[str, float | int | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Definition:
    """A named check.

    Attributes:
        name: letters, digits and hyphens; unique.
        group: what it audits; checks of `features` need feature sets, those of `models` a model.
        question: that it answers.
        method: how the figure is computed.
        metric: of the figure.
        rule: how the verdict follows from the figures.
        remedy: what to do where it is not clean.
        run: yields one finding per feature set or model, else one, or NotApplicable in place of a
            feature set's; raises NotApplicable where the check cannot be made at all.
    """

    name: str
    group: Group
    question: str
    method: str
    metric: str
    rule: str
    remedy: str
    run: Callable[[Subject], Iterable[Finding | NotApplicable]]
