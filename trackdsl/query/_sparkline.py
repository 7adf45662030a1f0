"""Small curves of a metric: as SVG for a page, and as characters for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT = 120, 18


def sparkline_svg(values: Sequence[float]) -> str:
    """A curve as an inline SVG, in the colour of the text around it; a gap where a value is not finite.

    Args:
        values: in the order of their steps; thinned to one for each two pixels.

    Returns:
        the element, or an empty text for fewer than two finite values.
    """
    scaled = _scaled(_thinned(values, _WIDTH // 2))
    if sum(value is not None for value in scaled) < 2:
        return ""
    step = (_WIDTH - 2) / (len(scaled) - 1)
    path, pen = [], "M"
    for number, value in enumerate(scaled):
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{1 + number * step:.1f} {_HEIGHT - 2 - value * (_HEIGHT - 4):.1f}")
        pen = "L"
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-hidden="true" '
        f'style="vertical-align:middle"><path d="{"".join(path)}" fill="none" stroke="currentColor" '
        'stroke-width="1.5" stroke-linejoin="round"/></svg>'
    )


def sparkline_text(values: Sequence[float], width: int = 12) -> str:
    """A curve of block characters; a space where a value is not finite.

    >>> sparkline_text([0, 1, 2, 3])
    '▁▃▆█'
    """
    return "".join(
        " " if value is None else _BLOCKS[round(value * (len(_BLOCKS) - 1))]
        for value in _scaled(_thinned(values, width))
    )


def _thinned(values: Sequence[float], most: int) -> list[float]:
    """At most this many of the values, at equal distances, with the first and the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(number * (len(values) - 1) / (most - 1))] for number in range(most)]


def _scaled(values: Sequence[float]) -> list[float | None]:
    """The values between 0 and 1; None where one is not finite."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    # Half of each, because their difference may be larger than any number.
    size = high / 2 - low / 2
    return [None if not math.isfinite(value) else 0.5 if not size else (value / 2 - low / 2) / size for value in values]
