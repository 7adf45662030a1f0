"""Gives parameters and metrics in a report the names that the program gave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import msgspec

from trackdsl.store_format.changes.stored import Stored
from trackdsl.store_format.original_names import originals_of
from trackdsl.store_format.report.material import Material
from trackdsl.store_format.report.node import Node, RunNode, walk

T = TypeVar("T")


def with_original_names(material: Material) -> Material:
    """The material with the original names of parameters and metrics, where the store has others."""
    names = originals_of(walk(material.tree))
    if not names:
        return material
    return replace(
        material,
        tree=_tree(material.tree, names),
        curves=[replace(curve, key=names.get(curve.key, curve.key)) for curve in material.curves],
        changes=None if material.changes is None else _changes(material.changes, names),
    )


def _tree(tree: RunNode, names: Mapping[str, str]) -> Node:
    nodes: dict[str, Node] = {}
    for run in reversed(list(walk(tree))):
        nodes[run.run_id] = Node(
            run_id=run.run_id,
            name=run.name,
            status=run.status,
            duration=run.duration,
            start=run.start,
            params=_renamed(run.params, names),
            metrics=_renamed(run.metrics, names),
            tags=run.tags,
            children=[nodes[child.run_id] for child in run.children],
        )
    return nodes[tree.run_id]


def _renamed(values: Mapping[str, T], names: Mapping[str, str]) -> dict[str, T]:
    return {names.get(name, name): value for name, value in values.items()}


def _changes(stored: Stored, names: Mapping[str, str]) -> Stored:
    found = stored.changes
    renamed = msgspec.structs.replace(
        found,
        changes=tuple(
            msgspec.structs.replace(one, name=names.get(one.name, one.name)) if one.kind == "param" else one
            for one in found.changes
        ),
        parts_by=tuple(names.get(name, name) for name in found.parts_by),
        metrics=tuple(msgspec.structs.replace(one, name=names.get(one.name, one.name)) for one in found.metrics),
    )
    return msgspec.structs.replace(stored, changes=renamed)
