"""What `compare` returns: the differences between runs, to print, to show in a notebook, and to write as a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackdsl.query._compared import ComparedRuns
from trackdsl.query._plain_text import plain_text

if TYPE_CHECKING:
    import os

    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from rich.console import Group


@dataclass(frozen=True, repr=False)
class Comparison(ComparedRuns):
    """The differences between runs. It can be printed, and `frame` has them as a data frame.

    Attributes:
        runs: MLflow's ids, in the given order.
        names: the names of the runs.
        labels: the titles of their columns: the names, with the first characters of the id if names are equal.
        differences: the differences of the runs themselves.
        same: the number of the runs' own values that are the same in all of them, and not in `differences`.
        stages: the runs themselves, and the stages below them next to each other.
        changes: what changed in each further run since the first: source with diffs, packages, the patch, datasets,
            and where the trees part; of the first eight runs.
        tracking_uri: the store.
        originals: the original names of parameters and metrics whose names the store does not take, by those that it
            has, which are the names in `differences` and `stages`.
    """

    @property
    def frame(self) -> DataFrame:
        """A data frame with a row for each difference, indexed by kind and name, and a column for each run."""
        import pandas as pd

        from trackdsl.query._inert_frame import DataFrame

        index = pd.MultiIndex.from_tuples([(one.kind, one.name) for one in self.differences], names=["kind", "name"])
        rows = [list(one.values) for one in self.differences]
        return DataFrame(rows, index=index, columns=list(self.labels), dtype=object)

    def to_html(self) -> str:
        """The comparison as a page: one file, which loads nothing. The curves of metrics are read now.

        Example:
            >>> Path("compared.html").write_text(compare("a8c1", "77fe").to_html())  # doctest: +SKIP
        """
        from trackdsl.query._comparison_page import page

        return page(self)

    def write_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file.

        Args:
            path: the file; one that exists is replaced.

        Returns:
            the file.
        """
        written = Path(path)
        written.write_text(self.to_html(), encoding="utf-8", errors="replace")
        return written

    def parallel_coordinates(self) -> Figure:
        """A figure of plotly with an axis for each parameter and metric that differs, and a line for each run.

        Raises:
            ModuleNotFoundError: plotly is not installed: `pip install 'trackdsl[plotly]'`. The page of `to_html` has
                such a plot without it.

        Example:
            >>> compare(*runs("search")["run_id"]).parallel_coordinates().show()  # doctest: +SKIP
        """
        from trackdsl.query._parallel import figure

        return figure(self)

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.runs)} runs, {len(self.differences)} differences>"

    def __str__(self) -> str:
        return plain_text(self)

    def __rich__(self) -> Group:
        from trackdsl.query._comparison_text import text

        return text(self)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        from trackdsl.query._comparison_notebook import notebook_html

        return notebook_html(self)
