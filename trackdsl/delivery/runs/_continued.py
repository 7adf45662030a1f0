"""Resumed runs: begun by an earlier program or scope, by another machine, or by plain MLflow.

A program that resumes a run has its own id for it. Delivery adds this id to the run's tag `trackdsl.resumed`, a JSON
list with id, time, host and the status before. So a run is resumed once, even if delivery is killed. And a late end by
an earlier program (on a machine that was offline, or a program that is found dead later) does not end the run of the
program that resumed it.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from trackdsl._core import events
from trackdsl.delivery._timing import timing
from trackdsl.delivery.batches import _compose
from trackdsl.delivery.batches._single_writes import SingleWrites
from trackdsl.delivery.state._blocked import check_experiment
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._errors import Refused, RunBlocked
from trackdsl.delivery.store._sink import Batch, Sink, StoredRun
from trackdsl.errors import logger
from trackdsl.store_format import limits as _limits

if TYPE_CHECKING:
    from trackdsl.delivery.runs._remote_runs import RemoteRuns
    from trackdsl.delivery.state._open_journal import OpenJournal

#: The tag of a resumed run.
RESUMED = "trackdsl.resumed"
#: The tag lists this many entries; each has its number.
_MOST_NAMED = 20
#: Tags about an earlier end, which a resumed run loses.
_OF_ENDS = (
    "trackdsl.ended",
    "trackdsl.exception.type",
    "trackdsl.exception.message",
    "trackdsl.exception.traceback",
)
_MS = 1_000_000


class Continuations:
    """The runs that the program of one journal resumes.

    Args:
        stream: the journal.
        remote_runs: knows the journals of other processes.
        spool: the name of the spool, see `spool_name`.
    """

    def __init__(self, stream: OpenJournal, remote_runs: RemoteRuns, spool: str) -> None:
        self._stream = stream
        self._remote_runs = remote_runs
        self._spool = spool
        self._writes = SingleWrites(stream.record_refusal)

    def resume(self, sink: Sink, event: events.Open) -> DeliveredRun:
        """Resume a run, once.

        Raises:
            NotYet: earlier records of it are being delivered.
            RunBlocked: it is deleted, or not there.
        """
        state = self.find(sink, event.run, event.continued_id)
        before = self._status_before(state, event)
        entries = resumed(state.tags)
        try:
            if event.run.hex() not in [entry["id"] for entry in entries]:
                entries.append(self._entry(event, entries, state, before))
                # A machine that was offline, or a journal that waits, may bring an earlier entry than those that are
                # known.
                entries.sort(key=_when)
                run = DeliveredRun(state.run_id, state.experiment_id)
                if tags := self._tags(sink, event, state):
                    self._writes.write(sink, run, Batch(tags=tags))
                # Last, and as it is: it says that the run is resumed. JSON needs no other encoding.
                sink.write(state.run_id, Batch(tags={RESUMED: json.dumps(entries[-_MOST_NAMED:])}))
            if entries[-1]["id"] == event.run.hex():
                sink.delete_tags(state.run_id, [name for name in _OF_ENDS if name in state.tags])
                sink.reopen_run(state.run_id)
        except Refused as error:
            self._check(sink, event.run, sink.state(state.run_id), event.continued_id)
            check_experiment(sink, state.experiment_id, error)
            raise RunBlocked(f"run {state.run_id} cannot be resumed: {error}") from None
        run = DeliveredRun(state.run_id, state.experiment_id, ours=False, continued=True, params=dict(state.params))
        self._remote_runs.continued.add(run.run_id)
        return run

    def find(self, sink: Sink, id_: bytes, name: str) -> StoredRun:
        """The run with an id, ours or MLflow's.

        Args:
            sink: the store.
            id_: our id of the run that needs it.
            name: the id.

        Raises:
            NotYet: a journal that knows it is not read so far.
            RunBlocked: it is deleted, not there, or blocked.
        """
        wanted = _id_in(name)
        known = None if wanted is None else self._remote_runs.find_here(self._stream, wanted)
        state = sink.state(name if known is None else known.run_id)
        if state is None and wanted is not None and known is None:
            match = sink.find_run(name, None)
            state = None if match is None else sink.state(match[0])
        return self._check(sink, id_, state, name)

    def was_resumed_elsewhere(self, sink: Sink, id_: bytes, run: DeliveredRun, at: int) -> bool:
        """Whether a run must not be ended, at a time in nanoseconds, because another program has resumed it."""
        if not self._may_be_continued(run, at):
            return False
        state = sink.state(run.run_id)
        entries = [] if state is None else resumed(state.tags)
        if state is None or not entries or entries[-1]["id"] == id_.hex():
            return False
        # If several programs had it open at the same time, the last one ends it.
        return state.status == "RUNNING" or state.end >= at // _MS

    def _may_be_continued(self, run: DeliveredRun, at: int) -> bool:
        if run.continued or run.run_id in self._remote_runs.continued:
            return True
        # Without a look at the store if delivery is in time: only a run that has ended, or whose program died, is
        # resumed.
        late = time.time() - at / 1e9 >= timing().missing_run / 2
        return late and time.monotonic() - run.made >= timing().missing_run / 2

    def _check(self, sink: Sink, id_: bytes, state: StoredRun | None, name: str) -> StoredRun:
        if state is None:
            raise RunBlocked(
                f"there is no run {name} at MLflow for run {id_.hex()} to resume: check the id and the tracking URI. "
                "If another machine delivers it later, this run follows by itself; otherwise `trackdsl drop "
                f"{id_.hex()}` gives up what was recorded"
            )
        if state.deleted:
            check_experiment(sink, state.experiment_id, Refused("the run is deleted with it"))
            ours = state.tags.get("trackdsl.id", id_.hex())
            raise RunBlocked(
                f"the run {state.run_id} (trackdsl.id {ours}) is deleted, so run {id_.hex()} cannot resume it: "
                f"restore it with `mlflow runs restore --run-id {state.run_id}`, and what was recorded is delivered; "
                f"or give that up with `trackdsl drop {id_.hex()}`"
            )
        return state

    def _status_before(self, state: StoredRun, event: events.Open) -> str:
        """The status of the run before; `RUNNING` if another program still has it open.

        Raises:
            NotYet: another journal must be read first: its values and its end come before those of this one.
        """
        others = self._remote_runs.others_at(self._stream, state.run_id, event)
        if state.status != "RUNNING":
            return state.status
        if others and not any(others):
            return "KILLED"  # Its program is dead; delivery will find that in a moment.
        if any(others) or not (resumed(state.tags) or _of_project(state)):
            logger.warning(
                "trackdsl: the run %s is still RUNNING, and pid %d resumes it as well: if its program is alive, both "
                "write to it, and the one that ends last sets its status",
                state.run_id,
                self._stream.origin.pid,
            )
        return "RUNNING"

    def _entry(self, event: events.Open, entries: list[Any], state: StoredRun, before: str) -> dict[str, Any]:
        number = max((int(entry.get("number", 0)) for entry in entries), default=0) + 1
        origin = self._stream.origin
        entry: dict[str, Any] = {"number": number, "id": event.run.hex(), "time": event.time // _MS}
        entry |= {"nanoseconds": event.time % _MS, "host": origin.host, "pid": origin.pid, "before": before}
        error = state.tags.get("trackdsl.exception.type")
        if error is not None and before != "RUNNING":
            message = state.tags.get("trackdsl.exception.message", "")
            entry["error"] = _limits.fit_text(f"{error}: {message}" if message else error, 200)
        return entry

    def _tags(self, sink: Sink, event: events.Open, state: StoredRun) -> dict[str, str]:
        tags = dict[str, str]()
        if event.experiment is not None:
            home = sink.experiment_name(state.experiment_id)
            if home != event.experiment:  # As for a run inside another one, the run stays in its experiment.
                tags["trackdsl.experiment"] = event.experiment
                if not _of_project(state):
                    logger.warning(
                        "trackdsl: the run %s is resumed in its own MLflow experiment %r, not in %r: a run cannot move",
                        state.run_id,
                        home,
                        event.experiment,
                    )
        if "trackdsl.id" not in state.tags:  # Plain MLflow created it.
            opening = _compose.opening_tags(self._stream.origin, event, {}, self._spool)
            tags |= {key: value for key, value in opening.items() if key not in state.tags and key not in event.tags}
        return tags


def resumed(tags: dict[str, str]) -> list[dict[str, Any]]:
    """The programs that resumed a run, according to its tags; the latest last."""
    with contextlib.suppress(ValueError, RecursionError):
        listed = json.loads(tags.get(RESUMED, ""))
        if isinstance(listed, list) and all(map(_is_entry, listed)):
            return listed
    return []


def _of_project(state: StoredRun) -> bool:
    """Whether `mlflow run` created a run, in the experiment that it was given, for the program that it starts."""
    return state.tags.get("mlflow.source.type") == "PROJECT"


def _when(entry: dict[str, Any]) -> tuple[int, int]:
    """When an entry was recorded: two programs can begin within one millisecond."""
    within = entry.get("nanoseconds", 0)
    return entry["time"], within if isinstance(within, int) else 0


def _is_entry(listed: Any) -> bool:
    return isinstance(listed, dict) and isinstance(listed.get("id"), str) and isinstance(listed.get("time"), int)


def _id_in(name: str) -> bytes | None:
    with contextlib.suppress(ValueError):
        id_ = bytes.fromhex(name)
        return id_ if len(id_) == 16 and len(name) == 32 else None
    return None
