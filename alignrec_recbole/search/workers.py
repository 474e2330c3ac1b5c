"""A search by several workers: each is a cell of an engine and works on the study until its end.

Workers meet in the storage alone. So a worker that dies is replaced by another one, and a cell that
an engine gives to another machine goes on with the same study.
"""

from __future__ import annotations

import ipaddress
import sys
from concurrent.futures import CancelledError, Future, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from alignrec_recbole.engines.base import Answer, CellDied, Engine, Work
from alignrec_recbole.engines.child import STOPPED
from alignrec_recbole.errors import Interrupted, SettingError, printable
from alignrec_recbole.runs.at_once import answered, checked, needed_bytes
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.search.tuning import ORDERS, Order, Say, open_study, tune

VERB = "tune-worker"  # the hidden verb that is one worker


def check_storage(order: Order, engine: str, address: str) -> None:
    """Refuse a SQLite file where workers may run on other machines.

    Raises:
        SettingError: they would not see the file, or see it over a network, where it is not safe.
    """
    elsewhere = engine == "slurm" or (address and not _is_loopback(address))
    if elsewhere and order.storage.startswith("sqlite"):
        raise SettingError(
            "A SQLite file cannot be shared by workers on several machines.",
            found=f"--engine {engine}{':' if address else ''}{address} with a SQLite storage",
            expected="a database server",
            hint="--storage postgresql+psycopg://USER:PASSWORD@HOST/NAME",
        )


def _is_loopback(address: str) -> bool:
    """Whether an address is of this machine alone.

    >>> _is_loopback("tcp://127.0.0.1:8786"), _is_loopback("localhost:1"), _is_loopback("a:8786")
    (True, True, False)
    """
    try:
        host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # the name of a machine
        return False


def repeats(order: Order, workers: int) -> bool:
    """Whether the same command draws and ends the same trials again.

    What TPE and CMA-ES draw and what pruners end depends on the trials that have ended by then; of
    several workers, that is a matter of their speed.
    """
    drawn_alone = order.sampler in ("random", "grid") and order.pruner == "none"
    return workers == 1 or (drawn_alone and order.limit.trials is not None)


def tune_at_once(engine: Engine, order: Order, say: Say = print) -> list[RunRecord]:
    """Search with as many workers as the engine has places; the records of the chosen settings.

    When a worker's process dies, the others repeat its trial.

    Raises:
        AlignRecError: the search is refused, a trial cannot be made, or every worker has died.
        Interrupted: the command was stopped; the same command goes on.
    """
    open_study(order)  # refuses what does not fit; makes the tables before several workers do
    size = needed_bytes(order.spec) if engine.places_by_size else 0
    workers = range(_number(engine, order))
    futures = [engine.submit(_work(order, number, size)) for number in workers]
    found: dict[int, RunRecord] = {}
    choice: list[str] = []
    died: list[CellDied] = []
    for future in as_completed(futures):
        try:
            answer = _answer(future)
        except CellDied as error:
            died.append(error)
            continue
        choice = answer["choice"] or choice
        for record in map(RunRecord.model_validate, answer["records"]):
            found.setdefault(record.seed, record)
    if died and len(found) < len(set(order.seeds)):
        raise died[0]
    for death in died:
        text = f"note: {death.problem} ({death.found}) Other workers repeated its trial."
        print(printable(text), file=sys.stderr)
    for line in choice:
        say(line)
    return [found[seed] for seed in dict.fromkeys(order.seeds) if seed in found]


def _number(engine: Engine, order: Order) -> int:
    """Workers for an order: no more than have a trial or a final run to make."""
    most = max(order.most_trials or engine.places, len(order.seeds))
    return max(1, min(engine.places, most))


def _answer(future: Future[Answer]) -> Answer:
    try:
        return checked(future.result())
    except CancelledError:
        raise Interrupted(STOPPED) from None


def _work(order: Order, number: int, size: int) -> Work:
    return Work(
        f"{order.spec.model}, worker {number + 1}",
        VERB,
        {"order": ORDERS.dump_python(order, mode="json"), "command": list(sys.argv)},
        output=order.spec.output,
        bytes=size,
        device=order.spec.device,
    )


def answer_of(order: dict[str, Any], output: Path) -> Answer:
    """Be one worker, in a child process: the records that it made or found, or why there are none.

    Args:
        order: the search.
        output: folder of records, which is another one where the command's is not seen.
    """
    given = ORDERS.validate_python(order)
    given = replace(given, spec=replace(given.spec, output=output))
    choice: list[str] = []

    def work() -> Answer:
        records = tune(given, partial(print, flush=True), choice.append)
        return {"records": [r.model_dump(mode="json") for r in records], "choice": choice}

    return answered(work)
