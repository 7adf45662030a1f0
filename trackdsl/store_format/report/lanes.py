"""How the lanes of a timeline are called, and which of them share a heading where there are many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from trackdsl._core.escaping import printable
from trackdsl.store_format.report.timeline import Lane, Process, Span
from trackdsl.store_format.tags import RANK_TAG

#: More headings than these are made fewer: lanes of one kind share one then.
MOST_HEADINGS = 40
#: Below a heading that several lanes share. Where more were busy at once, some are drawn over each other.
MOST_BLOCKS = 300
MAIN = "MainThread"
_LONGEST_RANK = 8
#: In characters, without the number of one that several lanes have.
_LONGEST_LABEL = 70
_KINDS = ("process", "thread", "task")


@dataclass
class Track:
    """A track of a lane.

    Attributes:
        lane, number: which it is.
        start, end: from its first run to the end of its last one.
        levels: how many rows it needs.
    """

    lane: Lane
    number: int
    start: int
    end: int
    levels: int = 1


@dataclass
class Heading:
    """Tracks with one name.

    Attributes:
        name: of their lane, or how many there are.
        blocks: the tracks; those in one block have the same rows, because they were busy one after the other.
    """

    name: str
    blocks: list[list[Track]] = field(default_factory=list)


def labels_of(spans: Sequence[Span]) -> dict[Lane, str]:
    """The name of each lane, for people; those of other processes than the first one begin with their process.

    Args:
        spans: the runs, from `timeline`.
    """
    lanes = list(dict.fromkeys(span.lane for span in spans))
    counts = Counter(lane.process for lane in lanes)
    titles = titles_of(spans)
    labels: dict[Lane, str] = {}
    seen: Counter[str] = Counter()
    for lane in lanes:
        own = lane.name or (MAIN if counts[lane.process] > 1 else "")
        of_first = own and lane.process == lanes[0].process
        label = printable(own if of_first else ": ".join(filter(None, (titles[lane.process], own))))
        label = label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"
        seen[label] += 1
        labels[lane] = label if seen[label] == 1 else f"{label} #{seen[label]}"
    return labels


def titles_of(spans: Iterable[Span]) -> dict[Process, str]:
    """The name of each process, with its rank in a launch."""
    titles: dict[Process, str] = {}
    for span in spans:
        rank = span.run.tags.get(RANK_TAG, "")
        if rank.isdecimal() and len(rank) < _LONGEST_RANK and span.process.pid:
            titles[span.process] = f"rank {rank}, {span.process.name}"
        titles.setdefault(span.process, span.process.name)
    return titles


def headings_of(spans: Sequence[Span], labels: dict[Lane, str]) -> list[Heading]:
    """The tracks of a timeline from the top, below at most about `MOST_HEADINGS` names.

    Args:
        spans: the runs, from `timeline`.
        labels: the names of their lanes.
    """
    tracks = _tracks_of(spans)
    keys = _shared(tracks)
    together: dict[object, list[Track]] = {}
    for track in tracks:
        together.setdefault(keys.get((track.lane, track.number), (track.lane, track.number)), []).append(track)
    titles = titles_of(spans)
    return [
        Heading(_name(members[0], labels), [members])
        if len(members) == 1
        else _heading(members, labels, titles, tracks[0])
        for members in together.values()
    ]


def _name(track: Track, labels: dict[Lane, str]) -> str:
    return f"at the same time, {track.number + 1}" if track.number else labels[track.lane]


def _tracks_of(spans: Sequence[Span]) -> list[Track]:
    """The tracks, those of a process and of a lane together."""
    found: dict[Process, dict[Lane, dict[int, Track]]] = {}
    for span in spans:
        of_lane = found.setdefault(span.process, {}).setdefault(span.lane, {})
        track = of_lane.get(span.track)
        if track is None:
            track = of_lane[span.track] = Track(span.lane, span.track, span.start, span.end)
        track.end = max(track.end, span.end)
        track.levels = max(track.levels, span.depth + 1)
    return [
        track
        for of_process in found.values()
        for of_lane in of_process.values()
        for _, track in sorted(of_lane.items())
    ]


def _kind(lane: Lane) -> str:
    return _KINDS[2 if lane.task else 1 if lane.thread or lane.thread_id else 0]


def _shared(tracks: Sequence[Track]) -> dict[tuple[Lane, int], object]:
    """The tracks that share a heading, each with what identifies it.

    The tracks of a process that are of one kind do, the most numerous kinds first, until few headings are left; and if
    there are too many processes, those of all.
    """
    kinds: dict[tuple[Process, str], list[Track]] = {}
    for track in tracks:
        kinds.setdefault((track.lane.process, _kind(track.lane)), []).append(track)
    left = len(tracks)
    shared: dict[tuple[Lane, int], object] = {}
    for key, members in sorted(kinds.items(), key=lambda item: -len(item[1])):
        if left <= MOST_HEADINGS:
            return shared
        shared |= dict.fromkeys([(track.lane, track.number) for track in members], key)
        left -= len(members) - 1
    if left <= MOST_HEADINGS:
        return shared
    home = tracks[0].lane.process
    return {(one.lane, one.number): (one.lane.process == home, _kind(one.lane)) for one in tracks}


def _heading(tracks: Sequence[Track], labels: dict[Lane, str], titles: dict[Process, str], first: Track) -> Heading:
    """Several tracks with one name: those that were not busy at the same time are in one block."""
    lanes = dict.fromkeys(track.lane for track in tracks)
    processes = dict.fromkeys(track.lane.process for track in tracks)
    kind = _kind(tracks[0].lane)
    name = f"{len(lanes):,} {kind}{'es' if kind == 'process' else 's'}"
    if len(lanes) == 1:
        name = f"{labels[tracks[0].lane]}, {len(tracks):,} at the same time"
    elif len(processes) == 1 and tracks[0].lane.process != first.lane.process:
        name = f"{titles[tracks[0].lane.process]}: {name}"
    blocks: list[list[Track]] = []
    busy: list[tuple[int, int]] = []
    crowded = False
    for track in sorted(tracks, key=lambda track: track.start):
        if busy and (busy[0][0] <= track.start or len(blocks) >= MOST_BLOCKS):
            until, number = heappop(busy)
            crowded = crowded or until > track.start
            blocks[number].append(track)
            heappush(busy, (max(until, track.end), number))
        else:
            blocks.append([track])
            heappush(busy, (track.end, len(blocks) - 1))
    return Heading(f"{name}, some drawn over others" if crowded else name, blocks)
