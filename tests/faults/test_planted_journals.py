"""Planted and changed journals: nothing outside of a journal is read, delivered or removed."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from tests.conftest import StartProgram, all_runs, client, deliver, wait_until
from tests.drawn_processes import Process
from tests.memory_store import Held, MemoryStore, deliver_to
from trackdsl import capture, stage
from trackdsl._core import events
from trackdsl.delivery.process._worker import Worker
from trackdsl.journal._snapshots import UnsafeSnapshot, opened_snapshot, read_snapshot, remove_snapshot, snapshot_path
from trackdsl.journal._spool import JOURNALS, make_folder, prepare
from trackdsl.store_format.ledger import DEFERRED, NAME, POINT, ROWS, TABLE, changes_in, frame, latest, read
from trackdsl.store_format.servers import folder_of, server_of

SECRET = "-----BEGIN OPENSSH PRIVATE KEY-----"


#: What is nested deeply is read to the end of the stack.
pytestmark = pytest.mark.usefixtures("no_collection")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The spool of this test."""
    return prepare(tmp_path / "spool")


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Path]:
    """A folder outside of the spool, which is to be as it was in the end."""
    folder = tmp_path / "keys"
    (folder / "deeper").mkdir(parents=True)
    (folder / "id_rsa").write_text(SECRET)
    (folder / "table.json").write_text(json.dumps({"columns": ["key"], "data": [[SECRET]]}))
    (folder / "deeper" / "model").mkdir()
    (folder / "deeper" / "model" / "weights").write_text(SECRET)
    (folder / "deeper" / "spec.json").write_text("{}")
    before = sorted(folder.rglob("*"))
    yield folder
    assert sorted(folder.rglob("*")) == before
    assert (folder / "id_rsa").read_text() == SECRET


@pytest.fixture
def process(spool: Path) -> Process:
    """A process with an open run, whose journal can be changed."""
    return Process(spool)


def file_at(process: Process, number: int, content: str = "fine") -> str:
    """A sound snapshot in the journal; returns its path in the folder of files."""
    path = process.directory / "files" / f"{number:06d}" / "file.txt"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    return f"{number:06d}/file.txt"


def delivered(process: Process, *planted: Any) -> Held:
    """What arrives of one run with these events, between two sound ones."""
    run = process.open("planted")
    for event in planted:
        process.say(event(run))
    process.say(events.File(run, "sound.txt", file_at(process, 99), False))
    process.metric(run, "last", 1)
    process.close(run)
    process.die()
    store = MemoryStore()
    deliver_to(store, process.spool)
    assert not list((process.spool / JOURNALS).iterdir())
    held = store.named("planted")
    assert held.status == "FINISHED"
    assert held.files.pop("sound.txt") == "fine"
    assert [point[0] for point in held.points] == ["last"]
    assert SECRET not in repr(held)
    return held


def omitted(held: Held) -> list[str]:
    """What is left out of a run, by the tags that report it."""
    return [key.removeprefix("trackdsl.omitted.") for key in held.tags if key.startswith("trackdsl.omitted.")]


CLIMBING = [
    "../../../../keys/id_rsa",
    "a/../../../../../keys/id_rsa",
    "../id_rsa",
    "..",
    "../..",
    ".",
    "",
    "/",
    "id_rsa",
    "000001",
    "000001/",
    "000001/..",
    "000001/.",
    "./id_rsa",
    "000001//id_rsa",
    "000001/deep/id_rsa",
    "000001/\0",
    "/etc/passwd",
    "ABSOLUTE",
]


