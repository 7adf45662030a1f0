"""Files go to a server several at once, each on its own, and what it has taken is not sent again."""

from __future__ import annotations

import collections
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import Server, all_runs, client, deliver
from tests.delivery_settings import ChangeTiming
from tests.gateways import Gateway
from trackdsl import experiment, settings, stage
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.service import open_sink
from trackdsl.journal import _target

FILES = "/mlflow-artifacts/artifacts/"


pytestmark = pytest.mark.usefixtures("no_retries")


def sent(gateway: Gateway) -> collections.Counter[str]:
    """How often each file was sent, by its path in its run."""
    return collections.Counter(
        call.partition("/artifacts/")[2].partition("/artifacts/")[2]
        for call in gateway.requests
        if call.startswith("PUT ")
    )


def content(name: str, uri: str, path: str) -> str:
    """The content of a file of the run of a name."""
    (run,) = (run for run in all_runs(uri) if run.info.run_name == name)
    return Path(client(uri).download_artifacts(run.info.run_id, path)).read_text()


def test_four_files_are_sent_at_the_same_time(gateway: Callable[..., Gateway], shared_server: Server) -> None:
    """Files of one run and of different runs are on their way together, four at most."""
    barrier, count, lock = threading.Barrier(4), iter(range(100)), threading.Lock()

    def meet(method: str, *_: Any) -> None:
        if method == "PUT":
            with lock:
                number = next(count)
            if number < 4:
                barrier.wait(20)

    meeting = gateway(answer=meet)
    with experiment("uploads", run_name="together", tracking_uri=meeting.uri):
        for number in range(4):
            with stage(f"together-{number}") as run:
                run.log_text(f"a{number}", "a.txt")
                run.log_text(f"b{number}", "b.txt")
    deliver()

    assert not barrier.broken
    assert sent(meeting) == {"a.txt": 4, "b.txt": 4}
    assert content("together-3", shared_server.uri, "b.txt") == "b3"


def test_what_was_deferred_is_sent_side_by_side(
    gateway: Callable[..., Gateway], shared_server: Server, change_timing: ChangeTiming
) -> None:
    """After an outage of the artifact store, four files that wait are on their way together; the newest one wins."""
    change_timing(file_retry=0.01, first_retry=0.01)
    barrier, count, lock, away = threading.Barrier(4), iter(range(100)), threading.Lock(), [True]

    def meet(method: str, *_: Any) -> tuple[int, bytes, dict[str, str]] | None:
        if method != "PUT":
            return None
        if away:
            return 500, b"away", {}
        with lock:
            number = next(count)
        if number < 4:
            barrier.wait(20)
        return None

    front = gateway(answer=meet)
    with experiment("uploads", run_name="deferred", tracking_uri=front.uri) as run:
        for number in range(6):
            run.log_text(str(number), f"{number}.txt")
        run.log_text("old", "same.txt")
        run.log_text("new", "same.txt")
    spool = settings.spool()
    assert spool is not None
    _target.close_all()
    worker = Worker(spool, open_sink)
    for _ in range(5):
        worker.round()
    worker.close()
    away.clear()
    deliver()

    assert not barrier.broken
    assert content("deferred", shared_server.uri, "same.txt") == "new"
    assert content("deferred", shared_server.uri, "5.txt") == "5"


def test_only_the_file_that_failed_is_sent_again(
    gateway: Callable[..., Gateway], shared_server: Server, change_timing: ChangeTiming, tmp_path: Path
) -> None:
    """If the server does not take one of twenty files of a folder, only that one is sent later, after a restart too."""
    change_timing(file_retry=0.01, first_retry=0.01)
    folder = tmp_path / "folder" / "deep"
    folder.mkdir(parents=True)
    for number in range(20):
        (folder / f"{number}.txt").write_text(str(number))
    broken = [True]

    def refuse_one(method: str, path: str, _: Any) -> tuple[int, bytes, dict[str, str]] | None:
        return (500, b"no", {}) if method == "PUT" and path.endswith("/7.txt") and broken else None

    front = gateway(answer=refuse_one)
    with experiment("uploads", run_name="twenty", tracking_uri=front.uri) as run:
        run.log_artifacts(str(tmp_path / "folder"), "out")
    spool = settings.spool()
    assert spool is not None
    _target.close_all()
    for _ in range(2):
        worker = Worker(spool, open_sink)
        for _ in range(20):
            worker.round()
        worker.close()
    assert len(sent(front)) == 20
    tries = sent(front)["out/deep/7.txt"]
    assert tries > 2
    broken.clear()
    deliver()

    assert sent(front) == {f"out/deep/{n}.txt": 1 if n != 7 else tries + 1 for n in range(20)}
    assert content("twenty", shared_server.uri, "out/deep/7.txt") == "7"


def test_the_same_file_at_the_same_path_is_sent_once(gateway: Callable[..., Gateway], shared_server: Server) -> None:
    """A file that is logged again without a change is sent once; after a change, the last content is there."""
    front = gateway()
    with experiment("uploads", run_name="again", tracking_uri=front.uri) as run:
        for text in ("one", "one", "two", "two", "one", "one"):
            run.log_text(text, "same.txt")
            run.log_text("other", "other.txt")
    deliver()

    assert sent(front) == {"same.txt": 3, "other.txt": 1}
    assert content("again", shared_server.uri, "same.txt") == "one"


