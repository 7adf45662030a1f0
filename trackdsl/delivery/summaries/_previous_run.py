"""Finds the last run that is comparable with a root run: of the same experiment, and the same function or script."""

from __future__ import annotations

import re
from collections.abc import Callable

from trackdsl._core.ids import PREFIX_LENGTH
from trackdsl.delivery.store._sink import Sink, TreeRun
from trackdsl.delivery.summaries._scripts import by_script, same_script
from trackdsl.store_format.call_tag import call_of
from trackdsl.store_format.changes.stored import CHANGED_TAG, SCRIPT_TAG
from trackdsl.store_format.tags import ID_TAG, PARENT_TAG, PATH_TAG, SUPERSEDED_TAG

#: How many runs are read to find one that is comparable, at once and in all.
_AT_ONCE, _MOST_SEARCHED = 50, 400
#: In milliseconds.
_DAY = 86_400_000
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")

_Accepts = Callable[[TreeRun], bool]


def previous_run(sink: Sink, root: TreeRun) -> TreeRun | None:
    """The last comparable run that has ended.

    A function may fill in the name of its run, so the name does not count. One script may have several blocks: the last
    one of the same name is the one before; else one whose name differs in numbers; else any of an earlier process.

    Args:
        sink: the store.
        root: the root run; its script is among its tags.
    """
    search = _Search(sink, root)
    path, script = root.tags.get(PATH_TAG), root.tags.get(SCRIPT_TAG)
    named: list[tuple[str, str | None]] = [] if path is None else [(PATH_TAG, path)]
    if call_of(root.tags).get("function"):
        return search.newest([*named, (CHANGED_TAG, None)])
    return search.newest(named, lambda run: run.tags.get(PATH_TAG) == path) or (
        search.newest([(SCRIPT_TAG, script)], search.is_named_alike, search.is_of_another_process) if script else None
    )


class _Search:
    """The search for the run before a root run."""

    def __init__(self, sink: Sink, root: TreeRun) -> None:
        self._sink = sink
        self._root = root

    def newest(self, tags: list[tuple[str, str | None]], *accepts: _Accepts) -> TreeRun | None:
        """The newest comparable run.

        Args:
            tags: one of these it has, with this value; None for any value.
            accepts: which of the comparable runs count, the better ones first.
        """
        for after in (self._root.start - _DAY, 0):
            candidates = [self._of_tag(tag, value, max(0, after), accepts or (_all,)) for tag, value in tags]
            known = [run for run in candidates if run is not None]
            if known:
                return max(known, key=lambda run: (run.start, run.run_id))
        return None

    def _of_tag(self, tag: str, value: str | None, after: int, accepts: tuple[_Accepts, ...]) -> TreeRun | None:
        before, seen = self._root.start, {self._root.run_id}
        found: dict[int, TreeRun] = {}
        while len(seen) < _MOST_SEARCHED:
            page = self._sink.newest(self._root.experiment_id, tag, value, (after, before), _AT_ONCE)
            fresh = [run for run in page if run.run_id not in seen]
            for run in fresh:
                if not _is_comparable(run, self._root):
                    continue
                rank = next((rank for rank, accept in enumerate(accepts) if accept(run)), None)
                if rank == 0:
                    return run
                if rank is not None:
                    found.setdefault(rank, run)
            if not fresh or len(page) < _AT_ONCE:
                break
            seen.update(run.run_id for run in fresh)
            before = fresh[-1].start
        return found[min(found)] if found else None

    def is_named_alike(self, run: TreeRun) -> bool:
        """Whether the names of two blocks differ in numbers only."""
        one, other = (_NUMBER.sub("0", each.name) for each in (run, self._root))
        return one == other

    def is_of_another_process(self, run: TreeRun) -> bool:
        """Whether a run began in another process than the root run."""
        one, other = (each.tags.get(ID_TAG, each.run_id)[: 2 * PREFIX_LENGTH] for each in (run, self._root))
        return one != other


def _all(_: TreeRun) -> bool:
    return True


def _is_comparable(run: TreeRun, root: TreeRun) -> bool:
    """Whether a run is an earlier root run of the same function or script that has ended and is not superseded."""
    if run.tags.get(PARENT_TAG) or run.tags.get(SUPERSEDED_TAG) or run.status == "RUNNING" or not run.end:
        return False
    if (run.start, run.run_id) >= (root.start, root.run_id):
        return False
    if (call_of(root.tags).get("function") or "") != (call_of(run.tags).get("function") or ""):
        return False
    return not by_script(root.tags) or same_script(run.tags, root.tags)
