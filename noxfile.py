"""The checks by name, in the active environment: `nox -s lint`, or `nox` for the usual ones.

CONTRIBUTING.md says how to set the environment up.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "test", "docs", "readme"]
WORKERS = ("-n", "2", "--dist", "loadgroup")
QUIET = {"PYTHONWARNINGS": "ignore", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
EXTRAS = (
    *("minilm", "efficientnet", "beit3", "parquet", "ann", "dask", "slurm"),
    *("wandb", "mlflow", "codecarbon", "dev", "docs"),
)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # skipped where it does not answer
CPU_TORCH = (
    *("--no-deps", "--retries", "1", "--timeout", "15"),
    *("--extra-index-url", CPU_INDEX, "torch==2.13.0"),
)
BROWSER = ("playwright-core@1.65.1", "axe-core@4.14.1")
CUDA_OR_RAY = ("nvidia-", "cuda-", "triton==", "ray==")


@nox.session
def fmt(session: nox.Session) -> None:
    """Format the code and repair what ruff can."""
    session.run("ruff", "check", "--fix", ".")
    session.run("ruff", "format", ".")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format, types, import layers, spelling."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports", "--no-cache")
    session.run("typos")


@nox.session
def test(session: nox.Session) -> None:
    """The fast tests; arguments go to pytest."""
    session.run("python", "-m", "pytest", *WORKERS, *session.posargs, env=QUIET)


@nox.session
def test_slow(session: nox.Session) -> None:
    """The slow tests, every example of README and docs among them."""
    session.run("python", "-m", "pytest", *WORKERS, "-m", "slow", *session.posargs, env=QUIET)


@nox.session
def parity(session: nox.Session) -> None:
    """Compare with a reference checkout: -- alignrec|baselines|beit3 --reference DIR …"""
    name, *options = session.posargs or ["alignrec", "--help"]
    session.run("python", "-m", f"benchmarks.parity.{name}", *options)


@nox.session
def speed(session: nox.Session) -> None:
    """Time ours beside others: -- alignrec|lightgcn|evaluation|baselines|beit3|knn …"""
    name, *options = session.posargs or ["alignrec", "--help"]
    session.run("python", "-m", f"benchmarks.speed.{name}", *options)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into build/site; a warning or a broken link fails."""
    # with --quiet, warnings would not be counted
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def site(session: nox.Session) -> None:
    """Build the site of the shipped results into build/report/site."""
    output = Path("build", "report").resolve()
    for part in ("runs", "tuning", "suites", "audit"):  # tables and figures are made anew
        shutil.rmtree(output / part, ignore_errors=True)
        if (source := Path("results", "shipped", part)).is_dir():
            shutil.copytree(source, output / part)
    session.run("python", "run_benchmark.py", "report", "--output", str(output), env=QUIET)
    session.log(f"{output / 'site' / 'index.html'}")


@nox.session
def browser(session: nox.Session) -> None:
    """Check a site in Chromium with axe; needs both, and npm for two packages of the test alone."""
    folder = Path("build", "browser").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    fetch = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(folder)]
    session.run(*fetch, *BROWSER, external=True)
    screens = str(folder / "screens")
    env = {**QUIET, "NODE_PATH": str(folder / "node_modules"), "SCREENSHOTS": screens}
    test = "tests/reports/test_site_in_a_browser.py"
    session.run("python", "-m", "pytest", "-m", "slow", "-rs", test, *session.posargs, env=env)


@nox.session
def readme(session: nox.Session) -> None:
    """Check that generated tables are fresh; -- --write rebuilds them."""
    check = [] if "--write" in session.posargs else ["--check"]
    session.run("python", "-m", "benchmarks.readme_tables", *check, env=QUIET)


@nox.session
def lock(session: nox.Session) -> None:
    """Refresh constraints.txt with the newest versions; -- --keep adds what is missing only.

    torch stays at its pin. Its CUDA packages are left out: each build of torch names its own. Ray
    is a pin for pip, which cannot leave it out below Python 3.12; uv resolves without it.
    """
    path = Path("constraints.txt")
    lines = path.read_text().splitlines()
    old = path if "--keep" in session.posargs else Path(session.create_tmp(), "torch.txt")
    if old != path:
        old.write_text("torch==2.13.0\n")
    no_ray = Path(session.create_tmp(), "override.txt")
    no_ray.write_text("ray==2.6.3; sys_platform == 'never'\n")
    command = ["uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.10"]
    command += [part for extra in EXTRAS for part in ("--extra", extra)]
    command += ["--group", "recbole", "--override", str(no_ray), "--constraint", str(old)]
    command += ["--no-annotate", "--no-header", "--quiet"]
    found = str(session.run(*command, silent=True, external=True)).splitlines()
    pins = [re.sub(r" (;|and) sys_platform == 'never'$", "", line) for line in found]
    pins = [line for line in pins if "==" in line and not line.startswith(CUDA_OR_RAY)]
    pins = [line for line in pins if "== 'emscripten'" not in line]
    if old == path:
        known = {line.partition("==")[0] for line in lines}
        pins = [line for line in pins if line.partition("==")[0] not in known]
        pins += [line for line in lines if not line.startswith("#")]
    else:
        pins.append("ray==2.6.3 ; python_version < '3.12'")
    header = [line for line in lines if line.startswith("#")]
    path.write_text("\n".join([*header, *sorted(pins, key=str.lower)]) + "\n")
    session.log(f"{len(pins)} pins in {path}")


@nox.session(venv_backend="virtualenv")
def wheel(session: nox.Session) -> None:
    """Build the wheel, install it into an environment of its own and run it outside the tree."""
    folder = session.create_tmp()
    session.install("build", "hatchling")
    session.run("python", "-m", "build", "--wheel", "--outdir", folder)
    pins = Path("constraints.txt").resolve()
    built = max(Path(folder).glob("*.whl"), key=os.path.getmtime).resolve()
    session.install(*CPU_TORCH)
    session.install("-c", str(pins), str(built))
    session.install("-c", str(pins), "--no-deps", "recbole==1.2.1", "thop")
    session.chdir(folder)
    session.run("alignrec-bench", "--model", "AlignRec", "--dataset", "ml-100k", "--epochs", "2")
    session.run("python", "-c", "import benchmarks", success_codes=[1])
