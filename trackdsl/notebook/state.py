"""What is known of a kernel's variables at one point: who wrote them, what they share, what functions of them do."""

from __future__ import annotations

import builtins
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trackdsl.notebook import kinds
from trackdsl.notebook.effects import (
    ANY_NAME,
    FIGURES,
    FILES,
    LAMBDA,
    MODULE,
    MODULE_FILES,
    NOT_RANDOM,
    PROCESS,
    PURE,
    RESULT,
    SEED,
    SHOWING,
    UNKNOWN,
    used,
)
from trackdsl.notebook.names import Names
from trackdsl.notebook.objects import Objects
from trackdsl.notebook.steps import Step

_BUILTIN = frozenset(vars(builtins))
_ACTS = frozenset({FILES, MODULE_FILES, PROCESS, ANY_NAME})


@dataclass
class Effects:
    """What a step does.

    Attributes:
        changed: the names whose objects it may change.
        acts: what it does besides: it seeds, writes files, sets something.
        surely: the seeds among these that it surely sets.
        sets: what it sets something of, which tells apart steps that set something.
    """

    changed: set[str]
    acts: set[str]
    surely: set[str]
    sets: frozenset[str]


@dataclass
class State:
    """The variables.

    Attributes:
        namespace: their values now; None if they are not known.
        writers: name → the steps that wrote its value, and those that have changed it since.
        touched: the same, with steps that may have changed it by calling a method; also the steps that had an effect.
        objects: what the names have in common.
        modules: names that were imported, with the module each is from.
        parts: names of parts of modules, with the module.
    """

    namespace: Mapping[str, Any] | None = None
    writers: dict[str, tuple[Step, ...]] = field(default_factory=dict)
    touched: dict[str, tuple[Step, ...]] = field(default_factory=dict)
    objects: Objects = field(default_factory=Objects)
    modules: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)

    def forget_variables(self) -> None:
        """All variables have been deleted. What was set in the process, and files, stay."""
        self.writers, self.objects, self.modules, self.parts = {}, Objects(), {}, {}
        self.touched = {effect: steps for effect, steps in self.touched.items() if effect.startswith("<")}

    def imported(self, names: Names, wrote: Iterable[str]) -> None:
        """Note which names of a step are modules, or parts of them, from now on."""
        for name in wrote:
            self.modules.pop(name, None)
            self.parts.pop(name, None)
        self.modules.update(names.modules)
        of = {**self.modules, **self.parts}
        self.parts.update({name: of[whole] for name, whole in names.parts if whole in of})
        self.parts.update({name: whole for name, whole in names.parts if whole == "__import__"})

    def effects_of(self, names: Names, wrote: Collection[str], unknown: Collection[str] | None) -> Effects:
        """What code does, also by functions that it calls.

        Args:
            names: of the code.
            wrote: the names that it has written.
            unknown: names that may have got other values since; None if none has, because it has just been executed.
        """
        found = {*names.acts, *self.later(names, surely=False, ran=self._ran(names, unknown))}
        changed = {name for name in names.called if self.modules.get(name) not in PURE}
        for effect in found:
            what, path = used(effect)
            name = path.partition(".")[0].partition("[")[0]
            if what == RESULT:
                changed.update(one for step in self.writers.get(name, ()) for one in step.names.deferred)
            elif what and self._changes(what, path, name, names, unknown):
                changed.add(name)
        changed = {
            name for name in changed
            if name in wrote or name in (unknown or ()) or not kinds.is_fixed(self._value(name))
        }  # fmt: skip
        changed |= names.changed | {name for name in found if name.isidentifier()}
        acting = {name.removesuffix("();") for name in found if name.endswith("();")} | changed
        modules = {**self.modules, **self.parts}
        calls = {name for name in found if name.endswith("();")}
        if any(self.namespace is not None and self._value(name) is self.namespace for name in changed):
            found.add(ANY_NAME)
        sets = frozenset(
            name for name in acting
            if modules.get(name, self._unknown(name)) not in SHOWING
            and (f"{name}();" in calls or name in names.changed)
        )  # fmt: skip
        acts = {name for name in found if name.startswith(SEED) or name in _ACTS}
        acts |= self._by_modules(names.calls | _calls(found) | acting)
        if sets:
            acts.add(PROCESS)
        surely = {*names.acts, *self.later(names)} & acts
        return Effects(changed, acts, surely, sets)

    def _unknown(self, name: str) -> str:
        """The module of a name that no cell writes: that of an import with `*`, if there was one."""
        known = name in self.writers or name in _BUILTIN
        return ANY_NAME if ANY_NAME in self.touched and not known else "trackdsl"

    def _by_modules(self, called: Iterable[str]) -> set[str]:
        """The effects of calling functions of modules: these draw figures, or keep something."""
        modules = {self.modules[name] for name in called if name in self.modules}
        figures = {FIGURES} if "matplotlib" in modules and kinds.figures_stay() else set()
        return figures | {f"{MODULE}{one}>" for one in modules - SHOWING if kinds.keeps_values(one)}

    def _ran(self, names: Names, unknown: Collection[str] | None) -> set[str]:
        """The names whose objects execute code of the notebook although no call is written: `a[0]`, `with a`."""
        found = set()
        for effect in names.acts:
            what, path = used(effect)
            name = path.partition(".")[0].partition("[")[0]
            if what and kinds.is_implicit(what) and self._changes(what, path, name, names, unknown):
                found.add(name)
        return found

    def _changes(self, what: str, path: str, name: str, names: Names, unknown: Collection[str] | None) -> bool:
        """Whether the use of an object changes it."""
        if name in self.modules or (what == "call" and name in _BUILTIN and name not in self.writers):
            return False
        if what == "call":
            writers = [one.names for one in self.writers.get(name, ())]
            defined = [one for one in (names, *writers) if name in one.defined]
            if defined and all(name in one.defined for one in writers):
                kept = any(name in one.stateful for one in defined) or kinds.keeps_objects(self._value(name))
                return kept or self._has_changing_default(name)
        return kinds.changes(what, self._value(path) if name not in (unknown or ()) else kinds.UNSEEN)

    def _has_changing_default(self, name: str) -> bool:
        others = self.objects.held(name) - {name, *self._functions_in(name)}
        return not all(kinds.is_fixed(self._value(other)) for other in others)

    def value_of(self, name: str, unknown: Collection[str] | None) -> Any:
        """The value of a variable; `UNSEEN` if it may have got another one since."""
        return kinds.UNSEEN if name in (unknown or ()) else self._value(name)

    def _value(self, path: str) -> Any:
        return kinds.UNSEEN if self.namespace is None else kinds.value_of(path, self.namespace)

    def later(self, names: Names, *, surely: bool = True, ran: Collection[str] = ()) -> set[str]:
        """What the functions that code calls, or passes on, do when they are called.

        Args:
            names: of the code.
            surely: whether to leave out functions that it may get at in another way than by their names.
            ran: names of objects of which it executes methods without a call.
        """
        called = names.calls | names.called
        if surely:
            found = set(names.later) if called & names.defined else set()
        else:
            found = set(names.later) if called & {*names.written, UNKNOWN, LAMBDA} else set()
            paths = [path for what, path in map(used, names.acts) if not kinds.is_implicit(what)]
            uses = {path.partition(".")[0].partition("[")[0] for path in paths} - {""} | {*ran}
            called = called | {other for name in called | uses for other in self._functions_in(name)}
        for name in self.with_deferred(called):
            for step in self.writers.get(name, ()):
                found |= step.names.later
        return found

    def _functions_in(self, name: str) -> list[str]:
        """The functions and classes of the notebook that an object may contain, or that have made it."""
        return [
            other for other in self.objects.held(name)
            if any(other in step.names.defined for step in self.writers.get(other, ()))
        ]  # fmt: skip

    def draws(self, names: Names) -> bool:
        """Whether code may draw random numbers: it calls anything but functions which surely do not."""
        seen: set[str] = set()
        waiting = {*names.calls}
        waiting |= {other for name in self._ran(names, None) for other in self._functions_in(name)}
        if any(what == "iter" and kinds.is_computed(self._value(path)) for what, path in map(used, names.acts)):
            return True
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in self.modules:
                if self.modules[name] not in NOT_RANDOM:
                    return True
            elif name in names.defined or name == LAMBDA:
                waiting |= _calls(names.later)
            elif found := [step for step in self.writers.get(name, ()) if name in step.names.defined]:
                waiting |= {each for step in found for each in _calls(step.names.later)}
            elif name not in _BUILTIN:
                return True
        return False

    def with_deferred(self, names: Iterable[str]) -> list[str]:
        """Names, and those that functions among them read when they are called, in alphabetical order."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found and (name not in _BUILTIN or name in self.writers):
                found.add(name)
                for each in (name, *self._functions_in(name)):
                    waiting += [one for step in self.writers.get(each, ()) for one in step.names.deferred]
        return sorted(found)


def _calls(later: Iterable[str]) -> set[str]:
    return {name.removesuffix("()") for name in later if name.endswith("()")}
