"""Figures of a report as files of the site: in the page's text colour, light and dark."""

from __future__ import annotations

import re
from pathlib import Path

from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.reports.captions import CAPTIONS
from alignrec_recbole.reports.site.names import unique

INK = "#1b1e23"  # of plots; the site uses its own text colour instead
COLOURS = "<style>svg{color:#1b1e23}@media (prefers-color-scheme:dark){svg{color:#e8eaee}}</style>"


FILES = ("svg", "csv")  # of a figure, which pages offer for download


def figure_file(name: str, suffix: str) -> str:
    """Path of a figure, or of its data, in the site."""
    return f"figures/{name}.{suffix}"


def figure_path(folder: Path, name: str) -> Path:
    """Path of a figure in the site's folder."""
    return folder / figure_file(name, "svg")


def kind_of(name: str) -> str:
    """Which of the figures of a data set it is."""
    return next(kind for kind in CAPTIONS if name.endswith(f"-{kind}"))


def write_figure(svg: str, folder: Path, name: str) -> str:
    """Write a figure as the pages include it: in their text colour, its own ids, a name."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = svg.replace('style="fill: #ffffff"', 'style="fill: none"')  # of the figure and its axes
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    label = re.sub(r"[^\w -]", "", name).replace("-", " ")
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{unique(name, '_')}-", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="Plot: {label}" ', 1)
    svg = re.sub(r"(<svg [^>]*>)", rf"\1{COLOURS}", svg, count=1)
    with atomic_write(figure_path(folder, name), "w") as handle:
        handle.write(svg)
    return svg
