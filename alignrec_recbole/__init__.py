"""AlignRec and multimodal baselines as RecBole models.

Importing this package repairs RecBole 1.2.1 for the installed stack (compat.py) and makes its
models known to it (register.py).
"""

from alignrec_recbole.compat import patches

__version__ = "0.1.0"

patches.apply()

from alignrec_recbole.registry import stock_recbole  # noqa: E402 (reads RecBole, so it comes after the repairs)

stock_recbole.install()
