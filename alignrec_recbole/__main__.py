"""`python -m alignrec_recbole` is the command line of `alignrec-bench`."""

from alignrec_recbole.cli.main import main

raise SystemExit(main())
