"""Which thread and task a run begins in."""

from __future__ import annotations

import _thread
import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio

from trackdsl._core import current_lane, events
from trackdsl._core.current_lane import LONGEST_NAME, lane_here
from trackdsl._core.events import Lane

HOSTILE = ["<b>\x00\x1b[31m", "x" * 5000, "\ud800", "\u202e"]


def in_a_thread(thread: Callable[[Callable[[], None]], threading.Thread], call: Callable[[], Any] = lane_here) -> Any:
    """What `call` returns in a thread."""
    found: list[Any] = []
    started = thread(lambda: found.append(call()))
    started.start()
    started.join()
    return found[0]


def named(name: str) -> Callable[[Callable[[], None]], threading.Thread]:
    return lambda target: threading.Thread(target=target, name=name)


def encoded(lane: Lane | None) -> Lane | None:
    """A lane as it is read from a journal."""
    written = events.encode_safely(events.Open(bytes(16), None, "e", "f", "stage", "f", 0, 1, {}, {}, None, lane=lane))
    found = events.decode(written)
    assert isinstance(found, events.Open)
    return found.lane


def test_the_main_thread_has_no_lane() -> None:
    """In the main thread, outside of tasks, there is nothing to record."""
    assert lane_here() is None


def test_threads_have_their_names() -> None:
    """A thread has its name and its id of the operating system; a later thread has its own."""

    def twice() -> tuple[Any, Any, int]:
        return lane_here(), lane_here(), threading.get_native_id()

    for name in ("first", "second"):
        first, again, number = in_a_thread(named(name), twice)
        assert first == (name, number, "", 0)
        assert again is first
    with ThreadPoolExecutor(1, "pool") as pool:
        assert pool.submit(lane_here).result()[0] == "pool_0"  # type: ignore[index]


def test_a_renamed_thread_has_its_new_name() -> None:
    """A pool may name a thread anew for each call, as trio does: a run has the name of its time."""

    def twice() -> tuple[Any, Any]:
        before = lane_here()
        threading.current_thread().name = "second"
        return before, lane_here()

    assert [lane[0] for lane in in_a_thread(named("first"), twice)] == ["first", "second"]


def test_each_task_has_its_name_and_its_id() -> None:
    """Gathered tasks differ in their names or ids; what a task sends to a thread has the lane of the thread."""

    async def work(name: str | None = None) -> Lane | None:
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        if name is not None:
            task.set_name(name)
        before = lane_here()
        await asyncio.sleep(0)
        assert lane_here() == before == ("", 0, task.get_name(), id(task))
        return before

    async def main() -> list[Any]:
        return await asyncio.gather(work(), work(), work("same"), work("same"), asyncio.to_thread(lane_here))

    *tasks, sent = asyncio.run(main())
    assert len(set(tasks)) == 4
    assert [name[2] for name in tasks[2:]] == ["same", "same"]
    assert (sent[0][:7], sent[2:]) == ("asyncio", ("", 0))
    thread = in_a_thread(named("with a loop"), lambda: asyncio.run(_lane()))
    assert (thread[0], thread[2][:5]) == ("with a loop", "Task-")


def test_callbacks_of_a_loop_are_in_no_task() -> None:
    """What a loop calls outside of tasks is in the lane of its thread."""

    async def main() -> Lane | None:
        called = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: called.set_result(lane_here()))
        return await called  # type: ignore[no-any-return]

    assert asyncio.run(main()) is None


