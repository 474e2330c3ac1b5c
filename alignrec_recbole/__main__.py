"""`python -m alignrec_recbole`: the command line."""

import sys

from alignrec_recbole.cli.main import main

if __name__ == "__main__":
    sys.argv[0] = "alignrec-bench"  # the command that run records name
    raise SystemExit(main())
