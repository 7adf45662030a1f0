"""Files and tables that a store refuses, at the first attempt or later: they are counted, and named on their run."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import all_runs, deliver, run_command
from tests.delivery_settings import ChangeTiming
from tests.drawn_programs import fork
from tests.memory_store import MemoryStore, deliver_to
from trackdsl import experiment, stage
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.program import _client
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.journal import _origin, _target
from trackdsl.journal._spool import journals, wake
from trackdsl.store_format import losses
from trackdsl.store_format.progress import Progress, read_progress


@pytest.fixture(autouse=True)
def spool(no_pauses: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The spool of a program that is online, for which nothing delivers but the test."""
    monkeypatch.setattr(_origin, "ask_git", lambda directory: None)
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setattr(_client, "_start_process", lambda spool: None)
    return tmp_path / "spool"


class TakesRequests(MemoryStore):
    """A store that takes files by requests."""

    def files(self, run_id: str) -> Any:
        """See `Sink`."""
        return self

    def upload(self, send: Callable[[], None]) -> Future[None]:
        """See `RemoteFiles`."""
        answer: Future[None] = Future()
        try:
            send()
        except Exception as error:
            answer.set_exception(error)
        else:
            answer.set_result(None)
        return answer


def answering(*errors: Exception) -> Callable[..., None]:
    """For `MemoryStore.before`: the answers to files that are written; the last one is that to all others."""
    left = list(errors)

    def before(method: str, *_: Any) -> None:
        if method == "write_artifact":
            raise left.pop(0) if len(left) > 1 else left[0]

    return before


def noted(journal: Path) -> Progress:
    progress = read_progress(journal)
    assert progress is not None
    return progress


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("ended", [True, False])
def test_a_table_that_is_refused_is_counted(spool: Path, ended: bool) -> None:
    """Rows that cannot be appended to what is there already are lost, and `flush` says so."""
    store = MemoryStore()
    with stage("s") as run:
        run.log_text("x", "t.json")
        run.log_table({"a": 1}, "t.json")
        worker = Worker(spool, store.open)
        if not ended:
            worker.round()
            assert not trackdsl.flush(5)
            assert noted(*journals(spool)).refused == 1
            assert trackdsl.flush(5)  # It was said.
    _target.close_all()
    for _ in range(3):
        worker.round()
    assert worker.idle()
    worker.close()
    assert "trackdsl.omitted.t.json" in store.named("s").tags
    assert [lost.refused for lost in losses.read(spool).values()] == [1]


