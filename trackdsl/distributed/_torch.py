"""PyTorch: workers of a `DataLoader` that are kept belong to the scope that goes over it, not to the first that did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trackdsl import _context
from trackdsl._propagation import Context, attach
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


def _go_on(context: Context) -> None:
    _context.enter(None)
    attach(context).__enter__()


def _resume(original: Callable[..., None]) -> Callable[..., None]:
    def resume(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        object.__setattr__(self, "_trackdsl", _Arrival(Context(_context.current())))  # It is a frozen dataclass.

    return resume


PATCHES = [Patch("torch.utils.data._utils.worker", "_ResumeIteration.__init__", _resume)]
