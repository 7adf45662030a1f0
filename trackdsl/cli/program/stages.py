"""`--stage` and `--track-returns`: functions that are decorated when the program imports their module.

A pattern names functions of a module (`package.module:train_*`) or methods (`package.module:Trainer.fit`). Without a
module, or with the program's own name, it is for functions of the program's main file; see `main_stages.py`.
"""

from __future__ import annotations

import difflib
import inspect
import os
import pkgutil
import sys
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

from trackdsl._config.patterns import FORMS, is_pattern
from trackdsl._core import runtime
from trackdsl._core.patching import when_imported
from trackdsl._core.redaction import mask_name
from trackdsl._core.runtime import Phase
from trackdsl._decorate.decoration import decorate, track
from trackdsl._decorate.descriptors import METHODS
from trackdsl._decorate.options import Options
from trackdsl._decorate.wrappers_importlib_bootstrap import call_behind
from trackdsl._recording.emit import append_tags
from trackdsl._runs.exceptions import FINISHED, status_of
from trackdsl._runs.run import NULL_RUN, Run
from trackdsl.cli.program.main_module import found_module
from trackdsl.cli.program.reimports import when_imported_again
from trackdsl.cli.program.tracebacks import hide_wrapper_of
from trackdsl.errors import OptionError, TrackdslError, format_error, log_once

#: The name of the program's main file in a process that `multiprocessing` has started by `spawn`.
_MAIN_OF_WORKER = "__mp_main__"
#: How many names a warning lists.
_NAMED = 5


@dataclass(frozen=True)
class Pattern:
    """The functions that one `--stage` or `--track-returns` names.

    Attributes:
        text: as it was given.
        module: the name of their module; empty for the program's main file.
        functions: their names in the module; `*` matches anything but a dot.
        option: what gave the pattern, for messages: `--stage`, `--track-returns`, or where the setting `stages` has its
            value, such as `TRACKDSL_STAGES`.
    """

    text: str
    module: str
    functions: str
    option: str

    @classmethod
    def parsed(cls, text: str, option: str) -> Pattern:
        """Read a pattern.

        Raises:
            OptionError: it is none.

        >>> Pattern.parsed("churn.train:fit_*", "--stage").module
        'churn.train'
        """
        if not is_pattern(text):
            raise OptionError(f"{option} takes functions as {FORMS}, not {text!r}.", option=option)
        module, _, functions = text.strip().rpartition(":")
        return cls(text.strip(), module, functions, option)

    def matches(self, name: str) -> bool:
        """Whether a function has a name that the pattern names: `train`, or `Trainer.fit`."""
        wanted, parts = self.functions.split("."), name.split(".")
        return len(wanted) == len(parts) and all(map(fnmatchcase, parts, wanted))

    def __str__(self) -> str:
        return self.written(self.text) if self.is_option else f"{self.option}: {self.text}"

    def written(self, text: str) -> str:
        """How to give another pattern in the place of this one."""
        return f"{self.option} {text}" if self.is_option else text

    @property
    def is_option(self) -> bool:
        """Whether it is for this program, and not for all of a project."""
        return self.option.startswith("--")

    @property
    def returns(self) -> bool:
        """Whether it is for what functions return."""
        return self.option == "--track-returns"


