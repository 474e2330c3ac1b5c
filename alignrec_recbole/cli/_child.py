"""What the hidden verbs share that run one cell in a child process (`engines.child`)."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any


def read_order() -> dict[str, Any]:
    """The line of JSON on standard input.

    Standard input stays open while the parent lives: without it, nobody would read the answer, and
    this process ends.
    """
    order: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return order


def give_answer(answer: dict[str, Any]) -> int:
    """Print the answer; returns the exit status."""
    from alignrec_recbole.engines.child import ANSWER

    print(f"\n{ANSWER}{json.dumps(answer)}", flush=True)
    return 0


def _end_with_parent() -> None:
    """Standard input closes when the parent ends, even if it was killed."""
    sys.stdin.read()
    os._exit(1)
