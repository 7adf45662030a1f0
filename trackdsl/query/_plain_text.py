"""Text of what Rich renders, without colours."""

from __future__ import annotations

import io
from typing import Any


def plain_text(renderable: Any, *, width: int = 10_000, soft_wrap: bool = False) -> str:
    """The lines that Rich would print, without colours and trailing spaces.

    Args:
        renderable: what Rich can print.
        width: of the widest line, in characters.
        soft_wrap: whether longer lines stay lines.
    """
    from rich.console import Console

    output = io.StringIO()
    console = Console(
        file=output, width=width, color_system=None, highlight=False, legacy_windows=False, force_jupyter=False
    )
    console.print(renderable, soft_wrap=soft_wrap)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines())
