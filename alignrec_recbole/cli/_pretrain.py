"""The work of the verb `pretrain`, in one process or in those that torchrun has started."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from pydantic import ValidationError
from tabulate import tabulate

from alignrec_recbole.cli._prepare import find_items
from alignrec_recbole.cli._pretraining_options import setting_option
from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders.beit3 import checkpoints
from alignrec_recbole.encoders.beit3.corpus import read_corpus
from alignrec_recbole.encoders.beit3.pretrain_settings import PretrainSettings
from alignrec_recbole.encoders.beit3.pretraining import Pretraining, with_heads
from alignrec_recbole.encoders.beit3.run_state import Progress
from alignrec_recbole.encoders.beit3.targets import make_target
from alignrec_recbole.encoders.beit3.tokenizer import (
    MAX_MODEL_BYTES,
    MAX_TOKENS,
    Tokenizer,
    fit_tokenizer,
)
from alignrec_recbole.errors import SettingError, printable
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.io.locks import one_process_only
from alignrec_recbole.io.opening import read_bytes
from alignrec_recbole.runtime import hardware
from alignrec_recbole.runtime.processes import environment_number

if TYPE_CHECKING:
    from alignrec_recbole.cli._option_values import PretrainOptions

TOY = "toy"
TOY_SIDE = 112  # pixels: 49 patches, so that a CPU is enough
PIECES = 4000  # of a tokenizer that is trained


logger = logging.getLogger(__name__)


def main(options: PretrainOptions) -> int:
    """Join the other processes and pre-train; 0 when done, 130 when interrupted."""
    with processes(options) as device, _one_run(options.output):
        try:
            return run(options, device)
        except KeyboardInterrupt:
            logger.info("stopped; the same command continues")
            return 130


@contextmanager
def _one_run(folder: Path) -> Iterator[None]:
    """Refuse a second run in a folder; the processes of one run share the first one's lock."""
    if dist.is_initialized() and dist.get_rank():
        yield
        return
    with one_process_only(
        folder,
        ".pretraining.lock",
        problem="Another pre-training runs in this folder.",
        hint="wait for it, or choose another --output",
    ):
        yield


def run(options: PretrainOptions, device: str) -> int:
    """Pre-train as the options say; prints what was learnt."""
    checkpoints.check_choice(options.weights, options.random_init, options.size)
    _check_vocabulary(options)
    settings = read_settings(options)
    items = find_items(options)
    folder, show = options.output, options.progress
    tokenizer = in_turn(lambda: _tokenizer(options, items))
    chosen = checkpoints.resolve_weights(
        options.weights,
        random_init=options.random_init,
        size=options.size or TOY,
        image_size=options.image_size
        or (TOY_SIDE if options.random_init and options.size in (None, TOY) else None),
        vocab_size=tokenizer.vocabulary,
        seed=settings.seed,
        progress=show,
    )
    tokenizer.check_fits(chosen.model.sizes.vocab_size)
    tokenizer.check_length(chosen.model.sizes.longest_text)
    target = make_target(settings.target, chosen.model.sizes)
    model = with_heads(chosen.model, target.width, settings.seed, options.keep_mim_head)
    corpus = in_turn(
        lambda: read_corpus(
            items, tokenizer, folder, model.sizes.image_size, settings,
            workers=options.workers, progress=show,
        )
    )  # fmt: skip
    origin = {**chosen.identity, "keep_mim_head": options.keep_mim_head}
    training = Pretraining(model, target, corpus, settings, folder, device, show, origin)
    progress = training.run(options.max_steps)
    if progress.step < training.steps:
        logger.info("stopped after step %d; the same command continues", progress.step)
        return 130
    kind = settings.target.partition(":")[0]
    notes = [f"pre-trained on the items of {options.dataset}, MIM target {kind}"]
    if options.random_init:
        notes.append("pre-training started from random weights")
    else:  # what a reader had to know of the weights it started from
        notes = [*chosen.notes, *notes]
    path = training.save_weights({"origin": chosen.identity, "notes": notes})
    if not dist.is_initialized() or dist.get_rank() == 0:
        plot(progress, folder / "curves.svg")
        print(report(progress))
        print(path)
    return 0


def read_settings(options: PretrainOptions) -> PretrainSettings:
    """The settings among the options, checked.

    Raises:
        SettingError: a value is not allowed.
    """
    try:
        return PretrainSettings(**options.settings)
    except ValidationError as error:
        first = error.errors()[0]
        option = setting_option(str(first["loc"][0]))
        raise SettingError(
            f"{option} cannot be {printable(repr(first['input']), 80)}.", expected=first["msg"]
        ) from error


def _check_vocabulary(options: PretrainOptions) -> None:
    """Refuse a size of the vocabulary where no tokenizer is trained."""
    given = "--tokenizer" if options.tokenizer else "--weights" if options.weights else ""
    if options.vocab_size is not None and given:
        raise SettingError(
            f"--vocab-size is given with {given}.",
            found=f"--vocab-size {options.vocab_size}, and a tokenizer that is there",
            expected="--vocab-size with --random-init and without --tokenizer",
        )


