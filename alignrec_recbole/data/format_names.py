"""Names of the formats that are read: a light module, for the command line's help."""

from __future__ import annotations

FORMAT_NAMES = ("amazon2023", "microlens", "mmssl", "hm", "pixelrec", "ninerec", "table")
