"""Published results on the released splits, and whether ours reproduce them."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import BaseModel, ConfigDict, Field

from alignrec_recbole.features.published import group_of
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml
from alignrec_recbole.reports.grouping import PRIMARY_METRIC, SeedGroup
from alignrec_recbole.runs.record import RunRecord

FILE = "reference_results.yaml"
INDEPENDENT = "independent run"  # as the file names that source


class ReferenceRow(BaseModel):
    """One row of a published table; `band` (relative) and `tolerance` are of Recall@20."""

    model_config = ConfigDict(extra="forbid")

    model: str
    dataset: str
    features: str  # none, or whose
    source: str
    values: dict[str, float]
    band: float | None = Field(default=None, gt=0)
    tolerance: float | None = Field(default=None, gt=0)

    @property
    def label(self) -> str:
        """The model, with a mark that the row is none of the records'."""
        return f"{self.model} ({'reference run' if self.source == INDEPENDENT else 'published'})"

    def note(self, features: Collection[str] = ()) -> str:
        """Source, and why it is or is not comparable with runs on these published features.

        Args:
            features: groups that some run used; see features/published.py.
        """
        if self.source == INDEPENDENT:
            return f"source: {INDEPENDENT}"
        alike = self.features == "none" or self.features in features
        other = "" if alike else "not comparable: other features; "
        return f"{other}source: {self.source}; hyper-parameters chosen on test"


def reference_results(dataset: str) -> list[ReferenceRow]:
    """The published rows of a data set."""
    table = read_yaml(properties_dir() / FILE)
    return [
        ReferenceRow(**{**row, "values": dict(zip(table["columns"], row["values"], strict=True))})
        for row in table["rows"]
        if row["dataset"] == dataset
    ]


def features_of(record: RunRecord) -> str:
    """Whose features a run used, as rows of published tables call them; "" if its own.

    The published ones are recognised by what their files say of the archive they are from, whose
    hash is that of the first download; see features/published.py.
    """
    return "none" if record.features == "none" else group_of(record.feature_files)


def reproduction_status(group: SeedGroup, rows: list[ReferenceRow]) -> str:
    """Within or outside the band of Recall@20, or why it is not comparable; "" without a row."""
    record = group.first
    row = next((row for row in rows if row.model == record.model), None)
    mean = group.mean(PRIMARY_METRIC)
    if row is None or mean is None or record.protocol != "full":
        return ""
    if row.features != features_of(record):
        return "not comparable: other features"
    if record.setting != "mmrec" or record.data["split"].get("kind") != "released":
        return "not comparable: other split or masks"
    if any(note.startswith("data differ") for note in record.notes):
        return "not comparable: other data"
    anchor = row.values[PRIMARY_METRIC]
    away = f"{round(100 * (mean / anchor - 1), 1) + 0.0:+.1f} %"  # + 0.0: no -0.0
    if row.tolerance is not None:
        inside, band = abs(mean - anchor) <= row.tolerance, f"{row.tolerance:g}"
    elif row.band is not None:
        inside, band = abs(mean / anchor - 1) <= row.band, f"{100 * row.band:g} %"
    else:
        return f"no band ({away})"
    return f"{'within' if inside else 'outside'} {band} ({away})"
