"""Formats values for people."""

from __future__ import annotations

from trackdsl._core.escaping import markup as markup
from trackdsl._core.escaping import printable as printable
from trackdsl._core.ids import is_ours
from trackdsl._core.readable import duration as duration
from trackdsl._core.readable import moment as moment
from trackdsl._core.readable import number as number

_SHORT_ID = 8
#: Colours of statuses in HTML, which can be read on light and dark pages.
FINISHED, RUNNING, FAILED, KILLED = "#2e9e5b", "#3b82c4", "#d64545", "#b7791f"


def short(run_id: str) -> str:
    """A short form of an id, which is enough to name a run.

    The ids of one program's runs begin alike and end in a count, so the short form has both.

    >>> short("8f14e45fceea467a8a36dedd4bea2543"), short("8f14e45fceea167a5a36" + "00000000002a")
    ('8f14e45f', '8f14e4-2a')
    """
    return f"{run_id[:6]}-{int(run_id[20:], 16):x}" if is_ours(run_id) else run_id[:_SHORT_ID]


def colour(status: str) -> str:
    """The colour of a status."""
    return {"FINISHED": "green", "RUNNING": "yellow", "SCHEDULED": "yellow"}.get(status, "red")


def shade(status: str) -> str:
    """The colour of a status for HTML."""
    known = {"FINISHED": FINISHED, "RUNNING": RUNNING, "SCHEDULED": RUNNING, "FAILED": FAILED}
    return known.get(status, KILLED)
