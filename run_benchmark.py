"""Train, evaluate and compare: `python run_benchmark.py --help`."""

from benchmarks.cli import program

if __name__ == "__main__":
    raise SystemExit(program())
