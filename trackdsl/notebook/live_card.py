"""The card below a cell: one display, which follows what the run of the cell records.

It reads the journal of this process, as a command beside the program would, so that recording costs nothing more. A
thread updates the open cards twice a second.

A display costs a millisecond or more, so a cell that is over at once has one, with its last state. Others have one from
the moment they print or show something, which is below the card, or else after a tenth of a second.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
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
from trackdsl.notebook.lines import split_value
from trackdsl.notebook.names import is_long
from trackdsl.query._card import Card, Curve, Param, Progress, card_html, card_text
from trackdsl.store_format.changes.diff import diff_lines

#: Seconds between two looks of the thread for new cards, after how many of them it updates the cards that are shown,
#: and how many times it looks in vain.
_LOOK, _EVERY, _MOST_IDLE = 0.1, 5, 100
#: Begins the ids of cards' displays.
CARD_ID = "trackdsl-"
#: Seconds of processor time that one update takes from the program, and the last one, for what was recorded since.
_AT_ONCE, _AT_END = 0.01, 0.05
#: Expressions for what they do: their values are None.
_SHOWS = re.compile(r"(print|display|[\w.]+\.(show|log_\w+|append))\(")
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

    Attributes:
        began: when the cell began, by the monotonic clock.
        placed: whether it is shown.
    """

    def __init__(self, shell: Any, execution: Execution) -> None:
        self.began = time.monotonic()
        self.placed = False
        #: The notebook's, also while `%%capture` replaces it.
        self._publisher = shell.display_pub
        self._execution = execution
        self._id = ""
        self._process = os.getpid()
        self._last = ""
        self._publishing = self._over = False
        older = execution.older[-1:]
        self._diff = _diff(older[0].source, execution.source) if older else []
        self._follower: Follower | None = None
        self._expected = _expected_metrics(execution)
        #: How many warnings there were at first: there is no room for more below the metrics.
        self._lines: int | None = None
        self._url: str | None = None
        #: Re-entrant: showing a card flushes streams, before which the card is to be shown.
        self._lock = threading.RLock()
        #: In which the kernel knows which cell a message belongs to.
        self._context = contextvars.copy_context()

    def shown(self, run: Run) -> None:
        """See `Shown`."""
        self._id = f"{CARD_ID}{run.id}"
        show_progress(run, True)
        writer, opening = getattr(run.target, "writer", None), run.target.open_runs.get(run.key)
        if writer is not None and opening is not None:
            self._follower = Follower(writer, run.key, opening)
        _updates.add(self)

    def place(self) -> None:
        """See `Shown`."""
        if os.getpid() != self._process:  # A child prints.
            return
        with guarded("showing a card"), self._lock:  # Which the thread that updates cards may hold to show it.
            if not (self.placed or self._publishing):
                self._context.run(self._publish)

    def updated(self) -> None:
        """Show what the run has recorded since. The thread that updates cards calls this."""
        with guarded("showing a card"), self._lock:
            self._context.run(self._publish)

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
        with self._lock:
            try:
                self._context.run(self._publish, _AT_END)
            finally:
                show_progress(self._execution.run, False)
                self._over = True
                if self._follower is not None:
                    self._execution.recorded = _kept(self._follower.recorded)
                    self._follower.close()

    def _publish(self, patience: float = _AT_ONCE) -> None:
        if self._over:  # The thread that updates cards was about to.
            return
        self._publishing = True
        try:
            if self._follower is not None:
                self._follower.read(patience)
            card = self._card()
            html = card_html(card)
            if html == self._last:
                return
            self._last = html
            forms = self._execution.card = {"text/html": html, "text/plain": card_text(card)}
            self._publisher.publish(forms, transient={"display_id": self._id}, update=self.placed)
            self.placed = True
        finally:
            self._publishing = False

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
        for look in itertools.count(1):
            time.sleep(_LOOK)
            with self._lock:
                cards = self._open[:]
                idle = 0 if cards else idle + 1
                if idle == _MOST_IDLE:
                    self._thread = None
                    return
            for card in cards:
                if card.placed:
                    if look % _EVERY == 0:
                        card.updated()
                elif time.monotonic() - card.began >= _LOOK:
                    card.place()


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
    return named + len(_LOGS.findall(execution.body)) + _has_value(execution)


def _has_value(execution: Execution) -> bool:
    """Whether the value of a cell's last expression is recorded under a name that the cell does not give."""
    if execution.arguments is not None and {"returns", "no-capture"} & set(execution.arguments.options):
        return False
    with contextlib.suppress(SyntaxError, ValueError):  # Other magics in the cell.
        value = "" if is_long(execution.body) else split_value(execution.body)[1]
        return bool(value) and _SHOWS.match(value) is None
    return False


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
    return [] if before == now else diff_lines(mask_text(before), mask_text(now), context=1)
