"""Timelines of run trees, and the traces and charts that are made of them."""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackdsl.query._trace_formats import chrome_trace, mermaid, speedscope
from trackdsl.query._tree import RunTree
from trackdsl.store_format.report.timeline import Span, timeline

BEGAN = 1_700_000_000_000
_ids = itertools.count()


def run(
    name: str,
    start: int | None,
    end: int | None,
    *children: RunTree,
    status: str = "FINISHED",
    process: tuple[str, int] | None = ("host", 1),
    **values: Any,
) -> RunTree:
    """A run that began and ended this many milliseconds after `BEGAN`."""
    facts = {"host": process[0], "pid": process[1], **values.get("lane", {})} if process is not None else {}
    call = {"trackdsl.call": json.dumps(facts)} if facts else {}
    return RunTree(
        run_id=f"{next(_ids):032x}",
        id=None,
        name=name,
        status=status,
        duration=None if start is None or end is None else (end - start) / 1000,
        start=None if start is None else datetime.fromtimestamp((BEGAN + start) / 1000, UTC).isoformat(),
        params=values.get("params", {}),
        metrics=values.get("metrics", {}),
        tags={**call, **values.get("tags", {})},
        children=children,
    )


def shown(spans: list[Span]) -> list[tuple[str, int, int, int]]:
    return [(span.run.name, span.track, span.start - BEGAN, span.end - BEGAN) for span in spans]


def test_runs_at_the_same_time_have_different_tracks() -> None:
    """A child is in the track of its parent, unless another one is there; the next one is in the first track again."""
    tree = run(
        "main", 0, 100,
        run("a", 10, 50, run("a1", 20, 30)), run("b", 15, 60, run("b1", 15, 60)), run("c", 50, 70), run("d", 65, 80),
    )  # fmt: skip
    assert shown(timeline(tree)) == [
        ("main", 0, 0, 100), ("a", 0, 10, 50), ("b", 1, 15, 60), ("b1", 1, 15, 60), ("a1", 0, 20, 30),
        ("c", 0, 50, 70), ("d", 1, 65, 80),
    ]  # fmt: skip


def test_each_process_has_tracks_of_its_own() -> None:
    """What another process recorded does not take a track of this one; a run of plain MLflow is where its parent is."""
    tree = run("main", 0, 9, run("there", 1, 8, run("plain", 2, 3, process=None), process=("other", 7)), run("b", 1, 8))
    spans = timeline(tree)
    assert [(span.run.name, span.process.name, span.track) for span in spans] == [
        ("main", "process 1 on host", 0),
        ("there", "process 7 on other", 0),
        ("b", "process 1 on host", 0),
        ("plain", "process 7 on other", 0),
    ]


def test_runs_without_an_end_last_as_long_as_what_is_below() -> None:
    """An open run lasts as long as the runs below it; one without a start is left out, and those below it are not."""
    tree = run("main", 0, None, run("a", 5, 20), run("b", None, None, run("c", 30, None)), status="RUNNING")
    assert shown(timeline(tree)) == [("main", 0, 0, 20), ("a", 0, 5, 20), ("c", 0, 30, 30)]


@st.composite
def trees(draw: st.DrawFn) -> RunTree:
    """Trees whose runs may be in any order, at any time, in several processes."""
    children = draw(st.recursive(st.just([]), lambda below: st.lists(below, max_size=4), max_leaves=25))

    def made(below: list[Any]) -> RunTree:
        start = draw(st.integers(0, 20))
        end = draw(st.none() | st.integers(0, 20))
        process = draw(st.sampled_from([("a", 1), ("a", 2), ("b", 1), None]))
        lane = draw(st.sampled_from([{}, {}, {"thread": "t", "thread_id": 2}, {"task": "x", "task_id": 3}]))
        inside = sorted(map(made, below), key=lambda child: child.start or "")
        return run("r", start, end, *inside, process=process, lane=lane)

    return made(children)


