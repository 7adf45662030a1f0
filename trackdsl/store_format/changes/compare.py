"""Compares two recorded trees. Nothing here reads a store or a file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from trackdsl.store_format.changes.recorded import Program, Recorded, Stage

#: The kinds of changes, in the order in which they are listed.
KINDS = ("param", "dataset", "source", "stage", "package", "python", "commit", "patch")
#: More changes and metrics are counted only.
_MOST = 500
#: The most similar is searched for among at most this many stages of one path.
_MOST_ALIKE = 50


class Change(msgspec.Struct, frozen=True):
    """One difference between two trees.

    Attributes:
        kind: one of `KINDS`.
        name: of the parameter, dataset, definition, stage or package; empty for the others.
        before, after: the values, as text; None if there is none. For sources and patches, these are hashes; for
            stages the name, or how many runs there are, if that changed.
        stages: the paths of the stages that it concerns; empty for the root run's own.
        runs: how many runs it concerns.
    """

    kind: str
    name: str
    before: str | None
    after: str | None
    stages: tuple[str, ...] = ()
    runs: int = 1


class MetricDelta(msgspec.Struct, frozen=True):
    """A metric of both sides.

    Attributes:
        stage: the path of its stage, numbered if several stages have the same one; empty for the root run.
        name: its name.
        before, after: the latest values; None if there is none.
    """

    stage: str
    name: str
    before: float | None
    after: float | None


class Changes(msgspec.Struct, frozen=True):
    """The differences between two trees.

    Attributes:
        changes: what differs, by kind.
        parts_at: the path of the earliest stage whose inputs differ: parameters, datasets, source; empty for the root
            run; None if nothing differs.
        parts_by: the names of what differs there.
        metrics: the metrics of both, those of the root run first; only those that differ.
        status, seconds: of the root runs, before and after.
        left_out: how many changes are not in `changes`.
    """

    changes: tuple[Change, ...] = ()
    parts_at: str | None = None
    parts_by: tuple[str, ...] = ()
    metrics: tuple[MetricDelta, ...] = ()
    status: tuple[str, str] = ("", "")
    seconds: tuple[float | None, float | None] = (None, None)
    left_out: int = 0

    def of_kind(self, kind: str) -> list[Change]:
        """The changes of one kind."""
        return [change for change in self.changes if change.kind == kind]


def compare_trees(before: Recorded, after: Recorded) -> Changes:
    """The differences between two trees.

    Stages are compared with those of the same path. If several have the same path, those with equal parameters and
    source belong together, then those with the most equal parameters.

    Args:
        before: the earlier one.
        after: the later one.
    """
    pairs = list(pairs_of(before.stages, after.stages))
    own = _own_definitions(before, after)
    counts = _Counts(*(Counter(stage.path for stage in side.stages) for side in (before, after)))
    found: dict[tuple[str, str, str | None, str | None], list[str]] = {}
    for old, new in pairs:
        for key in _of_stage(old, new, before.program, after.program, counts):
            found.setdefault(key, []).append((new or old).path)  # type: ignore[union-attr]
    listed = [_change(key, paths) for key, paths in found.items()]
    listed += _of_program(before.program, after.program)
    listed.sort(key=lambda change: KINDS.index(change.kind))
    parts_at, parts_by = _first_difference(pairs, own, counts)
    return Changes(
        changes=tuple(listed[:_MOST]),
        parts_at=parts_at,
        parts_by=parts_by,
        metrics=tuple(_metrics(pairs))[:_MOST],
        status=(before.stages[0].status, after.stages[0].status),
        seconds=(before.stages[0].seconds, after.stages[0].seconds),
        left_out=max(0, len(listed) - _MOST),
    )


class _Counts(NamedTuple):
    """How many stages each side has of each path."""

    before: Mapping[str, int]
    after: Mapping[str, int]

    def of(self, stage: Stage) -> tuple[str | None, str | None]:
        """The values of the change: the stage's name if one side has none of its path, else how many there are."""
        path, name = stage.path, stage.name
        if not self.before[path] or not self.after[path]:
            return (name if self.before[path] else None), (name if self.after[path] else None)
        return _runs(self.before[path]), _runs(self.after[path])

    def sentence(self, stage: Stage) -> str:
        """The same, in a few words."""
        before, after = self.of(stage)
        if before is None or after is None:
            return f"{stage.name} is {'new' if before is None else 'gone'}"
        return f"{stage.name} {before} → {after}"


