"""What may replace a spool's files: FIFOs, sockets, folders, huge or unreadable files, a full disk."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.conftest import StartProgram, all_runs, run_command, wait_until
from tests.drawn_processes import Process
from tests.integration.test_cli import TWO_RUNS
from tests.integration.test_spool_folder import STRANGER, needs_root
from tests.memory_store import MemoryStore, deliver_to
from trackdsl._core import events
from trackdsl.cli import main
from trackdsl.delivery import environment_pipe
from trackdsl.delivery.environment import ProgramEnvironment
from trackdsl.delivery.mlflow_client._sqlite_creation import make_database
from trackdsl.delivery.process._durability import Durability
from trackdsl.delivery.process._environments import Environments
from trackdsl.delivery.process._thread import serve
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.program._client import ensure_running, wake
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.journal._files import NoRegularFile, open_regular
from trackdsl.journal._origin import read_origin
from trackdsl.journal._segments import segments
from trackdsl.journal._spool import JOURNALS, LOCK, LOG, MARK, journals, locate, make_folder, prepare, take_lock
from trackdsl.store_format.journals import read_journals
from trackdsl.store_format.ledger import NAME
from trackdsl.store_format.servers import folder_of, server_of

#: What a journal cannot be delivered without; delivery leaves it alone, and says so.
NEEDED = ("origin", "lock", "progress")
#: What it can do without.
DISPENSABLE = ("git", NAME, "runs", "sampled", "deferred", "aside", "000002.seg")

#: What is nested deeply is read to the end of the stack.
pytestmark = pytest.mark.usefixtures("no_collection")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The spool of this test."""
    return prepare(tmp_path / "spool")


def fifo(path: Path) -> None:
    """A FIFO without a writer."""
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    """A socket."""
    before = Path.cwd()
    os.chdir(path.parent)  # A socket's path may be short only.
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def folder(path: Path) -> None:
    """A folder that is not empty."""
    path.mkdir()
    (path / "file").write_text("")


def link(path: Path) -> None:
    """A link to a file outside."""
    outside = path.parents[3] / "outside.txt"
    outside.write_text("outside")
    path.symlink_to(outside)


KINDS = [fifo, bound_socket, folder, link]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def finished(spool: Path, name: str) -> Process:
    """A journal of a process that has ended, with one run."""
    process = Process(spool)
    run = process.open(name)
    process.metric(run, "m", 1)
    process.close(run)
    process.die()
    return process


def put(path: Path, kind: Callable[[Path], None]) -> None:
    """Put something else where a file is."""
    path.unlink(missing_ok=True)
    kind(path)


@pytest.mark.usefixtures("each_kind_of_store")
@every_kind
def test_in_a_journal(spool: Path, kind: Callable[[Path], None], caplog: pytest.LogCaptureFixture) -> None:
    """If something else replaces a file of a journal, nothing hangs, and files outside stay unchanged.

    Without what it needs a journal is left alone and reported once; without the rest it is delivered.
    """
    harmed = {name: finished(spool, name) for name in (*NEEDED, *DISPENSABLE)}
    for name, process in harmed.items():
        put(process.directory / name, kind)
    outside = spool.parent / "outside.txt"
    before = outside.stat().st_mtime_ns if kind is link else None
    sound = finished(spool, "sound")
    left = {harmed[name].directory for name in NEEDED}
    found = {journal.directory: journal for journal in read_journals(spool)}
    assert {path for path, journal in found.items() if journal.problem} == left
    store = MemoryStore()
    deliver_to(store, spool)
    assert {held.name for held in store.runs.values()} == {"sound", *DISPENSABLE}
    assert {held.status for held in store.runs.values()} == {"FINISHED"}
    assert set(journals(spool)) == left
    assert not sound.directory.exists()
    reports = [record for record in caplog.records if "is not delivered" in record.getMessage()]
    assert len(reports) == len(NEEDED)
    assert not [record for record in caplog.records if record.exc_info]
    assert outside.exists() == (kind is link)
    if kind is link:
        assert (outside.read_text(), outside.stat().st_mtime_ns) == ("outside", before)


