"""Figures of run records, one file per figure, in one style: SVG, PDF, PNG and their data as CSV.

Every function returns a `Drawing` or raises EmptyPlotError.
"""

from alignrec_recbole.reports.plots.audit import audit_dots
from alignrec_recbole.reports.plots.beyond_accuracy import beyond_accuracy_panels
from alignrec_recbole.reports.plots.budget import search_curves
from alignrec_recbole.reports.plots.cost import quality_against_cost
from alignrec_recbole.reports.plots.files import as_csv, save
from alignrec_recbole.reports.plots.knock_out import draw_leads, knock_out_leads, leads_data
from alignrec_recbole.reports.plots.long_tail import long_tail_dots
from alignrec_recbole.reports.plots.protocols import protocol_bars
from alignrec_recbole.reports.plots.robustness import robustness_curves
from alignrec_recbole.reports.plots.sensitivity import sensitivity
from alignrec_recbole.reports.plots.style import (
    COLUMN,
    PAGE,
    WIDTHS,
    Drawing,
    EmptyPlotError,
)
from alignrec_recbole.reports.plots.training import training_curves

__all__ = [
    "COLUMN",
    "PAGE",
    "WIDTHS",
    "Drawing",
    "EmptyPlotError",
    "as_csv",
    "audit_dots",
    "beyond_accuracy_panels",
    "draw_leads",
    "knock_out_leads",
    "leads_data",
    "long_tail_dots",
    "protocol_bars",
    "quality_against_cost",
    "robustness_curves",
    "save",
    "search_curves",
    "sensitivity",
    "training_curves",
]