def test_sync_says_that_a_table_was_refused(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`trackdsl sync` does not say that everything is delivered where rows of a table were refused."""
    monkeypatch.setenv("TRACKDSL_MODE", "offline")
    with experiment("e", tracking_uri=sqlite_store) as run:
        run.log_text("x", "t.json")
        run.log_table({"a": 1}, "t.json")
    _target.close_all()
    done = run_command("sync")
    assert "1 item was refused by MLflow" in done.stdout + done.stderr
    assert "Everything is delivered" not in done.stdout
    assert done.returncode == 1


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("table", [True, False])
def test_what_was_deferred_and_is_refused_then_is_counted(spool: Path, table: bool) -> None:
    """A file or table that the store refuses only when it is sent again counts as one that was refused at once."""
    store = MemoryStore()
    store.before = answering(Unavailable("away"))
    worker = Worker(spool, store.open)
    with stage("s") as run:
        if table:
            run.log_table({"a": 1}, "f.json")
        else:
            run.log_text("x", "f.json")
        worker.round()
        (journal,) = journals(spool)
        assert (noted(journal).deferred, noted(journal).refused) == (1, 0)
        store.before = answering(Refused("no"))
        for _ in range(3):
            worker.round()
        assert (noted(journal).deferred, noted(journal).refused) == (0, 1)
        assert not trackdsl.flush(5)
        assert store.named("s").tags["trackdsl.omitted.f.json"] == "MLflow refused it: no"
    worker.close()


def test_what_is_left_out_of_a_folder_is_counted_once(
    spool: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was left out of a folder is not counted, nor said, again when the rest of the folder is sent."""
    store, folder = TakesRequests(), tmp_path / "folder"
    folder.mkdir()
    for name in ("bad", "good", "late", "later"):
        (folder / name).write_text(name)
    answers: dict[str, Exception] = {"out/bad": Refused("no"), "out/late": Unavailable("away")}
    answers["out/later"] = answers["out/late"]

    def before(method: str, *arguments: Any) -> None:
        if method == "write_artifact" and arguments[1] in answers:
            raise answers[arguments[1]]

    store.before = before
    worker = Worker(spool, store.open)
    with stage("s") as run:
        run.log_artifacts(str(folder), "out")
        (journal,) = journals(spool)
        (snapshot,) = (journal / "files").glob("*/*")
        (snapshot / "link").symlink_to("good")
        for _ in range(3):
            worker.round()
        assert (noted(journal).deferred, noted(journal).refused) == (1, 2)
        for late, deferred, refused in (("out/late", 1, 3), ("out/later", 0, 4)):
            answers[late] = Refused("no")
            for _ in range(3):
                worker.round()
            assert (noted(journal).deferred, noted(journal).refused) == (deferred, refused)
        assert store.named("s").files == {"out/good": "good"}
        said = [line.getMessage().split("'")[1] for line in caplog.records if "is left out" in line.getMessage()]
        assert sorted(said) == ["out/bad", "out/late", "out/later", "out/link"]
        assert {f"trackdsl.omitted.{name}" for name in said} <= store.named("s").tags.keys()
    worker.close()


@pytest.mark.usefixtures("each_kind_of_store")
def test_a_file_for_which_there_is_no_thread_is_sent_later(spool: Path, tmp_path: Path) -> None:
    """Where a machine has no threads left, what was not sent, or failed meanwhile, does not count as sent."""
    store, folder = TakesRequests(), tmp_path / "folder"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(name)
    upload, calls = store.upload, iter(range(100))

    def short_of_threads(send: Callable[[], None]) -> Future[None]:
        number = next(calls)
        if number == 0:
            failed: Future[None] = Future()
            failed.set_exception(Unavailable("away"))
            return failed
        if number == 1:
            raise RuntimeError("can't start new thread")
        return upload(send)

    store.upload = short_of_threads  # type: ignore[method-assign]
    with stage("s") as run:
        run.log_artifacts(str(folder), "out")
    _target.close_all()
    deliver_to(store, spool)
    assert store.named("s").files == {f"out/{name}": name for name in "abc"}
    assert not list(journals(spool))


@pytest.mark.parametrize("path", ["", "out"])
def test_a_folder_lacks_only_what_is_refused(
    spool: Path, sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Below a local artifact root, only those files of a folder are left out that cannot be stored; each is named."""
    monkeypatch.setenv("TRACKDSL_MODE", "offline")
    folder = tmp_path / "folder"
    for name in ("a", "b", "c/d", "e/f", "e/g", "h/i"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "empty").mkdir()
    with experiment("e", tracking_uri=sqlite_store) as run:
        run.log_text("there", f"{path}/b/in_the_way.txt".strip("/"))
        run.log_text("there", f"{path}/e".strip("/"))
        run.log_artifacts(str(folder), path)
    deliver(sqlite_store)
    (found,) = all_runs(sqlite_store)
    stored = Path(found.info.artifact_uri) / path
    assert {name for name in ("a", "c/d", "h/i") if (stored / name).read_text() == name} == {"a", "c/d", "h/i"}
    assert (stored / "empty").is_dir()
    omitted = {tag: why for tag, why in found.data.tags.items() if tag.startswith("trackdsl.omitted.")}
    assert omitted.keys() == {f"trackdsl.omitted.{path}/{n}".replace("./", ".") for n in ("b", "e/f", "e/g")}
    assert all(why.startswith("MLflow refused it: [Errno ") for why in omitted.values())
    assert [lost.refused for lost in losses.read(spool).values()] == [3]


@pytest.mark.parametrize("requests", [True, False])
def test_a_folder_that_cannot_be_listed_waits(
    spool: Path, sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: bool
) -> None:
    """Where a part of a folder cannot be listed now, the folder is stored later, and does not count as stored."""
    monkeypatch.setenv("TRACKDSL_MODE", "offline")
    (tmp_path / "folder/deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (tmp_path / "folder" / name).write_text(name)
    with experiment("e", tracking_uri=sqlite_store) as run:
        run.log_artifacts(str(tmp_path / "folder"), "out")
    scandir, failed = os.scandir, list[str]()

    def without_descriptors(path: Any = ".") -> Any:
        if str(path).endswith("/deep") and not failed:
            failed.append(str(path))
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", without_descriptors)
    if requests:
        store = TakesRequests()
        _target.close_all()
        deliver_to(store, spool)
        files = store.named("e").files
    else:
        deliver(sqlite_store)
        (found,) = all_runs(sqlite_store)
        stored = Path(found.info.artifact_uri)
        files = {p.relative_to(stored).as_posix(): p.read_text() for p in stored.rglob("out/**/*") if p.is_file()}
    assert failed
    assert files == {"out/a": "a", "out/deep/b": "deep/b"}
    assert not losses.read(spool)


def test_a_folder_is_complete_once_there_is_space(
    spool: Path, sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file of a folder does not fit on the disk, the folder is stored later; what it lacks is counted once."""
    monkeypatch.setenv("TRACKDSL_MODE", "offline")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(name)
    with experiment("e", tracking_uri=sqlite_store) as run:
        run.log_text("there", "a/in_the_way.txt")
        run.log_artifacts(str(folder))
    replace, failed = os.replace, list[str]()

    def without_space(source: Any, target: Any) -> None:
        if Path(target).name == "b" and not failed:
            failed.append(str(target))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", without_space)
    deliver(sqlite_store)
    assert failed
    (found,) = all_runs(sqlite_store)
    assert [Path(found.info.artifact_uri, name).read_text() for name in "bc"] == ["b", "c"]
    assert [lost.refused for lost in losses.read(spool).values()] == [1]


@pytest.fixture
def shared_table(spool: Path) -> Iterator[tuple[MemoryStore, Worker]]:
    """A store that takes no files now, and a worker: two living programs have deferred rows of the same table."""
    store = MemoryStore()
    store.before = answering(Unavailable("away"))
    (ready, tell), (wait, end) = os.pipe(), os.pipe()

    def child() -> None:
        os.close(end)
        run.log_table({"a": "child"}, "t.json")
        os.write(tell, b".")
        os.read(wait, 1)

    with stage("s") as run:
        run.log_table({"a": "parent"}, "t.json")
        pid = fork(child)
        os.read(ready, 1)
        worker = Worker(spool, store.open)
        for _ in range(3):
            worker.round()
        assert [noted(journal).deferred for journal in journals(spool)] == [1, 1]
        yield store, worker
        os.close(end)
        os.waitpid(pid, 0)
    worker.close()
    for descriptor in (ready, tell, wait):
        os.close(descriptor)


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("refused", [0, 1])
def test_a_table_of_two_programs_waits_for_neither(
    shared_table: tuple[MemoryStore, Worker], spool: Path, refused: int
) -> None:
    """Once a table of two programs is stored or refused, neither journal waits for it, and both count a refusal."""
    store, worker = shared_table
    store.before = answering(Refused("no")) if refused else lambda *_: None
    for _ in range(3):
        worker.round()
    assert [(noted(journal).deferred, noted(journal).refused) for journal in journals(spool)] == [(0, refused)] * 2
    assert trackdsl.flush(5) == (not refused)


@pytest.mark.usefixtures("each_kind_of_store")
def test_a_table_of_two_programs_is_tried_for_both(
    shared_table: tuple[MemoryStore, Worker], spool: Path, change_timing: ChangeTiming
) -> None:
    """Where a program asks for another attempt and it fails, that is noted in the journals of all that wait for it."""
    _, worker = shared_table
    change_timing(file_retry=1000.0)
    before = {journal: noted(journal).failures for journal in journals(spool)}
    wake(spool)
    for _ in range(3):
        worker.round()
    assert {journal: noted(journal).failures - 1 for journal in journals(spool)} == before