@pytest.mark.parametrize("snapshot", CLIMBING)
def test_a_snapshot_outside(process: Process, keys: Path, snapshot: str) -> None:
    """A snapshot that is not in a folder of its own in the journal is left out, with a tag; the rest arrives."""
    snapshot = str(keys / "id_rsa") if snapshot == "ABSOLUTE" else snapshot
    (process.directory / "files" / "000001").mkdir(parents=True)
    held = delivered(
        process,
        lambda run: events.File(run, "file", snapshot, False),
        lambda run: events.File(run, "folder", snapshot, True),
        lambda run: events.Model(run, "model", snapshot, None, 0, 1),
        lambda run: events.Table(run, "table", snapshot),
    )
    assert sorted(omitted(held)) == ["file", "folder", "model", "table"]
    assert not held.files


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("replaced", ["snapshot", "folder", "files"])
@pytest.mark.parametrize("kind", ["file", "folder", "model", "table"])
def test_links_instead_of_a_snapshot(process: Process, keys: Path, kind: str, replaced: str) -> None:
    """A link instead of a snapshot, of its folder, or of the folder of all, is not followed."""
    files = process.directory / "files"
    name = {"file": "id_rsa", "folder": "deeper", "model": "deeper", "table": "table.json"}[kind]
    if replaced == "files":
        files.mkdir()
        files.rename(process.directory / "former")
        (keys / "000001").symlink_to(keys)
        files.symlink_to(keys)
    elif replaced == "folder":
        files.mkdir()
        (files / "000001").symlink_to(keys)
    else:
        (files / "000001").mkdir(parents=True)
        (files / "000001" / name).symlink_to(keys / name)
    run = process.open("planted")
    process.say(
        {
            "file": events.File(run, "stolen", f"000001/{name}", False),
            "folder": events.File(run, "stolen", f"000001/{name}", True),
            "model": events.Model(run, "stolen", f"000001/{name}", None, 0, 1),
            "table": events.Table(run, "stolen", f"000001/{name}"),
        }[kind]
    )
    process.metric(run, "last", 1)
    process.close(run)
    process.die()
    store = MemoryStore()
    deliver_to(store, process.spool)
    if replaced == "files":
        (keys / "000001").unlink()
    held = store.named("planted")
    assert (omitted(held), held.files, held.status) == (["stolen"], {}, "FINISHED")
    assert len(held.points) == 1


def test_links_inside_a_folder(process: Process, keys: Path) -> None:
    """If a folder has links in it, its files arrive, and a tag names each link."""
    folder = process.directory / "files" / "000001" / "data"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "inner" / "b.txt").write_text("b")
    (folder / "key").symlink_to(keys / "id_rsa")
    (folder / "inner" / "all").symlink_to(keys)
    (folder / "inner" / "gone").symlink_to("/nowhere")
    os.mkfifo(folder / "pipe")
    held = delivered(process, lambda run: events.File(run, "data", "000001/data", True, "some.handler"))
    assert held.files == {"data/a.txt": "a", "data/inner/b.txt": "b"}
    assert sorted(omitted(held)) == ["data/inner/all", "data/inner/gone", "data/key", "data/pipe"]
    assert "data" in json.loads(held.tags["trackdsl.files"])


def test_links_inside_a_model(process: Process, keys: Path) -> None:
    """A model with a link among its files is left out as a whole."""
    folder = process.directory / "files" / "000001" / "model"
    (folder / "model").mkdir(parents=True)
    (folder / "spec.json").write_text("{}")
    (folder / "model" / "weights").symlink_to(keys / "id_rsa")
    held = delivered(process, lambda run: events.Model(run, "clf", "000001/model", None, 0, 1))
    assert (held.files, omitted(held)) == ({}, ["clf"])


@pytest.mark.parametrize("path", ["../../x", "/etc/x", "a/../../x", "a\0b", "C:/x", "a\\..\\b"])
@pytest.mark.parametrize("kind", ["file", "table"])
def test_a_path_outside_of_the_run(process: Process, kind: str, path: str) -> None:
    """What is to lie outside of its run is left out, with a tag."""
    snapshot = file_at(process, 1, json.dumps({"columns": [], "data": []}))
    held = delivered(
        process,
        lambda run: events.Table(run, path, snapshot) if kind == "table" else events.File(run, path, snapshot, False),
    )
    assert not held.files
    assert len(omitted(held)) == 1


