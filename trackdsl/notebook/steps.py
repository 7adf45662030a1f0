"""The executions of code in a kernel, of which some need others."""

from __future__ import annotations

from dataclasses import dataclass, field

from trackdsl.notebook.executions import Execution
from trackdsl.notebook.names import Names


@dataclass(eq=False)
class Step:
    """One execution of code.

    Attributes:
        code: what was executed, as Python.
        names: its names.
        execution: the execution of a cell with a magic; None for other cells.
        origins: the executions that its variables come from: by name.
        after: the steps that it needs, also those that may only have changed an object.
        tracked: the executions of functions by `%tracked` in a cell without a magic of its own.
        position: in IPython's history; 0 for a cell with a magic.
        count: IPython's execution count.
        source: the cell as the user wrote it.
        translated: the same with IPython's calls for its magics.
        failed: whether it raised an exception, as far as IPython says.
        exited: whether that was one such as `SystemExit` or `KeyboardInterrupt`.
        begun: the roots of the runs that have begun in it.
        results: the execution counts of the cells whose values it uses, by names such as `_` and `Out`.
        plain: the cells without a magic that wrote its variables: by name.
        sets: the names of what it sets something of, such as modules.
    """

    code: str
    names: Names
    execution: Execution | None = None
    origins: dict[str, tuple[Execution, ...]] = field(default_factory=dict)
    after: tuple[Step, ...] = ()
    tracked: list[Execution] = field(default_factory=list)
    position: int = 0
    count: int = 0
    source: str = ""
    translated: str = ""
    failed: bool = False
    exited: bool = False
    begun: set[str] = field(default_factory=set)
    results: dict[str, tuple[int, ...]] = field(default_factory=dict)
    plain: dict[str, tuple[Step, ...]] = field(default_factory=dict)
    sets: frozenset[str] = frozenset()

    def is_like(self, other: Step) -> bool:
        """Whether the same cell was executed, as far as that is known."""
        if self.execution is None or other.execution is None:
            return self.execution is other.execution and self.code == other.code
        return self.execution.identity == other.execution.identity

    @property
    def number(self) -> int:
        """The execution count of its cell."""
        return self.count if self.execution is None else self.execution.count

    def plain_sources(self) -> dict[str, tuple[str, ...]]:
        """The sources of the cells without a magic that wrote its variables: by name."""
        return {name: tuple(one.source for one in found) for name, found in self.plain.items()}

    def inputs_of(self, execution: Execution) -> dict[str, tuple[Execution, ...]]:
        """The executions that wrote the variables which an execution uses.

        A cell that changes an object may be executed several times: it is not an input of itself.
        """
        inputs = {
            name: tuple(one for one in found if one.identity != execution.identity)
            for name, found in self.origins.items()
        }
        return {name: found for name, found in inputs.items() if found}
