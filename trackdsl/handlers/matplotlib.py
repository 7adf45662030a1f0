"""Matplotlib figures → `.png`, or another of its formats; axes, and what seaborn makes of them, by their figure.

A picture does not become a figure again: reading gives a PIL image, the text of an SVG, or the bytes of a document.
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
        with open(path, "xb") as file, _left_as_it_is(figure):
            figure.savefig(file, format=path.suffix[1:].lower())

    def read(self, path: Path) -> Any:
        if path.suffix in _IMAGES:
            return read_image(path)
        return path.read_text(encoding="utf-8") if path.suffix == ".svg" else path.read_bytes()


class _Module(_Figure):
    """The module `matplotlib.pyplot`, which stands for its current figure; any other is pickled."""

    def accepts(self, value: Any) -> bool:
        return is_pyplot(value)

    def summary(self, value: Any) -> Scalar:
        return class_name(value)


def is_pyplot(value: Any) -> bool:
    """Whether a value is the module `matplotlib.pyplot`, or `pylab`."""
    return isinstance(value, types.ModuleType) and hasattr(value, "gcf") and hasattr(value, "get_fignums")


def figure_of_module(module: types.ModuleType) -> Any:
    """The current figure of pyplot; any other module itself.

    Raises:
        ValueError: no figure is open.
    """
    if not is_pyplot(module):
        return module
    if not module.get_fignums():  # Asking for the current figure would make one.
        raise ValueError("matplotlib.pyplot has no open figure: record it before it is shown or closed")
    return module.gcf()


def is_plot(value: Any) -> bool:
    """Whether a value is a plot of `seaborn.objects`, which is drawn when it is shown."""
    return any(full_name(base) == "seaborn._core.plot.Plot" for base in type(value).__mro__)


def drawn(plot: Any) -> Any:
    """Such a plot on a figure of its own."""
    from matplotlib.figure import Figure

    figure = Figure()
    plot.on(figure).plot()
    return figure


def _figure_of(value: Any) -> Any:
    """The whole figure that something is part of."""
    if is_pyplot(value):
        return figure_of_module(value)
    if is_plot(value):
        return drawn(value)
    figure = value if hasattr(value, "savefig") and hasattr(value, "canvas") else value.figure
    while not hasattr(figure, "savefig"):  # A figure inside a figure.
        figure = figure.figure
    return figure


@contextlib.contextmanager
def _left_as_it_is(figure: Any) -> Iterator[None]:
    """Undo what drawing leaves behind: where a layout has put the axes, and that nothing is left to be drawn."""
    places = [(axes, axes.get_position(True).frozen(), axes.get_position(False).frozen()) for axes in figure.axes]
    stale = [artist for artist in figure.findobj() if artist.stale]
    subplots = vars(figure.subplotpars).copy()
    dpi = figure.dpi
    try:
        yield
    finally:
        vars(figure.subplotpars).update(subplots)
        if figure.dpi != dpi:
            figure.dpi = dpi
        for axes, original, active in places:
            _place(axes, original, active)
        for artist in stale:
            # Without telling its parents, of which the figure would tell its window.
            callback, artist.stale_callback = artist.stale_callback, None
            artist.stale = True
            artist.stale_callback = callback


def _place(axes: Any, original: Any, active: Any) -> None:
    # `set_position` would take the axes out of the layout for good, and moves both at once.
    place = getattr(axes, "_set_position", None)
    if place is not None:
        stale = axes.stale
        place(original, which="original")
        place(active, which="active")
        axes.stale = stale


handler = _Figure()
module = _Module()
