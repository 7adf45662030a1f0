"""A `Path` → the text of the path; an existing file is taken itself, before a handler is asked."""

from trackdsl.handlers.text import handler

__all__ = ["handler"]
