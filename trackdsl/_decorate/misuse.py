"""Errors and warnings about wrong use of the decorators: options, names, and objects that are not functions.

Errors are raised at decoration, and their messages name the fix.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from trackdsl._core import runtime
from trackdsl._core.missing_call import Decorator
from trackdsl._core.runtime import Phase
from trackdsl._core.suggest import Suggestion, suggestion_for
from trackdsl.errors import OptionError, log_once
from trackdsl.errors._user_code import call_site
from trackdsl.handlers._annotation_names import decorating_frame

#: The decorators that make a function run elsewhere, by the package and class of what they return.
_SENDS_AWAY = {
    "ray.RemoteFunction": "ray.remote",
    "ray.ActorClass": "ray.remote",
    "dask.Delayed": "dask.delayed",
    "celery.Task": "app.task",
    "celery.PromiseProxy": "app.task",
    "dramatiq.Actor": "dramatiq.actor",
}
#: The same for decorators whose functions are called by a command line or by pytest.
_COMMANDS = {
    "click.Command": "click.command()",
    "click.BaseCommand": "click.command()",
    "_pytest.FixtureFunctionDefinition": "pytest.fixture",
}


class DecoratorObject:
    """The base class of objects that decorate functions. Such an object cannot be decorated itself."""

    __slots__ = ()


#: The names of block parameters that have been checked.
checked_block_params: set[str] = set()
runtime.register("names of block parameters", Phase.MEMORY, reset=checked_block_params.clear)


def check_params_option(kept: Iterable[Any], names: Sequence[str], function: str, decorator: str) -> None:
    """Check the names given to the option `params`.

    Args:
        kept: the names given.
        names: the parameters of the function.
        function: the name of the function.
        decorator: the name of the decorator.

    Raises:
        OptionError: a name is not a parameter.
    """
    for name in kept:
        if not isinstance(name, str):
            raise OptionError(f"@{decorator}(params=...) takes names as strings, not {name!r}.", option="params")
        if name not in names:
            parts = [part.strip() for part in name.split(",")]
            hint = suggestion_for(name, names)
            if len(parts) > 1 and set(parts) <= set(names):
                hint = Suggestion(str(parts), f"; write params={parts}.")
            raise OptionError(
                f"@{decorator}(params=...) names {name!r}, which is not a parameter of {function}(){hint.text} "
                f"It has: {', '.join(names) or 'none'}.",
                option=name,
                suggestion=hint.name,
            )


def check_recorded_names(
    recorded: Mapping[str, str], misplaced: Iterable[tuple[str, str]], function: str, decorator: str
) -> None:
    """Check the names under which parameters are recorded.

    Args:
        recorded: the parameters, each with the name under which it is recorded.
        misplaced: the parameters with a wrong marker, each with the reason.
        function: the name of the function.
        decorator: the name of the decorator.

    Raises:
        OptionError: two parameters would be recorded under one name, or a parameter has a wrong marker.
    """
    for name, why in misplaced:
        message = f"@{decorator}: the parameter {name!r} of {function}() is marked with {why}, or leave the marker out."
        raise OptionError(message, option=name)
    taken: dict[str, str] = {}
    for name, key in recorded.items():
        if key in taken:
            raise OptionError(
                f"@{decorator}: {taken[key]!r} and {name!r} of {function}() would both be recorded as {key!r}. Give "
                "one of them another name with `Param`.",
                option=name,
            )
        taken[key] = name


def check_choices(options: Mapping[str, Any]) -> None:
    """Raise if an option of `track_returns` has a wrong type."""
    if not isinstance(options.get("prefix", ""), str):
        raise OptionError(f"@track_returns(prefix=...) takes a string, not {options['prefix']!r}.", option="prefix")
    for option, example in (("metrics", '["accuracy"]'), ("artifacts", '["report"] or {"report": "report.json"}')):
        names = options.get(option)
        parts = [*names, *names.values()] if isinstance(names, Mapping) else names
        if names is None or isinstance(names, str):
            continue
        if not isinstance(parts, Collection) or not all(isinstance(part, str) for part in parts):
            message = f"@track_returns({option}=...) takes names, such as {example}, not {names!r}."
            raise OptionError(message, option=option)


def check_block_params(names: Iterable[str], stage_options: Sequence[str], experiment_options: Sequence[str]) -> None:
    """Warn of parameters of a `stage` block that look like misspelt options, once for each name."""
    if len(checked_block_params) > 10_000:  # A program may make up any number of names.
        checked_block_params.clear()
    for name in names:
        if name in checked_block_params:
            continue
        checked_block_params.add(name)
        misplaced = f"; `{name}` is an option of experiment." if name in experiment_options else ""
        hint = misplaced or suggestion_for(name.lower(), stage_options, nearly=0.8).text
        if hint != ".":
            log_once(
                f"trackdsl: {name}= at {call_site()} is not an option of stage, so it is recorded as a parameter{hint}",
                key=f"block-param:{name}",
            )


def check_target(fn: Any, decorator: str) -> None:
    """Check that a decorator is applied to a function or a method.

    Raises:
        OptionError: it is applied to something else; the message says where it goes instead.
    """
    if isinstance(fn, (property, functools.cached_property)):
        name = type(fn).__name__
        raise OptionError(f"@{decorator} goes below @{name}, next to the function.", option=name)
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(fn).__mro__}
    engine = next((_SENDS_AWAY[kind] for kind in kinds & _SENDS_AWAY.keys()), None)
    if engine is not None:
        message = (
            f"@{decorator} goes below @{engine}, next to the function or method, so that it runs where the "
            "function runs."
        )
        raise OptionError(message, option=engine)
    command = next((_COMMANDS[kind] for kind in kinds & _COMMANDS.keys()), _typer_command_of(fn))
    if command is not None:
        message = f"@{decorator} goes below @{command}, next to the function, so that @{command} calls it."
        raise OptionError(message, option=command)
    if isinstance(fn, (DecoratorObject, Decorator)):
        raise OptionError(
            f"@{decorator} decorates functions and methods, and got another decorator: write each of them on a line of "
            "its own above `def`.",
            option=repr(fn),
        )
    if inspect.isclass(fn):
        raise OptionError(
            f"@{decorator} decorates functions and methods, not the class {fn.__qualname__}: decorate the methods "
            "to record, "
            f"or a function that uses the class.",
            option=repr(fn),
        )
    check_not_called(fn, decorator)
    if not callable(fn):
        raise OptionError(f"@{decorator} decorates functions and methods, not {fn!r}.", option=repr(fn))


def check_not_called(value: Any, decorator: str) -> None:
    """Check that a decorator is not applied to the coroutine or generator that a call has returned.

    Raises:
        OptionError: it is.
    """
    if isinstance(value, (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)):
        raise OptionError(
            f"@{decorator} decorates functions, and {value.__qualname__}() has been called already: write "
            f"{decorator}({value.__name__})(...), or @{decorator} above the function.",
            option=repr(value),
        )


def _typer_command_of(fn: Any) -> str | None:
    """The decorator of typer that made a function a command; None without one.

    Such a decorator returns the function itself. So typer's application is searched where the function is written:
    among the globals, and the locals around the definition.
    """
    typer = sys.modules.get("typer.main")
    if typer is None:
        return None
    frame = decorating_frame()
    namespaces = [getattr(fn, "__globals__", None) or {}, {} if frame is None else frame.f_locals]
    values = [value for namespace in namespaces for value in list(namespace.values())]
    apps = [value for value in values if typer.Typer in type(value).__mro__]
    for app in apps:
        if any(command.callback is fn for command in app.registered_commands):
            return "app.command()"
        if app.registered_callback is not None and app.registered_callback.callback is fn:
            return "app.callback()"
    return None


def unknown_option(decorator: str, option: str, known: tuple[str, ...]) -> OptionError:
    """The error about an option that a decorator does not have."""
    hint = suggestion_for(option, known)
    aside = f" In a `with {decorator}(...)` block, further keywords are parameters." if decorator == "stage" else ""
    return OptionError(
        f"@{decorator} has no option {option!r}{hint.text} Known: {', '.join(known)}.{aside}",
        option=option,
        suggestion=hint.name,
    )
