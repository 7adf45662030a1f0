"""The threads, tasks and processes of runs, as they are at a store, in reports and in traces."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.conftest import all_runs, deliver
from tests.integration.test_tags import CALL, own_tags
from trackdsl import experiment, runs, stage
from trackdsl._core.current_lane import lane_here
from trackdsl.cli import main
from trackdsl.store_format.call_tag import LANE_FIELDS, call_of


@stage
def work(number: int = 0) -> int:
    """A stage, in whatever thread or process it is called."""
    return number


@stage
async def awaited(number: int) -> int:
    """A stage in a task, with one inside."""
    await asyncio.sleep(0)
    work(number)
    await asyncio.sleep(0)
    return number


async def gathered() -> None:
    """Three tasks."""
    await asyncio.gather(*(asyncio.create_task(awaited(at), name=f"reader {at}") for at in range(3)))


@experiment("lanes")
def pipeline() -> None:
    """Every kind of thread, task and process."""
    work()
    threads = [threading.Thread(target=work, args=(at,), name=f"writer {at}") for at in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    with ThreadPoolExecutor(1, "pool") as pool:
        pool.submit(work, 5).result()
    asyncio.run(gathered())
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as processes:
        processes.submit(work, 6).result()


def facts() -> list[dict[str, Any]]:
    """What the store has about the calls."""
    return [call_of(run.data.tags) | {"name": run.info.run_name, **run.data.params} for run in all_runs()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_runs_have_their_threads_and_tasks(sqlite_store: str) -> None:
    """Each run has its thread and task in the one tag about its call, and so have reports, traces and filters."""
    pipeline()
    deliver()
    found = facts()
    lanes = [(each.get("thread", ""), each.get("task", ""), each["name"], each["pid"] == os.getpid()) for each in found]
    assert sorted(lanes) == sorted([
        ("", "", "pipeline", True), ("", "", "work", True), ("", "", "work", False),
        ("writer 0", "", "work", True), ("writer 1", "", "work", True), ("pool_0", "", "work", True),
        *(("", f"reader {at}", name, True) for at in range(3) for name in ("awaited", "work")),
    ])  # fmt: skip
    assert sum(not set(LANE_FIELDS) & set(each) for each in found) == 3, "the main threads have nothing"
    assert all(own_tags(run.data.tags) <= CALL | {"trackdsl.changed", "trackdsl.previous"} for run in all_runs())
    numbers = {each["task"]: {one["task_id"] for one in found if one.get("task") == each["task"]} for each in found
               if "task" in each}  # fmt: skip
    assert all(len(ids) == 1 for ids in numbers.values())
    assert len(runs("lanes", where="tags.trackdsl.call.thread = 'pool_0'")) == 1
    assert len(runs("lanes", where="tags.trackdsl.call.task LIKE 'reader%'")) == 6
    for command in (["report", "pipeline", "-o", "r.html"], ["trace", "pipeline", "-o", "t.json"]):
        assert CliRunner().invoke(main, command).exit_code == 0
    page, trace = Path("r.html").read_text(), json.loads(Path("t.json").read_text())["traceEvents"]
    names = {event["args"]["name"] for event in trace if event["name"] == "thread_name"}
    assert names == {"MainThread", "runs", "writer 0", "writer 1", "pool_0", "reader 0", "reader 1", "reader 2"}
    assert len({event["pid"] for event in trace}) == 2
    assert all(name in page for name in names - {"runs"})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_thread_that_forks_is_the_main_thread_of_the_child() -> None:
    """In a forked child, only the thread that forked exists, and is its main thread."""
    codes: list[int] = []

    def fork() -> None:
        assert lane_here() is not None
        child = os.fork()
        if not child:
            os._exit(0 if lane_here() is None else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    assert codes == [0]
