"""The ledger: what delivery has to remember of a journal, of a server, or of a table, besides its progress.

A ledger is one file to which delivery appends. Each commit is one frame: the length of its payload, the CRC-32 of the
payload, and the payload, a MessagePack list of changes. A change is a kind, a key, and the value that the key has from
now on; nil removes the key. So the ledger is a dict for each kind, and its file the history of the dicts. Delivery cuts
off a torn end, and replaces a file that has become much longer than what it means.

Versions before the ledger kept a file for each kind. What such files hold counts as the first commit.
"""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from trackdsl._core.decoders import msgpack_decoder
from trackdsl.journal._files import read_regular

#: The file's name in a journal's folder, and in that of a server.
NAME = "ledger"
_HEAD = struct.Struct("<II")
_NIL = b"\xc0"
#: The first bytes of a payload: a list, of up to 15 changes or of more, and in it a list of three.
_BEGINNING = re.compile(rb"(?s)(?=[\x91-\x9f]\x93|\xdc..\x93|\xdd....\x93)")

K = TypeVar("K")
V = TypeVar("V")


class Kind(Generic[K, V]):
    """A kind of state: a dict with keys and values of fixed types.

    Args:
        number: stands for the kind in the file.
        key, value: the types.
    """

    def __init__(self, number: int, key: Any, value: Any) -> None:
        self.number = number
        self.key = key
        self.value = value

    def change(self, key: K, value: V | None) -> tuple[int, K, V | None]:
        """A change to write: the key has this value from now on; None removes it."""
        return self.number, key, value


class Change(NamedTuple):
    """A change of one key, as it is in the file."""

    kind: int
    key: msgspec.Raw
    value: msgspec.Raw


def frame(changes: Iterable[tuple[int, Any, Any]]) -> bytes:
    """A commit in the format of the file; its changes are kind, key and value, or None to remove the key."""
    payload = _encode(list(changes))
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


class Commit(NamedTuple):
    """A commit in the content of a file, and the offsets of its first byte and behind it."""

    changes: list[Change]
    start: int
    end: int


def commits(content: bytes) -> Iterator[Commit]:
    """The commits in the content of a file; what is damaged between them is left out."""
    offset = 0
    while (found := _commit_at(content, offset) or _commit_behind(content, offset)) is not None:
        yield found
        offset = found.end


def is_torn(rest: bytes) -> bool:
    """Whether what follows the last commit may be one that was being written, or zeros, instead of a damaged one."""
    if not rest.strip(b"\0") or len(rest) < _HEAD.size:
        return True
    length, _ = _HEAD.unpack_from(rest)
    return bool(length > len(rest) - _HEAD.size)


def _commit_at(content: bytes, start: int) -> Commit | None:
    if start + _HEAD.size > len(content):
        return None
    length, check = _HEAD.unpack_from(content, start)
    begin, end = start + _HEAD.size, start + _HEAD.size + length
    if end > len(content):
        return None
    payload = content[begin:end]
    if zlib.crc32(payload) != check:
        return None
    try:
        return Commit(msgpack_decoder(list[Change]).decode(payload), start, end)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _commit_behind(content: bytes, offset: int) -> Commit | None:
    """The next commit behind damage: what looks like the beginning of one is one if its checksum is right."""
    for match in _BEGINNING.finditer(content, offset + _HEAD.size):
        found = _commit_at(content, match.start() - _HEAD.size)
        if found is not None:
            return found
    return None


def read(path: Path) -> bytes:
    """The content of a ledger's file; empty if there is none that can be read."""
    try:
        return read_regular(path)
    except OSError:
        return b""


def changes_in(content: bytes) -> Iterator[Change]:
    """The changes in the content of a file."""
    for commit in commits(content):
        yield from commit.changes


def latest(changes: Iterable[Change], kind: Kind[K, V]) -> dict[K, V]:
    """The keys and values of one kind after all changes; what has another type is left out."""
    found: dict[K, V] = {}
    keys, values = msgpack_decoder(kind.key), msgpack_decoder(kind.value)
    for change in changes:
        if change.kind == kind.number:
            with contextlib.suppress(msgspec.MsgspecError, RecursionError):
                key: Any = keys.decode(change.key)
                if bytes(change.value) == _NIL:
                    found.pop(key, None)
                else:
                    value: Any = values.decode(change.value)
                    found[key] = value
    return found


