"""What a notebook shows below a cell: a card; in a terminal, one line."""

from __future__ import annotations

from typing import Any, Protocol

from trackdsl._config import resolve as settings
from trackdsl._runs.run import Run
from trackdsl.notebook.executions import Execution
from trackdsl.notebook.live_card import LiveCard
from trackdsl.query import _shown


class Shown(Protocol):
    """A display of one execution. Nothing that it raises reaches the cell."""

    def shown(self, run: Run) -> None:
        """Follow a run that has begun, and show it soon."""

    def place(self) -> None:
        """Show the run now, unless it is shown: something else is about to be, which comes below it."""

    def last_steps(self) -> dict[str, int]:
        """The last step of each metric that was recorded so far, as far as the display follows it."""
        return {}

    def ended(self) -> None:
        """Show the last state. It is what the file of the notebook keeps."""


class Line(Shown):
    """One line of text when a cell is over.

    Args:
        shell: IPython's shell.
        execution: the execution.
    """

    def __init__(self, shell: Any, execution: Execution) -> None:
        self._shell = shell
        self._execution = execution

    def shown(self, run: Run) -> None:
        """See `Shown`: nothing yet."""

    def place(self) -> None:
        """See `Shown`: what is printed comes first."""

    def ended(self) -> None:
        """See `Shown`."""
        show_text(self._shell, line_of(self._execution))


def display_for(shell: Any, execution: Execution, *, quiet: bool) -> Shown:
    """The display of an execution.

    Args:
        shell: IPython's shell.
        execution: the execution.
        quiet: whether the user wants none.
    """
    if quiet or not settings.cards():
        return NoDisplay()
    # A terminal can neither show HTML nor update what it has shown.
    return LiveCard(shell, execution) if hasattr(shell, "kernel") else Line(shell, execution)


def line_of(one: Execution) -> str:
    """An execution in one line, and its warnings below."""
    parts = [_shown.printable(one.run.name), one.status or "RUNNING"]
    parts += [] if one.seconds is None else [_shown.duration(one.seconds)]
    parts += [f"{_shown.printable(name)} {_shown.number(value)}" for name, value in one.metrics.items()]
    return "\n".join(["  ".join(parts), *map(_shown.printable, one.warnings)])


class NoDisplay(Shown):
    """Displays nothing, for the option `--quiet`."""

    def shown(self, run: Run) -> None:
        """See `Shown`."""

    def place(self) -> None:
        """See `Shown`."""

    def ended(self) -> None:
        """See `Shown`."""


def show_text(shell: Any, text: str) -> None:
    """Show a text below the cell."""
    shell.display_pub.publish({"text/plain": text})


def show(shell: Any, value: Any) -> None:
    """Show an object that has several forms, such as text and HTML."""
    forms, about = shell.display_formatter.format(value)
    shell.display_pub.publish(forms, about)