class Stages:
    """Decorates the functions of all patterns, and warns of patterns that match nothing.

    Args:
        patterns: of `--stage`, `--track-returns` and the setting `stages`.
        main_names: the names that mean the program's main file instead of a module.
        in_worker: whether this is a process that the program has started by `spawn`. It imports the main file as a
            module, and gives no warnings.
    """

    def __init__(self, patterns: Iterable[Pattern], main_names: Iterable[str], *, in_worker: bool = False) -> None:
        self._patterns = list(dict.fromkeys(patterns))
        self._main_names = ("", "__main__", *main_names)
        self._in_worker = in_worker
        self._met: set[Pattern] = set()
        #: What `--track-returns` has made, by id. It must not keep the program's objects from being deleted at its end.
        self._tracked: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._pid = os.getpid()
        #: The run whose tags name the patterns that matched nothing.
        self.run: Run = NULL_RUN

    def for_main(self) -> list[Pattern]:
        """The patterns for the program's main file."""
        return [one for one in self._patterns if one.module in self._main_names]

    def follow(self) -> None:
        """Decorate the functions of imported modules now, and those of the others once the program imports them."""
        _followed.append(self)
        modules = [one.module for one in self._patterns if one.module not in self._main_names]
        if self._in_worker and self.for_main():
            modules.append(_MAIN_OF_WORKER)
        for name in dict.fromkeys(modules):
            when_imported(name, partial(self._imported_first, name))

    def _imported_first(self, name: str, module: ModuleType) -> None:
        self._imported(name, module)
        when_imported_again(name, partial(self._imported, name))

    def _imported(self, name: str, module: ModuleType) -> None:
        try:
            self._decorate_all(name, module)
        except Exception as error:  # Never the program's: a module may have any attributes.
            log_once(f"trackdsl finds no functions in {name}: {format_error(error)}", key=f"stage:{name}")

    def _decorate_all(self, name: str, module: ModuleType) -> None:
        # A module may be imported by another name than its own, as `os.path` is.
        found = list(functions_of(module, getattr(module, "__name__", name)))
        of_main = self.for_main() if name == _MAIN_OF_WORKER else []
        for pattern in of_main or [one for one in self._patterns if one.module == name]:
            chosen = [one for one in found if pattern.matches(one.name) and (one.own or pattern.functions == one.name)]
            for one in chosen:
                # A pattern before this one may have decorated it.
                made = self.decorated(vars(one.owner)[one.attribute], pattern, one.name)
                setattr(one.owner, one.attribute, made)
            if not chosen:
                self.warn(pattern, name, [one.name for one in found if one.own])
            self._met.add(pattern)

    def decorated(self, value: Any, pattern: Pattern, name: str) -> Any:
        """A function, decorated as a pattern says; unchanged if it cannot be."""
        inner = getattr(value, "__func__", value)
        try:
            if pattern.returns:
                if self._tracked.get(id(value)) is value:  # A module that is loaded again keeps its other names.
                    return value
                made = track(value, (), {})
                self._tracked[id(made)] = made
            elif call_behind(inner) is not None:  # The program, or another pattern, has made it a stage.
                return value
            else:
                made = decorate(value, Options("stage"))
        except TrackdslError as error:
            reason = str(error).partition(":")[0] if inspect.isclass(value) else str(error)
            hint = f" Name its methods: {pattern.written(f'{pattern.text}.*')}" if inspect.isclass(value) else ""
            self._warn(pattern, f"{pattern}: {name} stays as it is. {reason}.{hint}")
            return value
        hide_wrapper_of(inner)
        return made

    def warn(self, pattern: Pattern, where: str, known: list[str]) -> None:
        """Warn that a pattern matches no function."""
        # The same method of another class, for example of the base class that defines it, is what the user means.
        same = [one for one in known if one.rpartition(".")[2] == pattern.functions.rpartition(".")[2]]
        near = (same or difflib.get_close_matches(pattern.functions, known, _NAMED))[:_NAMED]
        listed = ", ".join(near or known[:_NAMED])
        hint = f"; did you mean {listed}?" if near else f". It has: {listed}." if known else ", which has none."
        if not pattern.module and "." in pattern.functions and not near:
            owner, _, function = pattern.functions.rpartition(".")
            if found_module(pattern.functions) is not None:
                hint += f" {pattern.functions} is a module: write {pattern.written(f'{pattern.functions}:NAME')}."
            else:
                hint += f" For a function of a module, write {pattern.written(f'{owner}:{function}')}."
        self._warn(pattern, f"{pattern} matches no function of {where}{hint}")

    def report_unmet(self, error: BaseException | None) -> None:
        """Warn of the patterns whose module the program has not imported, unless it has failed before it could."""
        for pattern in self._patterns if error is None or status_of(error) == FINISHED else []:
            if pattern in self._met or os.getpid() != self._pid or pattern.module in self._main_names:
                continue
            if not pattern.is_option and found_module(pattern.module) is not None:
                continue  # The project has other programs, which import it.
            near = difflib.get_close_matches(pattern.module, _modules_like(pattern.module), _NAMED)
            hint = f"; did you mean {', '.join(near)}?" if near else "."
            self._warn(
                pattern,
                f"{pattern} matches nothing, as the program has not imported {pattern.module}{hint}",
            )

    def for_workers(self) -> ForWorkers:
        """The same for the processes that the program starts."""
        return ForWorkers(self._patterns, self._main_names)

    def _warn(self, pattern: Pattern, message: str) -> None:
        if self._in_worker:
            return
        log_once(f"trackdsl: {message}", key=f"{pattern.option}:{pattern.text}:{message}")
        if self.run is not NULL_RUN:
            append_tags(self.run, {f"trackdsl.omitted.stage.{mask_name(pattern.text)}": mask_name(message)[:500]})


