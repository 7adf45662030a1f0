"""Everything that Ray can be given, by a program with a cluster of its own: a folder, and where its runs go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

FOLDER, URI = Path(sys.argv[1]), sys.argv[2]

os.environ |= {
    "RAY_AUTH_MODE": "disabled",  # It would write a token into the home directory.
    "RAY_USAGE_STATS_ENABLED": "0",  # It would send its makers data about the tests.
    "RAY_memory_monitor_refresh_ms": "0",  # It kills tasks where other programs fill the machine's memory.
    "RAY_raylet_start_wait_time_s": "90",  # Generous, because other tests keep the machine busy.
    "RAY_DEDUP_LOGS": "0",
}

import joblib  # noqa: E402
import ray  # noqa: E402
from ray.util.joblib import register_ray  # noqa: E402
from ray.util.multiprocessing import Pool  # noqa: E402

from trackdsl import configure, current_run, log_metric, stage, steps  # noqa: E402


@stage
def work(x: int) -> int:
    log_metric("x", x)
    return x


@stage
def fail(x: int) -> int:
    raise KeyError(x)


@stage
def outer(numbers: list[int]) -> list[int]:
    return ray.get([remote_work.remote(x) for x in numbers])


@stage
def items(count: int) -> Iterator[int]:
    for x in range(count):
        yield work(x)


@stage
def fail_twice(folder: str) -> int:
    attempt = len(list(Path(folder).iterdir()))
    (Path(folder) / str(attempt)).touch()
    if attempt == 0:
        raise ValueError("not yet")
    if attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt


@stage
def hang(file: str) -> None:
    Path(file).touch()
    # In small waits: Ray's cancelling does not wake what blocks.
    wait_for(Path(f"{file}-over").exists)


def plain(x: int) -> int:
    log_metric("plain", x)
    return x


def plain_outer(numbers: list[int]) -> list[int]:
    return ray.get([remote_work.remote(x) for x in numbers])


def plain_thread(x: int) -> int:
    thread = threading.Thread(target=work, args=(x,))
    thread.start()
    thread.join()
    return x


def current_path() -> str:
    run = current_run()
    return "" if run is None else run.path


def names(*_: Any) -> tuple[str, str]:
    worker = ray._private.worker.global_worker.core_worker
    return worker.get_current_task_name(), worker.get_current_task_function_name()


remote_work = ray.remote(work)


@ray.remote
@stage
def decorated(x: int) -> int:
    return x


@ray.remote
class Counter:
    @stage
    def __init__(self) -> None:
        self.count = 0

    @stage
    def grow(self, by: int = 1) -> int:
        self.count += by
        return self.count

    def plain(self) -> int:
        log_metric("plain", self.count)
        return work(self.count)

    def names(self) -> tuple[str, str]:
        return names()

    @stage
    def items(self, count: int) -> Iterator[int]:
        # Ray sends something into generators, which `yield from` would hand on to the range.
        for x in range(count):  # noqa: UP028
            yield x


@ray.remote(max_concurrency=2)
class Threaded:
    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)

    @stage
    def meet(self, name: str) -> str:
        """Two of these run at the same time, or neither ends."""
        self.barrier.wait(120)
        return name

    def meet_plain(self, name: str) -> str:
        self.barrier.wait(120)
        set_tag_here(name)
        return name


@ray.remote
class Asynchronous:
    def __init__(self) -> None:
        self.here: list[str] = []

    async def both(self, name: str) -> None:
        self.here.append(name)
        while len(self.here) % 2:
            await asyncio.sleep(0.01)

    @stage
    async def meet(self, name: str) -> str:
        await self.both(name)
        return name

    async def meet_plain(self, name: str) -> str:
        await self.both(name)
        set_tag_here(name)
        await asyncio.to_thread(work, len(name))
        await remote_work.remote(0)
        return name

    async def items(self, count: int) -> AsyncIterator[int]:
        for x in range(count):
            yield work(x)


# More retries than deaths: while the actor starts again, Ray counts calls that cannot connect to it.
@ray.remote(max_restarts=1, max_task_retries=10)
class Mortal:
    @stage
    def __init__(self) -> None:
        pass

    @stage
    def die(self, file: str) -> str:
        if not Path(file).exists():
            Path(file).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"


def set_tag_here(name: str) -> None:
    run = current_run()
    assert run is not None
    run.set_tag(f"here.{name}", "yes")


def wait_for(condition: Callable[[], Any]) -> None:
    give_up = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        threading.Event().wait(0.01)


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    """What a call is refused with."""
    try:
        ray.get(call())
    except Exception as error:
        return type(error).__name__, f"{type(getattr(error, 'cause', None)).__name__}: {str(error).splitlines()[-1]}"
    return "", ""


def blocked(folder: Path) -> dict[str, Any]:
    """An environment for workers in which there is no trackdsl."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['trackdsl'] = None\n")
    return {"env_vars": {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}}


