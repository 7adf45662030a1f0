"""Everything that Dask can be given, by a program with a cluster of its own: `processes` or `threads`, and a folder."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import dask.array
import dask.bag
import dask.dataframe
import joblib
import numpy as np
import pandas as pd
from distributed import Client, LocalCluster, fire_and_forget, get_client, wait, worker_client

from trackdsl import log_metric, stage, steps

FOLDER = Path(sys.argv[2])


@stage
def work(x: Any) -> Any:
    log_metric("x", float(np.sum(x)))
    return x


@stage
def add(a: int, b: int) -> int:
    return a + b


@stage
async def work_async(x: int) -> int:
    await asyncio.sleep(0)
    log_metric("x", x)
    return x


@stage
def block(piece: Any) -> Any:
    return piece


@stage
def outer(numbers: list[int]) -> list[int]:
    client = get_client()
    return list(client.gather(client.map(work, numbers, pure=False)))


@stage
def meet(name: str) -> str:
    """A barrier: the function returns only if two calls run at the same time."""
    (FOLDER / name).touch()
    wait_for(lambda: len(list(FOLDER.glob("meet-*"))) == 2)
    return name


@stage
def fail_twice(name: str) -> int:
    attempt = len(list(FOLDER.glob(f"{name}-*")))
    (FOLDER / f"{name}-{attempt}").touch()
    if attempt < 2:
        raise ValueError("not yet")
    return attempt


@stage
def be_killed() -> str:
    """Writes the id of its process once, and then hangs; the second time it is done."""
    file = FOLDER / "pid"
    if file.exists():
        return "done"
    write(file, str(os.getpid()))
    threading.Event().wait()
    return "never"


@stage
def keep(x: int) -> int:
    """Writes the id of its process each time."""
    write(FOLDER / f"kept-{x}", str(os.getpid()))
    return x


class Counter:
    def __init__(self) -> None:
        self.count = 0

    @stage
    def grow(self, by: int) -> int:
        self.count += by
        return self.count

    @stage
    async def grow_async(self, by: int) -> int:
        self.count += by
        return self.count


def plain(x: int) -> int:
    log_metric("plain", x)
    return x


def hold(name: str) -> None:
    (FOLDER / name).touch()
    wait_for((FOLDER / "gate").exists)


def plain_outer(numbers: list[int]) -> list[int]:
    with worker_client() as client:
        return list(client.gather(client.map(work, numbers, pure=False)))


def plain_thread(x: int) -> int:
    thread = threading.Thread(target=work, args=(x,))
    thread.start()
    thread.join()
    return x


def write(path: Path, text: str) -> None:
    """Write a file that is whole as soon as it is there."""
    unborn = path.with_suffix(f".{os.getpid()}")
    unborn.write_text(text)
    unborn.rename(path)


def wait_for(condition: Callable[[], Any]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        threading.Event().wait(0.01)


def submissions(client: Client) -> None:
    with stage("submit"):
        client.submit(work, 1).result()
    with stage("map"):
        client.gather(client.map(work, [2, 3]))
    with stage("delayed"):
        dask.delayed(work)(4).compute()
    with stage("compute"):
        dask.compute(dask.delayed(work)(5), dask.delayed(work)(6))
        client.compute(dask.delayed(work)(7)).result()
        client.get({"seven": (work, 8)}, "seven")
    with stage("persist"):
        wait(client.persist(dask.delayed(work)(9)))
        wait(dask.persist(dask.delayed(work)(10)))
    with stage("futures"):
        client.submit(add, client.submit(work, 11), client.submit(work, 12)).result()
    with stage("forget"):
        future = client.submit(work, 13)
        fire_and_forget(future)
        wait(future)
    with stage("async"):
        client.submit(work_async, 14).result()
    with stage("callback"):
        called = threading.Event()
        future = client.submit(plain, 15)
        future.add_done_callback(stage("called")(lambda _: called.set()))
        called.wait(60)
    with stage("run"):
        client.run(work, 16)
        client.run(work_async, 17)
    with stage("joblib"), joblib.parallel_config(backend="dask"):
        joblib.Parallel()(joblib.delayed(work)(x) for x in (18, 19))


def collections() -> None:
    with stage("bag"):
        dask.bag.from_sequence([1, 2], npartitions=2).map(work).compute()
    with stage("array"):
        numbers = dask.array.from_array(np.arange(4.0), chunks=2)
        (numbers.map_blocks(block, dtype=float, meta=np.array(())) + 1).sum().compute()
    with stage("dataframe"):
        frame = dask.dataframe.from_pandas(pd.DataFrame({"a": range(4)}), npartitions=2)
        frame.map_partitions(block, meta={"a": "int64"}).a.sum().compute()


def untouched(client: Client) -> None:
    """The first task on each worker is an undecorated function."""
    one, other = client.scheduler_info()["workers"]
    with stage("from-plain"):
        client.submit(plain_outer, [3], workers=one).result()
        client.submit(plain_thread, 4, workers=other).result()


def too_late(client: Client) -> None:
    """A task that starts after its stage has ended, when no scope is open."""
    with stage("late"):
        holding = [client.submit(hold, name) for name in ("hold-a", "hold-b")]
        wait_for(lambda: len(list(FOLDER.glob("hold-*"))) == 2)
        late = client.submit(plain_thread, 5)
    (FOLDER / "gate").touch()
    wait([*holding, late])
    client.run(work, 6)


def nesting(client: Client) -> None:
    with stage("nested"):
        client.submit(outer, [1, 2]).result()
    with stage("plain"):
        for step in steps(range(3)):
            client.submit(plain, 10 * step).result()
    with stage("actor"):
        counter = client.submit(Counter, actor=True).result()
        with stage("calls"):
            counter.grow(1).result()
            counter.grow_async(2).result()


def schedulers() -> None:
    for scheduler in ("threads", "processes", "synchronous"):
        with stage(scheduler):
            dask.compute(*map(dask.delayed(work), (1, 2)), scheduler=scheduler)


def scopes(client: Client) -> None:
    """Tasks of three scopes and of none, on the same two threads of workers."""
    futures = []
    numbers = itertools.count()
    for _ in range(5):
        for name in ("one", "two", "three"):
            with stage(name):
                futures.append(client.submit(work, next(numbers), key=f"{name}-{next(numbers)}"))
        futures.append(client.submit(work, next(numbers), key=f"none-{next(numbers)}"))
    client.gather(futures)
    meeting = []
    for name in ("meet-a", "meet-b"):
        with stage(name):
            meeting.append(client.submit(meet, name))
    client.gather(meeting)


def names(client: Client) -> dict[str, Any]:
    """What Dask calls a decorated function's tasks."""
    with stage("names"):
        once, again = client.submit(work, 77), client.submit(work, 77)
        wait([once, again])
        delayed = dask.delayed(work, pure=True)
        return {
            "name": once.key.rpartition("-")[0],
            "same": once.key == again.key,
            "pure": delayed(1).key == delayed(1).key != delayed(2).key,
        }


