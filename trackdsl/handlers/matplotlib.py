"""Matplotlib figures → `.png`, or another format of Matplotlib.

For axes and seaborn grids, the whole figure is written. Reading does not restore the figure. It returns a PIL
image, the text of an SVG file, or the bytes of a document.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trackdsl.handlers._dataset import one_line
from trackdsl.handlers._handler import Handler, Scalar
from trackdsl.handlers._types import class_name, full_name
from trackdsl.handlers.pillow import read_image

_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


class _Figure(Handler):
    suffix = ".png"
    suffixes = (".svg", ".pdf", *_IMAGES[1:], ".eps", ".ps")

    def summary(self, value: Any) -> Scalar:
        figure = _figure_of(value)
        width, height = figure.get_size_inches()
        name = class_name(value).rpartition(".")[2]
        return one_line(f"{name} {width:g} by {height:g} in, {len(figure.axes)} axes")

    def write(self, value: Any, path: Path) -> None:
        figure = _figure_of(value)
        with open(path, "xb") as file, _unchanged(figure):
            figure.savefig(file, format=path.suffix[1:].lower())

    def read(self, path: Path) -> Any:
        if path.suffix in _IMAGES:
            return read_image(path)
        return path.read_text(encoding="utf-8") if path.suffix == ".svg" else path.read_bytes()


class _Module(_Figure):
    """The module `matplotlib.pyplot`, which means its current figure. Any other module is pickled."""

    def accepts(self, value: Any) -> bool:
        return is_pyplot(value)

    def summary(self, value: Any) -> Scalar:
        return class_name(value)


def is_pyplot(value: Any) -> bool:
    """Whether a value is the module `matplotlib.pyplot`, or `pylab`."""
    return isinstance(value, types.ModuleType) and hasattr(value, "gcf") and hasattr(value, "get_fignums")


def figure_of_module(module: types.ModuleType) -> Any:
    """The current figure if the module is pyplot; else the module itself.

    Raises:
        ValueError: no figure is open.
    """
    if not is_pyplot(module):
        return module
    if not module.get_fignums():  # `gcf` would create a figure.
        raise ValueError("matplotlib.pyplot has no open figure: record it before it is shown or closed")
    return module.gcf()


def is_plot(value: Any) -> bool:
    """Whether a value is a plot of `seaborn.objects`, which is only drawn when it is shown."""
    return any(full_name(base) == "seaborn._core.plot.Plot" for base in type(value).__mro__)


def drawn(plot: Any) -> Any:
    """Draw a plot of `seaborn.objects` on a new figure."""
    from matplotlib.figure import Figure

    figure = Figure()
    plot.on(figure).plot()
    return figure


def _figure_of(value: Any) -> Any:
    """The whole figure of a value such as axes."""
    if is_pyplot(value):
        return figure_of_module(value)
    if is_plot(value):
        return drawn(value)
    figure = value if hasattr(value, "savefig") and hasattr(value, "canvas") else value.figure
    while not hasattr(figure, "savefig"):  # A figure inside a figure.
        figure = figure.figure
    return figure


@contextlib.contextmanager
def _unchanged(figure: Any) -> Iterator[None]:
    """Restore what drawing changes: the positions of the axes, and which parts still have to be drawn."""
    positions = [(axes, axes.get_position(True).frozen(), axes.get_position(False).frozen()) for axes in figure.axes]
    stale = [artist for artist in figure.findobj() if artist.stale]
    subplots = vars(figure.subplotpars).copy()
    dpi = figure.dpi
    try:
        yield
    finally:
        vars(figure.subplotpars).update(subplots)
        if figure.dpi != dpi:
            figure.dpi = dpi
        for axes, original, active in positions:
            _restore_position(axes, original, active)
        for artist in stale:
            # The callback would redraw the window of the figure.
            callback, artist.stale_callback = artist.stale_callback, None
            artist.stale = True
            artist.stale_callback = callback


def _restore_position(axes: Any, original: Any, active: Any) -> None:
    # The public `set_position` sets both positions at once and removes the axes from the layout.
    set_position = getattr(axes, "_set_position", None)
    if set_position is not None:
        stale = axes.stale
        set_position(original, which="original")
        set_position(active, which="active")
        axes.stale = stale


handler = _Figure()
module = _Module()
