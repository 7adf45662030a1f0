"""The executions of a notebook's cells, and which of them count."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from trackdsl._recording.emit import append_tags
from trackdsl._runs.run import NULL_RUN, Run
from trackdsl.notebook.arguments import Arguments
from trackdsl.notebook.names import Names
from trackdsl.store_format.tags import SUPERSEDED_TAG

SUPERSEDES = "trackdsl.supersedes"
DELETED = "trackdsl.deleted"
#: The value of `SUPERSEDED_TAG` of a run that `%trackdsl undo` took back, when there is no other to name.
_UNDONE = "undone"
#: The id of the root run (empty for a run that is a root itself), the id of the cell, the name of the stage.
Identity = tuple[str, str, str]


@dataclass(frozen=True)
class Recorded:
    """The values of an execution that a later execution is compared with.

    Attributes:
        params: the text of each parameter.
        metrics: the last value of each metric.
    """

    params: dict[str, str]
    metrics: dict[str, float]


@dataclass(eq=False)
class Execution:
    """One execution of a cell, or of a function by `%tracked`.

    Attributes:
        identity: executions with the same identity replace each other.
        moment: distinguishes the execution of the whole cell from others; several stages may begin in one.
        count: IPython's execution count.
        source: the cell as the user wrote it, with the magic.
        page: the whole cell as its page has it, which may have more above the magic.
        body: the cell below the magic.
        run: its run.
        arguments: of the magic; None for `%tracked`.
        kept: whether it is kept beside other executions of the cell (`--keep`).
        names: the names that its code reads and writes.
        status: the status of its run; empty while it is executed.
        seconds: how long it took; None while it is executed.
        began: when it began, in nanoseconds since 1970.
        older: the executions that it supersedes.
        inputs: the executions that its variables come from, by the name of the variable.
        plain_inputs: the sources of the cells without a magic that wrote its variables, by the name of the variable.
        undone: whether it was taken back.
        exited: whether it ended by an exception such as `SystemExit` or `KeyboardInterrupt`.
        failure: the type, message and traceback of the exception that ended it, masked.
        outputs: what it printed and showed, as a notebook's file has it.
        metrics: numbers to show, by name.
        missing: names in its magic's options that were not variables when it was over.
        warnings: sentences to show.
        card: the forms of its card, as that was shown last.
        recorded: what it had recorded when it ended, as far as a later card compares with it.
    """

    identity: Identity
    moment: str
    count: int
    source: str
    body: str
    page: str = ""
    run: Run = NULL_RUN
    arguments: Arguments | None = None
    kept: bool = False
    names: Names = field(default_factory=Names)
    status: str = ""
    seconds: float | None = None
    began: int = field(default_factory=time.time_ns)
    older: tuple[Execution, ...] = ()
    inputs: dict[str, tuple[Execution, ...]] = field(default_factory=dict)
    plain_inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    undone: bool = False
    exited: bool = False
    failure: tuple[str, str, str] | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    warnings: list[str] = field(default_factory=list)
    card: dict[str, str] = field(default_factory=dict)
    recorded: Recorded | None = None

    @property
    def cell(self) -> str:
        """The id of its cell."""
        return self.identity[1]

    @property
    def name(self) -> str:
        """The name of its stage."""
        return self.identity[2]


class Executions:
    """All executions of a kernel that count."""

    def __init__(self) -> None:
        self._newest: dict[Identity, tuple[Execution, ...]] = {}
        self._counting: dict[Execution, None] = {}

    def older(self, new: Execution) -> tuple[Execution, ...]:
        """The executions that a new one supersedes: the last ones of its cell, except those of the same moment."""
        if new.kept:
            return ()
        return tuple(one for one in self._newest.get(new.identity, ()) if one.moment != new.moment)

    def add(self, new: Execution) -> None:
        """Add an execution that has begun. Those that it supersedes get a tag."""
        for one in new.older:
            append_tags(one.run, {SUPERSEDED_TAG: new.run.id})
            for oldest in one.older:  # It would count again only if both were taken back. Outputs may be large.
                oldest.outputs, oldest.card, oldest.recorded = [], {}, None
            self._counting.pop(one, None)
        self._counting[new] = None
        if not new.kept:
            left = (one for one in self._newest.get(new.identity, ()) if one not in new.older)
            self._newest[new.identity] = (*left, new)

    def undo(self) -> Execution | None:
        """Take the last execution back: those that it superseded count again. Returns it; None without one."""
        last = self.last()
        if last is None:
            return None
        del self._counting[last]
        last.undone = True
        by = last.older[-1].run.id if last.older else _UNDONE
        append_tags(last.run, {SUPERSEDED_TAG: by, DELETED: "true"})
        for one in last.older:
            append_tags(one.run, {SUPERSEDED_TAG: ""})
            self._counting[one] = None
        if not last.kept:
            left = tuple(one for one in self._newest.get(last.identity, ()) if one is not last)
            self._newest[last.identity] = left + last.older
        return last

    def last(self) -> Execution | None:
        """The execution that began last, of those that count."""
        return max(self._counting, key=_began, default=None)

    def counts(self, execution: Execution) -> bool:
        """Whether an execution is neither superseded nor taken back."""
        return execution in self._counting

    def current(self) -> list[Execution]:
        """The executions that count, in the order in which they began."""
        return sorted(self._counting, key=_began)


def _began(execution: Execution) -> int:
    return execution.began


def supersedes(older: tuple[Execution, ...]) -> dict[str, str]:
    """The tag of a run that supersedes others."""
    return {SUPERSEDES: ",".join(one.run.id for one in older)} if older else {}
