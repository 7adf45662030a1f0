"""Roots that the ranks of a launch have in common: made by the first that is delivered, ended by the last.

Every rank records a run of its own, and with it the id of a root that no process opens. Where the store has no run of
that id, it is made. Two machines may do so at once: the store then has two, of which whoever sees both keeps one and
moves the children of the other there. The machines look again after everything that they do to a root, and do it once
more where they see something else by then. So at the end there is one, whoever came first.

A root is as its ranks are: `RUNNING` while one of them is, then `FAILED` if one failed, or else `KILLED` if one was
killed. Of ranks that record nothing, nothing is known: one that begins after all others have ended opens it again.

What launchers share may be the same for the next launch, as with a fixed port. A rank is there once in each: the second
run of a rank belongs to the next root, whose id follows from the first one's.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from typing import TYPE_CHECKING

import msgspec

from trackdsl._core import events
from trackdsl.delivery import _compose
from trackdsl.delivery._run_map import DeliveredRun
from trackdsl.delivery._sink import Batch, Found, Refused, Sink
from trackdsl.store_format.limits import fit_key

if TYPE_CHECKING:
    from trackdsl.delivery._continued import Continuations
    from trackdsl.delivery._creation import RunCreation
    from trackdsl.delivery._git_tags import GitTags
    from trackdsl.delivery._open_journal import OpenJournal
    from trackdsl.delivery._run_writer import RunWriter

RANK = "trackdsl.rank"
_ID = "trackdsl.id"
_PARENT = "mlflow.parentRunId"
#: Where a run goes on in a launch after the other, what tells the ranks of each.
_LAUNCH_ID = "trackdsl.launch.id"
_ENDED = "trackdsl.ended"
#: Of how the ranks ended the first of these counts.
_WORST = ("RUNNING", "FAILED", "KILLED", "FINISHED")
#: Times are nanoseconds in events, and milliseconds at MLflow.
_MS = 1_000_000


class SharedRoots:
    """The roots of the ranks that one journal is of.

    Args:
        stream: the journal.
        creation: of its runs.
        writer: of its events.
        git: what git said.
        continued: finds runs that go on.
        spool: the name of the spool, see `spool_name`.
    """

    def __init__(
        self,
        stream: OpenJournal,
        creation: RunCreation,
        writer: RunWriter,
        git: GitTags,
        continued: Continuations,
        spool: str,
    ) -> None:
        self._stream = stream
        self._runs = stream.runs
        self._creation = creation
        self._writer = writer
        self._git = git
        self._continued = continued
        self._spool = spool

    def find(self, sink: Sink, event: events.Open) -> tuple[DeliveredRun, dict[str, str]]:
        """The root that a rank's run is to be a child of, and the tags that tell of both."""
        rank, named = event.rank, event.parent
        assert rank is not None
        assert named is not None
        id_, root = self._root_for(sink, event, named)
        self._runs.note_rank(event.run, id_)
        self._runs.adopt(id_, root)
        if id_ != named:
            self._runs.adopt(named, root)
        if rank.rank == 0:  # Those of others may differ, and are told by their own runs.
            held = sink.params(root.run_id)
            fresh = {key: value for key, value in event.params.items() if fit_key(key) not in held}
            self._writer.outbox.add_params(sink, id_, root, fresh)
            self._writer.outbox.flush(sink, id_)
        tags = {_PARENT: root.run_id, **_compose.rank_tags(rank)}
        return root, {**tags, _LAUNCH_ID: named.hex()} if rank.goes_on else tags

    def _root_for(self, sink: Sink, event: events.Open, named: bytes) -> tuple[bytes, DeliveredRun]:
        rank = event.rank
        assert rank is not None
        if rank.goes_on:
            state = self._continued.find(sink, event.run, rank.goes_on)
            return named, DeliveredRun(state.run_id, state.experiment_id)
        for number in itertools.count():
            id_ = named if not number else hashlib.sha256(b"%b %d" % (named, number)).digest()[: len(named)]
            root = self._find_or_make(sink, event, id_)
            others = [found for found in _ranks(sink, root) if found.tags.get(_ID) != event.run.hex()]
            if not any(found.tags[RANK] == str(rank.rank) for found in others):
                return id_, root
        raise AssertionError

    def began(self, sink: Sink, id_: bytes) -> None:
        """Take note of a run that exists now: where it is a rank's, its root is open."""
        root = self._root_of(id_)
        if root is not None and sink.status(root.run_id) in _WORST[1:]:
            sink.delete_tags(root.run_id, [_ENDED])
            sink.reopen_run(root.run_id)

    def ended(self, sink: Sink, id_: bytes) -> None:
        """Take note of a run that has ended: the last rank's ends the root."""
        root, written = self._root_of(id_), "RUNNING"
        while root is not None:
            known = self._runs.ranks[id_]
            root = _settled(sink, known, root)
            ranks = self._with_own(sink, root, id_)
            status = min((rank.status for rank in ranks), key=_place, default="RUNNING")
            if status == written:
                return
            if status == "RUNNING":
                sink.reopen_run(root.run_id)
            else:
                self._tell(sink, root, ranks, status)
                self._writer.end(sink, root, status, max(rank.end for rank in ranks) * _MS)
            written = status

    def _root_of(self, id_: bytes) -> DeliveredRun | None:
        known = self._runs.ranks.get(id_)
        return None if known is None else self._runs.get(known)

    def _find_or_make(self, sink: Sink, event: events.Open, id_: bytes) -> DeliveredRun:
        assert event.rank is not None
        name = event.rank.root
        root = msgspec.structs.replace(event, run=id_, parent=None, name=name, path=name, index=0, params={})
        git = self._git.of_new_run(id_)
        # Without the process: it is that of whichever rank was delivered first.
        tags = _compose.opening_tags(self._stream.origin, root, git, self._spool, of_process=False)
        made, rest = self._creation.create(sink, root, None, tags | _compose.launch_tags(event.rank), in_doubt=True)
        run = _settled(sink, id_, made)
        if rest.batch:
            sink.write(run.run_id, rest.batch)
        return run

    def _with_own(self, sink: Sink, root: DeliveredRun, id_: bytes) -> list[Found]:
        """The ranks of a root, in this launch.

        This one is among them, also where it is a child of another root that was made at the same time.
        """
        ranks, run = _ranks(sink, root), self._runs.get(id_)
        own = None if run is None else next((rank for rank in ranks if rank.run_id == run.run_id), None)
        if run is not None and own is None:
            with contextlib.suppress(Refused):
                sink.link(run.run_id, root.run_id)
            ranks = _ranks(sink, root)
            own = next((rank for rank in ranks if rank.run_id == run.run_id), None)
        launch = None if own is None else own.tags.get(_LAUNCH_ID)
        return [rank for rank in ranks if rank.tags.get(_LAUNCH_ID) == launch]

    def _tell(self, sink: Sink, root: DeliveredRun, ranks: list[Found], status: str) -> None:
        """Say on a root which ranks did not end well; and the parameters, where rank 0 did not."""
        batch = Batch()
        if status != "FINISHED":
            odd = sorted(int(rank.tags[RANK]) for rank in ranks if rank.status == status)
            named = ", ".join(map(str, odd[:10])) + (", …" if len(odd) > 10 else "")
            batch.tags[_ENDED] = f"{'rank' if len(odd) == 1 else 'ranks'} {named}: {status}"
        first, last = (pick(ranks, key=lambda rank: int(rank.tags[RANK])) for pick in (min, max))
        if first.tags[RANK] != "0" and first is not last and not sink.params(root.run_id):
            # It may yet come: it will agree with what two others agree on.
            batch.params = dict(sink.params(first.run_id).items() & sink.params(last.run_id).items())
        for part in _compose.split(batch):
            with contextlib.suppress(Refused):
                sink.write(root.run_id, part)


