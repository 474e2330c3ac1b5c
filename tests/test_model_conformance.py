"""Every registered model on a world with a known answer; and proof that each check can fail."""

from __future__ import annotations

import pytest

from alignrec_recbole import register
from alignrec_recbole.testing.lab import Lab, subject
from alignrec_recbole.testing.model_checks import EXPECTED_FAILURES, model_checks


@pytest.fixture(scope="session")
def labs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lab]:
    """One lab a registered model, so that its fits are made once."""
    return {name: Lab(name, tmp_path_factory.mktemp(name)) for name in register.MODELS}


def cases() -> list:
    out = []
    for name in register.MODELS:
        for check in model_checks(subject(name)):
            reason = EXPECTED_FAILURES.get((name, check.__name__))
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            label = check.__name__.removeprefix("check_")
            out.append(pytest.param(name, check, id=f"{name}-{label}", marks=marks))
    return out


@pytest.mark.parametrize(("name", "check"), cases())
def test_registered_model(labs: dict[str, Lab], name: str, check) -> None:
    check(labs[name])
