"""Where tables are printed: as wide as the terminal, or as `COLUMNS` says, or without any limit that matters."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

#: What GNU readline writes into the environment without being asked, where there is no terminal: no width of a pipe.
_OF_READLINE = ("80", "24")
#: Wide enough that nothing is broken where the output goes to a file or another program.
_WIDTH_OF_PIPES = 1000


def output(width_of_pipes: int = _WIDTH_OF_PIPES) -> Console:
    """The console for the output of a command.

    Args:
        width_of_pipes: the width where there is no terminal, and the environment says none.
    """
    from rich.console import Console

    made = Console(highlight=False, markup=False)
    columns, lines = (os.environ.get(name, "") for name in ("COLUMNS", "LINES"))
    asked = columns.isdigit() and (columns, lines) != _OF_READLINE
    if made.is_terminal or asked:
        return made
    return Console(highlight=False, markup=False, width=width_of_pipes)
