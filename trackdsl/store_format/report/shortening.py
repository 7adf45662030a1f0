"""Shortens what a report shows, for a page that would be too large: names, values, and how many there are of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice

import msgspec

from trackdsl.store_format.call_tag import CALL_TAG
from trackdsl.store_format.changes.stored import Stored
from trackdsl.store_format.report.material import Material
from trackdsl.store_format.report.node import Node, RunNode, walk

#: These are objects, which must stay whole.
_WHOLE = (CALL_TAG,)
_SENTENCE = "Parts of long names and values, and some parameters, metrics and sources: the page would be too large."


@dataclass(frozen=True)
class Lengths:
    """Limits for what is kept of each run.

    Attributes:
        name: the characters of its name.
        value: the characters of a parameter, and of the name of a parameter or metric.
        entries: how many parameters, how many metrics, and how many tags of the user.
        text: the characters of a tag, such as a traceback.
        source: the characters of all sources together, and of all diffs together.
    """

    name: int
    value: int
    entries: int
    text: int
    source: int


#: From long to short: with the last one, the page of a tree of any size that is read is small enough.
LENGTHS = (
    Lengths(name=40, value=200, entries=30, text=4000, source=100_000),
    Lengths(name=24, value=100, entries=12, text=1000, source=50_000),
    Lengths(name=12, value=40, entries=4, text=200, source=20_000),
    Lengths(name=6, value=0, entries=0, text=100, source=0),
)


def shortened(material: Material, lengths: Lengths) -> Material:
    """The material with less of each run.

    Args:
        material: what a report shows.
        lengths: the limits for each run.
    """
    return replace(
        material,
        tree=_tree(material.tree, lengths),
        changes=None if material.changes is None else _changes(material.changes, lengths),
        sources=_first(material.sources, lengths.source),
        left_out=[*material.left_out, _SENTENCE],
    )


def _tree(tree: RunNode, lengths: Lengths) -> Node:
    nodes: dict[str, Node] = {}
    for run in reversed(list(walk(tree))):
        nodes[run.run_id] = Node(
            run_id=run.run_id,
            name=_middle_cut(run.name, lengths.name),
            status=run.status,
            duration=run.duration,
            start=run.start,
            params={
                _cut(key, lengths.value): _cut(text, lengths.value)
                for key, text in islice(sorted(run.params.items()), lengths.entries)
            },
            metrics={
                _cut(key, lengths.value): value for key, value in islice(sorted(run.metrics.items()), lengths.entries)
            },
            tags=_tags(run.tags, lengths),
            children=[nodes[child.run_id] for child in run.children],
        )
    return nodes[tree.run_id]


def _tags(tags: Mapping[str, str], lengths: Lengths) -> dict[str, str]:
    known = {key: text for key, text in tags.items() if key.startswith(("trackdsl.", "mlflow."))}
    others = islice((item for item in sorted(tags.items()) if item[0] not in known), lengths.entries)
    return {key: text if key in _WHOLE else _cut(text, lengths.text) for key, text in (*known.items(), *others)}


def _changes(stored: Stored, lengths: Lengths) -> Stored:
    most = 2 * lengths.entries
    found = stored.changes
    fewer = msgspec.structs.replace(
        found,
        changes=found.changes[:most],
        metrics=found.metrics[:most],
        left_out=found.left_out + max(0, len(found.changes) - most),
    )
    return msgspec.structs.replace(stored, changes=fewer, diffs=_first(stored.diffs, lengths.source))


def _first(texts: Mapping[str, str], length: int) -> dict[str, str]:
    """The first texts that have this many characters together."""
    found: dict[str, str] = {}
    for key, text in texts.items():
        if len(text) <= length:
            found[key] = text
            length -= len(text)
    return found


def _middle_cut(text: str, longest: int) -> str:
    """The beginning and the end of a name, because names of the same kind differ at their end."""
    return text if len(text) <= longest else f"{text[: longest - longest // 2 - 1]}…{text[-(longest // 2) :]}"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: max(0, longest - 1)]}…"
