"""A unit test stays in its process: one that starts a process or opens a store fails."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

#: The audit events of processes that start, and of stores and servers that are opened.
_OUTSIDE = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "socket.connect", "sqlite3.connect"}
#: The executables of programs, and of the delivery process. Libraries that are imported may ask `git` or `uname`.
_PROGRAMS = (sys.executable, "/bin/sh")
_seen: list[str] = []
#: The threads that ran before the test: an earlier test in the same process may have left one that still opens a store.
_others: set[int] = set()


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if threading.get_ident() in _others:
        return
    if event in _OUTSIDE or (event == "subprocess.Popen" and arguments[0] in _PROGRAMS):
        _seen.append(f"{event}{arguments!r:.200}")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def in_one_process() -> Iterator[None]:
    """Fail a test that starts a process or opens a store."""
    _others.clear()
    _others.update(sys._current_frames().keys() - {threading.get_ident()})
    _seen.clear()
    yield
    assert not _seen, f"this is not a unit test, move it to tests/integration: {_seen}"


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder, for each test and not for each of its examples."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
