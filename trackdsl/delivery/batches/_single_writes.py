"""Writing what a store refuses together: item by item, and texts in a fallback encoding."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from trackdsl.delivery.batches import _compose
from trackdsl.delivery.state._blocked import check_experiment
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._errors import Refused
from trackdsl.delivery.store._fallback_encoding import fitting_fallbacks, is_encoding_of
from trackdsl.delivery.store._sink import GONE, Batch, Sink
from trackdsl.store_format import limits as _limits
from trackdsl.store_format.tags import path_of_text

#: A tag that says why something is missing has at most this many characters.
_LONGEST_REASON = 500


class SingleWrites:
    """Writes to runs, so that one item that the store refuses costs no other one.

    Args:
        refuse: called with what the store refused, and its answer.
    """

    def __init__(self, refuse: Callable[[str, Exception], None]) -> None:
        self._refuse = refuse

    def write(self, sink: Sink, run: DeliveredRun, batch: Batch) -> Refused | None:
        """Write a batch; what is refused in it is reported, and named in a tag of the run.

        Returns:
            why nothing could be written, if the run is deleted; else None.

        Raises:
            RunBlocked: its experiment is deleted.
        """
        try:
            sink.write(run.run_id, batch)
        except Refused as error:
            if sink.status(run.run_id) == GONE:
                check_experiment(sink, run.experiment_id, error)
                # The experiment may have been restored in between.
                if sink.status(run.run_id) == GONE:
                    return error
            self._write_singly(sink, run, batch)
        return None

    def write_text(self, sink: Sink, run: DeliveredRun, text: str, path: str) -> None:
        """Write a whole text to a file."""
        try:
            sink.write_text(run.run_id, text, path)
        except Refused as error:
            check_experiment(sink, run.experiment_id, error)
            self.omit(sink, run, f"{path} of run {run.run_id}", path, error)

    def omit(self, sink: Sink, run: DeliveredRun, what: str, name: str, error: Refused) -> None:
        """Report what the store refused, and name it in a tag of the run."""
        self._refuse(what, error)
        tag_omitted(sink, run.run_id, name, str(error), run.experiment_id)

    def _write_singly(self, sink: Sink, run: DeliveredRun, batch: Batch) -> None:
        if batch.params:
            # Plain MLflow may have written to the run in the meantime.
            run.params = {**(run.params or {}), **sink.params(run.run_id)}
        refused: dict[str, str] = {}
        parts = [_tag_later_values(run.params or {}, batch)]
        while parts:
            part = parts.pop(0)
            try:
                sink.write(run.run_id, part)
                continue
            except Refused as error:
                refusal = error
            halves = list(_compose.halves(part))
            if halves:
                parts[:0] = halves
            elif not self._write_encoded(sink, run, part):
                name = next(iter([*part.params, *part.tags, *(point[0] for point in part.metrics)]))
                refused[f"trackdsl.refused.{name}"] = str(refusal)
                self._refuse(f"{name!r} of run {run.run_id}", refusal)
        self._tag_refused(sink, run, refused)

    def _tag_refused(self, sink: Sink, run: DeliveredRun, refused: dict[str, str]) -> None:
        tags = {_limits.fit_key(key): _limits.fit_text(text, _LONGEST_REASON) for key, text in refused.items()}
        failed: Refused | None = None
        for part in _compose.split(Batch(tags=tags)):
            with contextlib.suppress(Refused):
                sink.write(run.run_id, part)
                continue
            for key, text in part.tags.items():
                try:
                    _write_note(sink, run.run_id, key, text)
                except Refused as error:
                    failed = error
        if failed is not None:
            self._refuse(f"run {run.run_id}", failed)

    def _write_encoded(self, sink: Sink, run: DeliveredRun, single: Batch) -> bool:
        """Write a refused text in a fallback encoding, and the whole text to a file; False if none is accepted."""
        kind, limit = ("params", _limits.MAX_PARAM) if single.params else ("tags", _limits.MAX_TAG)
        for key, text in (single.params or single.tags).items():
            for name, plain in _encodings(key, text, limit):
                encoded = {name: plain}
                try:
                    sink.write(run.run_id, Batch(params=encoded) if single.params else Batch(tags=encoded))
                except Refused:
                    continue
                if plain != text:
                    self.write_text(sink, run, text, path_of_text(kind, key))
                return True
        return False


def _encodings(key: str, text: str, limit: int) -> Iterator[tuple[str, str]]:
    """What to try for a refused item; keys of ours, which may quote anything, can be encoded too."""
    texts = fitting_fallbacks(text, limit)
    yield from ((key, plain) for plain in texts)
    if key.startswith("trackdsl.") and not key.isascii():
        yield from ((_limits.spell_out(key), plain) for plain in (text, *texts))


def tag_omitted(sink: Sink, run_id: str, name: str, reason: str, experiment_id: str = "") -> None:
    """Say in a tag of a run why something is left out; what calls this has said so in the log.

    Args:
        sink: the store.
        run_id: the store's id of the run.
        name: what is left out, such as the path of a file.
        reason: why.
        experiment_id: the run's experiment, if this can be done later.

    Raises:
        RunBlocked: its experiment is deleted.
    """
    key = _limits.fit_key(f"trackdsl.omitted.{name}")
    try:
        _write_note(sink, run_id, key, _limits.fit_text(reason, _LONGEST_REASON))
    except Refused as error:  # The run is deleted too, or takes no tag at all.
        if experiment_id:
            check_experiment(sink, experiment_id, error)


def _write_note(sink: Sink, run_id: str, key: str, text: str) -> None:
    """Write a tag that may quote anything: if the store refuses it as it is, in ASCII.

    Raises:
        Refused: the store refuses that too.
    """
    attempts = [(key, text), *_encodings(key, text, _limits.MAX_TAG)]
    for number, (name, plain) in enumerate(attempts, 1):
        try:
            sink.write(run_id, Batch(tags={name: plain}))
            return
        except Refused:
            if number == len(attempts):
                raise


def _tag_later_values(held: dict[str, str], batch: Batch) -> Batch:
    """Move parameters with other values than the run has to tags: MLflow would refuse the whole batch."""
    later = {key for key, text in batch.params.items() if not is_encoding_of(held.get(key, text), text)}
    if not later:
        return batch
    later_tags = {_limits.fit_key(f"trackdsl.param.later.{key}"): batch.params[key] for key in later}
    params = {key: text for key, text in batch.params.items() if key not in later}
    return Batch(params, batch.tags | later_tags, batch.metrics)
