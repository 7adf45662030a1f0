"""The card below a cell: one display, which follows what the run of the cell records.

It reads the journal of this process, as a command beside the program would, so that recording costs nothing more. A
thread updates the open cards twice a second.
"""

from __future__ import annotations

import contextvars
import os
import re
import threading
import time
from typing import Any

from trackdsl._api.iterations import progress_of, show_progress
from trackdsl._core import runtime
from trackdsl._core.redaction import mask_text
from trackdsl._core.runtime import Phase
from trackdsl._recording.emit import guarded
from trackdsl._runs.run import Run, known_page
from trackdsl.journal._follower import Follower
from trackdsl.journal._replay import Point, RecordedRun
from trackdsl.notebook.executions import Execution, Recorded
from trackdsl.query._card import Card, Curve, Param, Progress, card_html, card_text
from trackdsl.store_format.changes.diff import diff_lines

#: Seconds between two updates, and how many times the thread that makes them looks for cards in vain.
_EVERY, _MOST_IDLE = 0.5, 20
#: Seconds of processor time that one update takes from the program, and the last one, for what was recorded since.
_AT_ONCE, _AT_END = 0.01, 0.05
_LOGS = re.compile(r"\blog_metric\(")
_OMITTED = "trackdsl.omitted."
_BEHIND = "too much was recorded to follow it here: curves have gaps, and MLflow has all of it"
#: Names of parameters, and of metrics, that are compared with those of a later execution.
_MOST_KEPT = 1000


class LiveCard:
    """The card of one execution; see `Shown`.

    Args:
        shell: IPython's shell.
        execution: the execution.
    """

    def __init__(self, shell: Any, execution: Execution) -> None:
        self._shell = shell
        self._execution = execution
        self._id = f"trackdsl-{os.urandom(8).hex()}"
        self._last = ""
        self._over = False
        older = execution.older[-1:]
        self._diff = _diff(older[0].source, execution.source) if older else []
        self._follower: Follower | None = None
        self._expected = _expected_metrics(execution)
        #: How many warnings there were at first: there is no room for more below the metrics.
        self._lines: int | None = None
        self._url: str | None = None
        self._lock = threading.Lock()
        #: In which the kernel knows which cell a message belongs to.
        self._context = contextvars.copy_context()

    def shown(self, run: Run) -> None:
        """See `Shown`."""
        show_progress(run, True)
        writer, opening = getattr(run.target, "writer", None), run.target.open_runs.get(run.key)
        if writer is not None and opening is not None:
            self._follower = Follower(writer, run.key, opening)
        self._publish(update=False)
        _updates.add(self)

    def updated(self) -> None:
        """Show what the run has recorded since. The thread that updates cards calls this."""
        with guarded("showing a card"):
            self._context.run(self._publish, update=True)

    def last_steps(self) -> dict[str, int]:
        """See `Shown`."""
        with self._lock:
            if self._follower is None:
                return {}
            self._follower.read(_AT_END)
            metrics = self._follower.recorded.metrics
            return {name: max(point.step for point in points) for name, points in metrics.items() if points}

    def ended(self) -> None:
        """See `Shown`."""
        _updates.remove(self)
        try:
            self._publish(update=True, patience=_AT_END)
        finally:
            show_progress(self._execution.run, False)
            with self._lock:
                self._over = True
                if self._follower is not None:
                    self._execution.recorded = _kept(self._follower.recorded)
                    self._follower.close()

    def _publish(self, *, update: bool, patience: float = _AT_ONCE) -> None:
        with self._lock:
            if self._over:  # The thread that updates cards was about to.
                return
            if self._follower is not None:
                self._follower.read(patience)
            card = self._card()
            html = card_html(card)
            if html == self._last:
                return
            self._last = html
            forms = self._execution.card = {"text/html": html, "text/plain": card_text(card)}
            self._shell.display_pub.publish(forms, transient={"display_id": self._id}, update=update)

    def _card(self) -> Card:
        execution = self._execution
        follower = self._follower
        recorded = None if follower is None else follower.recorded
        older = execution.older[-1] if execution.older else None
        before = None if older is None else older.recorded
        known = {} if before is None else before.metrics
        progress = progress_of(execution.run)
        seconds = execution.seconds
        if seconds is None and execution.run.began:
            seconds = (time.time_ns() - execution.run.began) / 1e9
        late = [*_omissions(recorded), *([_BEHIND] if follower and follower.left_out else [])]
        if self._lines is None:
            self._lines = len(execution.warnings) + len(late)
        return Card(
            name=execution.run.name,
            status=execution.status or "RUNNING",
            seconds=seconds,
            params=_params(recorded, before),
            metrics={} if recorded is None else {
                name: Curve([point.value for point in sorted(points, key=_step)], known.get(name))
                for name, points in recorded.metrics.items()
            },
            progress=None if progress is None else Progress(progress[1], progress[2], progress[0]),
            warnings=[*execution.warnings, *late],
            diff=self._diff,
            failure=_failure(recorded),
            url=self._page(),
            rows=max(len(known), self._expected, 1),
            lines=self._lines,
        )  # fmt: skip

    def _page(self) -> str | None:
        """The address of MLflow's page of the run, once a server has it."""
        if self._url is None:
            self._url = known_page(self._execution.run)
        return self._url


