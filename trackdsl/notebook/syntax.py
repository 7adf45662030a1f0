"""The syntax of cell magics: the line `%%stage …` becomes a call that begins a run, and the cell continues below it."""

from __future__ import annotations

import re
from typing import Any

from trackdsl.errors import OptionError, format_error, report, reraise_from_signal
from trackdsl.notebook.arguments import split

_MAGIC = re.compile(r"%%(stage|experiment)(?:[ \t]+(.*))?$")
#: The cell argument of the call, where IPython would put the text of the cell.
BELOW: Any = ...
_CALLS = ("get_ipython().run_cell_magic('stage', ", "get_ipython().run_cell_magic('experiment', ")


class CellMagics:
    """Translates cells that begin with one of the magics. Cells that do not are returned as they are.

    Args:
        shell: IPython's shell.

    Attributes:
        bodies: the cells below the lines that were translated last, by magic and line.
    """

    def __init__(self, shell: Any) -> None:
        self._transforms = shell.input_transformer_manager.cleanup_transforms
        self.bodies: dict[tuple[str, str], str] = {}

    @property
    def installed(self) -> bool:
        """Whether cells are translated."""
        return self in self._transforms

    def install(self) -> None:
        """Translate the cells of the shell from now on."""
        if not self.installed:
            self._transforms.append(self)

    def remove(self) -> None:
        """Undo `install`."""
        if self.installed:
            self._transforms.remove(self)

    def __call__(self, lines: list[str]) -> list[str]:
        """Translate the lines of a cell. Registered with IPython. After a fault, it translates no more."""
        try:
            return self._translated(lines)
        except Exception as error:
            reraise_from_signal(error)
            self.remove()
            report("cell magics", f"trackdsl records no more cells, until %reload_ext trackdsl: {format_error(error)}")
            return lines

    def _translated(self, lines: list[str]) -> list[str]:
        if not lines or not lines[0].startswith("%%"):
            return lines
        head, height = _head(lines)
        found = read(head)
        if found is not None and _asks_for_help(*found):
            return [_call(*found)]
        body = "".join(lines[height:]).removesuffix("\n")  # IPython has added it.
        if found is None or not body.strip():  # IPython has messages about cells without a body.
            return lines
        self.bodies.pop(found, None)
        self.bodies[found] = body
        while len(self.bodies) > 20:
            del self.bodies[next(iter(self.bodies))]
        return [_call(*found), *["\n"] * (height - 1), *_inner(lines[height:])]


def _call(magic: str, line: str) -> str:
    return f"get_ipython().run_cell_magic({magic!r}, {line!r}, ...)\n"


def _head(lines: list[str]) -> tuple[str, int]:
    """The first line with those that continue it after a backslash, and how many lines these are."""
    parts: list[str] = []
    for line in lines:
        text = line.rstrip()
        parts.append(text.removesuffix("\\").rstrip())
        if not text.endswith("\\"):
            break
    return " ".join(parts), len(parts)


def _asks_for_help(magic: str, line: str) -> bool:
    if "-h" not in line:
        return False
    try:
        return not {"-h", "--help"}.isdisjoint(split(magic, line))
    except OptionError:
        return False


def read(line: str) -> tuple[str, str] | None:
    """The magic and the rest of a line; None if it is another one.

    >>> read("%%stage fit lr=0.1"), read("%%time")
    (('stage', 'fit lr=0.1'), None)
    """
    found = _MAGIC.match(line.rstrip("\r\n"))
    return None if found is None else (found[1], (found[2] or "").strip())


def is_call(code: str) -> bool:
    """Whether translated code is a cell with one of the magics."""
    return any(line.startswith(_CALLS) and line.rstrip().endswith(", ...)") for line in code.splitlines())


def has_line(cell: str, magic: str, line: str) -> bool:
    """Whether one of a cell's lines is this magic."""
    lines = cell.splitlines()
    return any(each.startswith("%%") and read(_head(lines[at:])[0]) == (magic, line) for at, each in enumerate(lines))


def _inner(lines: list[str]) -> list[str]:
    """The cell below, in which another cell magic may come first."""
    rest = list(lines)
    while rest and not rest[0].strip():
        del rest[0]
    if not rest or not rest[0].startswith("%%"):
        return lines
    from IPython.core.inputtransformer2 import cell_magic

    return list(cell_magic(rest))
