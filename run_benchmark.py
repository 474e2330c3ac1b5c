"""Train, evaluate and compare: `python run_benchmark.py --help`."""

if __name__ == "__main__":
    try:
        from alignrec_recbole.cli.main import main
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(main())
