"""Files of figures: SVG, PDF, PNG and the data as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.reports import escaping
from alignrec_recbole.reports.plots.fonts import in_small_fonts
from alignrec_recbole.reports.plots.recorded import Recorded
from alignrec_recbole.reports.plots.style import STYLE, Drawing

DPI = 150
COMPRESSION = 3  # of PNG files: two thirds of the time of the default, 2 % larger


def save(drawing: Drawing, folder: Path, name: str) -> list[Path]:
    """Write `<name>.svg`, `.pdf`, `.png` and the data as `.csv`; equal bytes for equal figures."""
    paths = []
    words = "".join(text.get_text() for text in drawing.figure.findobj(Text))
    with mpl.rc_context(STYLE):
        drawn = Recorded(drawing.figure, DPI)
        for suffix, settings in (("svg", {}), ("pdf", in_small_fonts(words)), ("png", {})):
            paths.append(folder / f"{name}.{suffix}")
            with mpl.rc_context(settings), atomic_write(paths[-1]) as handle:
                WRITE[suffix](drawn, handle)
            drawn.dpi = DPI  # files of lines have their own
    paths.append(folder / f"{name}.csv")
    with atomic_write(paths[-1], "w") as handle:
        handle.write(as_csv(drawing))
    return paths


def _svg(figure: Figure, handle: Any) -> None:
    FigureCanvasSVG(figure).print_svg(handle, metadata={"Date": None})


def _pdf(figure: Figure, handle: Any) -> None:
    FigureCanvasPdf(figure).print_pdf(handle, metadata={"CreationDate": None})


def _png(figure: Figure, handle: Any) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])  # nothing is transparent
    picture.save(handle, "PNG", dpi=(DPI, DPI), compress_level=COMPRESSION)


WRITE = {"svg": _svg, "pdf": _pdf, "png": _png}


def as_csv(drawing: Drawing) -> str:
    """The data of the figure, unrounded; blanks are blank."""
    data = drawing.data.copy()
    for column in data.columns:
        if data[column].map(lambda value: isinstance(value, str)).any():
            data[column] = data[column].map(
                lambda value: escaping.as_csv(value) if isinstance(value, str) else value
            )
    data.columns = [escaping.as_csv(str(name)) for name in data.columns]
    return str(data.to_csv(index=False, lineterminator="\n"))
