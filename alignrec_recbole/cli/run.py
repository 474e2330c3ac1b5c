"""Command line of the harness: parse, run, print where things went."""

from __future__ import annotations

import argparse
import copy
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from alignrec_recbole.runs.record import RunRecord

from alignrec_recbole.io.yaml_loader import parse_yaml
from alignrec_recbole.registry.models import resolve


def _check(options: argparse.Namespace) -> None:
    """Refuse unknown protocols, and options that none of the protocols would read."""
    from alignrec_recbole.errors import SettingError
    from alignrec_recbole.protocols import USE_MODELS, USE_SEEDS, check_protocols

    check_protocols(options.protocol)
    if "full" in options.protocol and not options.model:
        raise SettingError(
            "There is no model to run.",
            found="no --model",
            expected="--model M[,M…], or --protocol with one that trains nothing",
        )
    given = {
        "--model": (options.model, USE_MODELS),
        "--seeds": (options.seeds, USE_SEEDS),
        "--epochs": (options.epochs, USE_SEEDS),
    }
    for option, (value, users) in given.items():
        if value and not set(users) & set(options.protocol):
            raise SettingError(
                f"Protocol {','.join(options.protocol)} has no use for {option}.",
                found=f"{option} {value}",
                expected=f"{option} with {' or '.join(users)}",
            )


def parser() -> argparse.ArgumentParser:
    """The options; their names are a contract."""
    from alignrec_recbole.protocols import PROTOCOLS

    out = argparse.ArgumentParser(
        prog="run_benchmark.py",
        description="Train, evaluate and compare recommenders on multimodal data sets.",
        epilog="example: run_benchmark.py --model AlignRec,LightGCN,BPR --dataset ml-100k; "
        "also: run_benchmark.py download|prepare|pretrain|report …, run_benchmark.py --suite NAME",
    )
    out.add_argument(
        "--model",
        type=_names,
        default=(),
        help="M[,M…]: registered models; not needed where a protocol trains nothing",
    )
    out.add_argument("--dataset", required=True, help="registered name or a folder in --data-path")
    out.add_argument(
        "--features",
        type=_names,
        default=(),
        metavar="F[,F…]",
        help="encoders or stems of .npy files; several make one set (default: lsa if needed)",
    )
    out.add_argument(
        "--protocol",
        type=_names,
        default=("full",),
        metavar="NAME[,NAME…]",
        help=f"{', '.join(PROTOCOLS)} (default: full)",
    )
    out.add_argument("--setting", choices=["mmrec", "recbole"], help="default: the data set's own")
    out.add_argument(
        "--seeds",
        type=_seeds,
        metavar="S[,S…]",
        help="default: 999; of mask-modality with --model 999,1000,1001",
    )
    out.add_argument(
        "--data-path", type=Path, help="folder of data sets (or $ALIGNREC_DATA, ./data)"
    )
    out.add_argument("--features-path", type=Path, help="folder searched first for features")
    out.add_argument("--output", type=Path, default=Path("results"))
    out.add_argument("--epochs", type=int, help="at most so many epochs")
    out.add_argument(
        "--set",
        type=_assignment,
        action="extend",
        nargs="+",
        default=[],
        metavar="key=value",
        help="settings of the model, the trainer, the protocol or RecBole (properties/)",
        dest="overrides",
    )
    out.add_argument(
        "--grid",
        type=_choices,
        action="extend",
        nargs="+",
        default=[],
        metavar="key=v1,v2",
        help="choose on validation with the first seed, then run every seed with the choice",
    )
    out.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    policy = out.add_mutually_exclusive_group()
    policy.add_argument("--resume", action="store_true", help="go on where a run stopped (default)")
    policy.add_argument("--overwrite", action="store_true", help="run again even if finished")
    out.add_argument("--quiet", action="store_true", help="no progress bars of runs")
    return out


def _run(options: argparse.Namespace) -> int:
    from alignrec_recbole.runs.spec import Interrupted

    _check(options)
    try:
        for protocol in options.protocol:
            if protocol == "full":
                _run_models(options)
                _show_models(options)
            else:
                _run_protocol(options, protocol)
                _show_protocol(options, protocol)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("stopped; the last saved state is kept", file=sys.stderr)
        return 130
    return 0


def run_cell(options: argparse.Namespace) -> list[RunRecord]:
    """The records of one command line, without its tables."""
    _check(options)
    return [
        record
        for name in options.protocol
        for record in (_run_models(options) if name == "full" else _run_protocol(options, name))
    ]


def _run_models(options: argparse.Namespace) -> list[RunRecord]:
    """Protocol full: every model and seed."""
    from alignrec_recbole.runs.run import run_one
    from alignrec_recbole.runs.spec import RunSpec

    records = []
    for model in options.model:
        entry = resolve(model)
        if options.features and not entry.needs_features:
            print(f"{entry.name} reads no features: --features is not for it", file=sys.stderr)
        features = options.features or (("lsa",) if entry.needs_features else ())
        base = {
            **_base(options),
            "model": entry.name,
            "features": features if entry.needs_features else (),
            "protocol": "full",
        }
        overrides = _merge(options.overrides)
        tuned_on = None
        if options.grid:
            chosen, tuned_on = _choose(options, base, overrides)
            overrides = _merge(chosen.items(), overrides)
        for seed in options.seeds or (999,):
            spec = RunSpec(seed=seed, overrides=overrides, tuned_on=tuned_on, **base)
            record = run_one(spec, overwrite=options.overwrite)
            records.append(record)
            print(_line(record))
    return records