def attempts(client: Client) -> None:
    with stage("retries"):
        client.submit(fail_twice, "submitted", retries=2).result()
        with dask.annotate(retries=2):
            dask.delayed(fail_twice)("delayed").compute()


def losses(client: Client) -> None:
    with stage("killed"):
        future = client.submit(be_killed)
        wait_for((FOLDER / "pid").exists)
        os.kill(int((FOLDER / "pid").read_text()), signal.SIGKILL)
        assert future.result() == "done"
    client.wait_for_workers(2)
    with stage("recomputed"):
        future = client.submit(keep, 1)
        wait(future)
        pid = (FOLDER / "kept-1").read_text()
        os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: (FOLDER / "kept-1").read_text() != pid)
        assert future.result() == 1


@contextmanager
def cluster(processes: bool) -> Iterator[Client]:
    # The cluster outlives the stage that starts it, and serves others.
    with stage("maker"):
        made = LocalCluster(
            n_workers=2, threads_per_worker=1, processes=processes, dashboard_address=None, silence_logs=50
        )
        client = Client(made)
    with made, client:
        yield client


async def asynchronous(processes: bool) -> None:
    async with Client(
        n_workers=1, threads_per_worker=1, processes=processes, asynchronous=True, dashboard_address=None
    ) as client:

        async def one(x: int) -> int:
            with stage(f"task-{x}"):
                return int(await client.submit(work, x))

        await asyncio.gather(one(1), one(2))


def main() -> None:
    processes = sys.argv[1] == "processes"
    reported: dict[str, Any] = {}
    with cluster(processes) as client:
        # First of all, so that nothing has prepared the workers for them.
        untouched(client)
        too_late(client)
        scopes(client)
        nesting(client)
        submissions(client)
        collections()
        attempts(client)
        reported |= names(client)
        if processes:
            losses(client)
    if processes:
        schedulers()
        asyncio.run(asynchronous(processes))
    (FOLDER / "reported.json").write_text(json.dumps(reported))


if __name__ == "__main__":
    main()
