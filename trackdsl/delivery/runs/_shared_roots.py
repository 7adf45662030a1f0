"""Roots that the ranks of a launch share: the first rank that is delivered creates the root, the last one ends it.

Every rank records its own run, and the id of a root that no process opens. If the store has no run with that id,
delivery creates it. Two machines may do so at the same time. Then the store has two roots: each machine that sees both
keeps the same one, and moves the children of the other. After each change of a root, the machines look again, and
repeat the change if the root is a different one by then. So one root remains, whichever machine was first.

A root's status follows its ranks: `RUNNING` while one of them is, then `FAILED` if one failed, else `KILLED` if one was
killed. Ranks that record nothing are unknown: a rank that begins after all others have ended opens the root again.

Two launches may have the same launch id, for example because of a fixed port. A rank occurs once in each launch: the
second run of a rank belongs to the next root, whose id is derived from the id of the first.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING

import msgspec

from trackdsl._core import events
from trackdsl.delivery.batches import _compose
from trackdsl.delivery.runs._parents import link
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._fallback_encoding import is_encoding_of
from trackdsl.delivery.store._sink import Batch, Sink, StoredRun
from trackdsl.store_format.limits import MAX_TAG, fit_key
from trackdsl.store_format.tags import ENDED_TAG, ID_TAG, PARENT_TAG, path_of_text

if TYPE_CHECKING:
    from trackdsl.delivery.runs._continued import Continuations
    from trackdsl.delivery.runs._creation import RunCreation
    from trackdsl.delivery.runs._git_tags import GitTags
    from trackdsl.delivery.runs._writer import RunWriter
    from trackdsl.delivery.state._open_journal import OpenJournal

RANK = "trackdsl.rank"
#: The tag that distinguishes the ranks of two launches if both resume the same run.
_LAUNCH_ID = "trackdsl.launch.id"
#: The status of a root is the first of these that one of its ranks has.
_WORST = ("RUNNING", "FAILED", "KILLED", "FINISHED")
#: Events have nanoseconds, MLflow has milliseconds.
_MS = 1_000_000


class SharedRoots:
    """The shared roots of the ranks in one journal.

    Args:
        stream: the journal.
        creation: creates its runs.
        writer: writes its events.
        git: adds the tags that come from git.
        continued: finds the runs that it resumes.
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
        """The root for the run of a rank, and the tags of that run about both."""
        rank, named = event.rank, event.parent
        assert rank is not None
        assert named is not None
        id_, root = self._root_for(sink, event, named)
        self._runs.mark_rank(event.run, id_)
        self._runs.adopt(id_, root)
        if id_ != named:
            self._runs.adopt(named, root)
        if rank.rank == 0:  # Other ranks may have other parameters, which their own runs record.
            held = sink.params(root.run_id)
            fresh = {key: value for key, value in event.params.items() if fit_key(key) not in held}
            self._writer.outbox.add_params(sink, id_, root, fresh)
            self._writer.outbox.flush(sink, id_)
        tags = {PARENT_TAG: root.run_id, **_compose.rank_tags(rank)}
        return root, {**tags, _LAUNCH_ID: named.hex()} if rank.continued_id else tags

    def _root_for(self, sink: Sink, event: events.Open, named: bytes) -> tuple[bytes, DeliveredRun]:
        rank = event.rank
        assert rank is not None
        if rank.continued_id:
            state = self._continued.find(sink, event.run, rank.continued_id)
            return named, DeliveredRun(state.run_id, state.experiment_id)
        for number in itertools.count():
            id_ = named if not number else hashlib.sha256(b"%b %d" % (named, number)).digest()[: len(named)]
            root = self._find_or_make(sink, event, id_)
            others = [other for other in _ranks(sink, root) if other.tags.get(ID_TAG) != event.run.hex()]
            if not any(other.tags[RANK] == str(rank.rank) for other in others):
                return id_, root
        raise AssertionError

    def began(self, sink: Sink, id_: bytes) -> None:
        """A run exists: if it is that of a rank, open its root."""
        root = self._root_of(id_)
        if root is not None and sink.status(root.run_id) in _WORST[1:]:
            sink.delete_tags(root.run_id, [ENDED_TAG])
            sink.reopen_run(root.run_id)

    def ended(self, sink: Sink, id_: bytes) -> None:
        """A run has ended: the last rank ends the root."""
        root, written = self._root_of(id_), "RUNNING"
        while root is not None:
            known = self._runs.ranks[id_]
            root = self._unified(sink, known, root)
            ranks = self._with_own(sink, root, id_)
            status = min((rank.status for rank in ranks), key=_rank_of_status, default="RUNNING")
            if status == written:
                return
            if status == "RUNNING":
                sink.reopen_run(root.run_id)
            else:
                self._write_outcome(sink, known, root, ranks, status)
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
        # Without host and process, which differ between ranks.
        tags = _compose.opening_tags(self._stream.origin, root, git, self._spool, of_process=False)
        tags |= _compose.launch_tags(event.rank)
        made, rest = self._creation.create(sink, root, None, tags, in_doubt=True)
        run = self._unified(sink, id_, made)
        if rest.batch.tags or rest.texts:
            missing = _missing(rest, tags, sink.tags(run.run_id))
            self._writer.outbox.of(id_, run).add(missing)
            self._writer.outbox.flush(sink, id_)
        return run

    def _unified(self, sink: Sink, id_: bytes, root: DeliveredRun) -> DeliveredRun:
        """The root of an id. If several were created, one is kept, and gets what the others have."""
        roots = sink.tagged(ID_TAG, id_.hex(), root.experiment_id)
        if len(roots) < 2:
            # A deleted root is not found, and MLflow refuses what is written to it.
            return root if not roots or roots[0].run_id == root.run_id else _known(roots[0], root)
        children = {one.run_id: sink.tagged(PARENT_TAG, one.run_id, root.experiment_id) for one in roots}
        kept = min(roots, key=lambda one: (not children[one.run_id], one.run_id))
        run = _known(kept, root)
        others = [one.run_id for one in roots if one.run_id != kept.run_id]
        for child in itertools.chain.from_iterable(children[other] for other in others):
            link(sink, child.run_id, run, self._stream.record_refusal)
        # All are read before anything is collected: nothing stays in the outbox if a request fails.
        for params in [dict[str, events.Scalar](sink.params(other)) for other in others]:
            self._writer.outbox.add_params(sink, id_, run, params)
        self._writer.outbox.flush(sink, id_)
        # The others are deleted only after all that they have is there.
        sink.commit()
        sink.remove_others(id_.hex(), root.experiment_id, kept.run_id)
        return run

    def _with_own(self, sink: Sink, root: DeliveredRun, id_: bytes) -> list[StoredRun]:
        """The ranks of a root in this launch.

        This rank is among them, even if it is still a child of another root that was created at the same time.
        """
        ranks, run = _ranks(sink, root), self._runs.get(id_)
        own = None if run is None else next((rank for rank in ranks if rank.run_id == run.run_id), None)
        if run is not None and own is None:
            link(sink, run.run_id, root, self._stream.record_refusal)
            ranks = _ranks(sink, root)
            own = next((rank for rank in ranks if rank.run_id == run.run_id), None)
        launch = None if own is None else own.tags.get(_LAUNCH_ID)
        return [rank for rank in ranks if rank.tags.get(_LAUNCH_ID) == launch]

    def _write_outcome(self, sink: Sink, id_: bytes, root: DeliveredRun, ranks: list[StoredRun], status: str) -> None:
        """Tag a root with the ranks that did not finish; write their parameters, if rank 0 did not record them."""
        outbox = self._writer.outbox
        first, last = (pick(ranks, key=lambda rank: int(rank.tags[RANK])) for pick in (min, max))
        if first.tags[RANK] != "0" and first is not last and not sink.params(root.run_id):
            # Rank 0 may record later: its parameters will include what two other ranks agree on.
            agreed = sink.params(first.run_id).items() & sink.params(last.run_id).items()
            outbox.add_params(sink, id_, root, dict(agreed))
        if status != "FINISHED":
            odd = sorted(int(rank.tags[RANK]) for rank in ranks if rank.status == status)
            named = ", ".join(map(str, odd[:10])) + (", …" if len(odd) > 10 else "")
            outbox.of(id_, root).add_tag(ENDED_TAG, f"{'rank' if len(odd) == 1 else 'ranks'} {named}: {status}")
        outbox.flush(sink, id_)


