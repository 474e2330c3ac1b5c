"""Train, evaluate and compare: `python run_benchmark.py --help`."""

from alignrec_recbole.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