def _tokenizer(options: PretrainOptions, items: ItemTable) -> Tokenizer:
    """The tokenizer, copied beside the weights that will need it.

    One that an attempt without a saved state has fitted to other texts is replaced.

    Raises:
        SettingError: the copy is there, and these options give another one.
    """
    path = options.output / "tokenizer.spm"
    fitted = options.random_init and options.tokenizer is None
    content = _tokenizer_content(options, items, fitted)
    same = os.path.lexists(path) and Tokenizer(path).sha256 == hashlib.sha256(content).hexdigest()
    begun = any(os.path.lexists(options.output / name) for name in ("last.pt", "model.safetensors"))
    if os.path.lexists(path) and not same and (begun or not fitted):
        raise SettingError(
            "The folder holds another tokenizer.",
            found=_named_tokenizer(options),
            expected=f"the same content as {path}",
            hint="repeat the command that made it, or choose another --output",
        )
    if not same:
        with atomic_write(path) as handle:
            handle.write(content)
    return Tokenizer(path, options.max_tokens or MAX_TOKENS)


def _tokenizer_content(options: PretrainOptions, items: ItemTable, fitted: bool) -> bytes:
    """The tokenizer that the options name, or one fitted to the items."""
    if fitted:
        return fit_tokenizer(items.texts, options.vocab_size or PIECES)
    given = checkpoints.find_tokenizer(options.tokenizer, options.weights)
    Tokenizer(given)
    return read_bytes(given, what="tokenizer", max_bytes=MAX_MODEL_BYTES)


def _named_tokenizer(options: PretrainOptions) -> str:
    if options.tokenizer:
        return f"--tokenizer {options.tokenizer}"
    if options.weights:
        return f"the tokenizer of --weights {options.weights}"
    return f"one fitted to these items, --vocab-size {options.vocab_size or PIECES}"


def report(progress: Progress) -> str:
    """Held-out losses before and after, with the controls; ± over draws of other partners."""
    first, last = progress.validation[0], progress.validation[-1]
    rows = []
    for kind in ("mlm", "mim"):
        other, sd = last.get(f"{kind} shuffled"), last.get(f"{kind} sd")
        own = last.get(f"{kind} true")
        gap = None
        if own is not None and other is not None:
            gap = f"{other - own:+.4f}" + ("" if sd is None else f" ± {sd:.4f}")
        rows.append([kind, first.get(f"{kind} true"), own, other, gap, last.get(f"{kind} blind")])
    head = ["held-out loss", "untrained", "trained"]
    head += ["other item's partner", "difference", "without image"]
    return tabulate(rows, head, floatfmt=".4f", missingval="-")


def plot(progress: Progress, path: Path) -> None:
    """Training and held-out losses over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axis, kind in zip(axes, ("mlm", "mim"), strict=True):
        steps = range(1, len(progress.history) + 1)
        axis.plot(steps, [row[kind] for row in progress.history], lw=0.5, alpha=0.5, label="train")
        for pairs, style in (("true", "-"), ("shuffled", "--"), ("blind", ":")):
            key = f"{kind} {pairs}"
            seen = [(row["step"], row[key]) for row in progress.validation if key in row]
            if seen:
                axis.plot(*zip(*seen, strict=True), style, label=f"held out, {pairs}")
        axis.set(title=kind.upper(), xlabel="step", ylabel="loss")
        axis.legend(fontsize=7)
    with atomic_write(path) as handle:
        figure.savefig(handle, format="svg")
    pyplot.close(figure)


@contextmanager
def processes(options: PretrainOptions) -> Iterator[str]:
    """Join the group that torchrun started, if it did; yields this process's device."""
    several = environment_number("WORLD_SIZE", 1, least=1) > 1
    jobs = environment_number("LOCAL_WORLD_SIZE", 1, least=1)
    first = environment_number("RANK", 0) == 0
    device = hardware.choose_device(options.device)
    if several and device.startswith("cuda"):
        device = f"cuda:{environment_number('LOCAL_RANK', 0)}"
        torch.cuda.set_device(device)
    hardware.set_threads(options.threads, jobs)
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s")
    if several:
        try:
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        except (ValueError, RuntimeError) as error:
            raise SettingError(
                "The other processes of this pre-training were not found.",
                found=f"WORLD_SIZE {os.environ['WORLD_SIZE']}; {str(error).splitlines()[0]}",
                expected="processes that torchrun starts, or no WORLD_SIZE in the environment",
                hint="torchrun --nproc-per-node N run_benchmark.py pretrain …",
            ) from error
    try:
        yield device
    finally:
        if several:
            dist.destroy_process_group()


def in_turn(work: Callable[[], Any]) -> Any:
    """The first process works first, the others then find its files."""
    if not dist.is_initialized():
        return work()
    if dist.get_rank():
        dist.barrier()
        return work()
    out = work()
    dist.barrier()
    return out