def _modules_like(name: str) -> list[str]:
    """The modules that the program has imported, and those next to a module that it has not."""
    parent = name.rpartition(".")[0]
    spec = found_module(parent) if parent else None
    folders = None if spec is None else spec.submodule_search_locations
    beside = [f"{parent}.{module.name}" for module in pkgutil.iter_modules(folders)] if folders is not None else []
    others = ("trackdsl", *sys.stdlib_module_names)
    imported = [module for module in list(sys.modules) if module.partition(".")[0] not in others]
    return list(dict.fromkeys([*beside, *imported]))


class ForWorkers:
    """Decorates the functions of patterns in a process of a pool, where it is unpickled; see `prepare_workers`.

    Args:
        patterns: of `--stage`, `--track-returns` and the setting `stages`, each with its option.
        main_names: as for `Stages`.
    """

    def __init__(self, patterns: Iterable[Pattern], main_names: Iterable[str]) -> None:
        self._patterns = [(one.text, one.option) for one in patterns]
        self._main_names = list(main_names)

    def __reduce__(self) -> tuple[Any, ...]:
        return _follow_in_worker, (self._patterns, self._main_names)


#: The stages of a worker, or of the program itself, for whose forked children they hold too.
_followed: list[Stages] = []
runtime.register("stages of programs and workers", Phase.MEMORY, reset=_followed.clear)


def _follow_in_worker(patterns: list[tuple[str, str]], main_names: list[str]) -> None:
    if not _followed:
        Stages([Pattern.parsed(*one) for one in patterns], main_names, in_worker=True).follow()


@dataclass(frozen=True)
class FoundFunction:
    """A function in a module.

    Attributes:
        name: its name there, with the name of its class.
        owner: the module or class.
        attribute: its name in `owner`.
        own: whether the module defines it; patterns with `*` match no others.
    """

    name: str
    owner: Any
    attribute: str
    own: bool


def functions_of(owner: Any, module: str, prefix: str = "") -> Iterator[FoundFunction]:
    """The functions of a module or class, and the methods of the module's classes."""
    for name, value in list(vars(owner).items()):
        if inspect.isclass(value):
            if value.__module__ == module and (not prefix or value.__qualname__ == f"{prefix}{name}"):
                yield FoundFunction(prefix + name, owner, name, own=False)
                yield from functions_of(value, module, f"{prefix}{name}.")
        elif isinstance(value, METHODS) or callable(value):
            inner = inspect.unwrap(getattr(value, "__func__", value))
            written = isinstance(inner, FunctionType) and inner.__module__ == module
            special = name.startswith("__") and name.endswith("__")
            yield FoundFunction(prefix + name, owner, name, own=written and not special)
