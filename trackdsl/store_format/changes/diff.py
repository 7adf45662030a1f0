"""Differences between two texts."""

from __future__ import annotations

import difflib


def diff_lines(before: str, after: str, context: int = 2) -> list[str]:
    r"""The lines of a unified diff, without the names of the two; empty if the texts are the same.

    Args:
        before: the earlier text.
        after: the later text.
        context: how many lines around a change are shown.

    >>> diff_lines("a\nb", "a\nc")
    ['@@ -1,2 +1,2 @@', ' a', '-b', '+c']
    """
    return list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=context, lineterm=""))[2:]
