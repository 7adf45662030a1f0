"""`fn.last_run`: the run of the newest call of a decorated function."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType
from typing import Any

from trackdsl._core.suppression import suppression
from trackdsl._runs.run import NULL_RUN, Run

_NAME = "last_run"


class LastRun:
    """Holds the last run of a decorated callable object, as users do not see the function that wraps it."""

    __slots__ = (_NAME,)

    def __init__(self) -> None:
        self.last_run: Run | None = _none_yet()

    def __reduce__(self) -> tuple[Any, ...]:
        return LastRun, ()


class _Attributes(dict[str, Any]):
    """The attributes of a wrapper. A copy of them leaves the last run out, as that belongs to this wrapper only.

    `functools.wraps` would copy it to the wrapper of another decorator, where it would never change. cloudpickle would
    pickle the run, with the address of its store, together with the function.
    """

    __slots__ = ()

    def copy(self) -> dict[str, Any]:
        """All attributes except the last run."""
        return {name: self[name] for name in super().__iter__() if name != _NAME}

    def __iter__(self) -> Iterator[str]:
        return iter(self.copy())

    def keys(self) -> Any:
        """The keys of the copy, for `functools.wraps`."""
        return self.copy().keys()

    def items(self) -> Any:
        """The items of the copy, for cloudpickle."""
        return self.copy().items()

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return dict, (self.copy(),)


def forget_last_run(wrapper: Any) -> None:
    """Remove the last run of a wrapper."""
    if isinstance(wrapper, FunctionType):
        wrapper.__dict__ = _Attributes(wrapper.__dict__.copy())
    wrapper.last_run = _none_yet()


def _none_yet() -> Run | None:
    return NULL_RUN if suppression.off else None
