"""Where delivery cannot use files of its own, it waits, and the reason that people read says what it cannot do."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import all_runs, deliver
from tests.memory_store import MemoryStore, deliver_to, fail_once
from trackdsl import experiment, stage
from trackdsl.delivery.journals import _progress as _journal_progress
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.service import open_sink
from trackdsl.delivery.state import _ledger
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.journal import _origin, _reader, _target
from trackdsl.journal._spool import journals
from trackdsl.store_format.progress import read_progress


@pytest.fixture(autouse=True)
def spool(no_pauses: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_origin, "ask_git", lambda directory: None)
    return tmp_path / "spool"


def reason(spool: Path) -> str:
    """Why the one journal is not delivered."""
    (journal,) = journals(spool)
    progress = read_progress(journal)
    assert progress is not None
    return progress.error


def test_without_a_temporary_folder(
    spool: Path, sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a temporary folder, delivery of a run with a long text waits, and the reason says so."""
    with experiment("e", tracking_uri=sqlite_store) as run:
        run.log_param("p", "x" * 100_000)
    _target.close_all()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    worker = Worker(spool, open_sink)
    for _ in range(5):
        worker.round()
    worker.close()
    assert reason(spool).startswith("cannot use a temporary folder: [Errno 2] No such file or directory: ")
    monkeypatch.setattr(tempfile, "tempdir", None)
    deliver(sqlite_store)
    (found,) = all_runs(sqlite_store)
    (file,) = (path for path in Path(found.info.artifact_uri).rglob("*") if path.is_file() and "p" in path.name)
    assert "x" * 100_000 in file.read_text()


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        (_reader.Reader, "read_stretch", "the journal cannot be read: [Errno 5] "),
        (_ledger, "sync", "what delivery has to remember cannot be written: [Errno 5] "),
        (_journal_progress.JournalProgress, "write_intent", "delivery cannot use a file: [Errno 5] "),
    ],
)
def test_a_file_that_cannot_be_used(
    spool: Path, module: Any, name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason for which delivery waits names what failed: reading the journal, or another file."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store = MemoryStore()
    store.before = fail_once("write_artifact", error=lambda: Unavailable("away"))
    with stage("s") as run:
        run.log_text("x", "f.txt")
    _target.close_all()
    with monkeypatch.context() as broken:
        broken.setattr(module, name, fail)
        worker = Worker(spool, store.open)
        worker.round()
        worker.close()
    assert reason(spool).startswith(expected)
    deliver_to(store, spool)
    assert store.named("s").files == {"f.txt": "x"}