def _settled(sink: Sink, id_: bytes, root: DeliveredRun) -> DeliveredRun:
    """The root of an id, where several may have been made: one is kept, and gets the children of the others."""
    found = sink.tagged(_ID, id_.hex(), root.experiment_id)
    if len(found) < 2:
        # Where it is deleted there is none, and what is written to it will be refused.
        return root if not found or found[0].run_id == root.run_id else _known(found[0], root)
    children = {one.run_id: sink.tagged(_PARENT, one.run_id, root.experiment_id) for one in found}
    kept = min(found, key=lambda one: (not children[one.run_id], one.run_id))
    for other, of_other in children.items():
        if other != kept.run_id:
            for child in of_other:
                with contextlib.suppress(Refused):
                    sink.link(child.run_id, kept.run_id)
            if params := sink.params(other):
                with contextlib.suppress(Refused):
                    sink.write(kept.run_id, Batch(params=params))
    sink.remove_others(id_.hex(), root.experiment_id, kept.run_id)
    return _known(kept, root)


def _known(found: Found, root: DeliveredRun) -> DeliveredRun:
    return DeliveredRun(found.run_id, root.experiment_id, open=False, ours=False)


def _ranks(sink: Sink, root: DeliveredRun) -> list[Found]:
    return [run for run in sink.tagged(_PARENT, root.run_id, root.experiment_id) if run.tags.get(RANK, "").isdecimal()]


def _place(status: str) -> int:
    return _WORST.index(status) if status in _WORST else 0
