"""Formats values for people. Names and values may contain control characters and HTML, which are escaped."""

from __future__ import annotations

import html
import math
import unicodedata
from datetime import UTC, datetime

#: Joiners change only how the characters beside them are drawn, for example several emojis as one.
_HARMLESS = "\u200d\u200c"
_SHORT_ID = 8


def printable(text: str) -> str:
    r"""Text with escaped control characters: newlines, escape sequences, changes of the writing direction.

    >>> printable("a\nb\x1b[31m")
    'a\\nb\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(one if _is_harmless(one) else one.encode("unicode_escape").decode() for one in text)


def _is_harmless(one: str) -> bool:
    return one.isprintable() or one in _HARMLESS or unicodedata.category(one) == "Zs"


def markup(text: str) -> str:
    """Text for an HTML page, escaped.

    >>> markup("<b>")
    '&lt;b&gt;'
    """
    return html.escape(printable(text), quote=True)


def number(value: float) -> str:
    """A metric's value in a readable form.

    >>> number(0.142625), number(1797.0)
    ('0.1426', '1797')
    """
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """The duration of a run in a readable form.

    >>> duration(0.25), duration(75.0), duration(None)
    ('250 ms', '1 min 15 s', 'not ended')
    """
    if seconds is None:
        return "not ended"
    if abs(seconds) < 1:
        return f"{seconds * 1000:.0f} ms"
    if abs(seconds) < 60:
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


def short(run_id: str) -> str:
    """The first characters of an id, which are enough to name a run."""
    return run_id[:_SHORT_ID]


def colour(status: str) -> str:
    """The colour of a status."""
    return {"FINISHED": "green", "RUNNING": "yellow", "SCHEDULED": "yellow"}.get(status, "red")
