"""What is known of a kernel's variables at one point: who wrote them, what they share, what functions of them do."""

from __future__ import annotations

import builtins
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trackdsl.notebook import kinds
from trackdsl.notebook.effects import (
    FILES,
    LAMBDA,
    MODULE_FILES,
    NOT_RANDOM,
    PROCESS,
    PURE,
    SEED,
    SHOWING,
    UNKNOWN,
    used,
)
from trackdsl.notebook.names import Names
from trackdsl.notebook.objects import Objects
from trackdsl.notebook.steps import Step

_BUILTIN = frozenset(vars(builtins))


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
        found = {*names.acts, *self.later(names, surely=False)}
        changed = {name for name in names.called if self.modules.get(name) not in PURE}
        for effect in found:
            what, path = used(effect)
            name = path.partition(".")[0].partition("[")[0]
            if what and self._changes(what, path, name, names, unknown):
                changed.add(name)
        changed = {
            name for name in changed
            if name in wrote or name in (unknown or ()) or not kinds.is_fixed(self._value(name))
        }  # fmt: skip
        changed |= names.changed | {name for name in found if name.isidentifier()}
        acting = {name.removesuffix("();") for name in found if name.endswith("();")} | changed
        modules = {**self.modules, **self.parts}
        calls = {name for name in found if name.endswith("();")}
        sets = frozenset(
            name for name in acting
            if modules.get(name, "trackdsl") not in SHOWING and (f"{name}();" in calls or name in names.changed)
        )  # fmt: skip
        acts = {name for name in found if name.startswith(SEED) or name in (FILES, MODULE_FILES, PROCESS)}
        if sets:
            acts.add(PROCESS)
        surely = {*names.acts, *self.later(names)} & acts
        return Effects(changed, acts, surely, sets)

    def _changes(self, what: str, path: str, name: str, names: Names, unknown: Collection[str] | None) -> bool:
        """Whether the use of an object changes it."""
        if name in self.modules or (what == "call" and name in _BUILTIN and name not in self.writers):
            return False
        if what == "call":
            writers = [one.names for one in self.writers.get(name, ())]
            defined = [one for one in (names, *writers) if name in one.defined]
            if defined and all(name in one.defined for one in writers):
                return any(name in one.stateful for one in defined) or self._has_changing_default(name)
        return kinds.changes(what, self._value(path) if name not in (unknown or ()) else kinds.UNSEEN)

    def _has_changing_default(self, name: str) -> bool:
        others = self.objects.held(name) - {name, *self._functions_in(name)}
        return not all(kinds.is_fixed(self._value(other)) for other in others)

    def _value(self, path: str) -> Any:
        return kinds.UNSEEN if self.namespace is None else kinds.value_of(path, self.namespace)

    def later(self, names: Names, *, surely: bool = True) -> set[str]:
        """What the functions that code calls, or passes on, do when they are called.

        Args:
            names: of the code.
            surely: whether to leave out functions that it may get at in another way than by their names.
        """
        called = names.calls | names.called
        if surely:
            found = set(names.later) if called & names.defined else set()
        else:
            found = set(names.later) if called & {*names.written, UNKNOWN, LAMBDA} else set()
            uses = {used(effect)[1].partition(".")[0].partition("[")[0] for effect in names.acts} - {""}
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
            if name not in found:
                found.add(name)
                for each in (name, *self._functions_in(name)):
                    waiting += [one for step in self.writers.get(each, ()) for one in step.names.deferred]
        return sorted(found)


def _calls(later: Iterable[str]) -> set[str]:
    return {name.removesuffix("()") for name in later if name.endswith("()")}