def tasks(counter: Any) -> None:
    with stage("submit"):
        ray.get(remote_work.remote(1))
        ray.get(remote_work.options(name="named").remote(x=2))
        ray.get(decorated.remote(3))
    with stage("nested"):
        ray.get(ray.remote(outer).remote([1, 2]))
    with stage("from-plain"):
        ray.get(ray.remote(plain_outer).remote([3]))
        ray.get(ray.remote(plain_thread).remote(4))
    with stage("plain"):
        for step in steps(range(3)):
            ray.get(ray.remote(plain).remote(10 * step))
    with stage("streaming"):
        for reference in ray.remote(items).remote(2):
            ray.get(reference)
    with stage("dynamic"):
        list(ray.get(ray.remote(items).options(num_returns="dynamic").remote(2)))
    with stage("bound"):
        ray.get(remote_work.bind(5).execute())
    with stage("pool"), Pool(1) as pool:
        pool.map(work, [6, 7])
    register_ray()
    with stage("joblib"), joblib.parallel_config(backend="ray", n_jobs=1, ray_remote_args={"num_cpus": 0}):
        joblib.Parallel()(joblib.delayed(work)(x) for x in (8, 9))


def actors(counter: Any) -> None:
    with stage("maker-of-actor"):
        own = Counter.remote()
        with stage("calls"):
            ray.get([own.grow.remote(), own.grow.remote(by=2), own.plain.remote()])
            ray.get(counter.grow.remote())
            for reference in own.items.remote(2):
                ray.get(reference)
        del own
    meeting, threaded, asynchronous = [], Threaded.remote(), Asynchronous.remote()
    for name in ("one", "two"):
        with stage(f"meet-{name}"):
            meeting += [threaded.meet.remote(name), asynchronous.meet.remote(name)]
    ray.get(meeting)
    for name in ("one", "two"):
        with stage(f"plain-{name}"):
            meeting += [threaded.meet_plain.remote(name), asynchronous.meet_plain.remote(f"async-{name}")]
    ray.get(meeting)
    with stage("async-items"):
        for reference in asynchronous.items.remote(2):
            ray.get(reference)


def scopes(reported: dict[str, Any]) -> None:
    """Alternates tasks submitted inside and outside of scopes, on the same workers."""
    where = ray.remote(current_path)
    paths = []
    for _ in range(4):
        with stage("inside"):
            paths.append(where.remote())
        paths.append(where.remote())
    reported["paths"] = ray.get(paths)
    ray.get(remote_work.remote(99))


def differences(counter: Any, reported: dict[str, Any]) -> None:
    """What must be the same outside and inside of a scope."""

    def answers() -> list[Any]:
        named = ray.remote(names)
        return [
            ray.get([named.remote(), named.remote(1), named.options(name="chosen").remote(), counter.names.remote()]),
            refused(remote_work.remote),
            refused(lambda: remote_work.remote(1, 2)),
            refused(lambda: remote_work.remote(y=1)),
            refused(lambda: counter.names.remote(1)),
            refused(lambda: remote_work(1)),
            refused(lambda: ray.remote(fail).remote(1)),
        ]

    reported["outside"] = answers()
    with stage("differences"):
        reported["inside"] = answers()


def absences(reported: dict[str, Any]) -> None:
    """Workers that have no trackdsl run what has nothing to do with it."""

    def add(a: int = 1, b: int = 1) -> int:
        return a + b

    environment = blocked(FOLDER / "blocked")
    remote_add = ray.remote(add).options(runtime_env=environment)
    with stage("absent"):
        reported["absent"] = ray.get([remote_add.remote(), remote_add.remote(2, b=3)])


def losses() -> None:
    with stage("retries"):
        (FOLDER / "attempts").mkdir()
        ray.get(ray.remote(max_retries=2, retry_exceptions=True)(fail_twice).remote(str(FOLDER / "attempts")))
    with stage("restarts"):
        mortal = Mortal.remote()
        ray.get(mortal.die.remote(str(FOLDER / "died")))
    with stage("cancelled"):
        reference = ray.remote(hang).remote(str(FOLDER / "hangs"))
        wait_for((FOLDER / "hangs").exists)
        ray.cancel(reference)
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(reference)


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    # The path of its sockets is limited to 107 characters, and it would be left behind.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        with stage("maker"):  # The cluster outlives the stage that starts it, and serves others.
            ray.init(
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=80 * 2**20,  # The least that it takes is 75 MiB; by default it takes gigabytes.
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env={"env_vars": {"TRACKDSL_SPOOL": str(FOLDER / "far")}},
                _temp_dir=folder,
            )
        try:
            yield
        finally:
            ray.shutdown()


def main() -> None:
    reported: dict[str, Any] = {}
    configure(tracking_uri=URI)
    with cluster():
        counter = Counter.remote()
        tasks(counter)
        actors(counter)
        scopes(reported)
        differences(counter, reported)
        absences(reported)
        losses()
    (FOLDER / "reported.json").write_text(json.dumps(reported))


if __name__ == "__main__":
    main()
