"""Building msgspec's decoders where no signal handler can break in.

msgspec reads the annotations of a type by Python code. Where a signal handler raises in the middle of that, as Ctrl-C
does, msgspec crashes the interpreter. Python runs signal handlers in the main thread alone, so decoders are built in
another one, and not before they are needed: `import trackdsl` builds none.
"""

from __future__ import annotations

import _thread
import functools
import threading
from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T")


@functools.cache
def json_decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """The decoder of a type's JSON.

    Example:
        >>> json_decoder(list[int]).decode(b"[3]")
        [3]
    """
    return _away_from_signals(lambda: msgspec.json.Decoder(kind))


@functools.cache
def msgpack_decoder(kind: type[T]) -> msgspec.msgpack.Decoder[T]:
    """The decoder of a type's MessagePack."""
    return _away_from_signals(lambda: msgspec.msgpack.Decoder(kind))


def _away_from_signals(build: Callable[[], T]) -> T:
    """What `build` returns, called where no signal handler runs."""
    if threading.current_thread() is not threading.main_thread():
        return build()
    results: list[T] = []
    errors: list[BaseException] = []
    done = _thread.allocate_lock()
    done.acquire()

    def run() -> None:
        try:
            results.append(build())
        except BaseException as error:
            errors.append(error)
        finally:
            done.release()

    try:
        # Not `threading.Thread`, which programs replace and which hands our context over.
        _thread.start_new_thread(run, ())
    except RuntimeError:  # No thread can be started: so late in the end of the program, for example.
        return build()
    done.acquire()
    if errors:
        raise errors[0]
    return results[0]
