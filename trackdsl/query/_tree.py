"""`tree`: a run and all runs below it, to print or to iterate over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trackdsl.query import _shown
from trackdsl.query._paged import PagedReader
from trackdsl.query._plain_text import plain_text
from trackdsl.query._rows import FoundRun
from trackdsl.query._run_lookup import asked_for
from trackdsl.store_format.original_names import with_originals
from trackdsl.store_format.report.node import failure_of

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

#: Styles are inline: a front end that does not trust a notebook's file leaves style sheets out.
_INDENT = 'style="margin-left:1.2em"'
#: At most this many parameters, and metrics, are shown next to a run's name.
_SHOWN = 8
#: In characters: a message may contain a whole table.
_LONGEST_FAILURE = 200
_WIDE = 1_000_000


@dataclass(frozen=True, repr=False)
class RunTree:
    """A run and all runs below it. `print` shows the tree; a notebook shows a tree whose branches can be folded.

    Attributes:
        run_id: MLflow's id.
        id: trackdsl's id; None for a run of plain MLflow.
        name: its name.
        status: `FINISHED`, `FAILED`, `KILLED` or `RUNNING`.
        duration: seconds; None before the run has ended.
        start: in ISO 8601, UTC; None if MLflow does not know it.
        params: its parameters, as text.
        metrics: the latest value of each of its metrics.
        tags: its tags.
        children: its child runs, in the order they began.
    """

    run_id: str
    id: str | None
    name: str
    status: str
    duration: float | None
    start: str | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    children: tuple[RunTree, ...] = field(default=())

    @property
    def failure(self) -> str | None:
        """The exception that ended the run, as in the last line of a traceback; None if the run has not failed."""
        return failure_of(self.status, self.tags)

    def walk(self) -> Iterator[RunTree]:
        """This run and all runs below it, each before its children.

        Example:
            >>> [run.name for run in tree("pipeline").walk()]  # doctest: +SKIP
            ['pipeline', 'load', 'train']
        """
        waiting = [self]
        while waiting:
            run = waiting.pop()
            yield run
            waiting += reversed(run.children)

    def __repr__(self) -> str:
        return f"<RunTree {self.name!r} {self.status} {self.run_id}, {sum(1 for _ in self.walk())} runs>"

    def __str__(self) -> str:
        return plain_text(self, width=_WIDE, soft_wrap=True)

    def __rich__(self) -> Tree:
        from rich.tree import Tree

        top = Tree(_label(self))
        waiting = [(self, top)]
        while waiting:
            run, branch = waiting.pop()
            waiting += [(child, branch.add(_label(child))) for child in run.children]
        return top

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        parts = ['<div style="font-family:monospace">']
        waiting: list[RunTree | str] = [self]
        while waiting:
            run = waiting.pop()
            if isinstance(run, str):
                parts.append(run)
            elif run.children:
                parts.append(f'<details open {_INDENT}><summary style="cursor:pointer">{_html_label(run)}</summary>')
                waiting.append("</details>")
                waiting += reversed(run.children)
            else:
                parts.append(f"<div {_INDENT}>{_html_label(run)}</div>")
        return "".join([*parts, "</div>"])


def tree(run: Any, *, whole: bool = False, superseded: bool = False, tracking_uri: str | None = None) -> RunTree:
    """A run and all runs below it, as MLflow has them now.

    Args:
        run: a `Run`, MLflow's or trackdsl's id of it or its first characters, its name, or an MLflow run.
        whole: return the whole tree that contains the run, from its root run.
        superseded: include runs of notebook cells that were executed again since, and the runs below them.
        tracking_uri: the store; by default that of the `Run`, else the configured one.

    Returns:
        the tree, which can be printed.

    Raises:
        RunNotFound: there is no such run.

    Example:
        >>> print(tree("pipeline"))  # doctest: +SKIP
        pipeline  FINISHED  1.2 s  lr=0.05
        ├── load  FINISHED  12 ms  limit=1000
        └── train  FINISHED  1.1 s  lr=0.05  accuracy 0.1426
    """
    with asked_for([run], tracking_uri) as (reader, (top,)):
        return tree_of(root_of(top, reader) if whole else top, reader, superseded=superseded)


def tree_of(top: FoundRun, reader: PagedReader, *, superseded: bool = False) -> RunTree:
    """The tree of a run that was read already."""
    below: dict[str | None, list[FoundRun]] = {}
    for run in reader.descendants(top):
        if run.run_id != top.run_id and (superseded or not run.superseded):
            below.setdefault(run.parent, []).append(run)
    order = [top]
    for run in order:  # The list grows level by level, so the depth has no limit.
        order += sorted(below.get(run.run_id, ()), key=_began)
    nodes: dict[str, RunTree] = {}
    for run in reversed(order):
        children = sorted(below.get(run.run_id, ()), key=_began)
        nodes[run.run_id] = _node(run, tuple(nodes[child.run_id] for child in children))
    return nodes[top.run_id]


def root_of(run: FoundRun, reader: PagedReader) -> FoundRun:
    """The root run of the tree that contains a run."""
    seen = {run.run_id}
    while run.parent is not None and run.parent not in seen:
        seen.add(run.parent)
        parents = reader.with_ids([run.parent])
        if not parents:
            break
        run = parents[0]
    return run


def _began(run: FoundRun) -> tuple[int, str, str]:
    return run.start or 0, run.id or "", run.run_id


def _node(run: FoundRun, children: tuple[RunTree, ...]) -> RunTree:
    return RunTree(
        run_id=run.run_id,
        id=run.id,
        name=run.name,
        status=run.status,
        duration=run.duration,
        start=_shown.moment(run.start),
        params=dict(run.params),
        metrics=dict(run.metrics),
        tags=dict(run.tags),
        children=children,
    )


def _values(run: RunTree) -> tuple[list[str], list[str]]:
    """The parameters and metrics that are shown, as text, with their original names."""
    params, metrics = with_originals(run.params, run), with_originals(run.metrics, run)
    return (
        _few([f"{_shown.printable(key)}={_shown.printable(_brief(text))}" for key, text in params.items()]),
        _few([f"{_shown.printable(key)} {_shown.number(value)}" for key, value in metrics.items()]),
    )


def _few(texts: list[str]) -> list[str]:
    return texts if len(texts) <= _SHOWN else [*texts[:_SHOWN], f"… {len(texts) - _SHOWN} more"]


def _brief(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _label(run: RunTree) -> Text:
    from rich.text import Text

    params, metrics = _values(run)
    label = Text.assemble(
        (_shown.printable(run.name) or "unnamed", "bold"), "  ", (run.status, _shown.colour(run.status))
    )
    label.append(f"  {_shown.duration(run.duration)}")
    if run.failure is not None:
        label.append(f"  {_shown.printable(_brief(run.failure, _LONGEST_FAILURE))}", "red")
    for text in params:
        label.append(f"  {text}", "dim")
    for text in metrics:
        label.append(f"  {text}", "cyan")
    return label


def _html_label(run: RunTree) -> str:
    params, metrics = _values(run)
    values = "".join(f' <span style="opacity:.65">{_shown.markup(text)}</span>' for text in params)
    values += "".join(f" &nbsp;{_shown.markup(text)}" for text in metrics)
    if run.failure is not None:
        failure = _shown.markup(_brief(run.failure, _LONGEST_FAILURE))
        values = f' <span style="color:{_shown.FAILED}">{failure}</span>{values}'
    return (
        f'<b title="{_shown.markup(run.run_id)}">{_shown.markup(run.name)}</b> '
        f'<span style="color:{_shown.shade(run.status)}">{_shown.markup(run.status)}</span> '
        f"{_shown.duration(run.duration)}{values}"
    )
