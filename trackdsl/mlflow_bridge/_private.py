"""All private names of MLflow that the bridge uses. Each one is checked when it is replaced.

MLflow 3.1 to 3.17 have them in these modules. If a name has moved, a function raises `Moved`, and the bridge works
without it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import inspect
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import ModuleType, SimpleNamespace
from typing import Any

import mlflow

from trackdsl.mlflow_bridge._replacing import replace_everywhere, replacement
from trackdsl.mlflow_bridge._scoped_list import ScopedList

#: The list that MLflow uses as its stack of active runs, in this context and during one call.
_given: ContextVar[list[Any] | None] = ContextVar("trackdsl_mlflow_stack", default=None)


class Moved(Exception):
    """A private name of MLflow has moved or changed."""


class ActiveStack:
    """The class of `mlflow.tracking.fluent._active_run_stack`, which keeps a list of active runs for each thread.

    The object stays the same: it gets a class that inherits from this one and from its own. So it keeps its other
    methods, and modules that have imported it use the new class too.
    """

    #: Returns the active runs of the current scope, the innermost last; None for MLflow's own list.
    shown: Callable[[], list[Any] | None]

    def get(self) -> list[Any]:
        """The active runs, for this context."""
        shown = self._here()
        return self.own() if shown is None else shown

    def set(self, value: list[Any]) -> None:
        """Set the active runs, for this context."""
        shown = self._here()
        if shown is None:
            super().set(value)  # type: ignore[misc]
        else:
            shown[:] = value

    def get_all_thread_values(self) -> dict[int, list[Any]]:
        """The active runs of all threads, from which MLflow takes the latest. Inside a scope, only the scope's run."""
        shown = self._here()
        if shown is None:
            found: dict[int, list[Any]] = super().get_all_thread_values()  # type: ignore[misc]
            return found
        return {threading.get_ident(): shown[-1:]}

    def own(self) -> list[Any]:
        """MLflow's own list for this thread."""
        found: list[Any] = super().get()  # type: ignore[misc]
        return found

    def is_replaced(self) -> bool:
        """Whether a test has replaced `get`."""
        return "get" in vars(self)

    def _here(self) -> list[Any] | None:
        given = _given.get()
        return self.shown() if given is None else given

    def __reduce__(self) -> tuple[Any, ...]:
        return _active_stack, ()


def _active_stack() -> Any:
    return getattr(_module("mlflow.tracking.fluent"), "_active_run_stack")  # noqa: B009 - it is not a public name


@contextlib.contextmanager
def showing(stack: list[Any]) -> Iterator[None]:
    """Make MLflow use a list as its stack of active runs."""
    token = _given.set(stack)
    try:
        yield
    finally:
        _given.reset(token)


def is_shown() -> bool:
    """Whether this code runs inside of `showing`."""
    return _given.get() is not None


def take_active_stack(shown: Callable[[], list[Any] | None]) -> ActiveStack:
    """Replace MLflow's stack of active runs.

    Raises:
        Moved: MLflow keeps its active runs in another way.
    """
    name = "_active_run_stack"
    original: Any = getattr(_module("mlflow.tracking.fluent"), name, None)
    if isinstance(original, ActiveStack):
        return original
    for method in ("get", "get_all_thread_values", "set"):
        if not callable(getattr(original, method, None)):
            raise Moved(f"mlflow.tracking.fluent.{name}.{method}")
    if not isinstance(original.get(), list):
        raise Moved(f"mlflow.tracking.fluent.{name} holds no list")
    kind = type(original)
    try:
        original.__class__ = type(kind.__name__, (ActiveStack, kind), {"shown": staticmethod(shown)})
    except TypeError as error:
        raise Moved(f"mlflow.tracking.fluent.{name} is of a class that cannot be changed") from error
    assert isinstance(original, ActiveStack)
    probe: Any = SimpleNamespace(info=SimpleNamespace(start_time=0))
    with showing([probe]):
        answers = mlflow.active_run() is probe
    if not answers:
        original.__class__ = kind
        raise Moved(f"mlflow.tracking.fluent.{name} is not what mlflow.active_run() reads")
    return original


def check_traces() -> None:
    """Check that MLflow attaches traces to the run on the stack.

    Raises:
        Moved: it attaches them to another run.
    """
    latest = getattr(_module("mlflow.tracking.fluent"), "_get_latest_active_run", None)
    probe: Any = SimpleNamespace(info=SimpleNamespace(start_time=0))
    with showing([probe]):
        if latest is None or latest() is not probe:
            raise Moved("mlflow.tracking.fluent._get_latest_active_run")


def take_tracking_uri(uri: Callable[[], str | None]) -> None:
    """Make MLflow use the tracking URI of the current scope if the program has set none.

    Args:
        uri: the tracking URI of the current scope, or None.

    Raises:
        Moved: MLflow finds the tracking URI in another way.
    """
    utils = _module("mlflow.tracking._tracking_service.utils")
    name = "MLFLOW_TRACKING_URI"
    original = getattr(utils, name, None)
    code = getattr(getattr(utils, "get_tracking_uri", None), "__code__", None)
    if not callable(getattr(original, "get", None)) or code is None or name not in code.co_names:
        raise Moved(f"mlflow.tracking._tracking_service.utils.{name}")

    class ScopedUri(type(original)):  # type: ignore[misc]
        """The environment variable, which MLflow reads if the program has not called `set_tracking_uri`."""

        def get(self) -> Any:
            return uri() or super().get()

        def __reduce__(self) -> tuple[Any, ...]:
            return copy.copy, (original,)

    variable: Any = copy.copy(original)
    variable.__class__ = ScopedUri
    setattr(utils, name, variable)