@pytest.mark.usefixtures("each_kind_of_store")
@every_kind
def test_instead_of_what_was_left_behind(spool: Path, kind: Callable[[Path], None]) -> None:
    """Anything else instead of an unfinished upload or journal is removed, holds up nothing, is not followed."""
    process = finished(spool, "sound")
    outside = spool.parent / "outside.txt"
    outside.write_text("outside")
    tables = folder_of(spool, server_of(process.uri)) / "tables"
    make_folder(tables)
    left = [process.directory / "upload-1", spool / JOURNALS / ".unborn", tables / "upload-1"]
    for path in left:
        path.symlink_to(outside) if kind is link else kind(path)
        os.utime(path, (0, 0), follow_symlinks=False)
    store = MemoryStore()
    deliver_to(store, spool)
    assert store.named("sound").status == "FINISHED"
    assert not any(map(os.path.lexists, left))
    assert outside.read_text() == "outside"


@pytest.mark.usefixtures("each_kind_of_store")
@every_kind
def test_in_the_spool(spool: Path, kind: Callable[[Path], None]) -> None:
    """If something else replaces the spool's own files, nothing hangs, and files outside stay unchanged."""
    outside = spool.parent / "outside.txt"
    outside.write_text("outside")
    before = outside.stat().st_mtime_ns
    for name in ("wake", NAME, "awaited", "losses", LOG, MARK):
        path = spool / name
        path.unlink(missing_ok=True)
        path.symlink_to(outside) if kind is link else kind(path)
    finished(spool, "sound")
    wake(spool)
    result = CliRunner().invoke(main, ["status", "--spool", str(spool)])
    assert (result.exit_code, result.exception) == (0, None)
    store = MemoryStore()
    deliver_to(store, spool)
    assert store.named("sound").status == "FINISHED"
    assert (outside.read_text(), outside.stat().st_mtime_ns) == ("outside", before)