def _missing(rest: _compose.Pending, tags: dict[str, str], held: dict[str, str]) -> _compose.Pending:
    """What a root may lack, of the rest of a rank's first content: another rank may have written its own."""

    def is_ours(key: str, text: str) -> bool:
        return is_encoding_of(held.get(key, text), text, MAX_TAG)

    whole = _compose.Pending()
    whole.add_tags(tags)
    texts = {path_of_text("tags", key) for key, text in whole.batch.tags.items() if is_ours(key, text)}
    # A tag that is there as it is has been written; the file of one that is encoded or cut may be missing.
    fresh = {key: text for key, text in rest.batch.tags.items() if is_ours(key, text) and held.get(key) != text}
    return _compose.Pending(Batch(tags=fresh), {path: text for path, text in rest.texts.items() if path in texts})


def _known(stored: StoredRun, root: DeliveredRun) -> DeliveredRun:
    return DeliveredRun(stored.run_id, root.experiment_id, open=False, ours=False)


def _ranks(sink: Sink, root: DeliveredRun) -> list[StoredRun]:
    return [
        run for run in sink.tagged(PARENT_TAG, root.run_id, root.experiment_id) if run.tags.get(RANK, "").isdecimal()
    ]


def _rank_of_status(status: str) -> int:
    return _WORST.index(status) if status in _WORST else 0
