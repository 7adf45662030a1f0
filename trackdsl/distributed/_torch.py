"""PyTorch: the persistent workers of a `DataLoader` belong to the scope that iterates over it now, not to the first."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from trackdsl._core import context as _context
from trackdsl._core.patching import Patch
from trackdsl.distributed._contexts import Context, attach

if TYPE_CHECKING:
    from collections.abc import Callable


class _EnterContext:
    """Goes to a worker with the message that a new iteration begins. Unpickling it makes the worker enter a context.

    Args:
        context: the context.
    """

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    def __reduce__(self) -> tuple[Any, ...]:
        return _enter_context, (self._context,)


class _Worker:
    """The state of this process as a worker of a data loader.

    Attributes:
        entered: the context that it is in.
        brought: whether the iteration that begins came with that context. The start of the process brings the first.
    """

    entered: attach | None = None
    brought = True


_worker = _Worker()


def _enter_context(context: Context) -> None:
    if _worker.entered is not None:
        _worker.entered.__exit__()
    _context.enter(None)
    _worker.entered, _worker.brought = attach(context), True
    _worker.entered.__enter__()


def _create_fetcher(original: Callable[..., Any]) -> Callable[..., Any]:
    def create_fetcher(*args: Any, **kwargs: Any) -> Any:
        if sys.modules["torch.utils.data._utils.worker"].get_worker_info() is not None:
            if not _worker.brought:  # No scope is open where the loader is iterated, so nothing was sent.
                _context.enter(None)
            _worker.brought = False
        return original(*args, **kwargs)

    return create_fetcher


def _resume(original: Callable[..., None]) -> Callable[..., None]:
    def resume(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        object.__setattr__(
            self, "_trackdsl", _EnterContext(Context(_context.current()))
        )  # The class is a frozen dataclass.

    return resume


PATCHES = [
    Patch("torch.utils.data._utils.worker", "_ResumeIteration.__init__", _resume),
    # A worker calls this when an iteration begins.
    Patch("torch.utils.data.dataloader", "_DatasetKind.create_fetcher", _create_fetcher),
]
