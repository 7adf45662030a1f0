"""Numbers, durations and times in a form that people read."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime


def number(value: float) -> str:
    """A metric's value in a readable form. MLflow stores the largest number for infinity.

    >>> number(0.142625), number(1797.0), number(1.7976931348623157e308)
    ('0.1426', '1797', 'inf')
    """
    if is_infinite(value):
        return "inf" if value > 0 else "-inf"
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.4g}"


def is_infinite(value: float) -> bool:
    """Whether a metric's value is infinite, or the largest number, which MLflow stores for it."""
    return abs(value) >= sys.float_info.max


def is_finite(value: float) -> bool:
    """Whether a metric's value is a number that can be drawn and subtracted.

    >>> is_finite(0.5), is_finite(math.nan), is_finite(1.7976931348623157e308)
    (True, False, False)
    """
    return not math.isnan(value) and not is_infinite(value)


def difference(before: float | None, after: float | None) -> float | None:
    """The growth of a metric from one value to another; None if either is missing or not finite.

    >>> difference(0.5, 0.75), difference(None, 1.0), difference(1.0, 1.7976931348623157e308)
    (0.25, None, None)
    """
    if before is None or after is None or not is_finite(before) or not is_finite(after):
        return None
    found = after - before
    return found if is_finite(found) else None


def duration(seconds: float | None) -> str:
    """The duration of a run in a readable form.

    >>> duration(0.25), duration(75.0), duration(None), duration(-3.0)
    ('250 ms', '1 min 15 s', 'not ended', 'clock set back')
    """
    if seconds is None:
        return "not ended"
    if seconds < 0:
        return "clock set back"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(milliseconds: int | None) -> str | None:
    """A time in ISO 8601, in UTC.

    >>> moment(1_700_000_000_000)
    '2023-11-14T22:13:20.000+00:00'
    """
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return None
