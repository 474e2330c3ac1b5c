"""Small fonts for PDF files: the letters that figures have, cut out of the large font once.

A PDF file has the letters it uses. To find them, fontTools reads all 6,000 of DejaVu Sans for each
file and each face, which takes longer than the drawing.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from matplotlib.font_manager import FontProperties, findfont, fontManager

FAMILY = "Letters of figures"
SIGNS = "\u00b1\u00b7\u00d7\u2013\u2019\u2026\u2212\u2264\u2265"
LETTERS = "".join(map(chr, range(0x20, 0x7F))) + SIGNS
UNDRAWN = "\n\u200b"  # of texts in lines
FACES = ("normal", "bold")


def in_small_fonts(text: str) -> dict[Any, Any]:
    """Settings with which matplotlib sets a text in the small fonts.

    None if they lack a letter or there is no folder for temporary files; the file is the same then,
    but takes longer.
    """
    if not set(text) <= set(LETTERS + UNDRAWN):
        return {}
    try:
        _added()
    except OSError:
        return {}
    return {"font.sans-serif": [FAMILY]}


@functools.cache
def _added() -> tempfile.TemporaryDirectory[str]:
    """Make the fonts known to matplotlib; their folder is deleted when the process ends."""
    from fontTools import subset

    folder = tempfile.TemporaryDirectory(prefix="alignrec-fonts-")
    for face in FACES:
        options = subset.Options(glyph_names=True, recommended_glyphs=True, legacy_kern=True)
        options.drop_tables += ["FFTM", "GDEF", "GPOS", "MATH"]  # the table kern says the same
        found = findfont(FontProperties(weight=face))
        with subset.load_font(found, options) as font:
            subsetter = subset.Subsetter(options)
            subsetter.populate(text=LETTERS)
            subsetter.subset(font)
            for record in font["name"].names:
                if record.nameID == 1:
                    record.string = FAMILY
            path = Path(folder.name) / f"{face}.ttf"
            font.save(path)
        fontManager.addfont(path)
    return folder
