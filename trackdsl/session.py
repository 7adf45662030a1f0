"""`start_logging` and `stop_logging`: a run that begins at one call and ends at another."""

from __future__ import annotations

from trackdsl._api.sessions import start_logging, stop_logging

__all__ = ["start_logging", "stop_logging"]
