"""`run_benchmark.py pretrain`: continue BEiT-3 on a data set's own items by masked prediction.

Several processes: `torchrun --nproc-per-node N run_benchmark.py pretrain …`.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import ValidationError
from tabulate import tabulate

from alignrec_recbole.cli.prepare import find_items
from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders.beit3 import checkpoints
from alignrec_recbole.encoders.beit3.corpus import read_corpus
from alignrec_recbole.encoders.beit3.pretrain_settings import PretrainSettings
from alignrec_recbole.encoders.beit3.pretraining import Pretraining, Progress, with_heads
from alignrec_recbole.encoders.beit3.targets import make_target
from alignrec_recbole.encoders.beit3.tokenizer import MAX_TOKENS, Tokenizer, train_tokenizer
from alignrec_recbole.errors import SettingError
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.runtime import hardware

TOY_SIDE = 112  # pixels: 49 patches, so that a CPU is enough


def parser() -> argparse.ArgumentParser:
    """Options of `run_benchmark.py pretrain`; one for each of PretrainSettings too."""
    out = argparse.ArgumentParser(
        prog="run_benchmark.py pretrain",
        description="Inter-content alignment: masked words and patches of item image-text pairs.",
        epilog="then: run_benchmark.py prepare --encoder beit3 --weights OUTPUT/model.safetensors",
    )
    out.add_argument("--dataset", required=True)
    out.add_argument("--encoder", choices=["beit3"], default="beit3")
    out.add_argument("--data-path", type=Path, help="folder of data sets (or $ALIGNREC_DATA)")
    out.add_argument("--items", type=Path, help="item table (default: the data set's own)")
    out.add_argument("--images", type=Path, help="its images (default: images/ beside the table)")
    out.add_argument("--output", type=Path, required=True, help="weights, state and curves")
    out.add_argument("--weights", help=f"a file, or {', '.join(checkpoints.NAMES)} to fetch it")
    out.add_argument("--random-init", action="store_true", help="start from nothing")
    out.add_argument("--keep-mim-head", action="store_true", help="of the weights, if it fits")
    out.add_argument("--size", default="toy", help="of random weights: toy, base or large")
    out.add_argument("--image-size", type=int, help=f"default: the weights', or {TOY_SIDE} for toy")
    out.add_argument("--tokenizer", help="SentencePiece model (default: beside the weights)")
    out.add_argument("--pieces", type=int, default=4000, help="of one fitted with --random-init")
    out.add_argument("--max-tokens", type=int, default=MAX_TOKENS)
    out.add_argument("--workers", type=int, default=0, help="processes that decode images")
    out.add_argument("--threads", type=int, help="default: all cores")
    out.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    out.add_argument("--stop-after", type=int, metavar="N", help="steps; go on by the same command")
    out.add_argument("--quiet", action="store_true", help="no progress bars")
    group = out.add_argument_group("settings", "defaults in brackets")
    for name, field in PretrainSettings.model_fields.items():
        option = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            group.add_argument(option, action="store_true", default=None)
        else:
            several = isinstance(field.default, tuple)
            group.add_argument(option, help=f"[{field.default}]", nargs=2 if several else None)
    return out


def main(arguments: Sequence[str]) -> int:
    """Parse and run; 0 when done, 130 when interrupted."""
    options = parser().parse_args(arguments)
    with processes(options) as device:
        try:
            return run(options, device)
        except KeyboardInterrupt:
            logging.getLogger(__name__).info("stopped; the same command goes on")
            return 130


def run(options: argparse.Namespace, device: str) -> int:
    """Pre-train as the options say; prints what was learnt."""
    settings = read_settings(options)
    items = find_items(options)
    folder, show = options.output, not options.quiet
    tokenizer = in_turn(lambda: _tokenizer(options, items))
    chosen = checkpoints.resolve_weights(
        options.weights,
        random_init=options.random_init,
        size=options.size,
        image_size=options.image_size
        or (TOY_SIDE if options.random_init and options.size == "toy" else None),
        vocabulary=tokenizer.vocabulary,
        seed=settings.seed,
        progress=show,
    )
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
    progress = training.run(options.stop_after)
    if progress.step < training.steps:
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


def read_settings(options: argparse.Namespace) -> PretrainSettings:
    """The settings among the options, checked.

    Raises:
        SettingError: a value is not allowed.
    """
    given = {name: getattr(options, name) for name in PretrainSettings.model_fields}
    try:
        return PretrainSettings(**{k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "-".join(map(str, first["loc"])).replace("_", "-")
        raise SettingError(
            f"--{name} cannot be {first['input']!r}.", expected=first["msg"]
        ) from error


def _tokenizer(options: argparse.Namespace, items: ItemTable) -> Tokenizer:
    """The tokenizer, copied beside the weights that will need it.

    Raises:
        SettingError: the copy is there, and another one is given.
    """
    path = options.output / "tokenizer.spm"
    if path.is_file():
        if options.tokenizer and Tokenizer(options.tokenizer).sha256 != Tokenizer(path).sha256:
            raise SettingError(
                "The folder holds another tokenizer.",
                found=f"--tokenizer {options.tokenizer}",
                expected=f"the same content as {path}",
                hint="leave --tokenizer out to go on, or choose another --output",
            )
    else:
        if options.random_init and options.tokenizer is None:
            train_tokenizer(items.texts, path, options.pieces)
        else:
            given = checkpoints.find_tokenizer(options.tokenizer, options.weights)
            Tokenizer(given)
            with atomic_write(path) as handle:
                handle.write(given.read_bytes())
    return Tokenizer(path, options.max_tokens)


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
def processes(options: argparse.Namespace) -> Iterator[str]:
    """Join the group that torchrun started, if it did; yields this process's device."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    device = hardware.choose_device(options.device)
    if several and device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    hardware.set_threads(options.threads, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s")
    if several:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
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