def test_a_newer_file_waits_for_an_older_one_at_its_path(
    gateway: Callable[..., Gateway], shared_server: Server
) -> None:
    """While a file is on its way, other files are sent, but none that has the same path."""
    others, newer, overtaken = threading.Event(), threading.Event(), list[bool]()

    def watch(method: str, path: str, _: Any) -> None:
        if method != "PUT":
            return
        if not path.endswith("/same.txt"):
            others.set()
        elif not overtaken:
            assert others.wait(20)
            overtaken.append(newer.wait(0.5))
        else:
            newer.set()

    front = gateway(answer=watch)
    with experiment("uploads", run_name="order", tracking_uri=front.uri) as run:
        for text in ("old", "new"):
            run.log_text(text, "same.txt")
        run.log_text("other", "other.txt")
    deliver()

    assert overtaken == [False]
    assert content("order", shared_server.uri, "same.txt") == "new"


def test_what_was_sent_is_not_sent_again_if_the_rest_of_its_stretch_fails(
    gateway: Callable[..., Gateway], change_timing: ChangeTiming, tmp_path: Path
) -> None:
    """If the server fails after it has taken the files, they are not sent again with the rest."""
    change_timing(first_retry=0.01)
    (tmp_path / "folder").mkdir()
    for name in "ab":
        (tmp_path / "folder" / name).write_text(name)
    failures = [502]

    def fail_at_the_end(_: str, path: str, __: Any) -> tuple[int, bytes, dict[str, str]] | None:
        return (failures.pop(), b"no", {}) if path.endswith("runs/update") and failures else None

    front = gateway(answer=fail_at_the_end)
    with experiment("uploads", run_name="fails-late", tracking_uri=front.uri) as run:
        for number in range(5):
            run.log_text(str(number), f"{number}.txt")
        run.log_artifacts(str(tmp_path / "folder"), "folder")
    deliver()

    assert not failures
    assert sent(front) == {**{f"{number}.txt": 1 for number in range(5)}, "folder/a": 1, "folder/b": 1}


@pytest.mark.slow
def test_a_large_file_does_not_enter_the_memory(shared_server: Server, tmp_path: Path) -> None:
    """Delivering a file of 300 MB to a server needs at most 20 MB more than delivering a small one."""
    program = Path(trackdsl.__file__).parents[1] / "tests" / "benchmarks" / "programs" / "delivering.py"
    peaks = []
    for name, size in (("small", 1 << 10), ("large", 300 << 20)):
        file = tmp_path / f"{name}.bin"
        with open(file, "wb") as opened:
            opened.truncate(size)
        with experiment("uploads", run_name=name, tracking_uri=shared_server.uri) as run:
            run.log_artifact(str(file))
        spool = settings.spool()
        assert spool is not None
        _target.close_all()
        file.unlink()
        done = subprocess.run([sys.executable, str(program), str(spool)], capture_output=True, text=True, check=True)
        peaks.append(json.loads(done.stdout)["peak"])
        (artifact,) = client(shared_server.uri).list_artifacts(
            next(each for each in all_runs(shared_server.uri) if each.info.run_name == name).info.run_id
        )
        assert artifact.file_size == size
    assert peaks[1] - peaks[0] < 20 << 20


def test_an_occupied_path_is_found_through_closed_connections(gateway: Callable[..., Gateway]) -> None:
    """A file below a file is refused at once, even if the server closes several connections before it lists files."""
    lists = itertools.count(1)

    def close_three(method: str, path: str, _: Any) -> None:
        if method == "GET" and "mlflow-artifacts" in path and next(lists) <= 3:
            raise ConnectionAbortedError

    front = gateway(answer=close_three)
    with experiment("uploads", run_name="occupied", tracking_uri=front.uri) as run:
        run.log_text("a file", "a")
        run.log_text("below a file", "a/b")
    deliver()

    assert next(lists) > 4
    assert sent(front)["a/b"] == 1
    (stored,) = (run for run in all_runs(front.uri) if run.info.run_name == "occupied")
    assert "'a' is a file" in stored.data.tags["trackdsl.omitted.a/b"]


def test_a_closed_connection_delays_no_file(gateway: Callable[..., Gateway], shared_server: Server) -> None:
    """If a server closes the connection on which a file is sent, the file is sent again on another one at once."""
    closed: list[str] = []

    def close_first(method: str, path: str, _: Any) -> None:
        if method == "PUT" and not closed:
            closed.append(path)
            raise ConnectionAbortedError

    front = gateway(answer=close_first)
    with experiment("uploads", run_name="closed", tracking_uri=front.uri) as run:
        run.log_text("content", "first.txt")
    _target.close_all()
    spool = settings.spool()
    assert spool is not None
    worker = Worker(spool, open_sink)
    worker.round()
    worker.round()
    worker.close()

    assert sent(front) == {"first.txt": 2}
    assert content("closed", shared_server.uri, "first.txt") == "content"
