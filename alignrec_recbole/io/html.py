"""Small tables that notebooks show."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from alignrec_recbole.errors import printable


def facts_table(title: str, facts: Mapping[str, Any]) -> str:
    """A two-column HTML table; all text is escaped.

    >>> facts_table("BPR", {"seed": 999})
    '<table><caption>BPR</caption><tr><th>seed</th><td>999</td></tr></table>'
    """
    rows = "".join(
        f"<tr><th>{_shown(name)}</th><td>{_shown(value)}</td></tr>" for name, value in facts.items()
    )
    return f"<table><caption>{_shown(title)}</caption>{rows}</table>"


def _shown(value: Any) -> str:
    return escape(printable(str(value), 300))