def take_store(store: Callable[[Any], Any]) -> None:
    """Make MLflow's clients ask for their store at each call.

    Args:
        store: takes the store of a client, and returns the one to use.

    Raises:
        Moved: clients find their store in another way.
    """
    utils, name = _module("mlflow.tracking._tracking_service.utils"), "_get_store"
    original = getattr(utils, name, None)
    property_ = getattr(_module("mlflow.tracking._tracking_service.client").TrackingServiceClient, "store", None)
    code = getattr(getattr(property_, "fget", None), "__code__", None)
    if not callable(original) or code is None or name not in code.co_names:
        raise Moved(f"mlflow.tracking._tracking_service.utils.{name}")

    def get_store(*args: Any, **kwargs: Any) -> Any:
        return store(original(*args, **kwargs))

    setattr(utils, name, functools.wraps(original)(get_store))


def take_active_experiment(here: Callable[[], str | None]) -> None:
    """Compare resumed runs with the active experiment of the scope, not with that of the process.

    Args:
        here: the id of the active experiment of the current scope, or None.

    Raises:
        Moved: MLflow keeps the active experiment in another way.
    """
    if not hasattr(_module("mlflow.tracking.fluent"), "_active_experiment_id"):
        raise Moved("mlflow.tracking.fluent._active_experiment_id")
    _scopes_experiment[:] = [here]
    wrap_active_experiment()


def wrap_active_experiment() -> None:
    """Replace the id of the active experiment, which the program has just set, by one that asks the scope first."""
    fluent, name = _module("mlflow.tracking.fluent"), "_active_experiment_id"
    value = getattr(fluent, name, None)
    if type(value) is str:
        setattr(fluent, name, _ExperimentId(value))


class _ExperimentId(str):
    """The id of the active experiment of the process. `start_run(run_id=...)` compares it with that of the run."""

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        here = next((experiment() for experiment in _scopes_experiment), None)
        return str.__ne__(self, other) if here is None else here != other

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


#: Returns the id of the active experiment of the current scope, once the bridge is installed.
_scopes_experiment: list[Callable[[], str | None]] = []


def take_experiment_id(here: Callable[[], str | None]) -> None:
    """Make the experiment of the current scope MLflow's active experiment.

    Args:
        here: returns its id, or None.

    Raises:
        Moved: MLflow finds the active experiment in another way.
    """
    name = "_get_experiment_id"
    original = getattr(_module("mlflow.tracking.fluent"), name, None)
    if not inspect.isfunction(original):
        raise Moved(f"mlflow.tracking.fluent.{name}")

    def get_experiment_id() -> Any:
        return here() or original()

    replace_everywhere({original: replacement(original, get_experiment_id)})


def take_artifact_repositories(before: Callable[[object, str | None], None]) -> None:
    """Call a function for every artifact URI that MLflow resolves.

    Args:
        before: gets the URI, and the tracking URI if there is one.

    Raises:
        Moved: MLflow resolves URIs in another way.
    """
    registry = getattr(
        _module("mlflow.store.artifact.artifact_repository_registry"), "ArtifactRepositoryRegistry", None
    )
    name = "get_artifact_repository"
    original = getattr(registry, name, None)
    if not inspect.isfunction(original):
        raise Moved(f"mlflow.store.artifact.artifact_repository_registry.ArtifactRepositoryRegistry.{name}")

    def get_artifact_repository(self: Any, artifact_uri: Any, *args: Any, **kwargs: Any) -> Any:
        before(artifact_uri, args[0] if args else kwargs.get("tracking_uri"))
        return original(self, artifact_uri, *args, **kwargs)

    setattr(registry, name, replacement(original, get_artifact_repository))


def take_sessions(keys: Callable[[], list[object]]) -> None:
    """Keep training in one scope from suppressing the autologging of another scope at the same time.

    For each library, MLflow has a class with a list of the training calls that run in the whole process. Only the
    outermost call is logged, so the list has to be a different one in each scope.

    Args:
        keys: see `ScopedList`.

    Raises:
        Moved: autologging keeps track of training calls in another way.
    """
    autologging = _module("mlflow.utils.autologging_utils")
    classes, make = (
        getattr(autologging, name, None) for name in ("_training_sessions", "_get_new_training_session_class")
    )
    if not isinstance(classes, list) or not inspect.isfunction(make):
        raise Moved("mlflow.utils.autologging_utils._training_sessions")
    if not all(isinstance(getattr(each, "_session_stack", None), list) for each in classes):
        raise Moved("mlflow.utils.autologging_utils._training_sessions holds no classes with a `_session_stack`")

    def get_new_class() -> Any:
        made = make()
        made._session_stack = ScopedList(made._session_stack, keys)
        return made

    for each in classes:
        each._session_stack = ScopedList(each._session_stack, keys)
    replace_everywhere({make: replacement(make, get_new_class)})


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Moved(name) from error
