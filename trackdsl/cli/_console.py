"""The console that commands print tables to, and its width."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

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
    if made.is_terminal:
        return made
    columns, lines = (os.environ.get(name, "") for name in ("COLUMNS", "LINES"))
    asked = columns.isdigit() and (columns, lines) != _OF_READLINE
    return _piped()(highlight=False, markup=False, emoji=False, width=made.width if asked else width_of_pipes)


@cache
def _piped() -> type[Console]:
    from rich.console import Console
    from rich.text import Text

    class Piped(Console):
        """Prints without blanks at the ends of lines: Rich fills the cells of a table."""

        def print(self, *objects: Any, **options: Any) -> None:
            with self.capture() as captured:
                super().print(*objects, **options)
            text = "\n".join(line.rstrip(" ") for line in captured.get().split("\n"))
            super().print(Text(text), end="", soft_wrap=True)

    return Piped
