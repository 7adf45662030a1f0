"""The console that commands print tables to, and its width."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

#: GNU readline sets `COLUMNS` and `LINES` to these values if there is no terminal. They are not the width of a pipe.
_OF_READLINE = ("80", "24")
#: So wide that no line is broken if the output goes to a file or to another program.
_WIDTH_OF_PIPES = 1000


def output(width_of_pipes: int = _WIDTH_OF_PIPES) -> Console:
    """The console for the output of a command.

    Args:
        width_of_pipes: the width if there is no terminal and `COLUMNS` is not set.
    """
    from rich.console import Console

    made = Console(highlight=False, markup=False, emoji=False)
    columns, lines = (os.environ.get(name, "") for name in ("COLUMNS", "LINES"))
    asked = columns.isdigit() and (columns, lines) != _OF_READLINE
    if made.is_terminal or asked:
        return made
    return Console(highlight=False, markup=False, emoji=False, width=width_of_pipes)