def test_a_table_without_a_name(process: Process) -> None:
    """A table whose path names no file holds up nothing."""
    snapshot = file_at(process, 1, json.dumps({"columns": [], "data": []}))
    held = delivered(process, lambda run: events.Table(run, "", snapshot))
    assert omitted(held) == [""]


@pytest.mark.usefixtures("each_kind_of_store")
def test_what_waits_is_looked_at_again(spool: Path, keys: Path) -> None:
    """A link that replaces a snapshot while the store of artifacts is away is not followed either."""
    from trackdsl.delivery.store._errors import Unavailable

    process = Process(spool)
    run = process.open("planted")
    process.say(events.File(run, "a.txt", file_at(process, 1), False))
    process.close(run)
    store, away = MemoryStore(), [True]

    def before(method: str, *_: Any) -> None:
        if method == "write_artifact" and away[0]:
            raise Unavailable("away")

    store.before = before
    worker = Worker(spool, store.open)
    wait_until(lambda: not worker.round(), "the rest to be delivered")
    worker.close()
    ledger = process.directory / NAME
    ((run_id, artifact_path, event), value) = next(iter(latest(changes_in(read(ledger)), DEFERRED).items()))
    assert event
    path = process.directory / "files" / "000001" / "file.txt"
    path.unlink()
    path.symlink_to(keys / "id_rsa")
    with ledger.open("ab") as file:
        file.write(frame([DEFERRED.change((run_id, artifact_path, b"AAAA"), value)]))
    away[0] = False
    process.die()
    deliver_to(store, spool)
    assert not list((spool / JOURNALS).iterdir())
    held = store.named("planted")
    assert (held.files, omitted(held)) == ({}, ["a.txt"])


def test_planted_ledgers(spool: Path, keys: Path) -> None:
    """Notes of other types, of paths outside, and nonsense in ledgers change nothing outside, and hold up nothing."""
    process = Process(spool)
    folder = folder_of(spool, server_of(process.uri))
    make_folder(folder / "tables")
    point = POINT.change(("r", "k", 1, 2.0, 3), ("../x", False, 0, 0))
    nonsense = frame([(1, 2, 3), (4, "x", None), (99, b"later", [1]), point])
    for path in (folder / NAME, process.directory / NAME):
        path.write_bytes(nonsense + b"\xff" * 100)
    outside = TABLE.change(None, ("r", "../x", "e"))
    rows = ROWS.change(("../../keys", "../id_rsa"), b"[[[1]]]")
    for number, changes in enumerate([[outside, rows], [TABLE.change(None, ("r", "t.json", "e")), rows], [rows]]):
        (folder / "tables" / f"{number}.ledger").write_bytes(frame(changes))
    (folder / "tables" / "link.ledger").symlink_to(keys / "id_rsa")
    os.mkfifo(folder / "tables" / "fifo.ledger")
    snapshot = file_at(process, 1, json.dumps({"columns": ["a"], "data": [[1]]}))
    held = delivered(process, lambda run: events.Table(run, "t.json", snapshot))
    assert json.loads(held.files["t.json"])["data"] == [[1]]


@pytest.mark.parametrize("kind", ["tables", "points"])
def test_planted_logs(spool: Path, keys: Path, kind: str) -> None:
    """A link, a FIFO or lines of nonsense among the logs of a spool change nothing outside, and hold up nothing."""
    process = Process(spool)
    folder = spool / kind
    folder.mkdir(0o700)
    (folder / "a.jsonl").symlink_to(keys / "id_rsa")
    (folder / "b.part").symlink_to(keys / "id_rsa")
    (folder / "upload-x").symlink_to(keys)
    os.mkfifo(folder / "c.jsonl")
    (folder / "d.jsonl").write_text('{"nonsense": 1}\n')
    (folder / "e.jsonl").write_text('{"run_id": 1, "path": "../x"}\n{}\n')
    (folder / "f.jsonl").write_text(
        '{"run_id": "r", "path": "t.json"}\n'
        + json.dumps({"journal": "../../keys", "snapshot": "../id_rsa", "table": {"columns": [], "data": []}})
        + "\n[[[1]]]\n"
    )
    (folder / "g.jsonl").write_text("[" * 100_000 + "\n")
    rows = file_at(process, 1, json.dumps({"columns": ["a"], "data": [[1]]}))
    held = delivered(process, lambda run: events.Table(run, "t.json", rows))
    assert json.loads(held.files["t.json"])["data"] == [[1]]


