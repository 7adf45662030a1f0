"""Bokeh plots and layouts → an HTML page that works without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers._handler import Handler


class _Plot(Handler):
    suffix = ".html"

    def write(self, value: Any, path: Path) -> None:
        from bokeh.embed import file_html
        from bokeh.resources import INLINE

        own = value.document
        try:
            path.write_text(file_html(value, INLINE, "plot"), encoding="utf-8")
        finally:
            # `file_html` adds the plot to a document. A plot can be in only one document, so it is removed again.
            if own is None and value.document is not None:
                value.document.remove_root(value)

    def read(self, path: Path) -> Any:
        return path.read_text(encoding="utf-8")


handler = _Plot()