@every_kind
def test_instead_of_the_lock_of_delivery(
    spool: Path, kind: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """If delivery's lock is not a file, the thread ends with one line, and `sync` says so and ends with 1."""
    (spool / LOCK).unlink()
    if kind is link:
        (spool / LOCK).symlink_to(spool / "elsewhere")
    else:
        kind(spool / LOCK)
    finished(spool, "sound")
    serve(spool)
    assert caplog.text.count("nothing is delivered from the spool") == 1
    assert not [record for record in caplog.records if record.exc_info]
    if kind is fifo:
        result = run_command("sync", "--spool", str(spool))
        assert (result.returncode, "Traceback" in result.stderr) == (1, False)
        assert "cannot be taken" in result.stderr


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("name", ["²³.seg", "٣٤٥٦٧٨.seg", "000002.seg", "x.seg", ".seg", "-00001.seg", "1e5.seg"])
def test_names_of_segments(spool: Path, name: str) -> None:
    """What looks like a segment and is none holds up nothing."""
    process = finished(spool, "sound")
    if name == "000002.seg":
        (process.directory / name).mkdir()
    else:
        (process.directory / name).write_bytes(b"\xff")
    (process.directory / "files" / "²").mkdir(parents=True)
    assert segments(process.directory) == [1]
    Durability(spool).sync([process.directory])
    store = MemoryStore()
    deliver_to(store, spool)
    assert store.named("sound").status == "FINISHED"
    assert not process.directory.exists()


def sealed(content: bytes) -> bytes:
    """The content of an `origin` file whose checksum is right."""
    return b"%08x\n%b\n" % (zlib.crc32(content), content)


def with_fields(process: Process, **fields: Any) -> bytes:
    """The `origin` of a journal with other fields."""
    content = (process.directory / "origin").read_bytes().split(b"\n")[1]
    return sealed(json.dumps(json.loads(content) | fields).encode())


def with_more(process: Process, more: bytes) -> bytes:
    """The `origin` of a journal with more in it."""
    content = (process.directory / "origin").read_bytes().split(b"\n")[1]
    return sealed(content[:-1] + b"," + more + b"}")


HOSTILE: dict[str, Callable[[Process], bytes]] = {
    "empty": lambda _: b"",
    "huge": lambda process: with_fields(process, user="x" * 10_000_000),
    "huge and one line": lambda _: b"x" * 10_000_000,
    "deep": lambda process: sealed(b'{"uri":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "deep and unknown": lambda process: with_more(process, b'"more":' + b"[" * 200_000 + b"]" * 200_000),
    "no JSON": lambda _: sealed(b"\xff\xfe"),
    "a list": lambda _: sealed(b"[]"),
    "no number": lambda process: with_fields(process, prefix="xyz"),
    "no numbers": lambda process: with_fields(process, within=["xyz"]),
    "late": lambda process: with_fields(process, time=1 << 63),
    "early": lambda process: with_fields(process, time=-5),
    "pid": lambda process: with_fields(process, pid=-1),
    "NUL": lambda process: with_fields(process, cwd="/a\0b"),
}


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("harm", HOSTILE)
def test_a_hostile_origin(spool: Path, harm: str) -> None:
    """An `origin` that is huge, deep or nonsense is a damaged one: it is reported, and the others are delivered."""
    process, sound = finished(spool, "harmed"), finished(spool, "sound")
    (process.directory / "origin").write_bytes(HOSTILE[harm](process))
    assert read_origin(process.directory) is None
    for arguments in (("status",), ("status", "--json")):
        result = CliRunner().invoke(main, [*arguments, "--spool", str(spool)])
        assert (result.exit_code, result.exception) == (0, None)
        assert "origin" in result.output
    store = MemoryStore()
    deliver_to(store, spool)
    assert [held.name for held in store.runs.values()] == ["sound"]
    assert (process.directory.exists(), sound.directory.exists()) == (True, False)


@pytest.mark.usefixtures("each_kind_of_store")
def test_an_event_that_is_too_deep(spool: Path) -> None:
    """An event nested deeper than can be decoded is damage: it is skipped and counted, and the rest arrives."""
    process = Process(spool)
    run = process.open("s")
    sound = events.encode(events.Metric(run, "m", 1.0, 0, 1))
    assert process._writer is not None
    process._writer.append(bytes([sound[0] + 1]) + sound[1:] + b"\x91" * 200_000 + b"\xc0")
    process.metric(run, "m", 2)
    process.close(run)
    process.die()
    result = CliRunner().invoke(main, ["status", "--spool", str(spool)])
    assert (result.exit_code, result.exception) == (0, None)
    store = MemoryStore()
    deliver_to(store, spool)
    held = store.named("s")
    assert (held.status, [point[1] for point in held.points]) == ("FINISHED", [2.0])
    assert "trackdsl.damaged_records" in held.tags


@pytest.mark.usefixtures("each_kind_of_store")
def test_damage_before_the_first_run(spool: Path) -> None:
    """Damage that is found while no run is open becomes a tag of the next run, and of no later one."""
    process = Process(spool)
    assert process._writer is not None
    process._writer.append(b"\xc1")
    first = process.open("first")
    process.close(first)
    store = MemoryStore()
    deliver_to(store, spool, 3)
    process.close(process.open("second"))
    process.die()
    deliver_to(store, spool)
    damaged = {run.name: run.tags.get("trackdsl.damaged_records") for run in store.runs.values()}
    assert damaged == {"first": "1", "second": None}


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize(
    "name", ["progress", NAME, "deferred", "aside", "blocked", "dropped", "runs", "git", "sampled"]
)
def test_nonsense_in_the_files_of_delivery(spool: Path, name: str) -> None:
    """Bytes that mean nothing, or are nested too deep, in what delivery has noted of a journal hold up nothing."""
    nonsense = [b"", b"\xff" * 1000, b"\0" * 70_000, b"[" * 200_000, b"\x91" * 200_000, b"o a\nx\n" * 50]
    for number, content in enumerate(nonsense):
        process = finished(spool, f"{number}")
        (process.directory / name).write_bytes(content)
    result = CliRunner().invoke(main, ["status", "--spool", str(spool)])
    assert (result.exit_code, result.exception) == (0, None)
    store = MemoryStore()
    deliver_to(store, spool)
    assert sorted(held.name for held in store.runs.values()) == [str(number) for number in range(len(nonsense))]
    assert not list(journals(spool))


@pytest.mark.usefixtures("each_kind_of_store")
def test_the_folder_of_a_server(spool: Path, tmp_path: Path) -> None:
    """What is kept for one server lies in private folders, whatever the umask, and in no link."""
    before = os.umask(0)
    try:
        process = Process(spool, uri="http://localhost:1")
        process.close(process.open("s"))
        process.die()
        worker = Worker(spool, MemoryStore().open)
        worker.round()
        worker.close()
    finally:
        os.umask(before)
    (folder_of_server,) = (spool / "servers").iterdir()
    assert {path.stat().st_mode & 0o777 for path in (spool / "servers", folder_of_server)} == {0o700}
    (tmp_path / "outside").mkdir()
    (folder_of_server / "tables").symlink_to(tmp_path / "outside")
    store = MemoryStore()
    deliver_to(store, spool)
    assert not store.runs
    assert list(journals(spool)) == [process.directory]


def test_sync_says_what_is_left(spool: Path) -> None:
    """`status` and `sync` list each journal that cannot be used with the reason; `sync` ends with 1."""
    locked, piped = finished(spool, "locked"), finished(spool, "piped")
    put(locked.directory / "lock", folder)
    put(piped.directory / "origin", fifo)
    (spool / JOURNALS / "link").symlink_to(locked.directory)
    shown = run_command("status", "--spool", str(spool))
    synced = run_command("sync", "--spool", str(spool))
    assert (shown.returncode, synced.returncode) == (0, 1)
    assert "Traceback" not in shown.stderr + synced.stderr
    for output in (" ".join(shown.stdout.split()), synced.stderr):
        assert f"{locked.directory}/lock: it is not a regular file" in output
        assert "its `origin` file is damaged" in output
        assert "it is a symbolic link" in output
    problems = [entry["problem"] for entry in json.loads(run_command("status", "--json").stdout)["journals"]]
    assert sorted(problems) == ["damaged-origin", "unreadable", "unreadable"]


HANDED = {
    "deep": b'["aa", ' + b"[" * 100_000 + b"]" * 100_000 + b", false]",
    "huge": b"[" * (1 << 24),
    "no name": json.dumps(["aa", {"": "x"}, True]).encode(),
    "a name that is none": json.dumps(["aa", {"A=B": "x"}, True]).encode(),
    "a zero byte": json.dumps(["aa", {"MLFLOW_X": "a\0b"}, True]).encode(),
    "half a letter": json.dumps(["aa", {"MLFLOW_X": "\ud800"}, True]).encode(),
    "no text": json.dumps(["aa", {"MLFLOW_X": 3}, True]).encode(),
    "no mapping": b'["aa", [], true]',
    "no list": b"3",
}


def hand_over_bytes(spool: Path, content: bytes) -> None:
    """Write to the pipe for environments, as a program does."""
    descriptor = os.open(spool / environment_pipe.NAME, os.O_WRONLY | os.O_NONBLOCK)
    for piece in environment_pipe._pieces(content):
        os.write(descriptor, piece)
    os.close(descriptor)


@every_kind
def test_a_spool_whose_mark_is_something_else_is_found(spool: Path, kind: Callable[[Path], None]) -> None:
    """Where something else replaces its mark, a spool is the same one, and `status` lists what waits."""
    finished(spool, "sound")
    outside = spool.parent / "outside.txt"
    outside.write_text("outside")
    (spool / MARK).unlink()
    (spool / MARK).symlink_to(outside) if kind is link else kind(spool / MARK)
    assert locate(spool) == spool
    result = CliRunner().invoke(main, ["status"], env={"TRACKDSL_SPOOL": str(spool)})
    assert "Nothing is waiting" not in result.output
    assert outside.read_text() == "outside"


@pytest.mark.parametrize("content", HANDED.values(), ids=HANDED)
def test_nonsense_instead_of_an_environment(spool: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not an environment, or cannot be one, is passed over, and the next one is taken."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    pipe = environment_pipe.Pipe(spool)
    environments = Environments()
    hand_over_bytes(spool, zlib.compress(content))
    hand_over_bytes(spool, ProgramEnvironment("bb", {"MLFLOW_Y": "1"}).encode())
    received = pipe.read()
    pipe.close()
    for handed in received:
        environments.take(handed)
        environments.apply(environments.of(handed.prefix, alive=True))
    assert received[-1] == ("bb", {"MLFLOW_Y": "1"}, False)
    assert os.environ["MLFLOW_Y"] == "1"


def test_an_endless_flood_of_environments(spool: Path) -> None:
    """A process that writes to the pipe without end neither keeps delivery from its work nor fills its memory."""
    pipe = environment_pipe.Pipe(spool)
    stop = threading.Event()

    def write() -> None:
        descriptor = os.open(spool / environment_pipe.NAME, os.O_WRONLY | os.O_NONBLOCK)
        pieces = [environment_pipe._HEAD.pack(number, 0, 2).ljust(select.PIPE_BUF, b"x") for number in range(5000)]
        while not stop.is_set():
            for piece in pieces:
                with contextlib.suppress(BlockingIOError):
                    os.write(descriptor, piece)
        os.close(descriptor)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_until(lambda: pipe.read() == [] and len(pipe._parts) >= 100, "the flood")
        for _ in range(20):
            assert pipe.read() == []
        assert len(pipe._parts) <= 2 * environment_pipe._MOST_PIECES
    finally:
        stop.set()
        writer.join()
    while pipe.read():
        pass
    hand_over_bytes(spool, ProgramEnvironment("bb", {"MLFLOW_Y": "1"}).encode())
    assert [handed.prefix for handed in pipe.read()] == ["bb"]
    pipe.close()


@every_kind
def test_instead_of_the_pipe(spool: Path, kind: Callable[[Path], None]) -> None:
    """Anything else instead of the pipe is left alone; programs and delivery continue without it."""
    (spool / environment_pipe.NAME).mkdir()
    pipe = environment_pipe.Pipe(spool)
    assert pipe.read() == []
    pipe.close()
    (spool / environment_pipe.NAME).rmdir()
    pipe = environment_pipe.Pipe(spool)
    os.unlink(spool / environment_pipe.NAME)
    outside = spool.parent / "outside.txt"
    kind(spool / environment_pipe.NAME) if kind is not link else (spool / environment_pipe.NAME).symlink_to(outside)
    outside.write_text("outside")
    environment_pipe.hand_over(spool)
    assert pipe.read() == []
    pipe.close()
    assert outside.read_text() == "outside"
    assert os.path.lexists(spool / environment_pipe.NAME) == (kind is not fifo)


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    """Opening a FIFO fails at once, for reading and for writing, with and without a process at its other end."""
    os.mkfifo(tmp_path / "fifo")
    flags = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for _ in range(2):
        for each in flags:
            with pytest.raises(NoRegularFile):
                open_regular(tmp_path / "fifo", each)
        other = os.open(tmp_path / "fifo", os.O_RDWR)
    os.close(other)


@needs_root
class TestAsAnotherUser:
    """A user without root's rights, in a process of its own."""

    @pytest.fixture
    def home(self) -> Iterator[Path]:
        """A folder of that user's: what pytest makes is root's alone."""
        path = Path(tempfile.mkdtemp(prefix="trackdsl-test-"))
        os.chown(path, STRANGER, STRANGER)
        yield path
        shutil.rmtree(path)

    @staticmethod
    def act(action: Callable[[], Any]) -> Any:
        """What an action returns in a forked process of that user."""
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.setgroups([])
                os.setgid(STRANGER)
                os.setuid(STRANGER)
                answer = json.dumps(action())
            except BaseException:
                answer = json.dumps(traceback.format_exc())
            os.write(writing, answer.encode())
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as file:
            content = file.read()
        os.waitpid(pid, 0)
        return json.loads(content)

    def test_a_folder_in_which_no_store_can_be_made(self, home: Path) -> None:
        """A new SQLite store whose folder is closed fails at once, before MLflow tries for minutes, with what to do."""

        def action() -> str:
            home.chmod(0o555)
            try:
                make_database(f"sqlite:///{home}/mlflow.db", str(home), lambda _: pytest.fail("MLflow was called"))
            except Unavailable as error:
                return str(error)
            return "made"

        answer = self.act(action)
        assert answer.startswith(f"The database {home}/mlflow.db cannot be created: Permission denied.")
        assert "writable for this user" in answer

    @pytest.mark.usefixtures("each_kind_of_store")
    @pytest.mark.parametrize("name", ["origin", "lock", "progress", "000001.seg", ""])
    def test_what_cannot_be_read(self, home: Path, tmp_path: Path, name: str) -> None:
        """A file or folder of a journal that is closed to its owner is reported, and the others are delivered."""

        def action(folder: Path) -> tuple[int, str, list[str], int]:
            spool = prepare(folder / "spool")
            closed = finished(spool, "closed")
            finished(spool, "sound")
            (closed.directory / name).chmod(0)
            result = CliRunner().invoke(main, ["status", "--spool", str(spool)])
            store = MemoryStore()
            deliver_to(store, spool)
            return result.exit_code, result.output, [held.name for held in store.runs.values()], os.getuid()

        action(tmp_path)  # What is imported now need not be readable for that user.
        answer = self.act(lambda: action(home))
        assert isinstance(answer, list), answer
        code, output, delivered, uid = answer
        assert (code, uid, delivered) == (0, STRANGER, ["sound"]), output
        assert "not delivered" in output or "Permission denied" in output

    def test_a_folder_of_somebody_else(self, home: Path) -> None:
        """That user's programs do not record to a spool of root's, and deliver nothing from it."""
        os.chown(home, 0, 0)
        home.chmod(0o755)
        spool = prepare(home / "of-root")
        (spool / "inside").write_text("")
        spool.chmod(0o755)

        def action() -> str:
            try:
                prepare(spool)
            except PermissionError as error:
                return str(error)
            return "no error"

        assert "belongs to another user" in self.act(action)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with few inodes."""
    path = tmp_path / "small"
    path.mkdir()
    options = "size=64m,nr_inodes=60,mode=0700"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no file system can be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> None:
    """Use up all inodes."""
    count = 0
    try:
        while True:
            (path / f"filler-{count}").touch()
            count += 1
    except OSError:
        pass


@needs_root
class TestWithoutInodes:
    """A disk on which no file can be made."""

    @pytest.mark.slow
    def test_sync_delivers(self, small: Path, start: StartProgram, sqlite_store: str) -> None:
        """What was recorded before is delivered all the same, with its files."""
        program = start(
            TWO_RUNS + "    with experiment('f') as run: run.log_text('t', 'a.txt')\n",
            TRACKDSL_SPOOL=str(small / "spool"),
        )
        code, _, errors = program.finish()
        assert (code, errors) == (0, "")
        fill(small)
        result = run_command("sync", "--spool", str(small / "spool"))
        assert (result.returncode, "Traceback" in result.stderr) == (0, False), result.stderr
        assert len(all_runs()) == 3
        assert not list(journals(small / "spool"))

    def test_sync_without_its_lock(self, small: Path) -> None:
        """Where not even the lock can be made, `sync` says what to do and ends with 1; `status` works."""
        spool = prepare(small / "spool")
        finished(spool, "sound")
        for name in (LOCK, LOG, MARK, "wake"):
            (spool / name).unlink()
        fill(small)
        result = run_command("sync", "--spool", str(spool))
        assert (result.returncode, "Traceback" in result.stderr) == (1, False), result.stderr
        assert "Free some space" in result.stderr
        assert run_command("status", "--spool", str(spool)).returncode == 0

    def test_a_new_spool(self, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no spool can be made, neither there nor in the temporary folder, the error says so."""
        monkeypatch.setattr(tempfile, "tempdir", str(small))
        monkeypatch.setenv("TRACKDSL_SPOOL", str(small / "spool"))
        fill(small)
        for command in ("status", "sync"):
            result = CliRunner().invoke(main, [command])
            assert (result.exit_code, "cannot be used" in result.output) == (1, True)


@pytest.mark.usefixtures("each_kind_of_store")
def test_the_spool_is_opened_to_others_meanwhile(spool: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While others may write to the spool, a worker does nothing and says so once; afterwards it continues."""
    process = Process(spool)
    run = process.open("s")
    store = MemoryStore()
    worker = Worker(spool, store.open)
    worker.round()
    process.metric(run, "m", 1)
    process.close(run)
    process.die()
    spool.chmod(0o777)
    for _ in range(3):
        assert not worker.round()
    assert worker.idle()
    assert store.named("s").status == "RUNNING"
    said = [record for record in caplog.records if record.module == "_streams"]
    assert len([record for record in said if "others may write" in record.getMessage()]) == 1
    spool.chmod(0o700)
    while worker.round() or not worker.idle():
        pass
    worker.close()
    assert store.named("s").status == "FINISHED"


@pytest.mark.usefixtures("each_kind_of_store")
@needs_root
def test_the_delivery_process_refuses(spool: Path) -> None:
    """The delivery process takes nothing from a spool or a journal of another user, and says why."""
    import sys

    foreign, sound = finished(spool, "foreign"), finished(spool, "sound")
    os.chown(foreign.directory, STRANGER, STRANGER)
    store = MemoryStore()
    deliver_to(store, spool)
    assert [held.name for held in store.runs.values()] == ["sound"]
    assert (foreign.directory.exists(), sound.directory.exists()) == (True, False)
    os.chown(spool, STRANGER, STRANGER)
    done = subprocess.run(
        [sys.executable, "-m", "trackdsl.delivery", str(spool)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "belongs to another user" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(PermissionError, match="another user"):
        Worker(spool, store.open)


def test_no_process_is_started_for_an_unsafe_spool(spool: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A program starts no delivery from a spool that others may write to, and says so."""
    caplog.set_level(logging.WARNING)
    lock = take_lock(spool, 0.5)
    assert lock is not None
    lock.release()
    spool.chmod(0o777)
    ensure_running(spool)
    assert "others may write" in caplog.text
