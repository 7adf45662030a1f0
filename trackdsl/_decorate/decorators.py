"""The three words: `experiment`, `stage`, `track_returns`.

What a word does to a function is worked out here, once, at decoration; `_shapes_like_importlib_bootstrap` chooses how
the function is wrapped, and is the one place that tells plain functions, coroutines and generators apart.
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
from trackdsl._core.missing_call import Word, option_names
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

#: What functions become, by package and class, that run elsewhere; and the decorator that makes them so.
_SENDS_AWAY = {
    "ray.RemoteFunction": "ray.remote",
    "ray.ActorClass": "ray.remote",
    "dask.Delayed": "dask.delayed",
    "celery.Task": "app.task",
    "celery.PromiseProxy": "app.task",
    "dramatiq.Actor": "dramatiq.actor",
}
#: What functions become that are called by a command line, or by pytest.
_COMMANDS = {
    "click.Command": "click.command()",
    "click.BaseCommand": "click.command()",
    "_pytest.FixtureFunctionDefinition": "pytest.fixture",
}


class Block:
    """What `stage(...)` and `experiment(...)` give: a decorator, and a `with` block.

    Each entry is one run (or one section of the enclosing run), so a block may be used again.
    """

    def __init__(self, options: Options, extra: dict[str, Any]) -> None:
        self._options = options
        self._extra = extra
        # A block may be entered in one context and left in another, where the way back to its scope is not known.
        self._open: list[Scope] = []

    def __call__(self, fn: F) -> F:
        """Decorate `fn`.

        Raises:
            OptionError: an option that does not exist.
            TemplateError: the name uses a placeholder that is no parameter.
        """
        if self._extra:
            known = _STAGE_OPTIONS if self._options.word == "stage" else _EXPERIMENT_OPTIONS
            unknown = next(iter(self._extra))
            raise _unknown_option(self._options.word, unknown, known)
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
        except BaseException as error:  # Ctrl-C: Python will not leave what it has not entered.
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
        except BaseException as interrupt:  # Ctrl-C in the middle of it.
            quiet.recover()
            if find(self) is not None:
                leave_block(self, self._open, error or interrupt)
            raise

    async def __aenter__(self) -> Run:
        return self.__enter__()

    def __getattr__(self, name: str) -> NoReturn:
        aside = f": it is the run's, `with {self._options.word}(...) as run: run.{name}`" if hasattr(Run, name) else ""
        raise AttributeError(f"a block has no {name!r}{aside}", name=name, obj=self)

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
    """The outermost scope: a root run in the MLflow experiment `name`.

    Works as `@experiment`, `@experiment("churn")` and `with experiment("churn") as run`. Inside another run it is a
    child of that run, in that run's MLflow experiment, with the tag `trackdsl.experiment`.

    Args:
        name: the MLflow experiment; the configured one by default. May use parameters: `"churn-{country}"`.
        run_name: the run's name; the function's name by default, else the experiment's. May use parameters too.
        tags: tags of the run.
        description: shown by the MLflow UI above the run.
        tracking_uri: where the run goes, as MLflow writes it.
        params: record all arguments (`True`), none (`False`), or those named.
        returns: record what the function returns, as `track_returns` does.
        system_metrics: sample processor, memory, disk, network and graphics cards while it is open: `True`, or how
            often, in seconds. By default root runs are sampled where the settings say so.
        ranks: what processes that a launcher starts together record (torchrun, SLURM, MPI): `"children"` of one root
            run, `"main"` the first of them alone, `"separate"` each for itself. By default what the settings say.
        run_id: a run to go on with, instead of a new one: its id, trackdsl's or MLflow's, or the run itself. It is
            `RUNNING` again until this ends; what it has stays, and its first parameters stand.

    Raises:
        OptionError: an option that does not exist, or a name in `params` that is no parameter.
        TemplateError: a placeholder that is no parameter.

    Example:
        >>> @experiment("churn")
        ... def pipeline(path: str) -> None: ...
    """
    return _word("experiment", name, options, _EXPERIMENT_OPTIONS)


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
    """One step of the pipeline: a child of the run it is called in.

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
        system_metrics: sample processor, memory, disk, network and graphics cards while it is open: `True`, or how
            often, in seconds. By default root runs are sampled where the settings say so.
        run_id: a run to go on with, instead of a new one: its id, trackdsl's or MLflow's, or the run itself. It is
            `RUNNING` again until this ends; what it has stays, and its first parameters stand.
        **block_params: in a `with` block, parameters of the run.

    Raises:
        OptionError: an option that does not exist, or a name in `params` that is no parameter.
        TemplateError: a placeholder that is no parameter.

    Example:
        >>> @stage(nested=True)
        ... def train(data: list, lr: float = 0.1) -> float: ...
    """
    return _word("stage", name, options, _STAGE_OPTIONS)


_EXPERIMENT_OPTIONS, _STAGE_OPTIONS = option_names(experiment), option_names(stage)
if not TYPE_CHECKING:
    experiment, stage = (
        Word(each, f'`with {each.__name__}:` has to call it: `with {each.__name__}("a-name") as run:`.', options[1:])
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

    A number is a metric named after the function; a mapping, dataclass or NamedTuple gives a metric for each number in
    it and a JSON file for the rest; a tuple is taken apart by `names`, by the markers of the return annotation, or by
    index; anything else is kept as a file. What a training has recorded round by round gives the points of metrics
    besides: a `History` of Keras, a frame with a column `step` or `epoch`, a dict of lists of floats under names such
    as `loss` and `val_accuracy`. Other lists, such as `y_true` and `y_pred`, are data; `metrics=[...]` and the marker
    `Metric` make points of them too. The caller gets the very object that was returned. Of what a generator yields the
    numbers are metrics, with the index of the yield as step.

    Args:
        *names: names of the returned values, in order; of a tuple or list, or the keys of a mapping.
        prefix: put before the names of metrics.
        metrics: the only names to record as metrics; that of a structure stands for all numbers in it.
        artifacts: the only names to keep as files, whole; a mapping gives each its path in the run.

    Raises:
        OptionError: an option that does not exist.
        ReturnsError: more names than the annotation has values. Once the function has run nothing is raised: a name
            that no value has is reported by a log line and a tag of the run.

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
    """What `track_returns("a-name")` gives: a decorator, and no block."""

    def __enter__(self) -> NoReturn:
        raise OptionError(_NO_BLOCK, option="with")

    __aenter__ = __enter__

    def __exit__(self, *_: object) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


_NO_BLOCK = (
    'track_returns decorates functions, as a block returns nothing: write `with stage("a-name") as run:`, and '
    "`run.log_metric(...)` in it."
)
if not TYPE_CHECKING:
    track_returns = Word(track_returns, _NO_BLOCK)


def _check_choices(options: Mapping[str, Any]) -> None:
    """Refuse options of `track_returns` of a wrong type."""
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


#: Names of parameters of blocks that were looked at already.
_block_params: set[str] = set()


def _check_block_params(names: Iterable[str]) -> None:
    """Point out parameters of a block that were probably meant as options: once for each name."""
    if len(_block_params) > 10_000:  # Names that a program makes up as it goes.
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


def _word(word: str, name: Any, options: dict[str, Any], known: tuple[str, ...]) -> Any:
    if name is not None and not isinstance(name, str):
        _check_not_called(name, word)
        if options or not (callable(name) or hasattr(type(name), "__get__")):
            raise OptionError(
                f"{word}() takes a name, which is text, as its first argument, not {name!r}. Write @{word}(...) above "
                f'the function, or `with {word}("a-name"):`.',
                option="name",
            )
        return _decorate(name, Options(word))
    extra = {key: value for key, value in options.items() if key not in known}
    if extra and word == "experiment":
        raise _unknown_option(word, next(iter(extra)), known)
    chosen = {key: value for key, value in options.items() if key in known}
    return Block(Options.checked(word, name, chosen), extra)


def _decorate(fn: Any, options: Options) -> Any:
    if isinstance(fn, METHODS):
        return rebuilt(fn, lambda inner: _decorate(inner, options))
    _check_callable(fn, options.word)
    inner = call_of(fn)
    if inner is not None and inner.options is None:
        # track_returns below: one wrapper does both, and the values land on this word's run.
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
        # A word below: as above, in the other order.
        return wrap(target, Call(target, inner.options, returns))
    return wrap(fn, Call(fn, None, returns, behind=call_behind(fn)))


def _check_callable(fn: Any, word: str) -> None:
    if isinstance(fn, (property, functools.cached_property)):
        name = type(fn).__name__
        raise OptionError(f"@{word} goes below @{name}, next to the function.", option=name)
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(fn).__mro__}
    engine = next((_SENDS_AWAY[kind] for kind in kinds & _SENDS_AWAY.keys()), None)
    if engine is not None:
        message = f"@{word} goes below @{engine}, next to the function or method: it is to run where that runs."
        raise OptionError(message, option=engine)
    command = next((_COMMANDS[kind] for kind in kinds & _COMMANDS.keys()), _typer_command_of(fn))
    if command is not None:
        message = f"@{word} goes below @{command}, next to the function, which is what that calls."
        raise OptionError(message, option=command)
    if isinstance(fn, (Block, Word, _Returns)):
        raise OptionError(
            f"@{word} decorates functions and methods, and was given another decorator: write each of them on a line "
            "of its own above `def`.",
            option=repr(fn),
        )
    if inspect.isclass(fn):
        raise OptionError(
            f"@{word} decorates functions and methods, not the class {fn.__qualname__}: decorate the methods that are "
            f"to be recorded, or a function that uses the class.",
            option=repr(fn),
        )
    _check_not_called(fn, word)
    if not callable(fn):
        raise OptionError(f"@{word} decorates functions and methods, not {fn!r}.", option=repr(fn))


def _check_not_called(value: Any, word: str) -> None:
    if isinstance(value, (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)):
        raise OptionError(
            f"@{word} decorates functions, and {value.__qualname__}() has been called already: write "
            f"{word}({value.__name__})(...), or @{word} above the function.",
            option=repr(value),
        )


def _typer_command_of(fn: Any) -> str | None:
    """The decorator that has made a function a command of typer's, which gives back the function itself.

    The application is looked for where the function is written: among the globals, and the locals around.
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


def _unknown_option(word: str, option: str, known: tuple[str, ...]) -> OptionError:
    hint = suggestion_for(option, known)
    aside = f" In a `with {word}(...)` block, further keywords are parameters." if word == "stage" else ""
    return OptionError(
        f"@{word} has no option {option!r}{hint.text} Known: {', '.join(known)}.{aside}",
        option=option,
        suggestion=hint.name,
    )
