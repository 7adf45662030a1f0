"""PyTorch: workers of a `DataLoader` that are kept belong to the scope that goes over it, not to the first that did."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from trackdsl._core import context as _context
from trackdsl.distributed._contexts import Context, attach
from trackdsl.distributed._patching import Patch

if TYPE_CHECKING:
    from collections.abc import Callable


class _Arrival:
    """Travels to a worker with the word that another round begins: once unpickled, the worker is in the context.

    Args:
        context: the context.
    """

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    def __reduce__(self) -> tuple[Any, ...]:
        return _go_on, (self._context,)


#: Of a worker: what it is in, and whether the round that begins has brought it; the first one's process does.
_entered: attach | None = None
_brought = True


def _go_on(context: Context) -> None:
    global _entered, _brought
    if _entered is not None:
        _entered.__exit__()
    _context.enter(None)
    _entered, _brought = attach(context), True
    _entered.__enter__()


def _create_fetcher(original: Callable[..., Any]) -> Callable[..., Any]:
    def create_fetcher(*args: Any, **kwargs: Any) -> Any:
        global _brought
        if sys.modules["torch.utils.data._utils.worker"].get_worker_info() is not None:
            if not _brought:  # Whoever goes over it is in no scope, so nothing was patched there.
                _context.enter(None)
            _brought = False
        return original(*args, **kwargs)

    return create_fetcher


def _resume(original: Callable[..., None]) -> Callable[..., None]:
    def resume(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        object.__setattr__(self, "_trackdsl", _Arrival(Context(_context.current())))  # It is a frozen dataclass.

    return resume


PATCHES = [
    Patch("torch.utils.data._utils.worker", "_ResumeIteration.__init__", _resume),
    # A worker calls it where a round begins.
    Patch("torch.utils.data.dataloader", "_DatasetKind.create_fetcher", _create_fetcher),
]