def _show_models(options: argparse.Namespace) -> None:
    """The data set's table."""
    from alignrec_recbole.reports.tables import as_text, comparison, write_tables
    from alignrec_recbole.runs.record import read_runs

    tables = comparison(read_runs(options.output / "runs" / options.dataset), options.dataset)
    print("\n" + as_text(tables) + "\n")
    for path in write_tables(tables, options.output / "tables", options.dataset):
        print(path)


def _run_protocol(options: argparse.Namespace, protocol: str) -> list[RunRecord]:
    """Any other protocol."""
    from alignrec_recbole.errors import SettingError
    from alignrec_recbole.protocols import USE_MODELS, USE_SEEDS
    from alignrec_recbole.protocols.rankers import RANKERS
    from alignrec_recbole.protocols.run import run_protocol
    from alignrec_recbole.runs.spec import RunSpec

    stored = protocol == "long-tail"
    base = {
        **_base(options),
        "features": options.features or (() if stored else ("lsa",)),
        "protocol": protocol,
    }
    overrides = _merge(options.overrides)
    tuned_on = None
    models = tuple(
        name if name in RANKERS or stored else resolve(name).name
        for name in (options.model if protocol in USE_MODELS else ())
    )
    seeds = options.seeds if protocol in USE_SEEDS else None
    if options.grid:
        if protocol not in RANKERS:
            raise SettingError(
                f"Protocol {protocol!r} chooses nothing on validation.",
                found=f"--grid {options.grid[0][0]}=…",
                expected=f"--grid with {', '.join(RANKERS)} or full",
                hint="choose with protocol full, then pass the choice with --set",
            )
        chosen, tuned_on = _choose(options, {**base, "model": protocol}, overrides)
        overrides = _merge(chosen.items(), overrides)
    spec = RunSpec(model="", overrides=overrides, tuned_on=tuned_on, **base)
    records = []
    for record in run_protocol(spec, models, seeds, options.overwrite):
        records.append(record)
        print(_line(record))
    return records


def _show_protocol(options: argparse.Namespace, protocol: str) -> None:
    """The data set's tables of this protocol."""
    from alignrec_recbole.reports.build import tables
    from alignrec_recbole.reports.tables import write_tables
    from alignrec_recbole.runs.record import read_runs

    runs = read_runs(options.output / "runs" / options.dataset)
    pages = tables([run for run in runs if run.record.protocol == protocol])
    for stem, several in pages.items():
        for path in write_tables(several, options.output / "tables", stem):
            print(path)


def _line(record: RunRecord) -> str:
    """A record for the terminal."""
    shown = {
        name: record.metrics[name] for name in ("Recall@20", "NDCG@20") if name in record.metrics
    }
    values = ", ".join(f"{name} {value:.4f}" for name, value in (shown or record.metrics).items())
    names = [record.protocol, record.model] if record.protocol != "full" else [record.model]
    ranker = " ".join(dict.fromkeys(name for name in names if name != "none"))
    epochs = f"{record.epochs} epochs, " if record.epochs else ""
    return (
        f"{ranker} {record.dataset} {record.features} seed {record.seed}: "
        f"{values} ({epochs}{record.seconds['total']:.0f} s)"
    )


def _base(options: argparse.Namespace) -> dict[str, Any]:
    """What a RunSpec takes from the command line as it is."""
    return {
        "dataset": options.dataset,
        "setting": options.setting,
        "data_path": options.data_path,
        "features_path": options.features_path,
        "output": options.output,
        "epochs": options.epochs,
        "device": options.device,
        "progress": not options.quiet,
    }


def _choose(
    options: argparse.Namespace, base: dict[str, Any], overrides: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """The grid point with the best validation score; the test split is not looked at.

    The winner's state stays, so that its run only has to be ranked; the others' are deleted.
    """
    from alignrec_recbole.protocols.rankers import RANKERS, rank_by_features
    from alignrec_recbole.runs.prepare import forget
    from alignrec_recbole.runs.run import run_one
    from alignrec_recbole.runs.spec import RunSpec

    trained = base["protocol"] not in RANKERS
    seed = (options.seeds or (999,))[0]
    keys = [key for key, _ in options.grid]
    trials: list[tuple[float, dict[str, Any], RunSpec]] = []
    for point in itertools.product(*(values for _, values in options.grid)):
        trial = dict(zip(keys, point, strict=True))
        spec = RunSpec(
            seed=seed, overrides=_merge(trial.items(), overrides), score_test=False, **base
        )
        again = options.overwrite
        record = run_one(spec, overwrite=again) if trained else rank_by_features(spec, again)
        score = record.selection["best_score"]
        print(f"  {trial}: validation {record.selection['metric']} {score:.4f}")
        trials.append((score, trial, spec))
    best = max(trials, key=lambda entry: entry[0])  # the first of equals
    for entry in trials:
        if trained and entry is not best:
            forget(entry[2])
    grid = "; ".join(f"{key} in {list(values)}" for key, values in options.grid)
    return best[1], f"tuned on validation, seed {seed}: {grid}"


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("no name given")
    return names


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(seed) for seed in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of whole numbers such as 999,1000"
        ) from None


def _assignment(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    return key.strip(), _value(value)


def _choices(text: str) -> tuple[str, list[Any]]:
    key, _ = _assignment(text)
    return key, [_value(part) for part in text.partition("=")[2].split(",")]


def _value(text: str) -> Any:
    """A YAML value."""
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a YAML value") from None


def _merge(
    pairs: Iterable[tuple[str, Any]], before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """`before` with the pairs set; `a.b=1` becomes {"a": {"b": 1}}."""
    out = copy.deepcopy(before or {})
    for key, value in pairs:
        *parents, last = key.split(".")
        place = out
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return out