class _Updates:
    """The thread that updates open cards. It ends some seconds after the last one: starting it takes a while."""

    def __init__(self) -> None:
        self._open: list[LiveCard] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, card: LiveCard) -> None:
        """Update a card from now on."""
        with self._lock:
            self._open.append(card)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="trackdsl-cards", daemon=True)
                self._thread.start()

    def remove(self, card: LiveCard) -> None:
        """Stop updating a card."""
        with self._lock:
            if card in self._open:
                self._open.remove(card)

    def _work(self) -> None:
        idle = 0
        while True:
            time.sleep(_EVERY)
            with self._lock:
                cards = self._open[:]
                idle = 0 if cards else idle + 1
                if idle == _MOST_IDLE:
                    self._thread = None
                    return
            for card in cards:
                card.updated()


_updates = _Updates()


def _after_fork() -> None:
    """Forget the cards of the parent process, whose locks may be held."""
    global _updates
    _updates = _Updates()


runtime.register("the cards of notebooks", Phase.SCOPES, after_fork=_after_fork)


def _expected_metrics(execution: Execution) -> int:
    """The number of metrics that the code of a cell seems to record: there is room for them from the start."""
    named = 0
    if execution.arguments is not None:
        named = max(len(execution.arguments.names("metrics")), len(execution.arguments.names("returns")))
    return named + len(_LOGS.findall(execution.body))


def _kept(recorded: RecordedRun) -> Recorded:
    """The values of a run that a later card compares with its own."""
    params, metrics = list(recorded.params.items())[:_MOST_KEPT], list(recorded.metrics.items())[:_MOST_KEPT]
    last = {name: max(reversed(points), key=_step).value for name, points in metrics if points}
    return Recorded({name: str(value) for name, value in params}, last)


def _step(point: Point) -> int:
    return point.step


def _params(recorded: RecordedRun | None, before: Recorded | None) -> dict[str, Param]:
    if recorded is None:
        return {}
    earlier = {} if before is None else before.params
    found = {}
    for name, value in recorded.params.items():
        text, other = str(value), earlier.get(name)
        found[name] = Param(text, None if other == text else other)
    return found


def _omissions(recorded: RecordedRun | None) -> list[str]:
    tags = {} if recorded is None else recorded.tags
    return [
        f"left out: {name.removeprefix(_OMITTED)}: {why}" for name, why in tags.items() if name.startswith(_OMITTED)
    ]


def _failure(recorded: RecordedRun | None) -> str | None:
    failure = None if recorded is None else recorded.failure
    return None if failure is None else f"{failure.type}: {failure.message}".partition("\n")[0]


def _diff(before: str, now: str) -> list[str]:
    """A unified diff of two sources, masked; empty if they are the same."""
    return diff_lines(mask_text(before), mask_text(now), context=1)
