"""trackdsl under tasks and threads: the same stages one after another, awaited, gathered, in one thread, in many."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from answering import Body, answer
from the_call import train

from trackdsl import experiment, stage, track_returns

_TASKS = 256
_THREADS = 16
#: Taken before the first run opens, which patches it.
_UNPATCHED = ThreadPoolExecutor.submit

decorated = stage(track_returns(train))


@stage
@track_returns
async def awaited(
    path: str,
    lr: float,
    epochs: int,
    depth: int = 6,
    *,
    seed: int = 42,
    shuffle: bool = True,
    loss: str = "huber",
    dropout: float = 0.1,
) -> dict[str, float]:
    """The same as a coroutine."""
    return train(path, lr, epochs, depth, seed=seed, shuffle=shuffle, loss=loss, dropout=dropout)


def calls(count: int) -> None:
    """Plain stages."""
    for _ in range(count):
        decorated("data/train.csv", 0.05, 20, seed=42)


async def _awaits(count: int, pause: bool) -> None:
    for _ in range(count):
        await awaited("data/train.csv", 0.05, 20, seed=42)
        if pause:
            await asyncio.sleep(0)


def awaits(count: int) -> None:
    """Stages awaited one after another."""
    asyncio.run(_awaits(count, pause=False))


def gathered(count: int) -> None:
    """Stages of many tasks, which take turns after each."""

    async def all_of_them() -> None:
        await asyncio.gather(*(_awaits(max(count // _TASKS, 1), pause=True) for _ in range(_TASKS)))

    asyncio.run(all_of_them())


def in_threads(number: int) -> Body:
    """Stages of this many threads at once."""

    def body(count: int) -> None:
        threads = [threading.Thread(target=calls, args=(max(count // number, 1),)) for _ in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return body


def submits(count: int, submit: Callable[..., object] | None = None) -> None:
    """`submit` alone, to a pool that is busy with something else.

    Args:
        count: how often.
        submit: what to call instead of the pool's own.
    """
    release = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        put = functools.partial(submit, pool) if submit is not None else pool.submit
        put(release.wait)
        for _ in range(count):
            put(_nothing)
        pool.shutdown(wait=False, cancel_futures=True)
        release.set()


def _nothing() -> None:
    """What is submitted."""


def prepare() -> Mapping[str, Body]:
    """Warm up, and name all bodies."""
    calls(500)
    return {
        "calls": calls,
        "awaits": awaits,
        "gathered": gathered,
        "thread": in_threads(1),
        "threads": in_threads(_THREADS),
        "submit": submits,
        "submit-unpatched": functools.partial(submits, submit=_UNPATCHED),
    }


with experiment("benchmark"):
    answer(prepare)
