"""What the first run that begins in a block records, for a command that shows it later."""

from __future__ import annotations

import threading
from typing import Any

from trackdsl._core.context import Scope
from trackdsl._decorate.scopes import call_no_more_when_opened, call_when_opened
from trackdsl._recording.emit import guarded
from trackdsl.journal._follower import Follower
from trackdsl.notebook.executions import Execution
from trackdsl.query._card import Card, Curve, Param, card_html, card_text

#: Seconds of processor time that reading takes at most.
_AT_MOST = 0.05


class Followed:
    """Follows the first run that this thread begins in a `with` block. Nothing that it raises reaches the block."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._run: Any = None
        self._follower: Follower | None = None

    def __enter__(self) -> Followed:
        call_when_opened(self._opened)
        return self

    def __exit__(self, *_: object) -> None:
        call_no_more_when_opened(self._opened)
        if self._follower is not None:
            self._follower.close()

    def _opened(self, scope: Scope) -> None:
        if self._run is not None or threading.get_ident() != self._thread:
            return
        with guarded("following a run"):
            run = self._run = scope.run
            writer, opening = getattr(run.target, "writer", None), run.target.open_runs.get(run.key)
            if writer is not None and opening is not None:
                self._follower = Follower(writer, run.key, opening)

    def describe(self, execution: Execution) -> None:
        """Give an execution the card and the metrics of its run, which has ended."""
        if self._follower is None or self._run is not execution.run:
            return
        self._follower.read(_AT_MOST)
        recorded = self._follower.recorded
        curves = {name: [point.value for point in points] for name, points in recorded.metrics.items() if points}
        execution.metrics = {name: values[-1] for name, values in curves.items()}
        card = Card(
            name=execution.run.name,
            status=execution.status,
            seconds=execution.seconds,
            params={name: Param(str(value)) for name, value in recorded.params.items()},
            metrics={name: Curve(values) for name, values in curves.items()},
            rows=max(len(curves), 1),
        )
        execution.card = {"text/html": card_html(card), "text/plain": card_text(card)}
