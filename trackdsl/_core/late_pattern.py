"""Patterns that are compiled at their first use: most processes need few of them, and each takes up to milliseconds."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache


def late_pattern(pattern: str, flags: int = 0) -> Callable[[], re.Pattern[str]]:
    """A function that returns the compiled pattern.

    Example:
        >>> digits = late_pattern("[0-9]+")
        >>> digits().findall("3 of 14")
        ['3', '14']
    """

    @cache
    def compiled() -> re.Pattern[str]:
        return re.compile(pattern, flags)

    return compiled
