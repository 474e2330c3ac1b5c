"""Data frames whose columns aggregate with `len` as pandas 2 did."""

from __future__ import annotations

from typing import Any

import pandas as pd


class RowLengthSeries(pd.Series):
    """A column for which `agg(len)` is the length of each cell."""

    @property
    def _constructor(self) -> type[RowLengthSeries]:
        return RowLengthSeries

    def agg(self, func: Any = None, *arguments: Any, **options: Any) -> Any:
        """As pandas' `Series.agg`, but one value per row for `len`.

        >>> list(RowLengthSeries([[1], [1, 2]]).agg(len))
        [1, 2]
        """
        return self.map(len) if func is len else super().agg(func, *arguments, **options)


class RowLengthFrame(pd.DataFrame):
    """A data frame with columns of this kind."""

    @property
    def _constructor(self) -> type[RowLengthFrame]:
        return RowLengthFrame

    @property
    def _constructor_sliced(self) -> type[RowLengthSeries]:
        return RowLengthSeries
