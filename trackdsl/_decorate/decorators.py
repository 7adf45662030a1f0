"""The three decorators: `experiment`, `stage`, `track_returns`.

This module decides at decoration, once for each function, what a decorator does. `wrappers_importlib_bootstrap` wraps
the function: only that module distinguishes plain functions, coroutines and generators.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, overload

from trackdsl._core.context import Scope, find
from trackdsl._core.missing_call import Decorator, option_names
from trackdsl._core.suggest import suggestion_for
from trackdsl._core.suppression import quiet
from trackdsl._decorate.blocks import enter_block, leave_block
from trackdsl._decorate.call import Call
from trackdsl._decorate.descriptors import METHODS, rebuilt
from trackdsl._decorate.options import Options
from trackdsl._decorate.returns import ReturnPlan
from trackdsl._decorate.wrappers_importlib_bootstrap import call_behind, call_of, wrap
from trackdsl._runs.run import NULL_RUN, Run
from trackdsl.errors import OptionError, note
from trackdsl.errors._user_code import place_of_call
from trackdsl.handlers._annotation_names import decorating_frame

F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, Any, Any] | staticmethod[Any, Any]")

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


class Block:
    """What `stage(...)` and `experiment(...)` return: a decorator that is also a `with` block.

    Each entry makes one run (or one section of the enclosing run), so a block may be entered several times.
    """

    def __init__(self, options: Options, extra: dict[str, Any]) -> None:
        self._options = options
        self._extra = extra
        # A block may be left in another context than it was entered in, and its scope cannot be found from there.
        self._open: list[Scope] = []

    def __call__(self, fn: F) -> F:
        """Decorate `fn`.

        Raises:
            OptionError: an option does not exist.
            TemplateError: the name has a placeholder that is no parameter of `fn`.
        """
        if self._extra:
            known = _STAGE_OPTIONS if self._options.decorator == "stage" else _EXPERIMENT_OPTIONS
            unknown = next(iter(self._extra))
            raise _unknown_option(self._options.decorator, unknown, known)
        decorated: F = _decorate(fn, self._options)
        return decorated

    def __enter__(self) -> Run:
        if not _block_params.issuperset(self._extra):
            _check_block_params(self._extra)
        before = self._open.copy()
        try:
            scope = enter_block(self._options, self._extra, self)
            if scope is None:
                return NULL_RUN
            self._open.append(scope)
        except BaseException as error:  # Ctrl-C: `__exit__` won't run, as `__enter__` raised.
            quiet.recover()
            if find(self) not in (None, *before):
                leave_block(self, self._open, error)
            raise
        run: Run = scope.run
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            leave_block(self, self._open, error)
        except BaseException as interrupt:  # Ctrl-C while the block is being left.
            quiet.recover()
            if find(self) is not None:
                leave_block(self, self._open, error or interrupt)
            raise

    async def __aenter__(self) -> Run:
        return self.__enter__()

    def __getattr__(self, name: str) -> NoReturn:
        aside = (
            f": the run has it, `with {self._options.decorator}(...) as run: run.{name}`" if hasattr(Run, name) else ""
        )
        raise AttributeError(f"a block has no attribute {name!r}{aside}", name=name, obj=self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


@overload
def experiment(name: F, /) -> F: ...
@overload
def experiment(
    name: str | None = None,
    *,
    run_name: str | None = None,
    tags: Mapping[str, Any] | None = None,
    description: str | None = None,
    tracking_uri: str | None = None,
    params: bool | Iterable[str] = True,
    returns: bool = False,
    system_metrics: bool | float | None = None,
    ranks: Literal["children", "main", "separate"] | None = None,
    run_id: str | Run | None = None,
) -> Block: ...
def experiment(name: Any = None, **options: Any) -> Any:  # noqa: D417 - the overload names the options
    """Make a root run in the MLflow experiment `name`, around everything that is called inside.

    Works as `@experiment`, `@experiment("churn")` and `with experiment("churn") as run`. Inside another run it makes a
    child of that run, in that run's MLflow experiment, with the tag `trackdsl.experiment`.

    Args:
        name: the MLflow experiment; the configured one by default. May use parameters: `"churn-{country}"`.
        run_name: the run's name; the function's name by default, else the experiment's. May use parameters too.
        tags: tags of the run.
        description: shown by the MLflow UI above the run.
        tracking_uri: the store that the run goes to, as MLflow writes it.
        params: record all arguments (`True`), none (`False`), or those named.
        returns: record what the function returns, as `track_returns` does.
        system_metrics: sample processor, memory, disk, network and graphics cards while the run is open: `True`, or
            the seconds between two samples. By default the setting `system_metrics` decides, for root runs.
        ranks: what the processes of one launch record (torchrun, SLURM, MPI): `"children"`: each a child of one
            shared root run; `"main"`: only the first process records; `"separate"`: each a root run of its own. By
            default the setting `ranks` decides.
        run_id: a run to resume, instead of a new one: its id in trackdsl or MLflow, or the run itself. The run is
            `RUNNING` again until the end. It keeps what was recorded before; a parameter keeps its first value.

    Raises:
        OptionError: an option does not exist, or a name in `params` is no parameter.
        TemplateError: the name has a placeholder that is no parameter.

    Example:
        >>> @experiment("churn")
        ... def pipeline(path: str) -> None: ...
    """
    return _decorator_or_block("experiment", name, options, _EXPERIMENT_OPTIONS)


@overload
def stage(name: F, /) -> F: ...
@overload
def stage(
    name: str | None = None,
    *,
    nested: bool = True,
    params: bool | Iterable[str] = True,
    returns: bool = False,
    tags: Mapping[str, Any] | None = None,
    description: str | None = None,
    system_metrics: bool | float | None = None,
    run_id: str | Run | None = None,
    **block_params: Any,
) -> Block: ...
def stage(name: Any = None, **options: Any) -> Any:  # noqa: D417 - the overload names the options
    """Make a run for one step of the pipeline: a child of the run in which it is called.

    Works as `@stage`, `@stage("fit-{model}")` and `with stage("split", seed=42) as run`.

    Args:
        name: the run's name; the function's name by default. May use parameters: `"fit-{model}"`.
        nested: `True` makes a run. `False` makes a section of the enclosing run, for functions called often: its
            parameters are `name.param` (first call), its metrics `name/metric` and `name/seconds`, with the index of
            the call as step.
        params: record all arguments (`True`), none (`False`), or those named.
        returns: record what the function returns, as `track_returns` does.
        tags: tags of the run.
        description: shown by the MLflow UI above the run.
        system_metrics: sample processor, memory, disk, network and graphics cards while the run is open: `True`, or
            the seconds between two samples. By default the setting `system_metrics` decides, for root runs.
        run_id: a run to resume, instead of a new one: its id in trackdsl or MLflow, or the run itself. The run is
            `RUNNING` again until the end. It keeps what was recorded before; a parameter keeps its first value.
        **block_params: in a `with` block, parameters of the run.

    Raises:
        OptionError: an option does not exist, or a name in `params` is no parameter.
        TemplateError: the name has a placeholder that is no parameter.

    Example:
        >>> @stage(nested=True)
        ... def train(data: list, lr: float = 0.1) -> float: ...
    """
    return _decorator_or_block("stage", name, options, _STAGE_OPTIONS)


_EXPERIMENT_OPTIONS, _STAGE_OPTIONS = option_names(experiment), option_names(stage)
if not TYPE_CHECKING:
    experiment, stage = (
        Decorator(
            each, f'`with {each.__name__}:` has to call it: `with {each.__name__}("a-name") as run:`.', options[1:]
        )
        for each, options in ((experiment, _EXPERIMENT_OPTIONS), (stage, _STAGE_OPTIONS))
    )


@overload
def track_returns(fn: F, /) -> F: ...
@overload
def track_returns(
    *names: str,
    prefix: str = "",
    metrics: Collection[str] | None = None,
    artifacts: Collection[str] | Mapping[str, str] | None = None,
) -> Callable[[F], F]: ...
def track_returns(*names: Any, **options: Any) -> Any:  # noqa: D417 - the overload names the options
    """Record what a function returns as metrics and artifacts of the current run.

    What becomes of a returned value depends on its type:

    - A number becomes a metric with the function's name.
    - A mapping, dataclass or NamedTuple gives a metric for each number in it, and a JSON file for the rest.
    - A tuple is recorded item by item, with names from `names`, from the markers of the return annotation, or from the
      index.
    - The history of a training gives the points of metrics, by step: a `History` of Keras, a frame with a column
      `step` or `epoch`, a dict of lists of floats under names such as `loss` and `val_accuracy`. Other lists, such as
      `y_true` and `y_pred`, are data; `metrics=[...]` and the marker `Metric` make points of them too.
    - Everything else is kept as a file.

    The numbers that a generator yields become metrics, with the index of the yield as step. The caller gets the same
    object that the function returned.

    Args:
        *names: names of the returned values, in order; of the items of a tuple or list, or the keys of a mapping.
        prefix: put before the names of metrics.
        metrics: the only names to record as metrics. The name of a structure includes all numbers in it.
        artifacts: the only names to keep as whole files; a mapping gives each one its path in the run.

    Raises:
        OptionError: an option does not exist.
        ReturnsError: there are more names than the annotation has values. After the function has run, nothing is
            raised: a name without a value is reported by a log line and a tag of the run.

    Example:
        >>> @track_returns("model", "accuracy")
        ... def train() -> tuple: ...
    """
    known = ("prefix", "metrics", "artifacts")
    for option in options:
        if option not in known:
            raise _unknown_option("track_returns", option, known)
    if len(names) == 1 and isinstance(names[0], (list, tuple)):
        listed = ", ".join(map(repr, names[0]))
        raise OptionError(f"@track_returns takes names one by one: @track_returns({listed}).", option="names")
    if len(names) == 1 and not options and not isinstance(names[0], str):
        return _track(names[0], (), {})
    for name in names:
        if not isinstance(name, str):
            raise OptionError(f"@track_returns takes names as text, not {name!r}.", option=repr(name))
    _check_choices(options)
    return _Returns(_track, names=names, options=options)


class _Returns(functools.partial[Any]):
    """What `track_returns("a-name")` returns: a decorator that is no block."""

    def __enter__(self) -> NoReturn:
        raise OptionError(_NO_BLOCK, option="with")

    __aenter__ = __enter__

    def __exit__(self, *_: object) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


_NO_BLOCK = (
    'track_returns only decorates functions, as a block returns nothing: write `with stage("a-name") as run:`, and '
    "`run.log_metric(...)` inside."
)
if not TYPE_CHECKING:
    track_returns = Decorator(track_returns, _NO_BLOCK)


def _check_choices(options: Mapping[str, Any]) -> None:
    """Raise if an option of `track_returns` has a wrong type."""
    if not isinstance(options.get("prefix", ""), str):
        raise OptionError(f"@track_returns(prefix=...) takes text, not {options['prefix']!r}.", option="prefix")
    for option, example in (("metrics", '["accuracy"]'), ("artifacts", '["report"] or {"report": "report.json"}')):
        names = options.get(option)
        parts = [*names, *names.values()] if isinstance(names, Mapping) else names
        if names is None or isinstance(names, str):
            continue
        if not isinstance(parts, Collection) or not all(isinstance(part, str) for part in parts):
            message = f"@track_returns({option}=...) takes names, such as {example}, not {names!r}."
            raise OptionError(message, option=option)


#: The parameters of blocks whose names have been checked.
_block_params: set[str] = set()


def _check_block_params(names: Iterable[str]) -> None:
    """Warn of parameters of a block that look like misspelt options: once for each name."""
    if len(_block_params) > 10_000:  # A program may make up any number of names.
        _block_params.clear()
    for name in names:
        if name in _block_params:
            continue
        _block_params.add(name)
        misplaced = f"; `{name}` is an option of experiment." if name in _EXPERIMENT_OPTIONS else ""
        hint = misplaced or suggestion_for(name.lower(), _STAGE_OPTIONS, nearly=0.8).text
        if hint != ".":
            note(
                f"trackdsl: {name}= at {place_of_call()} is no option of stage and is recorded as a parameter{hint}",
                key=f"block-param:{name}",
            )


def _decorator_or_block(decorator: str, name: Any, options: dict[str, Any], known: tuple[str, ...]) -> Any:
    if name is not None and not isinstance(name, str):
        _check_not_called(name, decorator)
        if options or not (callable(name) or hasattr(type(name), "__get__")):
            raise OptionError(
                f"{decorator}() takes a name, which is text, as its first argument, not {name!r}. Write "
                f"@{decorator}(...) above "
                f'the function, or `with {decorator}("a-name"):`.',
                option="name",
            )
        return _decorate(name, Options(decorator))
    extra = {key: value for key, value in options.items() if key not in known}
    if extra and decorator == "experiment":
        raise _unknown_option(decorator, next(iter(extra)), known)
    chosen = {key: value for key, value in options.items() if key in known}
    return Block(Options.checked(decorator, name, chosen), extra)


def _decorate(fn: Any, options: Options) -> Any:
    if isinstance(fn, METHODS):
        return rebuilt(fn, lambda inner: _decorate(inner, options))
    _check_callable(fn, options.decorator)
    inner = call_of(fn)
    if inner is not None and inner.options is None:
        # `track_returns` is below: one wrapper does both, and the values land on the run of this decorator.
        return wrap(inner.fn, Call(inner.fn, options, inner.returns))
    returns = ReturnPlan(fn) if options.returns else None
    return wrap(fn, Call(fn, options, returns))


def _track(fn: Any, names: tuple[str, ...], options: dict[str, Any]) -> Any:
    if isinstance(fn, METHODS):
        return rebuilt(fn, lambda inner: _track(inner, names, options))
    _check_callable(fn, "track_returns")
    inner = call_of(fn)
    target = fn if inner is None else inner.fn
    returns = ReturnPlan(target, names, **options)
    if inner is not None:
        # `experiment` or `stage` is below: the same in the other order.
        return wrap(target, Call(target, inner.options, returns))
    return wrap(fn, Call(fn, None, returns, behind=call_behind(fn)))


def _check_callable(fn: Any, decorator: str) -> None:
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
    if isinstance(fn, (Block, Decorator, _Returns)):
        raise OptionError(
            f"@{decorator} decorates functions and methods, and got another decorator: write each of them on a "
            "line of its "
            "own above `def`.",
            option=repr(fn),
        )
    if inspect.isclass(fn):
        raise OptionError(
            f"@{decorator} decorates functions and methods, not the class {fn.__qualname__}: decorate the methods "
            "to record, "
            f"or a function that uses the class.",
            option=repr(fn),
        )
    _check_not_called(fn, decorator)
    if not callable(fn):
        raise OptionError(f"@{decorator} decorates functions and methods, not {fn!r}.", option=repr(fn))


def _check_not_called(value: Any, decorator: str) -> None:
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
    places = [getattr(fn, "__globals__", None) or {}, {} if frame is None else frame.f_locals]
    apps = [value for place in places for value in list(place.values()) if typer.Typer in type(value).__mro__]
    for app in apps:
        if any(command.callback is fn for command in app.registered_commands):
            return "app.command()"
        if app.registered_callback is not None and app.registered_callback.callback is fn:
            return "app.callback()"
    return None


def _unknown_option(decorator: str, option: str, known: tuple[str, ...]) -> OptionError:
    hint = suggestion_for(option, known)
    aside = f" In a `with {decorator}(...)` block, further keywords are parameters." if decorator == "stage" else ""
    return OptionError(
        f"@{decorator} has no option {option!r}{hint.text} Known: {', '.join(known)}.{aside}",
        option=option,
        suggestion=hint.name,
    )
