"""The three decorators: `experiment`, `stage`, `track_returns`, in all of their forms."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from trackdsl._config.spec import Ranks
from trackdsl._core.context import Scope, find
from trackdsl._core.missing_call import Decorator, option_names
from trackdsl._core.suppression import suppression
from trackdsl._decorate.blocks import enter_block, leave_block
from trackdsl._decorate.decoration import decorate, track
from trackdsl._decorate.misuse import (
    DecoratorObject,
    check_block_params,
    check_choices,
    check_not_called,
    checked_block_params,
    unknown_option,
)
from trackdsl._decorate.options import Options
from trackdsl._runs.run import NULL_RUN, Run
from trackdsl.errors import OptionError

F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, Any, Any] | staticmethod[Any, Any]")


class Block(DecoratorObject):
    """What `stage(...)` and `experiment(...)` return: a decorator that is also a `with` block.

    Each entry makes one run (or one section of the enclosing run), so a block may be entered several times.
    """

    def __init__(self, options: Options, extra: dict[str, Any]) -> None:
        self._options = options
        self._extra = extra
        # The open scopes. A block may be exited in a context from which its scope cannot be found.
        self._open: list[Scope] = []

    def __call__(self, fn: F) -> F:
        """Decorate `fn`.

        Raises:
            OptionError: an option does not exist.
            TemplateError: the name has a placeholder that is not a parameter of `fn`.
        """
        if self._extra:
            known = _STAGE_OPTIONS if self._options.decorator == "stage" else _EXPERIMENT_OPTIONS
            unknown = next(iter(self._extra))
            raise unknown_option(self._options.decorator, unknown, known)
        decorated: F = decorate(fn, self._options)
        return decorated

    def __enter__(self) -> Run:
        if not checked_block_params.issuperset(self._extra):
            check_block_params(self._extra, _STAGE_OPTIONS, _EXPERIMENT_OPTIONS)
        before = self._open.copy()
        try:
            scope = enter_block(self._options, self._extra, self)
            if scope is None:
                return NULL_RUN
            self._open.append(scope)
        except BaseException as error:  # Ctrl-C: `__exit__` won't run, as `__enter__` raised.
            suppression.recover()
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
            suppression.recover()
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
    ranks: Ranks | None = None,
    run_id: str | Run | None = None,
    traces: bool | None = None,
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
        system_metrics: sample CPU, memory, disk, network and GPUs while the run is open: `True`, or
            the seconds between two samples. By default the setting `system_metrics` decides, for root runs.
        ranks: what the processes of one launch record (torchrun, SLURM, MPI): `"children"`: each a child of one
            shared root run; `"main"`: only the first process records; `"separate"`: each a root run of its own. By
            default the setting `ranks` decides.
        run_id: a run to resume, instead of a new one: its id in trackdsl or MLflow, or the run itself. The run is
            `RUNNING` again until the end. It keeps what was recorded before; a parameter keeps its first value.
        traces: make the tree of this root run a trace too, with a span for each stage: MLflow's Traces tab then shows
            the pipeline, with its time line. By default the setting `traces` decides.

    Raises:
        OptionError: an option does not exist, or a name in `params` is not a parameter.
        TemplateError: the name has a placeholder that is not a parameter.

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
    traces: bool | None = None,
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
        system_metrics: sample CPU, memory, disk, network and GPUs while the run is open: `True`, or
            the seconds between two samples. By default the setting `system_metrics` decides, for root runs.
        run_id: a run to resume, instead of a new one: its id in trackdsl or MLflow, or the run itself. The run is
            `RUNNING` again until the end. It keeps what was recorded before; a parameter keeps its first value.
        traces: make the tree of this root run a trace too, with a span for each stage: MLflow's Traces tab then shows
            the pipeline, with its time line. By default the setting `traces` decides.
        **block_params: in a `with` block, parameters of the run.

    Raises:
        OptionError: an option does not exist, or a name in `params` is not a parameter.
        TemplateError: the name has a placeholder that is not a parameter.

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
            raise unknown_option("track_returns", option, known)
    if len(names) == 1 and isinstance(names[0], (list, tuple)):
        listed = ", ".join(map(repr, names[0]))
        raise OptionError(f"@track_returns takes names one by one: @track_returns({listed}).", option="names")
    if len(names) == 1 and not options and not isinstance(names[0], str):
        return track(names[0], (), {})
    for name in names:
        if not isinstance(name, str):
            raise OptionError(f"@track_returns takes names as strings, not {name!r}.", option=repr(name))
    check_choices(options)
    return _Returns(track, names=names, options=options)


class _Returns(functools.partial[Any], DecoratorObject):
    """What `track_returns("a-name")` returns: a decorator. As a block it raises an error that says what to write."""

    def __enter__(self) -> NoReturn:
        raise OptionError(_NO_BLOCK, option="with")

    __aenter__ = __enter__

    def __exit__(self, *_: object) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


#: The name of `track` in pickles of earlier versions.
_track = track
_NO_BLOCK = (
    'track_returns only decorates functions, as a block has no return value: write `with stage("a-name") as run:`, '
    "and `run.log_metric(...)` inside."
)
if not TYPE_CHECKING:
    track_returns = Decorator(track_returns, _NO_BLOCK)


def _decorator_or_block(decorator: str, name: Any, options: dict[str, Any], known: tuple[str, ...]) -> Any:
    """Decorate the function that was given instead of a name, or return a block with these options."""
    if name is not None and not isinstance(name, str):
        check_not_called(name, decorator)
        if options or not (callable(name) or hasattr(type(name), "__get__")):
            raise OptionError(
                f"{decorator}() takes a name, which is a string, as its first argument, not {name!r}. Write "
                f'@{decorator}(...) above the function, or `with {decorator}("a-name"):`.',
                option="name",
            )
        return decorate(name, Options(decorator))
    extra = {key: value for key, value in options.items() if key not in known}
    if extra and decorator == "experiment":
        raise unknown_option(decorator, next(iter(extra)), known)
    chosen = {key: value for key, value in options.items() if key in known}
    return Block(Options.checked(decorator, name, chosen), extra)
