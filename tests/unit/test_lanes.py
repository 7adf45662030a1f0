"""Lanes of timelines: threads, tasks and processes in reports and traces, few and thousands of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.test_report import HOSTILE, Page, Store
from tests.unit.test_timeline import run
from trackdsl.query._trace_formats import chrome_trace, mermaid, speedscope
from trackdsl.query._tree import RunTree
from trackdsl.store_format.report.chart import ChartLayout, layout
from trackdsl.store_format.report.lanes import MOST_BLOCKS, MOST_HEADINGS
from trackdsl.store_format.report.material import collect
from trackdsl.store_format.report.page import LARGEST, report_html
from trackdsl.store_format.report.timeline import timeline


def thread(number: int, name: str = "") -> dict[str, Any]:
    """The fields of a call in a thread."""
    return {"thread": name or f"worker-{number}", "thread_id": number}


def task(number: int, name: str = "") -> dict[str, Any]:
    """The fields of a call in a task of the main thread."""
    return {"task": name or f"Task-{number}", "task_id": number}


def chart_of(tree: RunTree) -> ChartLayout:
    return layout(timeline(tree), set())


def page_of(tree: RunTree) -> Page:
    return Page(report_html(collect(tree, Store())))


def program(pool: int = 2, tasks: int = 2) -> RunTree:
    """A pipeline with a pool of threads and with tasks, each of which has a stage inside."""
    stages = [
        run(f"in {n}", n, 40 + n, run("inner", n, 20 + n, lane=thread(n)), lane=thread(n)) for n in range(1, pool + 1)
    ]
    waits = [
        run(f"of {n}", 50 + n, 90 + n, run("awaited", 60, 80, lane=task(n)), lane=task(n)) for n in range(1, tasks + 1)
    ]
    return run("main", 0, 200, *stages, *waits, run("last", 150, 190))


def test_each_thread_and_task_has_a_lane() -> None:
    """Stages of one thread or task are in its lane, nested, below its name; the main thread has the first lane."""
    chart = chart_of(program())
    assert [name.name for name in chart.names] == ["MainThread", "worker-1", "worker-2", "Task-1", "Task-2"]
    assert {bar.span.run.name: (bar.lane, bar.span.depth) for bar in chart.bars} == {
        "main": ("MainThread", 0), "last": ("MainThread", 1),
        "in 1": ("worker-1", 0), "in 2": ("worker-2", 0), "inner": ("worker-2", 1),
        "of 1": ("Task-1", 0), "of 2": ("Task-2", 0), "awaited": ("Task-2", 1),
    }  # fmt: skip
    assert len({bar.y for bar in chart.bars}) == 10
    data = page_of(program()).data()
    assert [data["names"][at] for at in data["bars"]["lane"]] == [bar.lane for bar in chart.bars]
    assert page_of(run("main", 0, 9)).data()["bars"]["lane"] == []


def test_the_stages_of_a_thread_are_in_one_row() -> None:
    """A pool's thread that works for several stages in turn has one row, whatever the order of these in the tree."""
    first = run("a", 0, 100, run("x", 50, 60, lane=thread(7)), lane=task(1))
    second = run("b", 0, 100, run("y", 10, 20, lane=thread(7)), run("z", 20, 50, lane=thread(7)), lane=task(2))
    found = [span for span in timeline(run("main", 0, 100, first, second)) if span.lane.thread]
    assert [(span.run.name, span.track, span.depth) for span in found] == [("y", 0, 0), ("z", 0, 0), ("x", 0, 0)]


def test_what_overlaps_in_one_lane_has_tracks() -> None:
    """Stages of one thread that overlap without being inside each other have a row each."""
    both = [run("a", 10, 50, lane=thread(1)), run("b", 30, 60, lane=thread(1))]
    chart = chart_of(run("main", 0, 100, *both))
    assert [name.name for name in chart.names] == ["MainThread", "worker-1", "at the same time, 2"]


def test_names_of_lanes_are_distinct() -> None:
    """Tasks of one name have a number, a task of another thread names it, and an unknown thread has its own number."""
    both = {**task(4), **thread(8)}
    lanes = [task(1, "poll"), task(2, "poll"), both, {"thread_id": 99}]
    chart = chart_of(run("main", 0, 9, *(run("a", 1, 8, lane=lane) for lane in lanes)))
    names = ["MainThread", "poll", "poll #2", "Task-4 in worker-8", "thread 99"]
    assert [name.name for name in chart.names] == names


def test_other_processes_are_named() -> None:
    """Lanes of another process begin with its host and process id, and with the rank, where it has one."""
    ranked = run("rank", 1, 8, run("load", 2, 3, process=("gpu", 7), lane=thread(5)), process=("gpu", 7),
                 tags={"trackdsl.rank": "3"})  # fmt: skip
    chart = chart_of(run("main", 0, 9, run("there", 1, 8, process=("other", 2)), ranked))
    assert [name.name for name in chart.names] == [
        "process 1 on host",
        "process 2 on other",
        "rank 3, process 7 on gpu: MainThread",
        "rank 3, process 7 on gpu: worker-5",
    ]


