"""The origin of a function: its name, its file, and a hash of its source."""

from __future__ import annotations

import hashlib
import inspect
import linecache
from collections.abc import Callable
from types import CodeType
from typing import Any

from trackdsl._core.redaction import mask_name
from trackdsl._core.source_text import digest_of, leave_pipe_unread, text_of

Site = tuple[str, str, str]


def site_of(fn: Callable[..., Any]) -> Site:
    """Full name, file, and the first 16 hex digits of the SHA-256 of the source (of the bytecode without source)."""
    fn = inspect.unwrap(fn)
    name = f"{getattr(fn, '__module__', None) or '?'}.{getattr(fn, '__qualname__', type(fn).__name__)}"
    code = getattr(fn, "__code__", None)
    if type(code) is not CodeType:  # It is written in C, or a mock.
        return name, "", ""
    linecache.checkcache(code.co_filename)  # `%autoreload` and `importlib.reload` come after a change of the file.
    leave_pipe_unread(code.co_filename)
    text = text_of(code, linecache.getlines(code.co_filename, getattr(fn, "__globals__", None)))
    digest = digest_of(text) if text else hashlib.sha256(code.co_code).hexdigest()[:16]
    return name, mask_name(code.co_filename), digest
