"""What to do about what keeps a store from working, for whoever reads `trackdsl status`."""

from __future__ import annotations

from typing import Any

from trackdsl._packages import install_command
from trackdsl._tracking_server import advice

_LONGEST = 600


def advised(error: Exception, text: str, *, remote: bool) -> str:
    """What a store said, with what to do about it where that is known.

    Args:
        error: what MLflow raised.
        text: what it said, without secrets.
        remote: whether a tracking server said it.
    """
    command = install_command(error) if isinstance(error, ImportError) else None
    if command is not None:
        hint: str | None = f"The store needs it: {command}"
    else:
        status: Any = getattr(error, "get_http_status_code", int)() if remote else None
        hint = advice(status or None, text)
    if hint is None:
        return text
    return f"{text[:_LONGEST].rstrip('.')}. {hint}"