def test_a_trace_has_a_track_for_each_thread_and_task() -> None:
    """In Perfetto, a process has a named track for each of its threads and tasks; in speedscope, each is a profile."""
    tree = program()
    events = chrome_trace(timeline(tree))["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert list(names.values()) == ["MainThread", "worker-1", "worker-2", "Task-1", "Task-2"]
    shown = {(event["name"], names[event["tid"]]) for event in events if event["ph"] == "X"}
    assert shown == {
        ("main", "MainThread"), ("last", "MainThread"), ("in 1", "worker-1"), ("inner", "worker-1"),
        ("in 2", "worker-2"), ("inner", "worker-2"), ("of 1", "Task-1"), ("awaited", "Task-1"), ("of 2", "Task-2"),
        ("awaited", "Task-2"),
    }  # fmt: skip
    assert {event["pid"] for event in events} == {1}
    profiles = speedscope(timeline(tree))["profiles"]
    assert [profile["name"] for profile in profiles] == ["MainThread", "worker-1", "worker-2", "Task-1", "Task-2"]
    assert "    section worker-2" in mermaid(timeline(tree)).splitlines()


@pytest.mark.parametrize("what", ["tasks", "threads", "unknown", "processes"])
@pytest.mark.parametrize("together", [False, True])
def test_thousands_of_lanes(what: str, together: bool) -> None:
    """Thousands of lanes have few headings and rows; those that are not busy at the same time share rows."""
    facts: dict[str, Any] = {
        "tasks": lambda n: {"lane": task(n)},
        "threads": lambda n: {"lane": thread(n)},
        "unknown": lambda _: {},
        "processes": lambda n: {"process": ("host", n)},
    }
    begins = [0 if together else at * 2 for at in range(1, 5000)]
    items = [run(f"a{at}", at, at + 2, **facts[what](number)) for number, at in enumerate(begins, 2)]
    chart = chart_of(run("main", 0, 10_000, *items))
    assert len(chart.bars) == 5000
    assert len(chart.names) <= MOST_HEADINGS
    assert len({bar.y for bar in chart.bars}) <= 2 * MOST_BLOCKS + 1
    assert chart.height < 16_000, "a browser draws no larger canvas sharply"
    if not together:
        assert len({bar.y for bar in chart.bars}) == 2
    elif what != "unknown":
        assert chart.names[-1].name == f"4,999 {what}, some drawn over others"
    if what == "tasks":
        html = report_html(collect(run("main", 0, 10_000, *items), Store()))
        assert len(html.encode()) < LARGEST
        assert len(Page(html).data()["bars"]["start"]) == 5000


def test_few_threads_keep_their_lanes_beside_thousands_of_tasks() -> None:
    """Only the most numerous kind of lanes shares a heading."""
    items = [run("a", at, at + 1, lane=task(at)) for at in range(1, 500)]
    chart = chart_of(run("main", 0, 1000, *(run("t", 0, 9, lane=thread(at)) for at in (1, 2)), *items))
    assert [name.name for name in chart.names] == ["MainThread", "worker-1", "worker-2", "499 tasks"]


@pytest.mark.parametrize("text", [*HOSTILE, "x" * 4000])
def test_hostile_names_of_threads_and_tasks_are_inert(text: str) -> None:
    """Markup, control characters and long texts in names of threads and tasks are short text in pages and traces."""
    lanes = [thread(1, text), task(2, text), {**task(3, text), **thread(4, text)}]
    tree = run("main", 0, 100, *(run("a", 0, 50, lane=lane) for lane in lanes))
    page, clean = page_of(tree), page_of(program())
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in clean.elements}
    assert [tag for tag, _ in page.elements].count("script") == 2
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "srcdoc"]
        assert len(attributes.get("title") or "") < 700
    assert not any(sign in page.scripts[0] for sign in "<>&\u2028\x00\x1b")
    assert len({name[:80] for name, _ in page.data()["lanes"]}) == 4
    written = json.dumps([chrome_trace(timeline(tree)), speedscope(timeline(tree))], ensure_ascii=False)
    assert not any(sign in written for sign in "\u202e\u2028\x00\x1b")
    assert len(written) < 10_000
    assert len(mermaid(timeline(tree)).splitlines()) == 4 + 4 + 4


def test_lanes_of_others_are_not_trusted() -> None:
    """Anybody can set the tag: facts about a thread that have another type count as missing."""
    lane = {"thread": 5, "thread_id": "7", "task": ["x"], "task_id": True}
    assert len({span.lane for span in timeline(run("main", 0, 9, run("a", 1, 2, lane=lane)))}) == 1
