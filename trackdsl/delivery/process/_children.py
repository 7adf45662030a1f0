"""The child processes that deliver to remote servers.

A server that hangs, or sends a byte a second, delays only its own child. A child ends with its parent: its standard
input is a pipe from the parent, which also brings the environments of programs.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from trackdsl.delivery.environment import ProgramEnvironment, of_child
from trackdsl.errors import logger
from trackdsl.journal._files import open_regular
from trackdsl.store_format.heartbeat import mark_starting

#: The exit code of a child whose store does not answer while no program is running.
GAVE_UP = 3
#: How long a child may take to end, in seconds. It checks after each stretch of events. Killing it loses nothing.
_GRACE = 2.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_LENGTH = struct.Struct("<I")
#: How many programs' environments are kept for children that start later.
_MOST_ENVIRONMENTS = 1000


@dataclass
class _Child:
    process: subprocess.Popen[bytes] | None = None
    unsent: bytes = b""
    gave_up: bool = False
    pause: float = 0.0
    next_start: float = 0.0
    started: float = field(default_factory=time.monotonic)


class Children:
    """Starts a child for each server that has something to receive, and ends them all.

    Args:
        spool: the spool's folder.
        log: the file for their warnings.
        only: the journals to deliver; None for all.
        foreground: whether they don't give way to programs.
    """

    def __init__(
        self, spool: Path, log: Path, only: Collection[Path] | None = None, *, foreground: bool = False
    ) -> None:
        self._foreground = foreground
        self._spool = spool
        self._only = only
        self._log = log
        self._environment = of_child()
        self._children: dict[str, _Child] = {}
        self._handed: dict[str, ProgramEnvironment] = {}

    def supervise(self, servers: Iterable[str], *, woken: bool) -> None:
        """Start missing children, and handle those that have ended.

        Args:
            servers: those that journals are waiting for, or that programs record to.
            woken: whether to try again those that were given up.
        """
        wanted = set(servers)
        for server in wanted - set(self._children):
            self._children[server] = _Child()
        for server, child in list(self._children.items()):
            self._check_exit(server, child)
            if woken:
                child.gave_up, child.next_start = False, 0.0
            if child.process is not None:
                _send(child)
            elif server not in wanted:
                del self._children[server]
            elif not child.gave_up and time.monotonic() >= child.next_start:
                self._start(server, child)

    def alive(self) -> bool:
        """Whether any child runs."""
        return any(child.process is not None for child in self._children.values())

    def given_up(self) -> set[str]:
        """The servers that did not answer for so long that delivery stopped trying."""
        return {server for server, child in self._children.items() if child.gave_up}

    def hand_over(self, handed: ProgramEnvironment) -> None:
        """Pass the environment of a program to all children, including later ones."""
        self._handed.pop(handed.prefix, None)
        self._handed[handed.prefix] = handed
        for oldest in list(self._handed)[: max(0, len(self._handed) - _MOST_ENVIRONMENTS)]:
            del self._handed[oldest]
        for child in self._children.values():
            child.unsent += _message(handed)

    def stop(self) -> None:
        """End all children; the next ones deliver what they did not finish."""
        running = [child.process for child in self._children.values() if child.process is not None]
        for process in running:
            with contextlib.suppress(OSError):
                process.terminate()
        give_up = time.monotonic() + 2 * _GRACE
        for process in running:
            try:
                process.wait(max(0.0, give_up - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdin is not None
            process.stdin.close()
        self._children.clear()

    def _start(self, server: str, child: _Child) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "trackdsl.delivery", str(self._spool), "--server", server]
        command += ["--foreground"] if self._foreground else []
        command += [argument for journal in self._only or () for argument in ("--only", str(journal))]
        try:
            with open(open_regular(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as log:
                child.process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self._spool, env=self._environment
                )
        except OSError as error:
            self._wait_longer(child)
            logger.warning("trackdsl cannot start a process to deliver to %s: %s", server, error)
            return
        assert child.process.stdin is not None
        os.set_blocking(child.process.stdin.fileno(), False)
        child.started = time.monotonic()
        mark_starting(self._spool, child.process.pid, server)
        child.unsent = b"".join(map(_message, self._handed.values()))

    def _check_exit(self, server: str, child: _Child) -> None:
        if child.process is None or child.process.poll() is None:
            return
        code = child.process.returncode
        assert child.process.stdin is not None
        with contextlib.suppress(OSError):
            child.process.stdin.close()
        child.process, child.unsent = None, b""
        child.gave_up = code == GAVE_UP
        if code not in (0, GAVE_UP):
            logger.warning("trackdsl: the process that delivers to %s ended with exit code %s", server, code)
            self._wait_longer(child)
        elif time.monotonic() - child.started > _LONGEST_PAUSE:
            child.pause = 0.0
        else:  # It ended at once although something waits: do not restart it again and again.
            self._wait_longer(child)

    def _wait_longer(self, child: _Child) -> None:
        child.pause = min(max(2 * child.pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        child.next_start = time.monotonic() + child.pause


def _send(child: _Child) -> None:
    if not child.unsent:
        return
    assert child.process is not None
    assert child.process.stdin is not None
    with contextlib.suppress(OSError):  # The pipe is full, or the child has just ended.
        child.unsent = child.unsent[os.write(child.process.stdin.fileno(), child.unsent) :]


def _message(handed: ProgramEnvironment) -> bytes:
    content = handed.encode()
    return _LENGTH.pack(len(content)) + content


def follow_parent(take: Callable[[ProgramEnvironment], None], ask_to_stop: Callable[[], None]) -> None:
    """In a child: receive the environments that the parent sends, and end with the parent.

    Args:
        take: receives an environment.
        ask_to_stop: called when the parent has ended; this process is killed a moment later.
    """

    def follow() -> None:
        try:
            with open(sys.stdin.fileno(), "rb", buffering=1 << 16, closefd=False) as pipe:
                while len(head := pipe.read(_LENGTH.size)) == _LENGTH.size:
                    content = pipe.read(_LENGTH.unpack(head)[0])
                    with contextlib.suppress(ValueError):
                        take(ProgramEnvironment.decode(content))
        except Exception:
            logger.exception("trackdsl: a delivery process lost the connection to its parent, and ends")
        ask_to_stop()
        threading.Event().wait(_GRACE)
        os._exit(1)  # A request hangs; the next process checks what became of it.

    threading.Thread(target=follow, name="trackdsl-parent", daemon=True).start()
