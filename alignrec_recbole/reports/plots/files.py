"""Files of figures: SVG, PDF, PNG and the data as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import blended_transform_factory

from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.reports import escaping
from alignrec_recbole.reports.plots.fonts import in_small_fonts
from alignrec_recbole.reports.plots.style import STYLE, Drawing

PNG_DPI = 150
PNG = {"compress_level": 3}  # a third of the time of the default, a tenth larger


def save(drawing: Drawing, folder: Path, name: str) -> list[Path]:
    """Write `<name>.svg`, `.pdf`, `.png` and the data as `.csv`; equal bytes for equal figures.

    Each canvas draws once: `savefig` would draw twice to compute a layout that is final already.
    """
    paths = []
    figure = drawing.figure
    dpi = figure.dpi
    with mpl.rc_context(STYLE):
        for suffix in ("svg", "pdf", "png"):
            paths.append(folder / f"{name}.{suffix}")
            with atomic_write(paths[-1]) as handle:
                DRAW[suffix](figure, handle)
            if suffix == "svg":
                fix_labels(figure)
    figure.dpi = dpi
    paths.append(folder / f"{name}.csv")
    with atomic_write(paths[-1], "w") as handle:
        handle.write(as_csv(drawing))
    return paths


def _svg(figure: Figure, handle: Any) -> None:
    FigureCanvasSVG(figure).print_svg(handle, metadata={"Date": None})


def _pdf(figure: Figure, handle: Any) -> None:
    words = "".join(text.get_text() for text in figure.findobj(Text))
    with mpl.rc_context(in_small_fonts(words)):
        FigureCanvasPdf(figure).print_pdf(handle, metadata={"CreationDate": None})


def _png(figure: Figure, handle: Any) -> None:
    figure.dpi = PNG_DPI
    FigureCanvasAgg(figure).print_png(handle, pil_kwargs=PNG)


DRAW = {"svg": _svg, "pdf": _pdf, "png": _png}


def fix_labels(figure: Figure) -> None:
    """Leave the labels of axes where the last drawing put them, at any resolution.

    Without it, each drawing measures all names of ticks to place the labels beside them.
    """
    scale = figure.dpi_scale_trans
    for axes in figure.axes:
        for axis, trans in (
            (axes.xaxis, blended_transform_factory(axes.transAxes, scale)),
            (axes.yaxis, blended_transform_factory(scale, axes.transAxes)),
        ):
            x, y = axis.label.get_position()
            place = (x, y / figure.dpi) if axis is axes.xaxis else (x / figure.dpi, y)
            axis.set_label_coords(*place, transform=trans)
            if not axis.get_offset_text().get_text():  # whose place follows from the names
                for tick in axis.get_major_ticks():
                    tick.label1.set_in_layout(False)


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
