"""Plotly figures → an HTML page that works without a network, or `.json`, from which the figure is restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers._dataset import one_line
from trackdsl.handlers._handler import Handler, Scalar


class _Figure(Handler):
    suffix = ".html"
    suffixes = (".json",)

    def summary(self, value: Any) -> Scalar:
        kinds = dict.fromkeys(str(trace.type) for trace in value.data[:20])
        return one_line(f"{type(value).__name__}, {len(value.data)} traces [{', '.join(kinds)}]")

    def write(self, value: Any, path: Path) -> None:
        if path.suffix == ".json":
            value.write_json(path)
        else:
            value.write_html(path, include_plotlyjs=True, full_html=True, auto_open=False)

    def read(self, path: Path) -> Any:
        """The figure from `.json`; the text of an HTML page."""
        if path.suffix == ".json":
            import plotly.io

            return plotly.io.read_json(path)
        return path.read_text(encoding="utf-8")


handler = _Figure()