def test_cells_of_notebooks_are_in_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel executes each cell in a task of its own, which is not a lane; tasks that a cell begins are."""
    monkeypatch.setitem(sys.modules, "IPython", type(sys)("IPython"))

    async def cell() -> list[Any]:
        return [lane_here(), lane_here(), *await asyncio.gather(_lane(), _lane())]

    cell.__code__ = cell.__code__.replace(co_filename="/lib/site-packages/ipykernel/kernelbase.py")
    first, again, *begun = asyncio.run(cell())
    assert (first, again) == (None, None)
    assert len({lane[2] for lane in begun}) == 2


def test_a_task_without_a_name_is_none() -> None:
    """A task whose name is empty is in the lane of its thread."""

    async def main() -> Lane | None:
        asyncio.current_task().set_name("")  # type: ignore[union-attr]
        return lane_here()

    assert asyncio.run(main()) is None


def test_tasks_of_trio() -> None:
    """Tasks of trio have the name of their function, and differ in their ids."""
    found: list[Any] = []

    async def work() -> None:
        await trio.sleep(0)
        found.append(lane_here())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            nursery.start_soon(work)
            await trio.to_thread.run_sync(lambda: found.append(lane_here()), thread_name="sent")

    trio.run(main)
    tasks = [lane for lane in found if lane[2]]
    assert len({lane[3] for lane in tasks}) == 2
    assert all(lane[:2] == ("", 0) and lane[2].endswith("work") for lane in tasks)
    assert [lane[0] for lane in found if not lane[2]] == ["sent"]


def test_asyncio_may_be_imported_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before asyncio is imported, and while it is, there are no tasks; afterwards there are."""
    monkeypatch.setattr(current_lane, "_running_loop", current_lane._first_running_loop)

    async def main() -> list[Lane | None]:
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "asyncio")
            found = [lane_here()]
            patch.setitem(sys.modules, "asyncio", type(sys)("asyncio"))
            found.append(lane_here())
        return [*found, lane_here()]

    before, during, after = asyncio.run(main())
    assert (before, during) == (None, None)
    assert after is not None


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_can_be_recorded(name: str) -> None:
    """Names with control characters or lone surrogates, and long ones, are short texts that a journal holds."""

    async def main() -> Lane | None:
        asyncio.current_task().set_name(name)  # type: ignore[union-attr]
        return lane_here()

    for lane in (in_a_thread(lambda target: _renamed(threading.Thread(target=target), name)), asyncio.run(main())):
        found = encoded(lane)
        assert found is not None
        assert found[0] + found[2] == name[: LONGEST_NAME - 1] + "…" * (len(name) > LONGEST_NAME) or name == "\ud800"
        assert len(found[0] + found[2]) <= LONGEST_NAME


def _renamed(thread: threading.Thread, name: str) -> threading.Thread:
    thread.name = name
    return thread


def test_secrets_in_names_are_masked() -> None:
    """Credentials in the names of threads and tasks are masked, as in other names."""

    async def main() -> Lane | None:
        asyncio.current_task().set_name("poll https://me:hunter2@host/")  # type: ignore[union-attr]
        return lane_here()

    for lane in (in_a_thread(named("poll https://me:hunter2@host/")), asyncio.run(main())):
        assert lane is not None
        assert lane[0] + lane[2] == "poll https://***@host/"


class _Text(str):
    """A text of another class, which a journal cannot hold."""

    __slots__ = ()

    def __str__(self) -> str:
        return self


class _Nameless(threading.Thread):
    @property
    def name(self) -> str:  # type: ignore[override]
        raise ValueError("no name")


class _Task(asyncio.tasks._PyTask):  # type: ignore[name-defined, misc]
    def get_name(self) -> str:
        raise ValueError("no name")


def test_classes_of_others_do_no_harm() -> None:
    """Threads and tasks whose class has no name, and names of another class than `str`, raise nothing."""
    nameless = in_a_thread(lambda target: _Nameless(target=target))
    assert nameless[0] == ""
    assert nameless[1] != 0
    other = in_a_thread(lambda target: _renamed(threading.Thread(target=target), _Text("text")))
    assert encoded(other) == other
    assert other[0] == "text"

    async def main() -> Lane | None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coroutine, **_: _Task(coroutine, loop=loop))
        return await asyncio.create_task(_lane())

    assert asyncio.run(main()) is None


async def _lane() -> Lane | None:
    return lane_here()


def test_threads_of_other_languages_stay_unknown() -> None:
    """A thread that Python did not start has its identity as id, and the program does not see more threads by that."""
    found: list[Any] = []
    done = threading.Event()

    def work() -> None:
        found.extend([lane_here(), threading.get_ident(), len(threading.enumerate())])
        done.set()

    count = len(threading.enumerate())
    _thread.start_new_thread(work, ())
    assert done.wait(30)
    assert found == [("", found[1], "", 0), found[1], count]
