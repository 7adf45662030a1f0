"""The environment variables with which a program reaches its store, passed to the delivery process in memory.

A delivery process outlives the program that started it. A named pipe in the spool brings it the credentials, proxies
and certificates of later programs, and tokens that a running program has refreshed. They are never written to the disk.

A message is compressed JSON, cut into pieces that a pipe writes atomically, even if several programs write at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import select
import stat
import struct
import termios
import time
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from trackdsl._core.ids import prefix
from trackdsl._core.redaction import is_secret_name
from trackdsl.delivery._sink import UPLOAD_TIMEOUT
from trackdsl.journal._files import open_regular
from trackdsl.store_format.servers import STARTED

NAME = "environment"
#: Prefixes of variables that MLflow, the clients of clouds, database drivers and Kerberos read.
_PREFIX = re.compile(
    r"(?:MLFLOW|AWS|BOTO|S3|AZURE|ARM|GOOGLE|GCLOUD|CLOUDSDK|GCE|STORAGE_EMULATOR|DATABRICKS|MYSQL|SSL_CERT|OCI|ALIBABA"
    r"|OSS)_|PG|KRB5"
)
_NAMES = frozenset(["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC", "KUBECONFIG", "HOME", UPLOAD_TIMEOUT])
#: Variables that concern only the program, or that delivery sets itself.
_EXCLUDED = frozenset(
    [
        *("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"),
        *("MLFLOW_REGISTRY_URI", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "MLFLOW_ACTIVE_MODEL_ID", "PWD", "OLDPWD"),
    ]
)
#: How many programs' environments are remembered.
_MOST = 10_000
#: The number of the message, the index of the piece, and the count of pieces.
_HEAD = struct.Struct("<QHH")
_PIECE = select.PIPE_BUF - _HEAD.size
#: An incomplete message is forgotten after this time, in seconds.
_FORGET_AFTER = 60.0
_LARGEST = 1 << 20
#: The limit for stored pieces of incomplete messages, and for pieces read at one time: endless writing to the pipe must
#: not fill the memory or block delivery.
_MOST_PIECES = 1024


class Handed(NamedTuple):
    """The environment of a program.

    Attributes:
        prefix: the first bytes of the ids of its runs, in hexadecimal.
        variables: name to value.
        for_all: whether to use it for the records of other programs too, as with `trackdsl sync`.
    """

    prefix: str
    variables: Mapping[str, str]
    for_all: bool = False

    def encode(self) -> bytes:
        """The content of a message."""
        return zlib.compress(json.dumps([self.prefix, dict(self.variables), self.for_all]).encode())

    @classmethod
    def decode(cls, content: bytes) -> Handed:
        """Read the content of a message.

        Raises:
            ValueError: it is not an environment.
        """
        try:
            unpacked = zlib.decompressobj().decompress(content, _LARGEST)
            sender, variables, for_all = json.loads(unpacked)
        except (zlib.error, TypeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        if not isinstance(sender, str) or not isinstance(variables, dict):
            raise ValueError("no environment")
        usable = {name: value for name, value in variables.items() if _can_be_set(name, value)}
        return cls(sender, usable, bool(for_all))


@lru_cache(maxsize=4096)
def concerns_store(name: str) -> bool:
    """Whether a variable may decide whether, and as which user, a store is reached.

    >>> concerns_store("MLFLOW_TRACKING_TOKEN"), concerns_store("https_proxy"), concerns_store("PATH")
    (True, True, False)
    """
    if name in _EXCLUDED:
        return False
    return (
        _PREFIX.match(name) is not None
        or name in _NAMES
        or name.lower().endswith("_proxy")
        or bool(is_secret_name(name))
    )


def _can_be_set(name: str, value: object) -> bool:
    """Whether the system accepts a name and a value for an environment variable."""
    if not isinstance(value, str) or not name or "=" in name or "\0" in name + value:
        return False
    try:
        os.fsencode(name + value)
    except UnicodeEncodeError:
        return False
    return True


def current() -> dict[str, str]:
    """The variables of this process that concern stores."""
    return {name: value for name, value in os.environ.items() if concerns_store(name)}


def of_child() -> dict[str, str]:
    """The environment for a Python process that imports this same package, wherever it is installed."""
    package = str(Path(__file__).resolve().parents[2])
    path = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}


class _Sender:
    """Sends the environment of this process to a delivery process that does not have it yet."""

    def __init__(self) -> None:
        self._sent: dict[Path, tuple[object, Handed]] = {}
        #: The pieces that are not written yet, because the pipe was full.
        self._left: dict[Path, list[bytes]] = {}

    def send(self, spool: Path, handed: Handed | None = None) -> None:
        """Send the environment, unless the delivery process has it.

        Args:
            spool: the spool's folder.
            handed: what to send instead of the environment of this program.
        """
        path = spool / NAME
        handed = handed or Handed(prefix().hex(), current())
        with contextlib.suppress(OSError):  # No delivery process reads, or the pipe is full: the next call tries again.
            started = os.stat(spool / STARTED, follow_symlinks=False).st_mtime_ns
            left = self._left.get(spool, [])
            if self._sent.get(spool) != (started, handed):
                left = self._left[spool] = _pieces(handed.encode())
                self._sent[spool] = started, handed
            if not left:
                return
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                _check(os.fstat(descriptor))
                while left:
                    os.write(descriptor, left[0])
                    del left[0]
            finally:
                os.close(descriptor)


hand_over = _Sender().send


def is_taken(spool: Path) -> bool:
    """Whether the delivery process has read everything that was sent, or nothing can be sent."""
    try:
        descriptor = os.open(spool / NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        _check(os.fstat(descriptor))
        return not any(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    except OSError:
        return True
    finally:
        os.close(descriptor)


class Pipe:
    """The delivery process's end of the pipe.

    Args:
        spool: the spool's folder.
    """

    def __init__(self, spool: Path) -> None:
        self._path = spool / NAME
        self._parts: dict[int, tuple[float, dict[int, bytes]]] = {}
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):  # A file system without pipes: delivery keeps its first environment.
            self._path.unlink(missing_ok=True)
            os.mkfifo(self._path, 0o600)
            # Open for writing too: a pipe without a writer always reports its end.
            descriptor = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            _check(os.fstat(descriptor))
            self._descriptor = descriptor
            # The time of this file tells programs that an earlier process, not this one, has read their messages.
            with open(open_regular(spool / STARTED, os.O_WRONLY | os.O_CREAT), "wb") as started:
                os.utime(started.fileno())

    def read(self) -> list[Handed]:
        """The environments that programs have sent since the last time."""
        found: list[Handed] = []
        descriptor = self._descriptor
        if descriptor is None:
            return found
        for _ in range(_MOST_PIECES):
            try:
                piece = os.read(descriptor, select.PIPE_BUF)
            except BlockingIOError:
                break
            content = self._complete(piece)
            with contextlib.suppress(ValueError):
                found += [Handed.decode(content)] if content is not None else []
        return found

    def close(self) -> None:
        """Remove the pipe."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            with contextlib.suppress(OSError):  # Something else may have replaced it.
                if stat.S_ISFIFO(os.lstat(self._path).st_mode):
                    os.unlink(self._path)

    def _complete(self, piece: bytes) -> bytes | None:
        """The message that a piece completes."""
        if len(piece) <= _HEAD.size:
            return None
        number, index, count = _HEAD.unpack_from(piece)
        if index >= count or count > _MOST_PIECES:
            return None
        now = time.monotonic()
        parts = self._parts.setdefault(number, (now, {}))[1]
        parts[index] = piece[_HEAD.size :]
        if len(parts) == count:
            del self._parts[number]
            return b"".join(parts[at] for at in sorted(parts))
        self._forget(now)
        return None

    def _forget(self, now: float) -> None:
        """Forget the oldest incomplete messages: those that are too old, or that take too much memory."""
        left = sum(len(pieces) for _, pieces in self._parts.values())
        for number, (begun, pieces) in list(self._parts.items()):
            if now - begun < _FORGET_AFTER and left <= _MOST_PIECES:
                break
            del self._parts[number]
            left -= len(pieces)