def test_a_swap_in_between(process: Process, keys: Path) -> None:
    """While a link replaces a snapshot again and again, what is taken is the file or nothing."""
    number = process.directory / "files" / "000001"
    (number / "data").mkdir(parents=True)
    sound, link, target = number / "sound", number / "link", number / "data" / "a"
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            sound.write_text("fine")
            os.replace(sound, target)
            link.symlink_to(keys / "id_rsa")
            os.replace(link, target)

    target.write_text("fine")
    thread = threading.Thread(target=swap)
    thread.start()
    opened, texts, refused = set[str](), set[str](), set[str]()
    try:
        for number in range(100_000):
            with opened_snapshot(process.directory, "000001/data") as found:
                opened.update(path.read_text() for path in found.path.iterdir())
            for name in ("000001/data", "000001/link", "000001/sound"):
                try:
                    texts.add(read_snapshot(process.directory, name).decode())
                except UnsafeSnapshot:
                    refused.add(name)
                except FileNotFoundError:
                    pass
            if number >= 300 and "fine" in opened & texts and "000001/link" in refused:
                break
        assert {"fine"} <= opened <= {"fine", ""}
        assert {"fine"} <= texts <= {"fine", ""}
        assert "000001/link" in refused
    finally:
        done.set()
        thread.join()


def test_removing_follows_no_link(process: Process, keys: Path) -> None:
    """The removal of a snapshot removes the links in it, not what they lead to."""
    file_at(process, 1)
    folder = process.directory / "files" / "000001"
    (folder / "link").symlink_to(keys)
    (folder / "inner").mkdir()
    (folder / "inner" / "link").symlink_to(keys / "id_rsa")
    remove_snapshot(process.directory, "000001/file.txt")
    assert not folder.exists()
    (process.directory / "files" / "000002").symlink_to(keys)
    remove_snapshot(process.directory, "000002/id_rsa")
    remove_snapshot(process.directory, "../../../keys/id_rsa")
    assert not os.path.lexists(process.directory / "files" / "000002")


