"""Where the variables of a cell come from: the executions that wrote them, and what has happened to those since.

What is known of cells without a magic is their code in IPython's history. It is read when the next cell with a magic
begins, so cells without one cost nothing.
"""

from __future__ import annotations

import builtins
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trackdsl.notebook.effects import ANY_NAME, FILES, MODULE_FILES, NOT_RANDOM, PURE, SEED, SHOWING
from trackdsl.notebook.executions import Execution
from trackdsl.notebook.names import Names, names_in
from trackdsl.notebook.objects import Objects
from trackdsl.notebook.script import without_ipython
from trackdsl.notebook.syntax import is_call

#: Effects: something in the process is set, which later steps may need; a random number is drawn after a seed.
PROCESS, DRAWN = "<process>", "<drawn>"
_BUILTIN = frozenset(vars(builtins))
#: Longer cells are data, and are not read.
_MAX_CELL = 200_000


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
        begun: the roots of the runs that have begun in it.
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
    begun: set[str] = field(default_factory=set)

    def is_like(self, other: Step) -> bool:
        """Whether the same cell was executed, as far as that is known."""
        if self.execution is None or other.execution is None:
            return self.execution is other.execution and self.code == other.code
        return self.execution.identity == other.execution.identity

    def inputs_of(self, execution: Execution) -> dict[str, tuple[Execution, ...]]:
        """The executions that wrote the variables which an execution uses.

        A cell that changes an object may be executed several times: it is no input of itself.
        """
        inputs = {
            name: tuple(one for one in found if one.identity != execution.identity)
            for name, found in self.origins.items()
        }
        return {name: found for name, found in inputs.items() if found}


