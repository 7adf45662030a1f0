"""Bokeh plots and layouts → a page (`.html`) that needs nothing from the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers._registry import Handler


class _Plot(Handler):
    suffix = ".html"

    def write(self, value: Any, path: Path) -> None:
        from bokeh.embed import file_html
        from bokeh.resources import INLINE

        path.write_text(file_html(value, INLINE, "plot"), encoding="utf-8")

    def read(self, path: Path) -> Any:
        return path.read_text(encoding="utf-8")


handler = _Plot()
