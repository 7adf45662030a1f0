"""The heartbeat of delivery: what a delivery process does now, for the programs that wait for it.

A record with a checksum in a file of the spool, written over the one before twice a second. The file gets its space
when it is made, so a full disk does not stop the heart. A record that is half written, damaged or foreign counts as
none.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
import zlib
from pathlib import Path

import msgspec

from trackdsl._core.decoders import msgpack_decoder
from trackdsl.journal._files import open_regular
from trackdsl.store_format.servers import LOCAL, folder_of

STARTING = "starting"
IMPORTING = "importing MLflow"
TABLES = "making the tables of a new database"
DELIVERING = "delivering"
IDLE = "idle"
#: What must be done before the first event is delivered, and takes long on a busy machine.
_PREPARING = (STARTING, IMPORTING, TABLES)
_ACTIVITIES = (*_PREPARING, DELIVERING, IDLE)

#: How often the heart beats, in seconds.
EVERY = 0.5
_NAME = "heartbeat"
_SIZE = 512
_LONGEST_STORE = 100
_HEAD = struct.Struct("<II")
#: After this time without a movement of the thread that delivers, the store has not answered it, in seconds.
_WAITS = 2.0
#: After this time without its lock, a process that was started counts as failed, in seconds.
_LONGEST_START = 300.0
_COMMAND = "trackdsl.delivery"


class Heartbeat(msgspec.Struct, array_like=True, frozen=True):
    """One record of the heartbeat.

    Attributes:
        pid: the process.
        count: grows with each beat.
        rounds: how often the process has begun to look at all its journals.
        activity: what it does, one of the constants of this module.
        store: the store that it does it for, without credentials.
        still: for how many seconds its thread that delivers has not moved, as it waits for a store or a lock.
    """

    pid: int
    count: int
    rounds: int
    activity: str
    store: str = ""
    still: float = 0.0

    @property
    def is_start(self) -> bool:
        """Whether it was written down for the process by the one that started it."""
        return not self.count

    @property
    def prepares(self) -> bool:
        """Whether it makes something ready that it needs before it delivers."""
        return self.activity in _PREPARING

    def description(self) -> str:
        """The activity of the process in a few words; empty if it does nothing.

        >>> Heartbeat(1, 1, 1, DELIVERING, "http://tracking:5000", 12.3).description()
        'waiting for http://tracking:5000 since 12 s'
        >>> Heartbeat(1, 1, 0, IMPORTING).description(), Heartbeat(1, 1, 1, IDLE).description()
        ('importing MLflow', '')
        """
        if self.activity == DELIVERING and self.still >= _WAITS:
            return f"waiting for {self.store} since {self.still:.0f} s"
        return "" if self.activity == IDLE else self.activity


class HeartbeatFile:
    """The file that a delivery process writes its beats to.

    Args:
        spool: the spool's folder.
        server: what it delivers to, see `servers.server_of`.

    Raises:
        OSError: it cannot be made, or is a link, a folder, a FIFO or a device.
    """

    def __init__(self, spool: Path, server: str = LOCAL) -> None:
        self._descriptor = open_regular(_path(spool, server), os.O_RDWR | os.O_CREAT)
        try:
            if os.fstat(self._descriptor).st_size != _SIZE:
                os.ftruncate(self._descriptor, 0)
                # Written, and not only given a length: the blocks of a hole would be allocated at the first beat.
                os.pwrite(self._descriptor, bytes(_SIZE), 0)
        except BaseException:
            self.close()
            raise

    def write(self, beat: Heartbeat) -> None:
        """Write a beat over the one before.

        Raises:
            OSError: it cannot be written.
        """
        payload = _encode(beat)
        os.pwrite(self._descriptor, (_HEAD.pack(len(payload), zlib.crc32(payload)) + payload).ljust(_SIZE, b"\0"), 0)

    def close(self) -> None:
        """Close the file; the last beat stays in it."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def read_heartbeat(spool: Path, server: str = LOCAL) -> Heartbeat | None:
    """The last beat of the process that delivers, or once delivered, to a server; None if there is no valid one."""
    try:
        descriptor = open_regular(_path(spool, server))
    except (OSError, ValueError):
        return None
    try:
        content = os.pread(descriptor, _SIZE, 0)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return _decoded(content)


def silence(spool: Path, server: str = LOCAL) -> float:
    """For how many seconds a delivery process has written no heartbeat, as it is stopped or the machine busy."""
    try:
        return max(0.0, time.time() - _path(spool, server).lstat().st_mtime)
    except OSError:
        return 0.0


def mark_starting(spool: Path, pid: int, server: str = LOCAL) -> None:
    """Mark a process that was just started and has no lock yet: on a busy machine that takes long."""
    if pid <= 0:
        return
    with contextlib.suppress(OSError), contextlib.closing(HeartbeatFile(spool, server)) as file:
        file.write(Heartbeat(pid, 0, 0, STARTING))


def is_starting(spool: Path, server: str = LOCAL) -> bool:
    """Whether a process was started that lives and has no lock yet."""
    beat = read_heartbeat(spool, server)
    return beat is not None and beat.is_start and _is_delivery(beat.pid)


def _is_delivery(pid: int) -> bool:
    """Whether a process was started to deliver, a while ago at most."""
    import psutil  # Here, as few programs need it.

    try:
        process = psutil.Process(pid)
        return _COMMAND in process.cmdline() and time.time() - process.create_time() < _LONGEST_START
    except psutil.Error:
        return False


def _decoded(content: bytes) -> Heartbeat | None:
    if len(content) != _SIZE:
        return None
    length, check = _HEAD.unpack_from(content)
    payload = content[_HEAD.size : _HEAD.size + length]
    if zlib.crc32(payload) != check:
        return None
    try:
        beat: Heartbeat = msgpack_decoder(Heartbeat).decode(payload)
    except (msgspec.MsgspecError, RecursionError):
        return None
    # It is shown on terminals.
    usable = beat.activity in _ACTIVITIES and (not beat.store or beat.store.isprintable())
    return beat if usable and beat.pid > 0 and 0 <= beat.still < 1e9 else None


def shortened(store: str) -> str:
    """The name of a store as it fits into a beat."""
    return "".join(c for c in store if c.isprintable())[:_LONGEST_STORE]


_encode = msgspec.msgpack.Encoder().encode


def _path(spool: Path, server: str) -> Path:
    return folder_of(spool, server) / _NAME
