"""All private names of MLflow's that the bridge needs, each checked when it is taken over.

They are where MLflow 3.1 to 3.17 have them. Where one has moved, `Moved` says so, and the rest makes do without.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import ModuleType, SimpleNamespace
from typing import Any

import mlflow

#: What MLflow is to take for its stack of active runs, in this context and for the length of a call.
_given: ContextVar[list[Any] | None] = ContextVar("trackdsl_mlflow_stack", default=None)


class Moved(Exception):
    """A private name of MLflow's is not where it was, or not what it was."""


class ActiveStack:
    """Stands in for `mlflow.tracking.fluent._active_run_stack`, which keeps a list of active runs for each thread.

    Args:
        original: MLflow's own.
        shown: the list of active runs of the current scope, the innermost last; None to let MLflow use its own.
    """

    def __init__(self, original: Any, shown: Callable[[], list[Any] | None]) -> None:
        self._original = original
        self._shown = shown

    def get(self) -> list[Any]:
        """The active runs, for this context."""
        shown = self._here()
        return self.own() if shown is None else shown

    def get_all_thread_values(self) -> dict[int, list[Any]]:
        """The active runs of all threads, from which MLflow takes the latest: inside a scope its run alone."""
        shown = self._here()
        if shown is None:
            found: dict[int, list[Any]] = self._original.get_all_thread_values()
            return found
        return {threading.get_ident(): shown[-1:]}

    def own(self) -> list[Any]:
        """MLflow's own list, of this thread."""
        found: list[Any] = self._original.get()
        return found

    def _here(self) -> list[Any] | None:
        given = _given.get()
        return self._shown() if given is None else given

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


@contextlib.contextmanager
def showing(stack: list[Any]) -> Iterator[None]:
    """Let MLflow take a list for its stack of active runs."""
    token = _given.set(stack)
    try:
        yield
    finally:
        _given.reset(token)


def is_shown() -> bool:
    """Whether `showing` is in force."""
    return _given.get() is not None


def take_active_stack(shown: Callable[[], list[Any] | None]) -> ActiveStack:
    """Put ours in the place of MLflow's stack of active runs.

    Raises:
        Moved: MLflow keeps its active runs in another way.
    """
    fluent = _module("mlflow.tracking.fluent")
    name = "_active_run_stack"
    original = getattr(fluent, name, None)
    if isinstance(original, ActiveStack):
        return original
    for method in ("get", "get_all_thread_values"):
        if not callable(getattr(original, method, None)):
            raise Moved(f"mlflow.tracking.fluent.{name}.{method}")
    if not isinstance(original.get(), list):  # type: ignore[union-attr]
        raise Moved(f"mlflow.tracking.fluent.{name} holds no list")
    stack = ActiveStack(original, shown)
    setattr(fluent, name, stack)
    probe: Any = SimpleNamespace(info=SimpleNamespace(start_time=0))
    with showing([probe]):
        answers = mlflow.active_run() is probe
    if not answers:
        setattr(fluent, name, original)
        raise Moved(f"mlflow.tracking.fluent.{name} is not what mlflow.active_run() reads")
    return stack


def check_traces() -> None:
    """See whether a trace is attached to the run that the stack shows.

    Raises:
        Moved: it is not.
    """
    latest = getattr(_module("mlflow.tracking.fluent"), "_get_latest_active_run", None)
    probe: Any = SimpleNamespace(info=SimpleNamespace(start_time=0))
    with showing([probe]):
        if latest is None or latest() is not probe:
            raise Moved("mlflow.tracking.fluent._get_latest_active_run")


class _TrackingUri:
    """Stands in for the environment variable that MLflow asks where nobody has called `set_tracking_uri`."""

    def __init__(self, original: Any, uri: Callable[[], str | None]) -> None:
        self._original = original
        self._uri = uri

    def get(self) -> Any:
        return self._uri() or self._original.get()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def take_tracking_uri(uri: Callable[[], str | None]) -> None:
    """Let MLflow use the tracking URI of the current scope where the program has told it none.

    Args:
        uri: the tracking URI of the current scope, or None.

    Raises:
        Moved: MLflow looks for it in another way.
    """
    utils = _module("mlflow.tracking._tracking_service.utils")
    name = "MLFLOW_TRACKING_URI"
    original = getattr(utils, name, None)
    code = getattr(getattr(utils, "get_tracking_uri", None), "__code__", None)
    if not callable(getattr(original, "get", None)) or code is None or name not in code.co_names:
        raise Moved(f"mlflow.tracking._tracking_service.utils.{name}")
    setattr(utils, name, _TrackingUri(original, uri))


class _Sessions:
    """Stands in for the list of fits that autologging takes to be under way in the whole process.

    The innermost of them silences those inside it. Fits of scopes that have nothing to do with each other are shown
    to neither.

    Args:
        entries: the list so far.
        keys: what the current scope and those around it are known by, the innermost first; empty outside of any.
    """

    def __init__(self, entries: list[Any], keys: Callable[[], list[object]]) -> None:
        self._entries: list[tuple[object, Any]] = [(None, entry) for entry in entries]
        self._keys = keys

    def append(self, session: Any) -> None:
        keys = self._keys()
        self._entries.append((keys[0] if keys else None, session))

    def pop(self) -> Any:
        key = next(iter(self._keys()), None)
        own = [entry for entry in self._entries if entry[0] is key] or self._entries
        self._entries.remove(own[-1])
        return own[-1][1]

    def _visible(self) -> list[Any]:
        keys = self._keys()
        return [
            session for key, session in list(self._entries) if not keys or key is None or any(key is k for k in keys)
        ]

    def __len__(self) -> int:
        return len(self._visible())

    def __getitem__(self, index: int) -> Any:
        return self._visible()[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._visible())


class _SessionClasses(list[Any]):
    """Stands in for the list of session classes, one for each library that is logged."""

    def __init__(self, classes: list[Any], keys: Callable[[], list[object]]) -> None:
        super().__init__()
        self._keys = keys
        for each in classes:
            self.append(each)

    def append(self, each: Any) -> None:
        if isinstance(getattr(each, "_session_stack", None), list):
            each._session_stack = _Sessions(each._session_stack, self._keys)
        super().append(each)


def take_sessions(keys: Callable[[], list[object]]) -> None:
    """Keep the fits of one scope from silencing those of another that runs at the same time.

    Args:
        keys: see `_Sessions`.

    Raises:
        Moved: autologging tells fits apart in another way.
    """
    autologging = _module("mlflow.utils.autologging_utils")
    name = "_training_sessions"
    classes = getattr(autologging, name, None)
    if not isinstance(classes, list) or not callable(getattr(autologging, "_get_new_training_session_class", None)):
        raise Moved(f"mlflow.utils.autologging_utils.{name}")
    if not all(isinstance(getattr(each, "_session_stack", None), list) for each in classes):
        raise Moved(f"mlflow.utils.autologging_utils.{name} holds no classes with a `_session_stack`")
    setattr(autologging, name, _SessionClasses(classes, keys))


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Moved(name) from error