def _pieces(content: bytes) -> list[bytes]:
    """The pieces of a message, each small enough for an atomic write."""
    number = int.from_bytes(os.urandom(8), "little")
    cut = [content[at : at + _PIECE] for at in range(0, len(content), _PIECE)]
    # All of one length, so that the reader finds their boundaries.
    return [_HEAD.pack(number, at, len(cut)) + piece.ljust(_PIECE, b"\0") for at, piece in enumerate(cut)]


def _check(found: os.stat_result) -> None:
    if not stat.S_ISFIFO(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise OSError(errno.EPERM, "it is not a pipe of this user")


class Environments:
    """The environments of programs, and the choice of one for each journal.

    Args:
        kept: names of variables that delivery sets for itself.

    Attributes:
        version: grows with each new environment.
    """

    def __init__(self, kept: Iterable[str] = ()) -> None:
        self.version = 0
        self._kept = frozenset(kept)
        self._base = self._normal(current())
        self._applied: Mapping[str, str] = self._base
        self._own: dict[str, Mapping[str, str]] = {}
        self._latest: Mapping[str, str] | None = None
        self._for_all: Mapping[str, str] | None = None
        #: The environment to try next for a program's journal, after its first choice failed.
        self._next: dict[str, Mapping[str, str]] = {}

    def take(self, handed: Handed) -> None:
        """Note an environment that a program has sent."""
        variables = self._same(self._normal(handed.variables))
        if handed.for_all:
            known, self._for_all = self._for_all, variables
        else:
            known = self._own.pop(handed.prefix, None)
            self._own[handed.prefix] = variables  # The latest one is the last.
            self._latest = variables
            for oldest in list(self._own)[: max(0, len(self._own) - _MOST)]:
                del self._own[oldest]
        if known != variables:
            self._next = dict.fromkeys(self._next, variables)
            self.version += 1

    def knows(self, program: str) -> bool:
        """Whether a program has sent its environment."""
        return program in self._own

    def of(self, program: str, alive: bool) -> Mapping[str, str]:
        """The environment to deliver a journal with.

        That of a running program comes first. Other environments are tried only if it fails: the one of the user's
        `trackdsl sync`, and, for a program that has ended, those of later programs.

        Args:
            program: the prefix of the ids of its runs, in hexadecimal.
            alive: whether the program still runs.
        """
        choices = self._choices(program, alive)
        wanted = self._next.get(program)
        return wanted if wanted is not None and wanted in choices else choices[0]

    def failed(self, program: str, alive: bool) -> None:
        """Note that a store was not reached with the environment that was chosen for a journal."""
        choices = self._choices(program, alive)
        tried = self.of(program, alive)
        self._next[program] = choices[(choices.index(tried) + 1) % len(choices)]

    def _choices(self, program: str, alive: bool) -> list[Mapping[str, str]]:
        own = self._own.get(program)
        wanted = [own, self._for_all] if alive and own is not None else [self._for_all, own, self._latest, self._base]
        found: list[Mapping[str, str]] = []
        for each in wanted:
            if each is not None and each not in found:
                found.append(each)
        return found

    def apply(self, chosen: Mapping[str, str]) -> bool:
        """Make an environment that of this process; returns whether this changed anything."""
        if chosen == self._applied:
            return False
        for name in self._normal(current()):
            if name not in chosen:
                del os.environ[name]
        os.environ.update(chosen)
        self._applied = chosen
        return True

    def _normal(self, variables: Mapping[str, str]) -> Mapping[str, str]:
        """The variables without those that delivery sets itself; a timeout that the user set is kept for uploads."""
        timeout = variables.get(UPLOAD_TIMEOUT) or variables.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "0")
        wanted = {name: value for name, value in variables.items() if name not in self._kept}
        return {**wanted, UPLOAD_TIMEOUT: timeout} if self._kept else wanted

    def _same(self, variables: Mapping[str, str]) -> Mapping[str, str]:
        """An equal environment that is known already, so that a thousand equal ones take the memory of one."""
        known: list[Any] = [self._base, self._latest, self._for_all]
        return next((each for each in known if each == variables), variables)