def test_a_disk_without_room_or_links(process: Process, monkeypatch: pytest.MonkeyPatch, keys: Path) -> None:
    """Where nothing can be linked, sound snapshots are handed over themselves, and those with links are refused."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    snapshot = file_at(process, 1)
    monkeypatch.setattr(os, "link", full)
    with opened_snapshot(process.directory, snapshot) as found:
        assert found.path == snapshot_path(process.directory, snapshot)
    (process.directory / "files" / "000002" / "data").mkdir(parents=True)
    (process.directory / "files" / "000002" / "data" / "key").symlink_to(keys / "id_rsa")
    (process.directory / "files" / "000002" / "data" / "a.txt").write_text("fine")
    with pytest.raises(UnsafeSnapshot), opened_snapshot(process.directory, "000002/data"):
        pass
    held = delivered(process, lambda run: events.File(run, "a.txt", snapshot, False))
    assert held.files == {"a.txt": "fine"}


class TestAtMlflow:
    """Planted journals at a real store."""

    def test_links_of_the_user(self, tmp_path: Path, keys: Path, sqlite_store: str) -> None:
        """What a user's own folder links to was copied when it was recorded, and arrives."""
        folder = tmp_path / "results"
        folder.mkdir()
        (folder / "linked").symlink_to(keys / "id_rsa")
        (folder / "tree").symlink_to(keys / "deeper")
        with stage("s") as run:
            run.log_artifact(folder)
            run.log_artifact(folder / "linked", "single.txt")
        deliver()
        (found,) = all_runs()
        mlflow = client()
        assert [file.path for file in mlflow.list_artifacts(found.info.run_id)] == ["results", "single.txt"]
        names = [file.path for file in mlflow.list_artifacts(found.info.run_id, "results")]
        assert names == ["results/linked", "results/tree"]
        assert not [key for key in found.data.tags if key.startswith("trackdsl.omitted.")]

    def test_models(self, tmp_path: Path, keys: Path, sqlite_store: str) -> None:
        """A model with no sound description, and an example outside of its model, are left out; the rest arrives."""
        from sklearn.linear_model import LinearRegression

        model = LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
        with stage("s") as run:
            for name in ("sound", "example", "link", "no spec", "no model", "empty"):
                run.log_model(model, name)
            run.log_metric("last", 1)
        (journal,) = (tmp_path / "spool" / JOURNALS).iterdir()
        _, example, link, no_spec, no_model, empty = sorted((journal / "files").rglob("spec.json"))
        spec = json.loads(example.read_text())
        way = os.path.relpath(keys / "table.json", example.parent)
        example.write_text(json.dumps(spec | {"example": {"kind": "json", "file": way}}))
        link.unlink()
        link.symlink_to(keys / "deeper" / "spec.json")
        no_spec.unlink()
        shutil.rmtree(no_model.parent / "model")
        empty.write_text("{}")
        deliver()
        (found,) = all_runs()
        assert (found.data.metrics["last"], found.info.status) == (1, "FINISHED")
        left_out = {key.removeprefix("trackdsl.omitted.") for key in found.data.tags if ".omitted." in key}
        assert left_out == {"example.example", "link", "no spec", "no model", "empty"}
        logged = client().search_logged_models([found.info.experiment_id])
        assert {model.name for model in logged if str(model.status) == "READY"} == {"sound", "example"}
        folders = [Path.cwd(), *(Path(url2pathname(urlsplit(model.artifact_location).path)) for model in logged)]
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        assert len([path for path in files if path.name == "MLmodel"]) == 2
        assert not [path for path in files if SECRET.encode() in path.read_bytes()]

    @pytest.mark.slow
    def test_the_delivery_process(self, start: StartProgram, tmp_path: Path, keys: Path, sqlite_store: str) -> None:
        """The delivery process leaves out what a planted journal names, and delivers the rest."""
        import subprocess
        import sys

        from trackdsl.journal._origin import read_origin, write_origin

        spool = prepare(tmp_path / "spool")
        process = Process(spool, uri=sqlite_store)
        origin = read_origin(process.directory)
        assert origin is not None
        write_origin(process.directory, origin)
        run = process.open("planted")
        process.say(events.File(run, "stolen", "../../../../keys/id_rsa", False))
        process.say(events.File(run, "file.txt", file_at(process, 1), False))
        process.close(run)
        process.die()
        done = subprocess.run(
            [sys.executable, "-m", "trackdsl.delivery", str(spool)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert "'stolen' is left out" in done.stderr
        (found,) = all_runs()
        assert "trackdsl.omitted.stolen" in found.data.tags
        assert [file.path for file in client().list_artifacts(found.info.run_id)] == ["file.txt"]


def test_a_context_of_a_capture_names_no_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A context that claims to be of a test writes to no folder that is not a spool already."""
    from trackdsl import attach

    with stage("s"):
        text = capture().to_text()
    target = tmp_path / "anywhere"
    target.mkdir()
    (target / "hosts").write_text("")
    context = json.loads(text) | {"run": os.urandom(16).hex(), "uri": "trackdsl-capture:", "spool": str(target)}
    with attach(json.dumps(context)) as run:
        run.log_metric("x", 1)
    assert os.listdir(target) == ["hosts"]
    assert "cannot enter" in caplog.text
