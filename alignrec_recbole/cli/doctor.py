"""The verb `doctor`: what is installed, what this machine offers and where data is searched."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from alignrec_recbole._version import __version__
from alignrec_recbole.cli import _options
from alignrec_recbole.cli._verb import verb
from alignrec_recbole.errors import printable

REQUIRED = {  # what training needs: distribution → import name
    "torch": "torch",
    "recbole": "recbole",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "transformers": "transformers",
    "pydantic": "pydantic",
    "matplotlib": "matplotlib",
}
EXTRAS = {  # beside those of encoders, engines and trackers
    "parquet": ("pyarrow",),
    "ann": ("faiss",),
    "search": ("optuna", "cmaes"),
}


@verb(examples=("doctor", "doctor --data-path data"))
@_options.data_path()
def doctor(data_path: Path | None) -> int:
    """Show versions, hardware, extras, data folders and more.

    Also the patches of RecBole and where files can be written. Exit status 1: something that
    training needs is missing.
    """
    sections: list[tuple[str, Callable[[], list[str]]]] = [
        ("Packages", packages),
        ("RecBole patches", patches),
        ("Hardware", hardware),
        ("Optional packages", extras),
        ("Data", lambda: data(data_path)),
        ("Files", files),
        ("Shell completion", completion),
    ]
    for title, lines in sections:
        print(title)
        for line in _answer(lines):
            print(f"  {printable(line)}")
        print()
    missing = missing_packages()
    if missing:
        print(f"Missing: {', '.join(missing)}; training does not work without.")
    return int(bool(missing))


def _answer(lines: Callable[[], list[str]]) -> list[str]:
    """The lines of a section; one line if it fails, so that the other sections are shown."""
    try:
        return lines()
    except Exception as error:  # of damaged packages: anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return [f"not checked: {printable(reason, 200)}"]


def missing_packages() -> list[str]:
    """Required distributions that cannot be imported."""
    return [name for name, module in REQUIRED.items() if not _present(module)]


def packages() -> list[str]:
    """Python, this package and the required ones."""

    folder = Path(__file__).resolve().parents[1]
    lines = [
        f"python           {platform.python_version()} ({platform.system()} {platform.machine()})",
        f"alignrec-recbole {__version__} in {folder}",
    ]
    for name, module in REQUIRED.items():
        if not _present(module):
            lines.append(f"{name:<16} missing: pip install {_pin(name)}")
        else:
            lines.append(f"{name:<16} {_version(name) or 'without metadata'}")
    return lines


def patches() -> list[str]:
    """Which patches of RecBole the installed packages need."""
    if not _present("recbole") or not _present("torch"):
        return ["not checked: RecBole or torch is missing"]
    from alignrec_recbole.compat.patches import check

    words = {True: "needed, applied", False: "not needed", None: "not checked"}
    return [f"{name:<26} {words[used]}" for name, used in check().items()]


def hardware() -> list[str]:
    """Processor, threads and GPUs."""
    if not _present("torch"):
        return ["not checked: torch is missing"]
    import torch

    from alignrec_recbole.runtime import hardware

    features = [torch.backends.cpu.get_cpu_capability()]
    features += ["bfloat16"] if hardware.has_bfloat16("cpu") else []
    features += ["AMX bfloat16"] if hardware.has_amx_bf16() else []
    lines = [
        f"processor  {_processor()}",
        f"features   {', '.join(features)}",
        *thread_lines(),
    ]
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        lines.append(f"cuda:{number}     {device.name}, {device.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.device_count():
        built = torch.version.cuda
        lines.append("gpu        none" + ("" if built else " (this torch is built without CUDA)"))
    return lines


def thread_lines() -> list[str]:
    """How many threads a run gets, and how they wait for each other."""
    from alignrec_recbole.runtime import threads, waiting

    cores, quota = threads.available_cores(), threads.cpu_quota()
    limit = "" if quota is None else f", limited to {quota:.3g} by the container"
    wanted = threads.threads_of_environment()
    if wanted:
        count = f"{wanted} (OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}; --set threads=N)"
    else:
        count = (
            f"one per {threads.NUMBERS_PER_THREAD:,} numbers in the tables of users, items and "
            f"features, at most {threads.free_cores()} now (--set threads=N or OMP_NUM_THREADS=N)"
        )
    if choice := waiting.own_choice():
        wait = f"as {choice} says"
    elif waiting.openmp_libraries():
        wait = "short while other processes need the cores (OMP_WAIT_POLICY sets another way)"
    else:
        wait = "as this torch does by itself: its OpenMP is not GNU's"
    return [
        f"cores      {cores} available, of {os.cpu_count()} in all{limit}",
        f"threads    {count}",
        f"waiting    {wait}",
    ]


def extras() -> list[str]:
    """Extras, each with its install line if something is missing."""
    from alignrec_recbole.encoders.registry import ENCODERS
    from alignrec_recbole.engines import ENGINES
    from alignrec_recbole.tracking import TRACKERS

    entries: list[Any] = [*ENCODERS.values(), *ENGINES.values(), *TRACKERS.values()]
    found = {entry.extra: entry.packages for entry in entries if entry.extra} | EXTRAS
    lines = []
    for extra, modules in found.items():
        missing = [name for name in modules if not _present(name)]
        state = f'pip install "alignrec-recbole[{extra}]"' if missing else "installed"
        lines.append(f"{extra:<14} {state}")
    from alignrec_recbole.registry import recbole_gnn

    there = recbole_gnn.available()
    lines.append(f"{'RecBole-GNN':<14} {'found' if there else 'set RECBOLE_GNN_PATH to a clone'}")
    return lines


def data(data_path: Path | None) -> list[str]:
    """The folders searched, with the data sets and feature files in each."""
    from alignrec_recbole.data import dataset_paths

    folders = dataset_paths.data_folders(data_path)
    shipped = dataset_paths.recbole_examples()
    lines = []
    for folder in [*folders, *([shipped] if shipped is not None else [])]:
        names = dataset_paths.present_datasets([folder])
        lines.append(f"{folder}{_why_unreadable(folder)}: {len(names)} data sets")
        for name in names:
            places = (folder / name, folder / name / "features")
            features = sorted({stem for place in places for stem in _feature_names(place)})
            lines.append(f"  {name}" + (f"  features: {', '.join(features)}" if features else ""))
    if data_path is None and "ALIGNREC_DATA" not in os.environ:
        lines.append("--data-path DIR or ALIGNREC_DATA=DIR searches another folder")
    return lines


def files() -> list[str]:
    """Whether git is found, and whether the folders that are written to accept files."""
    git = shutil.which("git")
    lines = [f"git        {git or 'not found: records will not name a commit'}"]
    lines.append(f"results    {_why_unwritable(Path('results'))}")
    if _present("torch"):
        from alignrec_recbole.encoders.beit3.checkpoints import cache_dir

        lines.append(f"cache      {_why_unwritable(cache_dir())}")
    return lines


def _why_unreadable(folder: Path) -> str:
    """Why a folder cannot be read, in brackets; empty if it can."""
    try:
        with os.scandir(folder):
            return ""
    except FileNotFoundError:
        return " (does not exist)"
    except (OSError, ValueError) as error:
        return f" (cannot be read: {getattr(error, 'strerror', None) or error})"


def _feature_names(folder: Path) -> list[str]:
    """Stems of the .npy files of a folder; empty if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.name).stem for entry in entries if entry.name.endswith(".npy")]
    except (OSError, ValueError):
        return []


def _why_unwritable(folder: Path) -> str:
    """The folder, and why files cannot be written there; found without writing one."""
    try:
        existing = folder.resolve()
        while not os.path.lexists(existing):
            existing = existing.parent
    except (OSError, ValueError, RuntimeError) as error:  # a link to itself, a zero byte
        return f"{folder} (cannot be used: {error})"
    if not existing.is_dir():
        return f"{folder} (cannot be used: {existing} is not a folder)"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{folder} (cannot be written to: {existing} is read-only for this user)"
    free = shutil.disk_usage(existing).free
    return f"{folder} ({free / 2**30:,.1f} GiB free)"


def completion() -> list[str]:
    """How a shell learns the names of verbs, options, models and data sets."""
    return [
        'bash: eval "$(_ALIGNREC_BENCH_COMPLETE=bash_source alignrec-bench)"',
        'zsh:  eval "$(_ALIGNREC_BENCH_COMPLETE=zsh_source alignrec-bench)"',
        "fish: _ALIGNREC_BENCH_COMPLETE=fish_source alignrec-bench | source",
    ]


def _present(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _pin(name: str) -> str:
    return "recbole==1.2.1" if name == "recbole" else name


def _processor() -> Any:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