_encode = msgspec.msgpack.Encoder().encode

# In a journal's ledger.
#: Our id of a run; MLflow's id (empty if it is ours), its experiment, how it came to the journal, whether it is open.
RunValue = tuple[str, str, str, bool]
RUN: Kind[bytes, RunValue] = Kind(1, bytes, RunValue)
#: Our id of a run that was created without its parent; our id of the parent.
WITHOUT_PARENT: Kind[bytes, bytes] = Kind(2, bytes, bytes)
#: Our id of the run of a rank; our id of the root that all ranks share.
RANK: Kind[bytes, bytes] = Kind(3, bytes, bytes)
#: An event that is held back: its position in the journal (segment and offset behind it) and a number, which is
#: negative if an earlier version held it; the event, and the milliseconds of its points if they may have been sent.
HeldKey = tuple[int, int, int]
HeldValue = tuple[bytes, tuple[int, ...]]
HELD: Kind[HeldKey, HeldValue] = Kind(4, HeldKey, HeldValue)
#: The position of an event that was held and is delivered; it may be read from the journal once more.
RELEASED: Kind[tuple[int, int], bool] = Kind(5, tuple[int, int], bool)
#: A file or model that the store has not accepted: MLflow's id of the run, path, event; MLflow's id of the experiment,
#: and the files in its folder that wait, or nil for all of it.
DeferredKey = tuple[str, str, bytes]
DeferredValue = tuple[str, list[str] | None]
DEFERRED: Kind[DeferredKey, DeferredValue] = Kind(6, DeferredKey, DeferredValue)
#: Our id of a blocked run; its name, and why.
BLOCKED: Kind[bytes, tuple[str, str]] = Kind(7, bytes, tuple[str, str])
#: Our id of an open run that began in a segment that is removed; the event that began it.
BEGINNING: Kind[bytes, bytes] = Kind(14, bytes, bytes)

# In a server's ledger.
#: Our id of a run that is awaited; since when, in seconds since 1970.
AWAITED: Kind[bytes, float] = Kind(8, bytes, float)
#: MLflow's id of a run, and a journal that writes to it.
SHARED_BY: Kind[tuple[str, str], bool] = Kind(9, tuple[str, str], bool)
#: MLflow's id of a run, key, step, value and millisecond of a point; the journal that it was read from, whether it was
#: held, its position in the journal. The journal is empty if the millisecond is not free for another reason.
PointKey = tuple[str, str, int, float | str, int]
PointSource = tuple[str, bool, int, int]
POINT: Kind[PointKey, PointSource] = Kind(10, PointKey, PointSource)
#: Our id of a root run whose changes are still to be written; MLflow's id, and the journal that it began in.
CHANGES: Kind[bytes, tuple[str, str]] = Kind(17, bytes, tuple[str, str])
#: The name of such a journal; the content of its `origin`, as JSON: the journal may be gone by then.
ORIGIN: Kind[str, bytes] = Kind(15, str, bytes)
#: Our id of such a root run, if its tree is to become a trace.
TRACED: Kind[bytes, bool] = Kind(16, bytes, bool)
#: Our id of such a root run, if its changes are written down and only its report or trace is to be made.
NOTED: Kind[bytes, bool] = Kind(18, bytes, bool)

# In a table's ledger.
#: Which table it is: MLflow's id of the run, path, MLflow's id of the experiment.
TABLE: Kind[None, tuple[str, str, str]] = Kind(11, None, tuple[str, str, str])
#: What MLflow's file had before: a JSON object with the names of the `columns`, and the rows as `data`.
BASE: Kind[None, bytes] = Kind(12, None, bytes)
#: Journal and snapshot of an event; its rows, likewise.
ROWS: Kind[tuple[str, str], bytes] = Kind(13, tuple[str, str], bytes)
#: The same, without a copy of the content.
ANY_BASE: Kind[None, msgspec.Raw] = Kind(BASE.number, None, msgspec.Raw)
ANY_ROWS: Kind[tuple[str, str], msgspec.Raw] = Kind(ROWS.number, tuple[str, str], msgspec.Raw)