@given(trees())
def test_the_runs_of_a_track_never_cross(tree: RunTree) -> None:
    """Every run is in the timeline once, after its parent, in the lane that its tag names, or in that of its parent.

    Two runs of one track are one after the other, or one inside the other.
    """
    spans = timeline(tree)
    assert sorted(span.run.run_id for span in spans) == sorted(run.run_id for run in tree.walk())
    places = {span.run.run_id: at for at, span in enumerate(spans)}
    lanes = {span.run.run_id: span.lane for span in spans}
    for at, span in enumerate(spans):
        assert all(places[child.run_id] > at for child in span.run.children)
        assert span.run.tags or all(lanes[child.run_id] == span.lane for child in span.run.children if not child.tags)
    for one, other in itertools.combinations(spans, 2):
        if (one.lane, one.track) == (other.lane, other.track):
            apart = one.end <= other.start or other.end <= one.start
            inside = one.start <= other.start and other.end <= one.end
            around = other.start <= one.start and one.end <= other.end
            assert apart or inside or around
            assert apart or one.depth != other.depth


def test_a_trace_has_the_runs_in_microseconds() -> None:
    """Each run is a complete event with its values; processes and tracks have names; NaN is text, as JSON has none."""
    tree = run(
        "main", 0, 4,
        run("fit", 1, 3, params={"lr": "0.1"}, metrics={"loss": float("nan")}, status="FAILED",
            tags={"trackdsl.exception.type": "ValueError"}, process=("b", 2)),
    )  # fmt: skip
    trace = json.loads(json.dumps(chrome_trace(timeline(tree)), allow_nan=False))
    names = [event["args"]["name"] for event in trace["traceEvents"] if event["ph"] == "M"]
    assert names == ["process 1 on host", "runs", "process 2 on b", "runs"]
    main, fit = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert (main["pid"], main["tid"], main["ts"], main["dur"]) == (1, 1, 0, 4000)
    assert (fit["pid"], fit["tid"], fit["ts"], fit["dur"], fit["cat"]) == (2, 2, 1000, 2000, "FAILED")
    assert fit["args"] == {
        "run_id": tree.children[0].run_id, "path": "main/fit", "status": "FAILED", "failure": "ValueError",
        "params": {"lr": "0.1"}, "metrics": {"loss": "nan"},
    }  # fmt: skip


@given(trees())
def test_perfetto_gets_its_tracks(tree: RunTree) -> None:
    """Each track has a name, and a number that no other one has; the first of a process has that of the process."""
    spans = timeline(tree)
    events = chrome_trace(spans)["traceEvents"]
    named = [event for event in events if event["name"] == "thread_name"]
    assert len({event["tid"] for event in named}) == len(named)
    processes = [event for event in events if event["name"] == "process_name"]
    assert [event["pid"] for event in processes] == [event["tid"] for event in processes]
    assert {event["pid"] for event in named} == {event["pid"] for event in processes}
    found = {(event["pid"], event["tid"]) for event in named}
    shown = [event for event in events if event["ph"] == "X"]
    assert len(shown) == len(spans)
    tracks: dict[tuple[int, int], set[Any]] = {}
    for span, event in zip(spans, shown, strict=True):
        tracks.setdefault((event["pid"], event["tid"]), set()).add((span.lane, span.track))
    assert set(tracks) <= found
    assert all(len(each) == 1 for each in tracks.values())


@given(trees())
def test_speedscope_gets_nested_runs(tree: RunTree) -> None:
    """In each profile, times never go back, each run closes after those inside it, and all runs are there once."""
    spans = timeline(tree)
    found = json.loads(json.dumps(speedscope(spans)))
    opened = 0
    for profile in found["profiles"]:
        stack, last = [], profile["startValue"]
        for event in profile["events"]:
            assert event["at"] >= last
            last = event["at"]
            if event["type"] == "O":
                stack.append(event["frame"])
                opened += 1
            else:
                assert stack.pop() == event["frame"]
        assert (stack, last) == ([], profile["endValue"])
    assert opened == len(spans)