class Provenance:
    """The steps of a kernel, and which of them wrote each variable last."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._read = 0
        self._last_read = ""
        #: The positions of cells in which runs began, with the roots of these.
        self._begun: dict[int, set[str]] = {}
        self._forget()

    def _forget(self) -> None:
        self.steps, self._read, self._last_read = [], 0, ""
        #: Name → the steps that wrote its value, and those that have changed it since.
        self._writers: dict[str, tuple[Step, ...]] = {}
        #: The same, with steps that may have changed it by calling a method; also the steps that had an effect.
        self._touched: dict[str, tuple[Step, ...]] = {}
        self._objects = Objects()
        self._modules: dict[str, str] = {}

    def catch_up(self, history: Any, count: int, *, without_last: bool = False) -> None:
        """Read the cells that were executed since.

        Args:
            history: IPython's `HistoryManager`.
            count: the execution count of the current cell.
            without_last: whether to leave out the current cell.
        """
        executed: list[str] = history.input_hist_parsed
        end = len(executed) - without_last
        if end < self._read or (self._read and executed[self._read - 1] != self._last_read):
            self._forget()  # `%reset` has emptied it, with all variables.
        raised = getattr(history, "exceptions", {})
        left_out = count - len(executed) + 1  # Of the history, but they are counted.
        for at in range(self._read, end):
            code = executed[at]
            if code.strip() and len(code) < _MAX_CELL and not is_call(code):
                python = without_ipython(code)
                step = self.begin(python, names_in(python))
                step.position, step.count, step.translated = at, at + left_out, code
                step.failed = step.count in raised
                step.source = history.input_hist_raw[at]
                step.begun = self._begun.get(at, set())
                self.end(step)
        self._read, self._last_read = end, executed[end - 1] if end else ""

    def note_run(self, position: int, root: str) -> None:
        """Note that a run has begun below a root, in the cell at a position of IPython's history."""
        self._begun.setdefault(position, set()).add(root)

    def track(self, history: Any, count: int, execution: Execution) -> None:
        """Note the execution of a function by `%tracked` in the current cell, which is the last of the history."""
        self.catch_up(history, count)
        if self.steps and self.steps[-1].execution is None:  # Else the cell is a stage, and all of it is kept.
            step = self.steps[-1]
            step.tracked.append(execution)
            execution.inputs = step.inputs_of(execution)

    def skip(self, history: Any) -> None:
        """Leave out the current cell, which is the next in the history."""
        self._last_read = history.input_hist_parsed[self._read]
        self._read += 1

    def begin(self, code: str, names: Names, execution: Execution | None = None) -> Step:
        """A step that is executed now."""
        needed = self._with_deferred(names.needed)
        origins = {name: found for name in needed if (found := self._origins(name))}
        every = [*needed, PROCESS, *self._random(names)]
        every += [ANY_NAME for name in needed if name not in self._touched][:1]
        after = dict.fromkeys(one for name in every for one in self._touched.get(name, ()))
        step = Step(code, names, execution, origins, tuple(after))
        self.steps.append(step)
        return step

    def end(self, step: Step, written: Iterable[str] | None = None) -> None:
        """Note what a step has written.

        Args:
            step: the step.
            written: the names that it has written, if not all that its code writes.
        """
        names = step.names
        wrote = names.written if written is None else frozenset(written)
        surely = frozenset() if step.failed else wrote & names.sure if written is None else wrote
        changed, effects = self._effects_of(names)
        for name in wrote:
            self._writers[name] = (step,)
            earlier = () if name in surely else self._touched.get(name, ())
            self._touched[name] = (*(one for one in earlier if not one.is_like(step)), step)
        for name in names.changed - names.written:
            self._writers[name] = (*(one for one in self._writers.get(name, ()) if not one.is_like(step)), step)
        shares = [
            (one, other) for one, theirs in names.shares if theirs not in self._modules
            for other in self._with_deferred([theirs])
        ]  # fmt: skip
        self._objects.written(wrote, surely - names.changed, shares)  # `a += b` may keep the object.
        touched = self._objects.shared_with(changed) - wrote
        # A step that may change an object needs what has changed it before, so the last such step is enough.
        step.after = tuple(
            dict.fromkeys([*step.after, *(one for name in touched for one in self._touched.get(name, ()))])
        )
        for name in touched:
            self._touched[name] = (step,)
        self._acted(step, effects)
        for name in wrote:
            self._modules.pop(name, None)
        self._modules.update(names.modules)

    def _effects_of(self, names: Names) -> tuple[set[str], set[str]]:
        """The names whose objects code changes, also by functions that it calls, and what it does besides."""
        found = {*names.changed, *names.acts, *self._later(names)}
        found |= {name for name in names.called if self._modules.get(name) not in PURE}
        acting = {name.removesuffix("();") for name in found if name.endswith("();")} | (
            names.changed & {*self._modules}
        )
        effects = {name for name in found if name.startswith(SEED) or name in (FILES, MODULE_FILES)}
        if any(self._modules.get(name, "trackdsl") not in SHOWING for name in acting):
            effects.add(PROCESS)
        return {name for name in found if name.isidentifier()}, effects

    def _acted(self, step: Step, effects: set[str]) -> None:
        """Note the side effects of a step. Those of a stage belong to its own run, except for seeds."""
        for effect in effects:
            if effect.startswith(SEED):
                self._touched[effect] = (step,)
            elif step.execution is None:
                earlier = (one for one in self._touched.get(effect, ()) if not one.is_like(step))
                self._touched[effect] = (*earlier, step)
        if self._draws(step.names) and any(map(_is_seed, self._touched)):
            self._touched[DRAWN] = (step,)  # Which needs the one before.

    def _random(self, names: Names) -> list[str]:
        """The effects that code needs which draws random numbers: none if it seeds all generators itself."""
        if not self._draws(names):
            return []
        seeds = {*filter(_is_seed, self._touched)}
        own = {*names.acts, *self._later(names)}
        return [*(seeds - own), DRAWN] if seeds - own else []

    def _later(self, names: Names) -> set[str]:
        """What the functions that code calls, or passes on, do when they are called."""
        called = names.calls | names.called
        found = set(names.later) if called & names.defined else set()
        for name in self._with_deferred(called):
            for step in self._writers.get(name, ()):
                found |= step.names.later
        return found

    def _draws(self, names: Names) -> bool:
        """Whether code may draw random numbers: it calls anything but functions which surely do not."""
        seen: set[str] = set()
        waiting = {*names.calls}
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in self._modules:
                if self._modules[name] not in NOT_RANDOM:
                    return True
            elif name in names.defined:
                waiting |= _calls(names.later)
            elif found := [step for step in self._writers.get(name, ()) if name in step.names.defined]:
                waiting |= {each for step in found for each in _calls(step.names.later)}
            elif name not in _BUILTIN:
                return True
        return False

    def _with_deferred(self, names: Iterable[str]) -> list[str]:
        """Names, and those that functions among them read when they are called, in alphabetical order."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += [each for step in self._writers.get(name, ()) for each in step.names.deferred]
        return sorted(found)

    def _origins(self, name: str) -> tuple[Execution, ...]:
        found: dict[Execution, None] = {}
        for step in self._writers.get(name, ()):
            above = [one for each in step.origins.values() for one in each]
            found.update(dict.fromkeys([step.execution] if step.execution is not None else step.tracked or above))
        return tuple(found)

    def steps_of(self, executions: Collection[Execution]) -> list[Step]:
        """The steps of some executions, in order."""
        return [step for step in self.steps if any(one in executions for one in (step.execution, *step.tracked))]

    def slice_of(self, results: Iterable[Step]) -> list[Step]:
        """The steps that some steps need, directly or through others, and these themselves, in order."""
        wanted: set[Step] = set()
        waiting = list(results)
        while waiting:
            step = waiting.pop()
            if step not in wanted:
                wanted.add(step)
                waiting += step.after
        return [step for step in self.steps if step in wanted]


def _calls(later: Iterable[str]) -> set[str]:
    return {name.removesuffix("()") for name in later if name.endswith("()")}


def _is_seed(effect: str) -> bool:
    return effect.startswith(SEED)


def with_expressions(names: Names, expressions: Mapping[str, str], also: Iterable[str]) -> Names:
    """The names of a cell together with those of its magic.

    Args:
        names: of the cell.
        expressions: what the magic assigns.
        also: variables that its options name.
    """
    before = names_in("\n".join(f"{key} = ({text})" for key, text in expressions.items()))
    listed = set(also) - names.written - before.written
    return Names(
        read=names.read | before.read | listed,
        needed=before.needed | (names.needed - before.written) | listed,
        written=names.written | before.written,
        changed=names.changed,
        called=names.called | before.called,
        deferred=names.deferred,
        literals=names.literals,
        sure=names.sure | before.written,
        shares=names.shares | before.shares,
        calls=names.calls | before.calls,
        acts=names.acts | before.acts,
        later=names.later,
        modules=names.modules,
        logs=names.logs,
    )
