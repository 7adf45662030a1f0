"""The context of what is submitted here to a cluster."""

from __future__ import annotations

from trackdsl import _context
from trackdsl._propagation import Context
from trackdsl.distributed._surroundings import current_task
from trackdsl.errors import logger, told


def text_here(engine: str) -> str:
    """The current run as text; empty where there is none, or it cannot be handed over. It never raises."""
    try:
        scope = _context.current()
        if scope is not None:
            return Context(scope).to_text()
        task = current_task()
        return "" if task is None else task.context.to_text()
    except Exception as error:
        logger.warning("trackdsl cannot hand a run over to %s, so runs begin there as roots: %s", engine, told(error))
        return ""