def _runs(count: int) -> str:
    return f"{count} run{'s' if count != 1 else ''}"


Pair = tuple[Stage | None, Stage | None]
#: What stages use of the project, by their paths: the digests of definitions, by name.
_Own = dict[str, dict[str, str]]


def pairs_of(before: Iterable[Stage], after: Iterable[Stage]) -> Iterator[Pair]:
    """The stages of both sides that belong together, in the order of the later one; those that are gone come last.

    Args:
        before: the stages of the earlier side, in order.
        after: those of the later side.
    """
    waiting: dict[str, list[Stage]] = {}
    for stage in before:
        waiting.setdefault(stage.path, []).append(stage)
    order = list(after)
    later: dict[str, list[Stage]] = {}
    for stage in order:
        later.setdefault(stage.path, []).append(stage)
    partners: dict[int, Stage] = {}
    for path, stages in later.items():
        found, waiting[path] = _partners(waiting.get(path, []), stages)
        partners |= found
    yield from ((partners.get(id(stage)), stage) for stage in order)
    yield from ((stage, None) for gone in waiting.values() for stage in gone)


def _partners(before: list[Stage], after: list[Stage]) -> tuple[dict[int, Stage], list[Stage]]:
    """The earlier stage of each later one with the same path, by its identity, and the earlier ones that are left."""
    found: dict[int, Stage] = {}
    equal: dict[Any, list[Stage]] = {}
    for stage in before if len(before) > 1 else ():
        equal.setdefault(_inputs(stage), []).append(stage)
    for stage in after:
        if same := equal.get(_inputs(stage)):
            found[id(stage)] = same.pop(0)
    taken = {id(stage) for stage in found.values()}
    left = [stage for stage in before if id(stage) not in taken]
    for stage in after:
        if left and id(stage) not in found:
            found[id(stage)] = left.pop(_most_alike(stage, left[:_MOST_ALIKE]))
    return found, left


def _most_alike(stage: Stage, others: list[Stage]) -> int:
    """The index of the stage with the most equal parameters and datasets; the first one if several have as many."""
    items = {*stage.params.items(), *stage.datasets.items()}
    alike = [len(items & {*other.params.items(), *other.datasets.items()}) for other in others]
    return alike.index(max(alike))


def _inputs(stage: Stage) -> tuple[Any, ...]:
    return stage.path, stage.digest, tuple(sorted(stage.params.items())), tuple(sorted(stage.datasets.items()))


def _of_stage(
    old: Stage | None, new: Stage | None, before: Program, after: Program, counts: _Counts
) -> Iterator[tuple[str, str, str | None, str | None]]:
    if old is None or new is None:
        one = old or new
        assert one is not None
        yield ("stage", one.path, *counts.of(one))
        return
    uses = before.uses(old), after.uses(new)
    # What a function uses may be known for one of the two runs only.
    sources = (_alone(old), _alone(new)) if uses[0] is None or uses[1] is None else (uses[0], uses[1])
    for kind, left, right in (
        ("param", old.params, new.params),
        ("dataset", old.datasets, new.datasets),
        ("source", *sources),
    ):
        yield from ((kind, *each) for each in _differences(left, right))


def _alone(stage: Stage) -> dict[str, str]:
    return {stage.function: stage.digest} if stage.function else {}


def _differences(left: Mapping[str, str], right: Mapping[str, str]) -> Iterator[tuple[str, str | None, str | None]]:
    if left == right:
        return
    for name in dict.fromkeys([*right, *left]):
        if left.get(name) != right.get(name):
            yield name, left.get(name), right.get(name)


def _change(key: tuple[str, str, str | None, str | None], paths: list[str]) -> Change:
    kind, name, before, after = key
    return Change(kind, name, before, after, tuple(dict.fromkeys(paths))[:_MOST], len(paths))


