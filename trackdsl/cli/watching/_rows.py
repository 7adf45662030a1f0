"""The tree of runs as rows: what is folded, and what is left out because it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from trackdsl.cli.watching._journal import WatchedJournal
from trackdsl.cli.watching._runs import WatchedRun
from trackdsl.cli.watching._spool import WatchedSpool

#: How many of the latest children are shown: of those that finished, and of those that failed.
_FINISHED_SHOWN, _FAILED_SHOWN = 2, 5
#: How many trees are shown that have ended while they were watched.
_MOST_ENDED = 10
#: A tree that is deeper than this is shown from its left edge.
_DEEPEST = 12

#: What a row stands for, which stays the same while the tree changes.
Key = tuple[str, bytes | str]


class Row(NamedTuple):
    """A row.

    Attributes:
        key: what it stands for.
        indent: the lines of the tree before it.
        run: the run that it shows, or that it belongs to.
        journal: the program that it shows.
        folded: whether something below it is hidden; None if there is nothing below it.
        hidden: for a row of hidden runs, how many there are by status.
    """

    key: Key
    indent: str = ""
    run: WatchedRun | None = None
    journal: WatchedJournal | None = None
    folded: bool | None = None
    hidden: dict[str, int] | None = None


@dataclass
class Folding:
    """What the user has folded and unfolded.

    Attributes:
        chosen: by row, whether it is folded; all others as their runs are.
        ended: whether trees are shown that had ended before.
        only: the run that is shown, with all below it; None for all runs.
    """

    chosen: dict[Key, bool] = field(default_factory=dict)
    ended: bool = False
    only: WatchedRun | None = None

    def is_folded(self, run: WatchedRun) -> bool:
        """Whether the children of a run are hidden: yes if the run has ended, unless only this run is watched."""
        return self.chosen.get(("run", run.id), not run.is_open and run is not self.only)

    def toggle(self, row: Row) -> None:
        """Fold what a row shows, or unfold it."""
        if row.folded is not None:
            self.chosen[row.key] = not row.folded

    def shows_all(self, run: WatchedRun) -> bool:
        """Whether all ended children of a run are shown that are kept."""
        return not self.chosen.get(("more", run.id), True)


def rows_of(spool: WatchedSpool, folding: Folding) -> list[Row]:
    """All rows, from the top."""
    if folding.only is not None:
        return list(_branch(folding.only, folding))
    found: list[Row] = []
    for journal, roots in _programs(spool, folding):
        found.append(Row(("program", "" if journal is None else journal.name), journal=journal))
        for root in roots:
            found += _branch(root, folding)
    return found


def _programs(spool: WatchedSpool, folding: Folding) -> Iterator[tuple[WatchedJournal | None, list[WatchedRun]]]:
    """The programs with their trees: those that run first, and then those that ended last."""
    groups: dict[str, list[WatchedRun]] = {}
    ended: list[WatchedRun] = []
    for root in spool.runs.roots.values():
        journal = spool.journals.get(root.journal)
        if _runs_on(root):
            groups.setdefault(root.journal, []).append(root)
        elif folding.ended or (journal is not None and journal.was_alive):
            ended.append(root)
    if not folding.ended:
        ended = sorted(ended, key=lambda run: run.ended or 0)[-_MOST_ENDED:]
    for root in ended:
        groups.setdefault(root.journal, []).append(root)
    for name, journal in spool.journals.items():
        if journal.alive and not journal.origin.ancestors:
            groups.setdefault(name, [])  # A program between two runs.

    def order(name: str) -> tuple[bool, int]:
        roots = groups[name]
        running = not roots or any(_runs_on(root) for root in roots)
        began = min((root.began for root in roots), default=0)
        return not running, began if running else -began

    for name in sorted(groups, key=order):
        yield spool.journals.get(name), groups[name]


def _runs_on(root: WatchedRun) -> bool:
    """Whether a run is open, or one of its children, which may outlive it."""
    return root.is_open or any(child.is_open for child in root.children.values())


def _branch(top: WatchedRun, folding: Folding) -> Iterator[Row]:
    """The rows of a run and of what is shown below it."""
    waiting: list[Row | tuple[WatchedRun, str, str]] = [(top, "", "")]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Row):
            yield item
            continue
        run, indent, below = item
        has_children = bool(run.children or run.dropped)
        folded = folding.is_folded(run) if has_children else None
        yield Row(("run", run.id), indent, run, folded=folded)
        if run.failure is not None and not _shown_below(run, folded=folded is not False):
            yield Row(("failure", run.id), below + ("│  " if folded is False else "   "), run)
        if folded is False:
            waiting += reversed(_below(run, below, folding))


def _below(run: WatchedRun, below: str, folding: Folding) -> list[Row | tuple[WatchedRun, str, str]]:
    shown, hidden = _shown(run, folding)
    below = below if len(below) < 3 * _DEEPEST else "┆  "
    found: list[Row | tuple[WatchedRun, str, str]] = []
    rest = bool(hidden) or folding.shows_all(run)
    for number, child in enumerate(shown):
        last = number == len(shown) - 1 and not rest
        found.append((child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))
    if rest:
        found.append(Row(("more", run.id), below + "└─ ", run, folded=bool(hidden), hidden=hidden))
    return found


def _shown(run: WatchedRun, folding: Folding) -> tuple[list[WatchedRun], dict[str, int]]:
    """The children of a run that are shown, and how many runs are not, by status."""
    children = list(run.children.values())
    hidden = dict(run.dropped)
    if folding.shows_all(run):
        return children, hidden
    ended = [child for child in children if not _runs_on(child)]
    ended.sort(key=lambda child: child.ended or 0)
    failed = [child.id for child in ended if child.status != "FINISHED"]
    finished = [child.id for child in ended if child.status == "FINISHED"]
    if len(failed) > _FAILED_SHOWN + 1 or len(finished) > _FINISHED_SHOWN + 1 or hidden:
        kept = {*failed[-_FAILED_SHOWN:], *finished[-_FINISHED_SHOWN:]}
        for child in ended:
            if child.id not in kept:
                hidden[child.status] = hidden.get(child.status, 0) + 1
        children = [child for child in children if _runs_on(child) or child.id in kept]
    return children, hidden


def _shown_below(run: WatchedRun, *, folded: bool) -> bool:
    """Whether the failure of a run is that of one of its children, which is shown."""
    return not folded and any(child.failure == run.failure for child in run.children.values())
