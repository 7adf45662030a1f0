"""Tasks of ten milliseconds on a Dask cluster of two processes, each a tracked run or plain."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from answering import Body, answer
from distributed import Client, LocalCluster

from trackdsl import experiment, flush, stage

_SECONDS = 0.01


def sleep(x: int) -> int:
    """Leaves the CPU to others."""
    time.sleep(_SECONDS)
    return x


def work(x: int) -> int:
    """Keeps the CPU busy for as long, by its clock."""
    end = time.thread_time() + _SECONDS
    while time.thread_time() < end:
        pass
    return x


@stage
def tracked_sleep(x: int) -> int:
    return sleep(x)


@stage
def tracked_work(x: int) -> int:
    return work(x)


def prepare(client: Client) -> Mapping[str, Body]:
    """Let both workers import and record; wait until delivery is at work."""

    def tasks(fn: Callable[[int], int]) -> Body:
        return lambda count: client.gather(client.map(fn, range(count), pure=False))  # type: ignore[no-any-return]

    def catch_up(_: int) -> None:
        flush(timeout=600)

    bodies = {fn.__name__: tasks(fn) for fn in (sleep, work, tracked_sleep, tracked_work)}
    for body in bodies.values():
        body(100)
    flush(timeout=60)
    return {**bodies, "flush": catch_up}


if __name__ == "__main__":
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        experiment("benchmark"),
    ):
        answer(lambda: prepare(client))
