"""`python -m alignrec_recbole`: the command line."""

import sys

if __name__ == "__main__":
    try:
        from alignrec_recbole.cli.main import main
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    sys.argv[0] = "alignrec-bench"  # the command that run records name
    raise SystemExit(main())
