"""What the soak test runs: processes of threads of tasks, which nest runs at random.

The same dice, thrown without trackdsl, give the model of what must be at the store.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from trackdsl import experiment, log_metric, set_tag, stage

THREADS = 16
TASKS = 16
METHODS = ("fork", "spawn", "forkserver")


@dataclass
class Plan:
    """A planned run: its unique name, what it logs, how it ends, how it is made, and its children."""

    key: str
    value: int
    fails: bool
    shape: str
    children: list[Plan] = field(default_factory=list)

    def walk(self, parent: str) -> Iterator[tuple[Plan, str]]:
        """This run and all inside, each with the key of its parent."""
        yield self, parent
        for child in self.children:
            yield from child.walk(self.key)


def plan(key: str, depth: int = 0) -> Plan:
    """The random plan of the run `key`; always the same."""
    dice = random.Random(key)
    shape = dice.choice(["stage", "block", "async", "thread", "generator", "pool"])
    children = 0 if depth == 2 else dice.choice([0, 0, 0, 1, 2] if depth else [0, 0, 1])
    inside = [plan(f"{key}.{number}", depth + 1) for number in range(children)]
    return Plan(key, dice.randrange(1000), dice.random() < 0.15, shape, inside)


def plans(process: str) -> list[list[Plan]]:
    """What the tasks of each thread of a process do."""
    return [[plan(f"{process}-{thread}-{task}") for task in range(TASKS)] for thread in range(THREADS)]


class Planned(Exception):
    """The exception that a plan asks for."""


def body(planned: Plan) -> None:
    """What every run does itself."""
    log_metric("value", planned.value)
    set_tag("who", planned.key)


@stage("run")
async def awaited(key: str, planned: Plan) -> None:
    """A run as a coroutine; its children run in turn with all others."""
    body(planned)
    await asyncio.sleep(0)
    await asyncio.gather(*(perform(child) for child in planned.children))
    log_metric("end", planned.value)
    if planned.fails:
        raise Planned


@stage("run")
def called(key: str, planned: Plan) -> None:
    """A run as a function: its children have an event loop of their own, in this thread or another."""
    body(planned)
    with_children(planned)


def with_children(planned: Plan) -> None:
    """The rest of a run: its children, and its end."""

    async def children() -> None:
        await asyncio.gather(*(perform(child) for child in planned.children))

    if planned.children:
        thread = threading.Thread(target=asyncio.run, args=(children(),))
        thread.start()
        thread.join()
    log_metric("end", planned.value)
    if planned.fails:
        raise Planned


@stage("run")
def generated(key: str, planned: Plan) -> Iterator[int]:
    """A run as a generator, which others run in between."""
    body(planned)
    yield 1
    with_children(planned)
    yield 2


def block(planned: Plan) -> None:
    """A run as a block."""
    with stage("run", key=planned.key):
        body(planned)
        with_children(planned)


async def perform(planned: Plan) -> None:
    """Make one planned run, in its shape."""
    try:
        if planned.shape == "async":
            await awaited(planned.key, planned)
        elif planned.shape == "thread":
            await asyncio.to_thread(called, planned.key, planned)
        elif planned.shape == "pool":
            with ThreadPoolExecutor(1) as pool:
                await asyncio.wrap_future(pool.submit(block, planned))
        elif planned.shape == "generator":
            for _ in generated(planned.key, planned):
                await asyncio.sleep(0)
        elif planned.shape == "block":
            block(planned)
        else:
            called(planned.key, planned)
    except Planned:
        await asyncio.sleep(0)


def work(process: str) -> None:
    """One process: a stage of its own, threads inside it, tasks inside them."""

    async def tasks(planned: list[Plan]) -> None:
        await asyncio.gather(*(perform(one) for one in planned))

    with stage("process", key=process):
        threads = [threading.Thread(target=lambda p=p: asyncio.run(tasks(p))) for p in plans(process)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def main() -> None:
    """All processes, inside one experiment."""
    with experiment("soak"):
        processes = [multiprocessing.get_context(method).Process(target=work, args=(method,)) for method in METHODS]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            if process.exitcode:
                sys.exit(f"a process ended with {process.exitcode}")


if __name__ == "__main__":
    main()
