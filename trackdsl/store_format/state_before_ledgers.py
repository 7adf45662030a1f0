"""What versions before the ledger noted in a file for each kind of state, as changes of a ledger.

In a journal's folder were `runs`, a line for each fact; `aside`, frames with events; `deferred` and `blocked`, JSON. In
a server's folder were `awaited`, JSON, and `points/<run>.jsonl` and `tables/<table>.jsonl`, a JSON line for each fact.
Delivery carries such files over into the ledger and removes them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from trackdsl._core import events
from trackdsl._core.artifact_paths import checked_path
from trackdsl.journal._files import is_regular, read_regular
from trackdsl.journal._spool import is_journal_name
from trackdsl.store_format.ledger import (
    AWAITED,
    BASE,
    BLOCKED,
    DEFERRED,
    HELD,
    POINT,
    RANK,
    RELEASED,
    ROWS,
    RUN,
    SHARED_BY,
    TABLE,
    WITHOUT_PARENT,
)

_ID_LENGTH = 16
_HEAD = struct.Struct("<IIQ")
#: Marks the length of a frame in `aside` that holds milliseconds and an event.
_TIMED = 1 << 31
#: What a damaged or planted file may raise.
_ERRORS = (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, msgspec.MsgspecError)

Change = tuple[int, Any, Any]


class StateBefore(NamedTuple):
    """The state in the files of earlier versions.

    Attributes:
        changes: as changes of a ledger.
        files: the files.
    """

    changes: list[Change]
    files: list[Path]


def of_journal(directory: Path) -> StateBefore:
    """The notes of earlier versions about a journal."""
    readers = {"runs": _runs, "aside": _held, "deferred": _deferred, "blocked": _blocked}
    return _read({directory / name: reader for name, reader in readers.items()})


def of_server(folder: Path) -> StateBefore:
    """The notes of earlier versions about a server, without its tables."""
    return _read({folder / "awaited": _awaited, **dict.fromkeys(sorted(folder.glob("points/*.jsonl")), _points)})


def of_table(path: Path) -> StateBefore:
    """The notes of an earlier version about a table, in the table's file."""
    return _read({path: _table})


def _read(readers: dict[Path, Callable[[bytes], Iterable[Change]]]) -> StateBefore:
    found = StateBefore([], [])
    for path, reader in readers.items():
        if is_regular(path):
            with contextlib.suppress(OSError):
                content = read_regular(path)
                found.files.append(path)
                # What was read before a damaged part counts.
                with contextlib.suppress(*_ERRORS):
                    for change in reader(content):
                        found.changes.append(change)
    return found


def _runs(content: bytes) -> Iterator[Change]:
    known: dict[bytes, tuple[str, str, str]] = {}
    for line in content.decode("ascii", "replace").split("\n")[:-1]:
        with contextlib.suppress(ValueError, LookupError):
            fact, id_, *fields = line.split(" ")
            key = bytes.fromhex(id_)
            if fact in ("o", "a", "r") and len(fields) == 2:
                known[key] = fields[0], fields[1], fact
                yield RUN.change(key, (*known[key], fact != "a"))
            elif fact == "c" and key in known:
                yield RUN.change(key, (*known[key], False))
            elif fact in ("m", "l"):
                yield (WITHOUT_PARENT if fact == "m" else RANK).change(key, bytes.fromhex(fields[0]))
            elif fact == "p":
                yield WITHOUT_PARENT.change(key, None)


def _held(content: bytes) -> Iterator[Change]:
    offset = number = 0
    while offset + _HEAD.size <= len(content):
        length, segment, position = _HEAD.unpack_from(content, offset)
        payload = content[offset + _HEAD.size : offset + _HEAD.size + (length & ~_TIMED)]
        offset += _HEAD.size + (length & ~_TIMED)
        number -= 1
        if not length:
            yield RELEASED.change((segment, position), True)
            continue
        times: tuple[int, ...] = ()
        if length & _TIMED:
            times, payload = msgspec.msgpack.decode(payload, type=tuple[tuple[int, ...], bytes])
        events.decode(payload)  # A torn end was not noted as read.
        yield HELD.change((segment, position, number), (payload, times))


def _deferred(content: bytes) -> Iterator[Change]:
    for noted in json.loads(content):
        with contextlib.suppress(*_ERRORS):
            event = base64.b64decode(noted["event"])
            yield DEFERRED.change((noted["run_id"], noted["place"], event), (noted["experiment_id"], noted.get("only")))


def _blocked(content: bytes) -> Iterator[Change]:
    for noted in json.loads(content):
        id_ = bytes.fromhex(noted["run"])
        if len(id_) == _ID_LENGTH:
            yield BLOCKED.change(id_, (str(noted["name"]), str(noted["reason"])))


def _awaited(content: bytes) -> Iterator[Change]:
    for id_, first in json.loads(content).items():
        yield AWAITED.change(bytes.fromhex(id_), float(first))


def _points(content: bytes) -> Iterator[Change]:
    run_id = None
    for line in content.split(b"\n")[:-1]:
        entry = json.loads(line)
        if run_id is None:
            run_id = entry["run_id"]
            if not isinstance(run_id, str):
                return
        elif isinstance(entry, dict):
            if is_journal_name(entry["journal"]):
                yield SHARED_BY.change((run_id, entry["journal"]), True)
        else:
            *source, key, step, value, time = entry
            yield POINT.change((run_id, key, step, value, time), tuple(source) or ("", False, 0, 0))


def _table(content: bytes) -> Iterator[Change]:
    first = True
    for line in content.split(b"\n")[:-1]:
        entry = json.loads(line)
        if first:
            checked_path(entry["path"])
            yield TABLE.change(None, (entry["run_id"], entry["path"], str(entry.get("experiment_id", ""))))
            first = False
        elif "base" in entry:
            yield BASE.change(None, json.dumps(entry["base"]).encode())
        elif is_journal_name(entry["journal"]):
            yield ROWS.change((entry["journal"], entry["snapshot"]), json.dumps(entry["table"]).encode())
