"""`run --nproc N`, or `run` under torchrun: several processes make each run together."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace

from alignrec_recbole.cli import _names, _provide, _run
from alignrec_recbole.cli._command import given_arguments
from alignrec_recbole.cli._jobs import make_jobs
from alignrec_recbole.cli._option_values import RunOptions
from alignrec_recbole.engines import DEFAULT
from alignrec_recbole.errors import SettingError
from alignrec_recbole.ops import columns
from alignrec_recbole.registry.components import components
from alignrec_recbole.runtime import processes
from alignrec_recbole.runtime.hardware import choose_device


def start(options: RunOptions) -> int:
    """Start --nproc processes of this command; returns their exit status."""
    _check(options, options.nproc)
    processes.check_gpus(choose_device(options.device), options.nproc)
    return processes.start(options.nproc, given_arguments())


def run(options: RunOptions) -> int:
    """The part of one of the processes."""
    _check(options, processes.count())
    device = choose_device(options.device)
    processes.check_gpus(device, processes.on_this_machine())
    device = processes.own_device(device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.joined(device))
        stack.enter_context(columns.divided())
        if not processes.is_first():
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        options = replace(options, device=device, jobs=1)
        with processes.first_alone():
            _provide.provide(options)
        _names.check_data(options)
        jobs = make_jobs(options)
        _run.check_jobs(options, jobs)
        records = [record for job in jobs for record in _run.run_job_alone(options, job)]
        if processes.is_first():
            _run.show_models(options, records)
    return 0


def _check(options: RunOptions, number: int) -> None:
    """Refuse what several processes cannot make together.

    Raises:
        SettingError: another protocol, engine or number of runs at a time; a model that cannot be
            divided by columns.
    """
    if options.nproc not in (1, number):
        raise SettingError(
            f"--nproc {options.nproc} is not the number of processes that torchrun started.",
            found=f"{number} processes",
            expected="torchrun without --nproc",
        )
    other = ""
    if options.protocol != ("full",):
        other = f"--protocol {','.join(options.protocol)}"
    elif options.engine != DEFAULT:
        other = f"--engine {options.engine}"
    elif options.jobs not in (None, 1):
        other = f"--jobs {options.jobs}"
    if other:
        raise SettingError(
            f"{other} cannot be combined with several processes per run (--nproc or torchrun).",
            found=f"{number} processes",
            expected="protocol full, the local engine and no --jobs",
        )
    for name in options.model:
        columns.check_model(components(name).model_class, number)
