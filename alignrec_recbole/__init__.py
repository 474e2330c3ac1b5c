"""AlignRec and multimodal baselines as RecBole models.

Importing this package repairs RecBole 1.2.1 for the installed stack (compat.py) and makes its
models known to it (register.py).
"""

from alignrec_recbole import compat

__version__ = "0.1.0"

compat.apply()

from alignrec_recbole import register  # noqa: E402 (reads RecBole, so it comes after the repairs)

register.install()
