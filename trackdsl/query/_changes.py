"""`changes`: what changed between a root run and the last one like it, or another run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trackdsl._core.readable import difference
from trackdsl.errors import QueryError, log_once
from trackdsl.query import _shown
from trackdsl.query._paged import PagedReader
from trackdsl.query._plain_text import plain_text
from trackdsl.query._recorded_runs import RecordedRuns
from trackdsl.query._rows import FoundRun
from trackdsl.query._run_lookup import asked_for
from trackdsl.query._tree import root_of
from trackdsl.store_format.changes.compare import Change, MetricDelta
from trackdsl.store_format.changes.descriptions import valued
from trackdsl.store_format.changes.stored import PATH, Stored

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.text import Text


@dataclass(frozen=True, repr=False)
class RunChanges:
    """What changed between two root runs, and what came of it. It can be printed, and iterating gives the changes.

    Attributes:
        run_id, name: of the run.
        previous: MLflow's id of the run that it is compared with; None if there is none.
        previous_name, previous_start: its name, and when it began, in ISO 8601, UTC.
        summary: what changed, in one line.
        changes: what changed: each has `kind`, `name`, `before`, `after`, and the paths of the `stages` it concerns.
        parts_at: the path of the earliest stage whose inputs differ; empty for the root run; None if nothing differs.
        parts_by: the names of what differs there.
        metrics: the metrics that differ: each has `stage`, `name`, `before`, `after`. Where several stages have the
            same path, `stage` has their number: `train #1`.
        diffs: unified diffs of the source that changed, by name.
        unknown: sentences about what is not known.
        left_out: how many changes are not in `changes`.
    """

    run_id: str
    name: str
    previous: str | None
    previous_name: str
    previous_start: str | None
    summary: str
    changes: tuple[Change, ...]
    parts_at: str | None
    parts_by: tuple[str, ...]
    metrics: tuple[MetricDelta, ...]
    diffs: Mapping[str, str]
    unknown: tuple[str, ...]
    left_out: int = 0

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def __repr__(self) -> str:
        return f"<RunChanges of {self.name!r} {self.run_id}: {self.summary}>"

    def __str__(self) -> str:
        return plain_text(self)

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [self._title()]
        parts += [Text(f"  {line}") for line in self._lines()]
        if self.parts_at:
            named = ", ".join(map(_shown.printable, self.parts_by))
            parts.append(Text(f"The runs part at {_shown.printable(self.parts_at)}: {named}"))
        if self.metrics:
            parts.append(Text("What came of it", "bold"))
            parts += [Text(f"  {_metric(one)}") for one in self.metrics]
        for name, diff in self.diffs.items():
            parts.append(Text(f"Source of {_shown.printable(name)}" if name != _PATCH else _PATCH.capitalize(), "bold"))
            parts += [diff_line(line) for line in diff.split("\n")]
        parts += [Text(_shown.printable(sentence), "italic") for sentence in self.unknown]
        return Group(*parts)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        return f"<pre>{'<br>'.join(_shown.markup(line) for line in str(self).splitlines())}</pre>"

    def _title(self) -> Text:
        from rich.text import Text

        title = Text.assemble((_shown.printable(self.name) or "unnamed", "bold"), f" {_shown.short(self.run_id)}")
        if self.previous is None:
            return title.append(": the first run, there is nothing to compare it with")
        since = f"{_shown.printable(self.previous_name)} {_shown.short(self.previous)}"
        when = (self.previous_start or "")[:16].replace("T", " ")
        return title.append(f" since {since} of {when} UTC" + ("" if self.changes else self._nothing()))

    def _nothing(self) -> str:
        return ": nothing changed, as far as is known" if self.unknown else ": nothing changed"

    def _lines(self) -> Iterator[str]:
        yield from map(change_line, self.changes)
        if self.left_out:
            yield f"and {self.left_out} more"


_PATCH = "uncommitted changes"
_LONGEST_PATH = 80


def changes(run: Any, since: Any = None, *, tracking_uri: str | None = None) -> RunChanges:
    """What changed between a root run and the last one like it: the same experiment, and the same function or script.

    Delivery finds it out a moment after a root run has ended, and keeps it with the run. As long as a delivery process
    is at work on that, this waits for it. With `since`, the runs are compared now.

    Args:
        run: a root run: a `Run`, MLflow's or trackdsl's id of it or its first characters, its name, or an MLflow run.
            Of a run below it, the root run counts, and a message says so.
        since: another run to compare it with, named likewise; by default the last one like it.
        tracking_uri: the store; by default that of the `Run`, else the configured one.

    Returns:
        the changes, which can be printed.

    Raises:
        RunNotFound: there is no such run.
        QueryError: what changed is not written yet, or not at all.

    Example:
        >>> print(changes("pipeline"))  # doctest: +SKIP
        pipeline 3f2a9c-1 since pipeline 77fe0d-1 of 2026-01-31 12:00 UTC
          lr 0.1 → 0.05  (train)
          source of features.scale  (train)
        The runs part at train: lr, source of features.scale
        What came of it
          accuracy 0.91 → 0.93  +0.02
    """
    asked = [run] if since is None else [run, since]
    with asked_for(asked, tracking_uri) as (reader, runs):
        roots = [_root(one, reader) for one in runs]
        kept = RecordedRuns(reader)
        kept.wait(*roots)
        if since is not None:
            return run_changes(roots[0], kept.changes(roots[0], roots[1]))
        stored = kept.stored(roots[0])
        if stored is None:
            (root,) = reader.with_ids([roots[0].run_id]) or roots[:1]
            raise QueryError(_missing(root, awaited=kept.is_awaited(root)), argument="run")
    return run_changes(roots[0], stored)


def _root(run: FoundRun, reader: PagedReader) -> FoundRun:
    """The root run of the tree that contains a run; a message says so if that is another one."""
    root = root_of(run, reader)
    if root.run_id != run.run_id:
        log_once(
            f"trackdsl: {_named(run)} is not a root run. What changed is kept with its root run, {_named(root)}, "
            "and shown here.",
            key=f"root of:{run.run_id}",
        )
    return root


def _named(run: FoundRun) -> str:
    return f"{_shown.printable(run.name)!r} {run.run_id}"


def _missing(root: FoundRun, *, awaited: bool) -> str:
    name = _named(root)
    if root.status == "RUNNING":
        return f"trackdsl compares a run when it has ended, and {name} is still running."
    if (reason := root.tags.get(f"trackdsl.omitted.{PATH}")) is not None:
        return (
            f"what changed could not be written to {name}: {_shown.printable(reason)}. Name another run to compare it "
            "with: since=, or --since."
        )
    if awaited:
        return (
            f"what changed in {name} is not written yet: no delivery process is at work on it. `trackdsl sync` "
            "writes it."
        )
    return (
        f"what changed is not known on {name}. That is done a moment after a run is delivered, unless the setting "
        "`changes` is off. Name another run to compare it with: since=, or --since."
    )


def run_changes(root: FoundRun, stored: Stored) -> RunChanges:
    """The changes of a run, from the content of its file."""
    previous, changed = stored.previous, stored.changes
    return RunChanges(
        run_id=root.run_id,
        name=root.name,
        previous=None if previous is None else previous.run_id,
        previous_name="" if previous is None else previous.name,
        previous_start=None if previous is None else _shown.moment(previous.start),
        summary=stored.summary,
        changes=changed.changes,
        parts_at=changed.parts_at,
        parts_by=changed.parts_by,
        metrics=changed.metrics,
        diffs=dict(stored.diffs),
        unknown=stored.not_known,
        left_out=changed.left_out,
    )


def change_line(change: Change) -> str:
    """A change in one line: with its values, and the stages that it concerns."""
    stages = [_shown.printable(path) for path in change.stages if path]
    stages = [path if len(path) <= _LONGEST_PATH else f"{path[: _LONGEST_PATH - 1]}…" for path in stages]
    where = f"  ({', '.join(stages[:3])}{', …' if len(stages) > 3 else ''})" if stages else ""
    return f"{valued(change)}{where if change.kind != 'stage' else ''}"


def _metric(one: MetricDelta) -> str:
    name = _shown.printable(f"{one.stage}: {one.name}" if one.stage else one.name)
    before, after = ("-" if value is None else _shown.number(value) for value in (one.before, one.after))
    delta = difference(one.before, one.after)
    return f"{name} {before} → {after}" + ("" if delta is None else f"  {delta:+.3g}")


def diff_line(line: str) -> Text:
    """A line of a unified diff in its colour."""
    from rich.text import Text

    style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
    return Text(f"  {_shown.printable(line)}", style)