def test_speedscope_adds_up_the_runs_of_a_stage() -> None:
    """Runs of one name are one frame, whatever their parameters; those that failed are another one."""
    tree = run(
        "main", 0, 9, run("fit", 1, 3, params={"lr": "0.1"}), run("fit", 3, 5), run("fit", 5, 6, status="FAILED")
    )
    found = speedscope(timeline(tree))
    assert [frame["name"] for frame in found["shared"]["frames"]] == ["main", "fit", "fit (failed)"]
    (profile,) = found["profiles"]
    assert (profile["name"], profile["unit"]) == ("process 1 on host", "milliseconds")
    assert [(event["type"], event["frame"], event["at"]) for event in profile["events"]] == [
        ("O", 0, 0), ("O", 1, 1), ("C", 1, 3), ("O", 1, 3), ("C", 1, 5), ("O", 2, 5), ("C", 2, 6), ("C", 0, 9),
    ]  # fmt: skip


def test_what_still_runs_reaches_now() -> None:
    """What still runs of a tree reaches the time that is given, in every format; what was left open in it does not."""
    two = run("two", 30, None, status="RUNNING")
    spans = timeline(run("main", 0, None, run("one", 10, 30), two, status="RUNNING"), now=BEGAN + 2000)
    assert shown(spans) == [("main", 0, 0, 2000), ("one", 0, 10, 30), ("two", 0, 30, 2000)]
    assert [event["dur"] for event in chrome_trace(spans)["traceEvents"][-3:]] == [2_000_000, 20_000, 1_970_000]
    assert speedscope(spans)["profiles"][0]["endValue"] == 2000
    assert mermaid(spans).splitlines()[-1] == "    · two 2.0 s :active, 30, 2000"
    over = run("main", 0, 100, run("lost", 10, None, status="RUNNING"))
    assert shown(timeline(over, now=BEGAN + 2000)) == [("main", 0, 0, 100), ("lost", 0, 10, 10)]


def test_a_chart_has_a_section_for_each_track() -> None:
    """Runs are tasks in the sections of their tracks, with marks for their status, in milliseconds since the first."""
    tree = run("main", 0, 100, run("a", 10, 50), run("b", 15, 60, status="KILLED"), run("c", 70, 70))
    assert mermaid(timeline(tree)).splitlines() == [
        "gantt",
        "    title main",
        "    dateFormat x",
        "    axisFormat %S.%L",
        "    section process 1 on host",
        "    #109;ain 100 ms :done, 0, 100",
        "    · a 40 ms :done, 10, 50",
        "    · c 0 ms :done, 70, 71",
        "    section process 1 on host, 2",
        "    · b 45 ms :crit, 15, 60",
    ]


@given(st.text())
def test_names_cannot_change_a_chart(name: str) -> None:
    """Whatever a run is called, its task is one line, and no sign of the name has a meaning there."""
    *_, task = mermaid(timeline(run(name, 0, 1))).splitlines()
    assert re.fullmatch(r"    (?:[\w \-./=+(),·…]|#\d+;)* 1 ms :done, 0, 1", task)


@pytest.mark.parametrize("name", ["title x", "section x", "click x", "gantt", "excludes weekends", "2024-01-01", ""])
def test_names_are_no_words_of_the_language(name: str) -> None:
    """A task begins with no word that Mermaid knows, and with no date; a chart always has a title."""
    _, title, *_, task = mermaid(timeline(run(name, 0, 1))).splitlines()
    assert re.fullmatch(r"    (#\d+;.*|) 1 ms :done, 0, 1", task)
    assert title == f"    title {name or 'unnamed'}"


def test_a_long_chart_says_what_is_left_out() -> None:
    """A chart of more than 50,000 characters, Mermaid's limit, says what is left out."""
    chart = mermaid(timeline(run("main", 0, 5000, *(run(f"step {n}", n, n + 1) for n in range(3000)))))
    assert len(chart) <= 50_000
    left_out = int(re.findall(r"%% (\d+) more runs are left out", chart)[0])
    assert chart.count(":done") + left_out == 3001


def test_an_hour_has_the_time_of_day() -> None:
    """A chart of an hour or more shows the time of day."""
    chart = mermaid(timeline(run("main", 0, 3_600_000)))
    assert f":done, {BEGAN}, {BEGAN + 3_600_000}" in chart
    assert "axisFormat %H:%M" in chart
