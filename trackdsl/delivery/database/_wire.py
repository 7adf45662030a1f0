"""Change sets between delivery and a server: MessagePack, compressed with zlib.

A server must not trust what it is sent: its size is limited before and after it is decompressed, and each field has
the type and the limits that `_changes.py` and `limits.py` give it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Annotated

import msgspec
from msgspec import Meta

from trackdsl._core.events import Input
from trackdsl.delivery.database._changes import (
    MOST_BATCHES,
    MOST_EXPERIMENTS,
    MOST_INPUTS,
    MOST_ITEMS,
    MOST_RUNS,
    ChangeSet,
    End,
    NewRun,
    RunChange,
    count_items,
    items_in,
    items_of,
)
from trackdsl.delivery.database._inputs import check_input
from trackdsl.delivery.store._errors import Refused
from trackdsl.delivery.store._sink import Batch
from trackdsl.store_format.limits import RunId, is_key

#: Below `/api/`, where MLflow refuses requests of web pages from elsewhere.
ABOUT_PATH = "/api/2.0/trackdsl/v1"
CHANGES_PATH = f"{ABOUT_PATH}/changes"
CONTENT_TYPE = "application/vnd.trackdsl.changes"
#: The limit for a change set, compressed or not, in bytes. A dataset alone may have 17 MiB.
MOST_BYTES = 24 << 20
#: A batch of this many points, or parameters and tags, does not grow further; a part has at least one batch.
_MOST_POINTS, _MOST_FIELDS = 10_000, 500
#: The fastest: most of the content are words that repeat.
_LEVEL = 1

_encoder = msgspec.msgpack.Encoder()


class _Sent(msgspec.Struct, array_like=True):
    """A `RunChange` whose batches are not decoded yet: a few kilobytes may have millions of points in them."""

    new: NewRun | None = None
    batches: Annotated[list[msgspec.Raw], Meta(max_length=MOST_BATCHES)] = msgspec.field(default_factory=list)
    inputs: Annotated[list[Input], Meta(max_length=MOST_INPUTS)] = msgspec.field(default_factory=list)
    end: End = None


_decode_runs = msgspec.msgpack.Decoder(Annotated[dict[RunId, msgspec.Raw], Meta(max_length=MOST_RUNS)]).decode
_decode_run = msgspec.msgpack.Decoder(_Sent).decode
_decode_batch = msgspec.msgpack.Decoder(Batch).decode


class About(msgspec.Struct):
    """A server's answer to the question whether it takes change sets.

    Attributes:
        version: the version of the format of change sets.
        writes: whether it takes change sets.
        reason: why it does not; empty if it does.
    """

    version: int
    writes: bool
    reason: str = ""


class Written(msgspec.Struct):
    """The answer to a change set that was written.

    Attributes:
        runs: how many runs it has; a page of a proxy, or of another program, does not know that.
    """

    runs: int


class TooLarge(Refused):
    """A change set is larger than a server accepts."""


def encoded(changes: ChangeSet) -> Iterator[tuple[int, bytes]]:
    """A change set in one or more parts, in order, each of which a server accepts; each with the number of its runs.

    Raises:
        TooLarge: one write to one run is too large.
        Refused: a text has no encoding.
    """
    for change in changes.values():
        if len(change.batches) > 1:
            change.batches = list(_merged(change.batches))
    yield from _parts(changes)


def decoded(content: bytes) -> ChangeSet:
    """A change set that was sent.

    Raises:
        TooLarge: it is larger than allowed.
        Refused: it is damaged, or a field is not what it must be.
    """
    plain = _decompressed(content)
    try:
        changes = _decoded_runs(plain)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"this is not a change set: {error}") from None
    for change in changes.values():
        for batch in change.batches:
            for key in (*batch.params, *batch.tags, *{point[0] for point in batch.metrics}):
                if not is_key(key):
                    raise Refused(
                        f"{key!r} is not a valid name: it has letters, digits and /_-. : only, and reads as a path"
                    )
        for event in change.inputs:
            check_input(event)
    return changes


def _decoded_runs(plain: bytes) -> ChangeSet:
    """Decode run by run and batch by batch, so that what is too large takes no more memory than what is not."""
    changes: ChangeSet = {}
    left = MOST_ITEMS
    for run_id, content in _decode_runs(plain).items():
        sent = _decode_run(content)
        changes[run_id] = change = RunChange(sent.new, [], sent.inputs, sent.end)
        left -= items_of(change)
        for each in sent.batches:
            if left < 0:
                break
            batch = _decode_batch(each)
            change.batches.append(batch)
            left -= items_in(batch)
        if left < 0:
            raise TooLarge(f"a change set has at most {MOST_ITEMS} points, parameters and tags, and fewer datasets")
    return changes


def _parts(changes: ChangeSet) -> Iterator[tuple[int, bytes]]:
    if _fits(changes):
        try:
            plain = _encoder.encode(changes)
        except (UnicodeEncodeError, OverflowError) as error:
            raise Refused(str(error)) from None
        if len(plain) <= MOST_BYTES:
            yield len(changes), zlib.compress(plain, _LEVEL)
            return
    for part in _halves(changes):
        yield from _parts(part)


def _fits(changes: ChangeSet) -> bool:
    new_in = {change.new.experiment_id for change in changes.values() if change.new is not None}
    return (
        len(changes) <= MOST_RUNS
        and len(new_in) <= MOST_EXPERIMENTS
        and count_items(changes) <= MOST_ITEMS
        and all(len(each.batches) <= MOST_BATCHES and len(each.inputs) <= MOST_INPUTS for each in changes.values())
    )


def _halves(changes: ChangeSet) -> tuple[ChangeSet, ChangeSet]:
    if len(changes) > 1:
        middle = len(changes) // 2
        return dict(islice(changes.items(), middle)), dict(islice(changes.items(), middle, None))
    ((run_id, change),) = changes.items()
    batches, inputs = len(change.batches) // 2, len(change.inputs) // 2
    if not batches and not inputs:
        if change.batches and change.inputs:
            return {run_id: RunChange(change.new, change.batches)}, {
                run_id: RunChange(None, [], change.inputs, change.end)
            }
        raise TooLarge(f"what is to be written to the run {run_id} is larger than a server accepts at once")
    return (
        {run_id: RunChange(change.new, change.batches[:batches], change.inputs[:inputs])},
        {run_id: RunChange(None, change.batches[batches:], change.inputs[inputs:], change.end)},
    )


def _merged(batches: list[Batch]) -> Iterator[Batch]:
    """The batches as few larger ones. A parameter that is written again with another value begins a new one."""
    merged = Batch()
    for batch in batches:
        contradicts = any(merged.params.get(key, value) != value for key, value in batch.params.items())
        if contradicts or len(merged.metrics) >= _MOST_POINTS or len(merged.params) + len(merged.tags) >= _MOST_FIELDS:
            yield merged
            merged = Batch()
        merged.params.update(batch.params)
        merged.tags.update(batch.tags)
        merged.metrics.extend(batch.metrics)
    yield merged


def _decompressed(content: bytes) -> bytes:
    if len(content) > MOST_BYTES:
        raise TooLarge(f"a change set has at most {MOST_BYTES >> 20} MiB")
    decompressor = zlib.decompressobj()
    try:
        plain = decompressor.decompress(content, MOST_BYTES + 1)
    except zlib.error as error:
        raise Refused(f"this is not compressed as it must be: {error}") from None
    if len(plain) > MOST_BYTES:
        raise TooLarge(f"a change set has at most {MOST_BYTES >> 20} MiB")
    if not decompressor.eof or decompressor.unused_data:
        raise Refused("this is cut off, or something follows it")
    return plain
