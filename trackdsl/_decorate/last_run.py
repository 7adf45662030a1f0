"""`fn.last_run`: the run that the newest call of a decorated function recorded on."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType
from typing import Any

from trackdsl._core.suppression import quiet
from trackdsl._runs.run import NULL_RUN, Run

_NAME = "last_run"


class LastRun:
    """Has the last run of what is no function, where the function that wraps it is not to be seen."""

    __slots__ = (_NAME,)

    def __init__(self) -> None:
        self.last_run: Run | None = _none_yet()

    def __reduce__(self) -> tuple[Any, ...]:
        return LastRun, ()


class _Attributes(dict[str, Any]):
    """The attributes of a wrapper. Whatever copies them leaves out the last run, which belongs to this wrapper alone.

    `functools.wraps` would give the wrapper of another decorator a last run that never changes, and cloudpickle would
    send the run, with the address of its store, wherever the function goes.
    """

    __slots__ = ()

    def copy(self) -> dict[str, Any]:
        """All attributes but the last run."""
        return {name: self[name] for name in super().__iter__() if name != _NAME}

    def __iter__(self) -> Iterator[str]:
        return iter(self.copy())

    def keys(self) -> Any:
        """Those of the copy; `functools.wraps` asks for them."""
        return self.copy().keys()

    def items(self) -> Any:
        """Those of the copy; cloudpickle asks for them."""
        return self.copy().items()

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return dict, (self.copy(),)


def forget_last_run(wrapper: Any) -> None:
    """Let a wrapper begin without a last run."""
    if isinstance(wrapper, FunctionType):
        wrapper.__dict__ = _Attributes(wrapper.__dict__.copy())
    wrapper.last_run = _none_yet()


def _none_yet() -> Run | None:
    return NULL_RUN if quiet.off else None
