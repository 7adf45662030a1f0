"""Altair charts → an HTML page, or `.json`, from which the chart is restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers._handler import Handler


class _Chart(Handler):
    suffix = ".html"
    suffixes = (".json",)

    def write(self, value: Any, path: Path) -> None:
        text = value.to_json() if path.suffix == ".json" else value.to_html()
        path.write_text(text, encoding="utf-8")

    def read(self, path: Path) -> Any:
        """The chart from `.json`; the text of an HTML page."""
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            return text
        import altair

        return altair.Chart.from_json(text)


handler = _Chart()