def _of_program(before: Program, after: Program) -> Iterator[Change]:
    if before.packages is not None and after.packages is not None:
        for name, old, new in sorted(_differences(before.packages, after.packages)):
            yield Change("package", name, old, new)
    if before.python and after.python and before.python != after.python:
        yield Change("python", "", before.python, after.python)
    if before.commit != after.commit:
        yield Change("commit", "", before.commit or None, after.commit or None)
    if before.patch is not None and after.patch is not None and before.patch != after.patch:
        yield Change("patch", "", before.patch or None, after.patch or None)


def _own_definitions(before: Recorded, after: Recorded) -> tuple[_Own, _Own]:
    """By path: what the stages there use of the project, without what only the stages below them use.

    So a change is where it has its effect, and not in all stages around. Paths of which that is not known on both sides
    are left out, and take nothing from those around them: else these would seem to differ.
    """
    uses = _uses(before), _uses(after)
    known: list[_Own] = [
        {path: used for path, used in one.items() if used is not None and other.get(path, used) is not None}
        for one, other in (uses, uses[::-1])
    ]
    below: dict[str, set[str]] = {path: set() for path in ("", *known[0], *known[1])}
    for path, used in (item for one in known for item in one.items()):
        for length, letter in enumerate(path):
            if letter == "/" and path[:length] in below:
                below[path[:length]].update(used)
        if path:
            below[""].update(used)
    functions = {stage.path: {stage.function} for stage in before.stages}
    for stage in after.stages:
        functions.setdefault(stage.path, set()).add(stage.function)
    left, right = (
        {
            path: {name: key for name, key in used.items() if name not in below[path] or name in functions[path]}
            for path, used in one.items()
        }
        for one in known
    )
    return left, right


def _uses(side: Recorded) -> dict[str, dict[str, str] | None]:
    """What the stages of each path use of the project; None where it is not known of one of them."""
    found: dict[str, dict[str, str] | None] = {}
    for stage in side.stages:
        used, others = side.program.uses(stage), found.get(stage.path, {})
        found[stage.path] = None if used is None or others is None else {**others, **used}
    return found


def _first_difference(pairs: list[Pair], own: tuple[_Own, _Own], counts: _Counts) -> tuple[str | None, tuple[str, ...]]:
    """The path of the earliest stage whose inputs differ, and what differs there; the root run only if no other."""
    at_root: tuple[str | None, tuple[str, ...]] = (None, ())
    for old, new in pairs:
        if old is None or new is None:
            names: tuple[str, ...] = (counts.sentence(new or old),)  # type: ignore[arg-type]
        else:
            names = tuple(_input_differences(old, new, own))
        if not names:
            continue
        path = (new or old).path  # type: ignore[union-attr]
        if path:
            return path, names[:20]
        at_root = path, names[:20]
    return at_root


def _input_differences(old: Stage, new: Stage, own: tuple[_Own, _Own]) -> Iterator[str]:
    for inputs in ((old.params, new.params), (old.datasets, new.datasets)):
        yield from (name for name, _, _ in _differences(*inputs))
    left, right = own[0].get(old.path), own[1].get(new.path)
    if left is None or right is None:
        left, right = _alone(old), _alone(new)
    yield from (f"source of {name}" for name, _, _ in _differences(left, right))


def numbered(paths: Sequence[str]) -> list[str]:
    """The labels of stages: their paths, numbered if several stages have the same one; that of the root run is empty.

    >>> numbered(["", "load", "train", "train"])
    ['', 'load', 'train #1', 'train #2']
    """
    counts, seen = Counter(paths), Counter[str]()
    labels = []
    for path in paths:
        seen[path] += 1
        labels.append(f"{path} #{seen[path]}" if path and counts[path] > 1 else path)
    return labels


def _metrics(pairs: list[Pair]) -> Iterator[MetricDelta]:
    labels = numbered([(new or old).path for old, new in pairs])  # type: ignore[union-attr]
    for (old, new), label in sorted(zip(pairs, labels, strict=True), key=lambda one: bool(one[1])):
        if old is None or new is None:
            continue
        for name in sorted({*old.metrics, *new.metrics}):
            before, after = old.metrics.get(name), new.metrics.get(name)
            if not same_number(before, after):
                yield MetricDelta(label, name, before, after)


def same_number(one: float | None, other: float | None) -> bool:
    """Whether two values of a metric are the same; NaN is NaN.

    >>> same_number(float("nan"), float("nan")), same_number(1.0, None)
    (True, False)
    """
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other))
