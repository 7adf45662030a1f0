"""Where the variables of a cell come from: the executions that wrote them, and what has happened to those since.

What is known of cells without a magic is their code in IPython's history. It is read when the next cell with a magic
begins, so cells without one cost nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from trackdsl.notebook import kinds
from trackdsl.notebook.effects import ANY_NAME, EVERYTHING, FIGURES, MODULE, PROCESS, SEED
from trackdsl.notebook.executions import Execution
from trackdsl.notebook.names import Names, is_long, names_in
from trackdsl.notebook.results import results_in
from trackdsl.notebook.state import Effects, State
from trackdsl.notebook.steps import Step
from trackdsl.notebook.syntax import is_call
from trackdsl.notebook.translation import without_ipython

#: An effect: a random number is drawn after a seed.
DRAWN = "<drawn>"
_RESET = "run_line_magic('reset', '-f"


class Provenance:
    """The steps of a kernel, and which of them wrote each variable last.

    Args:
        namespace: the variables with their values, which tell iterators and other objects that change when they are
            used; None if they are not known.
    """

    def __init__(self, namespace: Mapping[str, Any] | None = None) -> None:
        self._namespace = namespace
        self.steps: list[Step] = []
        self._read = 0
        self._last_read = ""
        #: The positions of cells in which runs began, with the roots of these.
        self._begun: dict[int, set[str]] = {}
        self._forget()

    def _forget(self) -> None:
        self.steps, self._read, self._last_read = [], 0, ""
        self._state = State(self._namespace)

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
        found = []
        for at in range(self._read, end):
            code = executed[at]
            if code.strip() and not is_call(code):
                python = code if is_long(code) else without_ipython(code)
                found.append((at, python, names_in(python)))
        unknown: list[frozenset[str]] = [frozenset()]  # What the cells after each have written.
        for _, _, names in reversed(found[1:]):
            unknown.append(unknown[-1] | names.written)
        for at, python, names in found:
            if _RESET in executed[at]:
                self._state.forget_variables()
            step = self.begin(python, names, count=at + left_out)
            step.position, step.translated = at, executed[at]
            step.failed = step.count in raised
            step.exited = _name_of(raised.get(step.count)) in ("SystemExit", "KeyboardInterrupt")
            step.source = history.input_hist_raw[at]
            step.begun = self._begun.get(at, set())
            self.end(step, unknown=unknown.pop())
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
            execution.plain_inputs = step.plain_sources()

    def skip(self, history: Any) -> None:
        """Leave out the current cell, which is the next in the history."""
        self._last_read = history.input_hist_parsed[self._read]
        self._read += 1

    def begin(self, code: str, names: Names, execution: Execution | None = None, count: int = 0) -> Step:
        """A step that is executed now.

        Args:
            code: what is executed.
            names: its names.
            execution: the execution of a cell with a magic.
            count: the execution count of another cell.
        """
        touched = self._state.touched
        needed = self._state.with_deferred(names.needed)
        origins = {name: found for name in needed if (found := self._origins(name))}
        every = [*needed, PROCESS, *self._random(names)]
        modules = {**{name: self._state.modules.get(name) for name in needed}, **names.modules}
        every += [f"{MODULE}{one}>" for one in modules.values()]
        if FIGURES in touched and any(kinds.is_drawing(self._state.value_of(name, None)) for name in needed):
            every.append(FIGURES)
        every += [ANY_NAME for name in needed if name not in touched][:1]
        after = dict.fromkeys(one for name in every for one in touched.get(name, ()))
        if EVERYTHING in needed:
            after = dict.fromkeys(self._since_reset())
        step = Step(code, names, execution, origins, count=count)
        step.results = self._results(step)
        used = {one for counts in step.results.values() for one in counts}
        step.after = (*after, *(one for one in self.steps if used and one.number in used))
        written = {name: self._state.writers.get(name, ()) for name in needed}
        step.plain = {name: plain for name, by in written.items() if (plain := tuple(filter(_is_plain, by)))}
        self.steps.append(step)
        return step

    def _since_reset(self) -> Iterator[Step]:
        """All steps since the last `%reset`, which has deleted all variables."""
        for step in reversed(self.steps):
            yield step
            if _RESET in step.translated:
                return

    def end(self, step: Step, written: Iterable[str] | None = None, unknown: Collection[str] | None = None) -> None:
        """Note what a step has written.

        Args:
            step: the step.
            written: the names that it has written, if not all that its code writes.
            unknown: names that have got other values since; None if it has just been executed.
        """
        state, names = self._state, step.names
        wrote = names.written if written is None else frozenset(written)
        surely = frozenset() if step.failed else wrote & names.sure if written is None else wrote
        state.imported(names, wrote)
        effects = state.effects_of(names, wrote, unknown)
        if ANY_NAME in effects.acts:  # By a function.
            wrote |= {ANY_NAME}
        for name in wrote:
            state.writers[name] = (step,)
            earlier = () if name in surely else state.touched.get(name, ())
            state.touched[name] = (*(one for one in earlier if not one.is_like(step)), step)
        by_functions = {name for name in state.later(names) if name.isidentifier()}
        if ANY_NAME in wrote:
            for name in [one for one in state.touched if one.isidentifier() and one not in wrote]:
                state.touched[name] = (*(one for one in state.touched[name] if not one.is_like(step)), step)
        for name in (names.changed | by_functions) - names.written:
            state.writers[name] = (*(one for one in state.writers.get(name, ()) if not one.is_like(step)), step)
        shares = [
            (one, other) for one, theirs in self._shares(names, unknown) if theirs not in state.modules
            for other in state.with_deferred([theirs])
        ]  # fmt: skip
        state.objects.written(wrote, surely - names.changed, shares)  # `a += b` may keep the object.
        touched = state.objects.shared_with(effects.changed) - wrote
        # A step that may change an object needs what has changed it before, so the last such step is enough.
        self._also_after(step, touched)
        for name in touched:
            state.touched[name] = (step,)
        self._acted(step, effects)

    def _shares(self, names: Names, unknown: Collection[str] | None) -> frozenset[tuple[str, str]]:
        """The pairs of names that may have objects in common, as far as their values tell."""
        copies = {pair for pair in names.copies if kinds.may_share(self._state.value_of(pair[0], unknown))}
        return frozenset(pair for pair in names.shares | copies if pair[0] not in self._state.modules) | self._kept(
            names
        )

    def _kept(self, names: Names) -> frozenset[tuple[str, str]]:
        """The same of what functions of the notebook change, and may keep of their arguments."""
        keeping = {name for name in self._state.later(names, surely=False) if name.isidentifier()}
        given = [name for name in names.called if not kinds.is_fixed(self._state.value_of(name, None))]
        return frozenset((one, other) for one in keeping for other in given if one != other)

    def _results(self, step: Step) -> dict[str, tuple[int, ...]]:
        """The values of earlier cells that a step uses, if the user has given their names no other values."""
        shown = {} if self._namespace is None else self._namespace.get("_oh", {})
        read = [name for name in step.names.needed if name.startswith(("_", "Out")) and name not in self._state.writers]
        return results_in(step.code, read, sorted(one for one in shown if one < step.number)) if read else {}

    def _also_after(self, step: Step, names: Iterable[str]) -> None:
        found = (one for name in names for one in self._state.touched.get(name, ()))
        step.after = tuple(dict.fromkeys([*step.after, *found]))

    def _acted(self, step: Step, effects: Effects) -> None:
        """Note the side effects of a step. The files of a stage belong to its own run."""
        touched, step.sets = self._state.touched, effects.sets
        for effect in effects.acts:
            if effect.startswith(SEED):
                if effect not in effects.surely:
                    self._also_after(step, [effect])
                touched[effect] = (step,)
            elif effect.startswith(MODULE):
                touched[effect] = (step,)  # Which needs the one before.
            elif effect == PROCESS:
                touched[effect] = (*(one for one in touched.get(effect, ()) if not _replaces(step, one)), step)
            elif step.execution is None and effect != ANY_NAME:
                touched[effect] = (*(one for one in touched.get(effect, ()) if not one.is_like(step)), step)
        if self._state.draws(step.names) and any(map(_is_seed, touched)):
            touched[DRAWN] = (step,)  # Which needs the one before.

    def _random(self, names: Names) -> list[str]:
        """The effects that code needs which draws random numbers: none if it seeds all generators itself."""
        if not self._state.draws(names):
            return []
        seeds = {*filter(_is_seed, self._state.touched)}
        own = {*names.acts, *self._state.later(names)}
        return [*(seeds - own), DRAWN] if seeds - own else []

    def _origins(self, name: str) -> tuple[Execution, ...]:
        found: dict[Execution, None] = {}
        for step in self._state.writers.get(name, ()):
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


def _name_of(raised: Any) -> str:
    """The type of an exception that IPython has noted."""
    return str(raised.get("ename", "")) if isinstance(raised, dict) else ""


def _is_plain(step: Step) -> bool:
    return step.execution is None


def _is_seed(effect: str) -> bool:
    return effect.startswith(SEED)


def _replaces(step: Step, earlier: Step) -> bool:
    """Whether the same cell was executed again, and sets what it has set before."""
    if step.execution is None or earlier.execution is None:
        return step.is_like(earlier)
    same = step.execution.identity[1:] == earlier.execution.identity[1:]
    return same and (step.sets >= earlier.sets or step.code == earlier.code)
