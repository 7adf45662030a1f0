"""What `argparse`, click, typer and Hydra make of the program's arguments: parameters of its run.

Each library is patched when the program imports it, at a function that has returned before the program's own code goes
on. So no frame of ours is in a traceback of the program's.
"""

from __future__ import annotations

import functools
import os
import sys
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from trackdsl._core.patching import when_imported
from trackdsl._core.redaction.command_lines import mask_command_line
from trackdsl._decorate.decorators import stage
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.emit import append_params, guarded
from trackdsl._recording.flatten import Flat
from trackdsl._recording.params import as_name, named_parts
from trackdsl._runs.exceptions import remembered
from trackdsl._runs.exits import Exited
from trackdsl._runs.run import Run

#: The parameters with the arguments after the program's name, and with the name of a subcommand.
ARGUMENTS, COMMAND = "argv", "command"
#: Groups of click's inside groups are followed to this depth.
_MOST_GROUPS = 8


class CommandLine:
    """Records the arguments of a program, as they are given and as they are parsed.

    Args:
        run: the program's run.
        arguments: as they are given.
    """

    def __init__(self, run: Run, arguments: Sequence[object]) -> None:
        self._run = run
        #: What click has caught last, or what has passed through it: click may exit for it, without a sign of it.
        self.caught: Exited | None = None
        self._arguments = [str(argument) for argument in arguments]
        self._known = {ARGUMENTS} if arguments else set()
        #: The options of click's that hide their values, and how many values each of them takes.
        self._hidden: dict[str, int] = {}
        self._pid = os.getpid()
        self._parsing = False
        #: The outermost context of click's; None before it exists.
        self._click: weakref.ref[Any] | None = None
        self._command: list[str] = []
        self._job: Any = None

    def follow(self) -> None:
        """Patch the libraries: at once those that are imported, the others when the program imports them."""
        when_imported("argparse", self._patch_argparse)
        for module in ("click.core", "typer._click.core"):  # New versions of typer have a copy of click.
            when_imported(module, self._patch_click)
        when_imported("hydra._internal.callbacks", self._patch_hydra)
        if not any(argument.startswith("-") for argument in self._arguments):
            self.record_line()

    def record_line(self) -> None:
        """Record the arguments as they are given, once: when the program has defined which options click hides."""
        arguments, self._arguments = self._arguments, []
        if arguments and os.getpid() == self._pid:
            with guarded("recording the command line", self._run):
                append_params(self._run, {ARGUMENTS: mask_command_line(arguments, self._hidden)})

    def add(self, values: Mapping[Any, Any], hidden: Collection[str] = (), run: Run | None = None) -> None:
        """Record arguments by name. A name that the run has already keeps its value.

        Args:
            values: the arguments.
            hidden: the names of secrets.
            run: the run to record them on, instead of the program's.
        """
        if os.getpid() != self._pid:  # A forked child parses a command line of its own.
            return
        known = self._known if run is None else set()
        run = run or self._run
        with guarded("recording the command line", run):
            flat = Flat()
            for key, value in values.items():
                name = as_name(key)
                if name not in known:
                    (flat.hide if name in hidden else flat.add)(name, value)
            new = {name: value for name, value in flat.values.items() if name not in known}
            known.update(new)
            append_params(run, _artifacts.keep_long(run, new))
            _artifacts.keep_whole(run, flat)

    def _patch_argparse(self, argparse: ModuleType) -> None:
        def parse_known_args(original: Callable[..., Any]) -> Callable[..., Any]:
            def parse(parser: Any, args: Any = None, namespace: Any = None, **further: Any) -> Any:
                outermost, self._parsing = not self._parsing, True
                try:
                    found = original(parser, args, namespace, **further)
                finally:
                    self._parsing = self._parsing and not outermost
                if outermost and _is_command_line(args) and not _called_by("hydra"):
                    self.record_line()
                    self.add({} if not hasattr(found[0], "__dict__") else vars(found[0]))
                return found

            return parse

        _replace(argparse.ArgumentParser, "parse_known_args", parse_known_args)

    def _patch_click(self, core: ModuleType) -> None:
        def make_context(original: Callable[..., Any]) -> Callable[..., Any]:
            def make(command: Any, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
                with guarded("recording the command line", self._run):
                    self._hidden.update(_hidden_options(command))
                context = original(command, info_name, args, parent, **extra)
                with guarded("recording the command line", self._run):
                    self._add_click(context)
                return context

            return make

        def leave(original: Callable[..., Any]) -> Callable[..., Any]:
            def __exit__(context: Any, kind: Any = None, error: Any = None, trace: Any = None) -> Any:  # noqa: N807
                if error is not None:
                    with guarded("recording the failure", self._run):
                        self.caught = remembered(error)
                return original(context, kind, error, trace)

            return __exit__

        _replace(core.Command, "make_context", make_context)
        _replace(core.Context, "__exit__", leave)

    def _add_click(self, context: Any) -> None:
        root = context.find_root()
        if self._click is None:
            self._click = weakref.ref(root)
        if self._click() is not root or context.resilient_parsing:
            return
        if not hasattr(context.command, "commands"):
            self.record_line()
        names = _names_of(context)
        if len(names) > len(self._command):
            self._command = names
        hidden = [one.name for one in context.command.params if getattr(one, "hide_input", False)]
        if context.parent is not None and getattr(context.parent.command, "chain", False):
            # Several commands in one line, which may have options of the same name.
            name = str(context.info_name)
            self.add(
                {f"{name}.{key}": value for key, value in context.params.items()}, [f"{name}.{one}" for one in hidden]
            )
            return
        # The name of the command comes with the values of its innermost group, once it is known.
        below = {} if not names or hasattr(context.command, "commands") else {COMMAND: " ".join(names)}
        self.add({**below, **context.params}, hidden)

    def _patch_hydra(self, callbacks: ModuleType) -> None:
        def on_job_start(original: Callable[..., Any]) -> Callable[..., Any]:
            def start(hydra: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
                self._begin_job(config)
                return original(hydra, config, *args, **kwargs)

            return start

        def on_job_end(original: Callable[..., Any]) -> Callable[..., Any]:
            def end(hydra: Any, config: Any, job_return: Any, *args: Any, **kwargs: Any) -> Any:
                self._end_job(job_return)
                return original(hydra, config, job_return, *args, **kwargs)

            return end

        _replace(callbacks.Callbacks, "on_job_start", on_job_start)
        _replace(callbacks.Callbacks, "on_job_end", on_job_end)

    def _begin_job(self, config: Any) -> None:
        """Record the configuration of a job: on the program's run, or in a sweep on a child for each job."""
        self.record_line()
        values, name, tags = {}, "", {}
        with guarded("recording the configuration", self._run):
            if str(config.hydra.get("mode")).rpartition(".")[2] == "MULTIRUN":
                name, tags = f"job-{config.hydra.job.num}", {"hydra.overrides": config.hydra.job.override_dirname}
            # Values may be missing, and interpolations may have no target.
            values = {key: value for key, value in named_parts(config).items() if key != "hydra"}
        if not name:
            self.add(values)
        elif os.getpid() == self._pid:
            self._job = stage(name, tags=tags)
            self.add(values, run=self._job.__enter__())

    def _end_job(self, job_return: Any) -> None:
        job, self._job = self._job, None
        if job is not None:
            failed = getattr(job_return, "_return_value", None)
            error = failed if isinstance(failed, BaseException) else None
            job.__exit__(None if error is None else type(error), error, None)


def _replace(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    owner = next((each for each in owner.__mro__ if name in vars(each)), owner)
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(wrap(original)))


def _is_command_line(args: Any) -> bool:
    """Whether a parser gets arguments of the program's own command line, in their order."""
    if args is None:
        return True
    given = sys.argv[1:]
    try:
        arguments = list(args)
    except TypeError:
        return False
    if not arguments:
        return not given
    rest = iter(given)
    return all(argument in rest for argument in arguments)


def _called_by(package: str) -> bool:
    """Whether a package has called the standard library's parser, rather than the program."""
    return any(name.partition(".")[0] == package for name in _callers())


def _callers() -> Iterator[str]:
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        if name not in (__name__, "argparse"):
            yield name
            return
        frame = frame.f_back  # type: ignore[assignment]


def _hidden_options(command: Any, depth: int = 0) -> dict[str, int]:
    """The options whose values click hides, of a command and of those below it, and how many values each takes."""
    found = {
        option: 0 if getattr(parameter, "is_flag", False) else max(1, parameter.nargs)
        for parameter in command.params
        if getattr(parameter, "hide_input", False)
        for option in parameter.opts
    }
    if depth < _MOST_GROUPS:
        for below in [*(getattr(command, "commands", None) or {}).values()]:
            found.update(_hidden_options(below, depth + 1))
    return found


def _names_of(context: Any) -> list[str]:
    """The names of a subcommand, from the outermost group to the command itself."""
    names: list[str] = []
    while context.parent is not None:
        names.insert(0, str(context.info_name))
        context = context.parent
    return names
