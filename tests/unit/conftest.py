"""A unit test stays in its process: one that starts a process or opens a store fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

#: The audit events of processes that start, and of stores and servers that are opened.
_OUTSIDE = {
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "socket.connect", "sqlite3.connect",
    "subprocess.Popen",
}  # fmt: skip
#: Commands of GitPython and `platform`, which MLflow's import runs.
_WHILE_MLFLOW_IS_IMPORTED = ((["git", "version"],), (["uname", "-p"],))
_seen: list[str] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event in _OUTSIDE and arguments[1:2] not in _WHILE_MLFLOW_IS_IMPORTED:
        _seen.append(f"{event}{arguments!r:.200}")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def in_one_process() -> Iterator[None]:
    """Fail a test that starts a process or opens a store."""
    _seen.clear()
    yield
    assert not _seen, f"this is no unit test, move it to tests/integration: {_seen}"
