"""What was read of a stretch and is not written yet: gathered by run, so that it takes few requests."""

from __future__ import annotations

import math
from collections.abc import Callable

from trackdsl import _events as events
from trackdsl.delivery import _compose, _limits
from trackdsl.delivery._compose import Pending
from trackdsl.delivery._runs import KnownRun
from trackdsl.delivery._sink import GONE, Batch, Refused, Sink


class Outbox:
    """Gathers and writes what belongs to runs.

    Args:
        refuse: is told what the store refused, and its answer.
        settle: called before anything is written: what has to be noted before is noted then.
    """

    def __init__(self, refuse: Callable[[str, Exception], None], settle: Callable[[], None]) -> None:
        self._refuse = refuse
        self._settle = settle
        self._pending: dict[bytes, tuple[KnownRun, Pending]] = {}

    def clear(self) -> None:
        """Forget what was gathered: it will be read again."""
        self._pending.clear()

    def of(self, id_: bytes, run: KnownRun) -> Pending:
        """What is to be written to a run."""
        found = self._pending.get(id_)
        if found is None:
            found = self._pending[id_] = run, Pending()
        return found[1]

    def add_metric(self, id_: bytes, run: KnownRun, key: str, value: float, time: int, step: int) -> None:
        """Add a point; `time` in milliseconds since 1970."""
        pending = self.of(id_, run)
        pending.add_metric(key, value, time, step)
        if math.isinf(value):
            pending.add_tag(
                f"trackdsl.infinite.{key}", f"{value} at step {step} is the largest number to MLflow's store"
            )

    def add_params(self, sink: Sink, id_: bytes, run: KnownRun, values: dict[str, events.Scalar]) -> None:
        """Add parameters: of those with one name the first stands, at the store too."""
        if not values:
            return
        if run.params is None:
            try:
                run.params = sink.params(run.run_id)
            except Refused:  # The run is gone for good; what is written to it will be refused, and told.
                run.params = {}
        fresh = Pending()
        for key, value in values.items():
            fresh.add_param(key, value)
        pending = self.of(id_, run)
        for key, text in fresh.batch.params.items():
            known = run.params.setdefault(key, text)
            if known == text:
                pending.batch.params[key] = text
            else:
                # MLflow would refuse the whole batch: the first value stands, the later one is told.
                pending.add_tag(f"trackdsl.param.later.{key}", text)
        pending.batch.tags.update(fresh.batch.tags)
        pending.texts.update(fresh.texts)

    def flush_all(self, sink: Sink) -> None:
        """Write everything."""
        for id_ in list(self._pending):
            self.flush(sink, id_)

    def flush(self, sink: Sink, id_: bytes) -> None:
        """Write what was gathered of one run."""
        found = self._pending.pop(id_, None)
        if found is None:
            return
        self._settle()
        run, pending = found
        for part in _compose.split(pending.batch):
            try:
                sink.write(run.run_id, part)
            except Refused as error:
                if sink.status(run.run_id) == GONE:
                    self._refuse(f"everything else of run {run.run_id}, which is deleted", error)
                    return
                self._write_singly(sink, run, part)
        for place, text in pending.texts.items():
            try:
                sink.write_text(run.run_id, text, place)
            except Refused as error:
                self._refuse(f"{place} of run {run.run_id}", error)

    def _write_singly(self, sink: Sink, run: KnownRun, batch: Batch) -> None:
        # Plain MLflow may have written to the run in the meantime.
        run.params = {**(run.params or {}), **sink.params(run.run_id)}
        later = {key: text for key, text in batch.params.items() if run.params.get(key, text) != text}
        if later:
            params = {key: text for key, text in batch.params.items() if key not in later}
            told = {_limits.fit_key(f"trackdsl.param.later.{key}"): text for key, text in later.items()}
            batch = Batch(params, batch.tags | told, batch.metrics)
        refused: dict[str, str] = {}
        for single in _compose.singles(batch):
            try:
                sink.write(run.run_id, single)
            except Refused as error:
                name = next(iter([*single.params, *single.tags, *(point[0] for point in single.metrics)]))
                refused[_limits.fit_key(f"trackdsl.refused.{name}")] = _limits.fit_text(str(error), 500)
                self._refuse(f"{name!r} of run {run.run_id}", error)
        try:
            for part in _compose.split(Batch(tags=refused)):
                sink.write(run.run_id, part)
        except Refused as error:
            self._refuse(f"run {run.run_id}", error)
