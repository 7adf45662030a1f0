"""A timeline of runs in the formats of other programs: Perfetto, speedscope and Mermaid."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from trackdsl._core.escaping import printable
from trackdsl._core.readable import is_finite
from trackdsl.query import _shown
from trackdsl.store_format.original_names import with_originals
from trackdsl.store_format.report.lanes import MAIN, labels_of, titles_of
from trackdsl.store_format.report.timeline import Lane, Process, Span

#: The marks of a chart's tasks by the status of the run.
_MARKS = {"FINISHED": "done, ", "FAILED": "crit, ", "KILLED": "crit, ", "RUNNING": "active, "}
#: Signs with a meaning in a chart are written as entities: https://mermaid.js.org/syntax/flowchart.html
_SIGNS = re.compile(r"[^\w \-./=+(),·…]")
#: Mermaid draws no longer texts: https://mermaid.js.org/config/schema-docs/config.html (`maxTextSize`).
_LONGEST_CHART = 50_000
_LONGEST_NAME = 80


def chrome_trace(spans: Sequence[Span]) -> dict[str, Any]:
    """A timeline in the Trace Event Format, which https://ui.perfetto.dev opens.

    So does https://speedscope.app, but there the details are a part of each name: no two runs count as the same stage.

    Every track has a number of its own, and a process that of its first track: Perfetto finds the name of a track by
    its number only, and shows the track with the number of the process first. Times are in microseconds since the first
    run began. The format is described in
    https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.

    Args:
        spans: the runs, from `timeline`.

    Returns:
        the trace, which can be written as JSON.
    """
    first = min((span.start for span in spans), default=0)
    numbers, events = _numbered(spans)
    processes = {lane.process: number for (lane, _), number in reversed(numbers.items())}
    for span in spans:
        events.append(
            {
                "ph": "X",
                "name": printable(span.run.name),
                "cat": span.run.status,
                "pid": processes[span.process],
                "tid": numbers[span.lane, span.track],
                "ts": (span.start - first) * 1000,
                "dur": (span.end - span.start) * 1000,
                "args": _arguments(span),
            }
        )
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _numbered(spans: Sequence[Span]) -> tuple[dict[tuple[Lane, int], int], list[dict[str, Any]]]:
    """The number of each track, those of a process together, and the events with the names of processes and tracks."""
    lanes: dict[Process, dict[Lane, int]] = {}
    for span in spans:
        of_process = lanes.setdefault(span.process, {})
        of_process[span.lane] = max(of_process.get(span.lane, 0), span.track + 1)
    titles = titles_of(spans)
    numbers: dict[tuple[Lane, int], int] = {}
    events: list[dict[str, Any]] = []

    def name(kind: str, text: str, pid: int, tid: int) -> None:
        events.append({"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": printable(text)}})

    for process, of_process in lanes.items():
        pid = len(numbers) + 1
        name("process_name", titles[process], pid, pid)
        for lane, count in of_process.items():
            own = lane.name or (MAIN if len(of_process) > 1 else "runs")
            for track in range(count):
                tid = numbers[lane, track] = len(numbers) + 1
                name("thread_name", f"{own} at the same time, {track + 1}" if track else own, pid, tid)
    return numbers, events


def _arguments(span: Span) -> dict[str, Any]:
    """The details of a run that the trace shows when the run is selected."""
    run = span.run
    shown: dict[str, Any] = {"run_id": run.run_id, "path": "/".join(span.path), "status": run.status}
    if run.failure is not None:
        shown["failure"] = run.failure
    if run.params:
        shown["params"] = with_originals(run.params, run)
    if run.metrics:
        shown["metrics"] = _numbers(with_originals(run.metrics, run))
    return shown


def speedscope(spans: Sequence[Span]) -> dict[str, Any]:
    """A timeline in the format of https://speedscope.app, with a profile for each thread and task.

    Runs of one name and status are one frame, so that speedscope adds up their times. The format is described in
    https://github.com/jlfwong/speedscope/wiki/Importing-from-custom-sources.

    Args:
        spans: the runs, from `timeline`.

    Returns:
        the file, which can be written as JSON.
    """
    first = min((span.start for span in spans), default=0)
    frames: dict[str, int] = {}
    labels = labels_of(spans)
    tracks: dict[tuple[Lane, int], list[Span]] = {}
    for span in spans:
        tracks.setdefault((span.lane, span.track), []).append(span)
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": printable(spans[0].run.name) if spans else "",
        "profiles": [
            {
                "type": "evented",
                "name": printable(_section(track[0], labels)),
                "unit": "milliseconds",
                "startValue": 0,
                "endValue": max(span.end for span in track) - first,
                "events": _openings_and_closings(track, first, frames),
            }
            for track in tracks.values()
        ],
        "shared": {"frames": [{"name": name} for name in frames]},
    }


def _openings_and_closings(track: Sequence[Span], first: int, frames: dict[str, int]) -> list[dict[str, Any]]:
    """The events of a track, in which each run closes after those inside it; enters its frames into `frames`."""
    events: list[dict[str, Any]] = []
    open_: list[tuple[int, int]] = []

    def close_before(time: int) -> None:
        while open_ and open_[-1][0] <= time:
            end, frame = open_.pop()
            events.append({"type": "C", "frame": frame, "at": end - first})

    for span in track:
        close_before(span.start)
        name = printable(span.run.name)
        label = name if span.run.status == "FINISHED" else f"{name} ({span.run.status.lower()})"
        frame = frames.setdefault(label, len(frames))
        events.append({"type": "O", "frame": frame, "at": span.start - first})
        open_.append((span.end, frame))
    close_before(max(span.end for span in track))
    return events


def _numbers(values: Mapping[str, float]) -> dict[str, float | str]:
    """JSON has no NaN and no infinity."""
    return {name: value if is_finite(value) else _shown.number(value) for name, value in sorted(values.items())}


def mermaid(spans: Sequence[Span]) -> str:
    """A timeline as a Gantt chart of Mermaid, which a README on GitHub can show.

    A chart that would be longer than Mermaid draws has the first runs, and says how many are left out. The format is
    described in https://mermaid.js.org/syntax/gantt.html.

    Args:
        spans: the runs, from `timeline`.
    """
    first = min((span.start for span in spans), default=0)
    length = max((span.end for span in spans), default=0) - first
    if length >= 3_600_000:  # The axis of a long chart has the time of day.
        first = 0
    axis = "%H:%M" if not first else "%M:%S" if length >= 60_000 else "%S.%L"
    name = (spans[0].run.name.strip() or "unnamed") if spans else "no runs"
    lines = ["gantt", f"    title {_chart_text(name)}", "    dateFormat x", f"    axisFormat {axis}"]
    room = _LONGEST_CHART - 200 - sum(map(len, lines))
    labels = labels_of(spans)
    sections: dict[str, list[str]] = {}
    for count, span in enumerate(spans):
        section, task = f"    section {_chart_text(_section(span, labels))}", _task(span, first)
        room -= len(task) + 1 + (0 if section in sections else len(section) + 1)
        if room < 0:
            lines.append(f"    %% {len(spans) - count} more runs are left out: the chart would be too long")
            break
        sections.setdefault(section, []).append(task)
    for section, tasks in sections.items():
        lines += [section, *tasks]
    return "\n".join([*lines, ""])


def _task(span: Span, first: int) -> str:
    label = _chart_text(f"{'· ' * (len(span.path) - 1)}{span.run.name}")
    if label[:1].isalnum():  # A line that begins with a date or a keyword, as `title`, would not be a task.
        label = f"#{ord(label[0])};{label[1:]}"
    start, end = span.start - first, max(span.end, span.start + 1) - first
    long = _shown.duration((span.end - span.start) / 1000 if span.run.duration is None else span.run.duration)
    return f"    {label} {long} :{_MARKS.get(span.run.status, '')}{start}, {end}"


def _section(span: Span, labels: Mapping[Lane, str]) -> str:
    return labels[span.lane] if not span.track else f"{labels[span.lane]}, {span.track + 1}"


def _chart_text(text: str) -> str:
    short = printable(text)
    short = short if len(short) <= _LONGEST_NAME else f"{short[: _LONGEST_NAME - 1]}…"
    return _SIGNS.sub(lambda sign: f"#{ord(sign[0])};", short)
