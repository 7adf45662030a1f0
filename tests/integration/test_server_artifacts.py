"""Files at a tracking server that stores them itself: what it lists and answers is checked."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.gateways import Gateway
from trackdsl.delivery.rest import _requests
from trackdsl.delivery.rest._artifacts import Listed, ServerArtifacts, is_sent_at_once
from trackdsl.delivery.rest._requests import Rest
from trackdsl.delivery.rest._runs import ServerRuns
from trackdsl.delivery.rest.sink import RestSink
from trackdsl.delivery.store._errors import Refused, RefusedParts, Unavailable

ROOT = "1/abc/artifacts"
JSON = {"Content-Type": "application/json"}


class Stored:
    """The answers of a server with some files.

    Attributes:
        listed: what it lists, by folder below the root of the run.
        contents: of its files.
        status, answer, headers: how it answers uploads, and also lists if they are errors and it has none.
        sent: the names of what was sent.
    """

    def __init__(self) -> None:
        self.listed: dict[str, Any] = {}
        self.contents: dict[str, bytes] = {}
        self.status, self.answer, self.headers = 200, b"{}", JSON
        self.sent: list[str] = []

    def __call__(self, method: str, target: str, _headers: Any) -> tuple[int, bytes, dict[str, str]]:
        parts = urlsplit(target)
        name = unquote(parts.path).partition(f"{ROOT}/")[2]
        if method == "PUT":
            self.sent.append(name)
            return self.status, self.answer, self.headers
        if self.status >= 400 and not self.listed:
            return self.status, self.answer, self.headers
        if not parts.query:
            return 200, self.contents[name], {}
        folder = parse_qs(parts.query)["path"][0].removeprefix(ROOT).strip("/")
        answer = self.listed.get(folder, self.listed.get("*", []))
        return 200, answer if isinstance(answer, bytes) else json.dumps({"files": answer}).encode(), JSON


@pytest.fixture
def stored() -> Stored:
    return Stored()


@pytest.fixture
def artifacts(stored: Stored) -> Iterator[ServerArtifacts]:
    with contextlib.closing(Gateway(answer=stored)) as gateway, contextlib.closing(Rest(gateway.uri)) as rest:
        yield ServerArtifacts(rest)


def test_files_are_found_in_all_folders(stored: Stored, artifacts: ServerArtifacts) -> None:
    """Files are listed with their sizes, folder by folder, and read; what is not there, or is a folder, is not read."""
    stored.listed = {
        "": [{"path": "b", "is_dir": True}, {"path": "a.txt", "is_dir": False, "file_size": "3"}],
        "b": [{"path": "c.txt"}],
    }
    stored.contents = {"b/c.txt": b"\0abc"}
    assert artifacts.files(ROOT, 10) == [("a.txt", 3), ("b/c.txt", None)]
    assert artifacts.files(ROOT, 1) == [("a.txt", 3)]
    assert artifacts.find(ROOT, "b/c.txt") == Listed("b/c.txt")
    assert artifacts.content(ROOT, "b/c.txt") == b"\0abc"
    assert artifacts.find(ROOT, "b") is None
    assert artifacts.find(ROOT, "missing/x") is None


def test_nothing_is_in_a_file(stored: Stored, artifacts: ServerArtifacts) -> None:
    """Asked for the content of a file, MLflow's server lists the file itself."""
    stored.listed = {"a": [{"path": "a", "is_dir": False, "file_size": 1}]}
    assert artifacts.listed(ROOT, "a") == []


def test_a_list_without_end_ends(stored: Stored, artifacts: ServerArtifacts) -> None:
    """A server that lists folders in every folder is not asked for ever."""
    stored.listed = {"*": [{"path": "x", "is_dir": True}, {"path": "y", "is_dir": True}]}
    assert artifacts.files(ROOT, 20) == []


@pytest.mark.parametrize("answer", [b"<html>", b"[1]", b'{"files": 1}', b'{"files": [{"path": 1}]}'])
def test_other_answers_are_no_lists(answer: bytes, stored: Stored, artifacts: ServerArtifacts) -> None:
    """An answer that is not MLflow's is a temporary error that says so."""
    stored.listed = {"": answer}
    with pytest.raises(Unavailable, match="does not answer as MLflow does"):
        artifacts.listed(ROOT, None)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x", "a\\b", "\ud800"])
def test_paths_that_cannot_be_sent(path: str, stored: Stored, artifacts: ServerArtifacts, tmp_path: Path) -> None:
    """A path that leads out of the run's folder, or has no encoding, is refused before anything is sent."""
    local = tmp_path / "local"
    local.write_text("content")
    with pytest.raises(Refused):
        artifacts.write(ROOT, local, path, directory=False)
    with pytest.raises(Refused):
        artifacts.write_text(ROOT, "content", path)
    assert stored.sent == []


@pytest.mark.parametrize("directory", [False, True])
def test_files_that_are_gone(directory: bool, stored: Stored, artifacts: ServerArtifacts, tmp_path: Path) -> None:
    """A recorded file that cannot be read is a fault of this machine, which says so and may be over later."""
    with pytest.raises(Unavailable, match="cannot be read"):
        artifacts.write(ROOT, tmp_path / "gone", "a", directory=directory)
    with pytest.raises(Unavailable, match="cannot be read"):
        is_sent_at_once(tmp_path / "gone", directory=directory)
    assert stored.sent == []


def test_names_arrive_as_they_are(stored: Stored, artifacts: ServerArtifacts, tmp_path: Path) -> None:
    """Names with spaces, signs of URLs and other scripts are encoded; of a folder, every file is sent."""
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    names = ["50% of?.txt", "a#b&c=d+e.txt", "日本語 ü.txt", "inner/%2e%2e"]
    for name in names:
        (folder / name).write_text(name)
    artifacts.write(ROOT, folder, "top", directory=True)
    assert sorted(stored.sent) == sorted(f"top/{name}" for name in names)


def test_the_rest_of_a_folder_is_sent(stored: Stored, artifacts: ServerArtifacts, tmp_path: Path) -> None:
    """Files at occupied paths are reported, and all others are sent."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    stored.status = 500
    stored.listed = {"": [{"path": name, "is_dir": True} for name in ("a", "b")]}
    with pytest.raises(RefusedParts) as raised:
        artifacts.write(ROOT, tmp_path, "", directory=True)
    assert raised.value.reasons == {name: f"{name!r} is a folder, so no file can be stored there" for name in "ab"}


@pytest.mark.parametrize("status", [201, 204])
def test_every_success_is_one(status: int, stored: Stored, artifacts: ServerArtifacts) -> None:
    """A proxy, or another server than MLflow's, may answer that a file was created, or nothing."""
    stored.status, stored.answer = status, b""
    artifacts.write_text(ROOT, "content", "a.txt")
    assert stored.sent == ["a.txt"]


@pytest.mark.parametrize(
    ("status", "code"), [(404, "RESOURCE_DOES_NOT_EXIST"), (400, "BAD_REQUEST"), (501, "NOT_IMPLEMENTED")]
)
def test_what_the_store_behind_a_server_lacks(
    status: int, code: str, stored: Stored, artifacts: ServerArtifacts
) -> None:
    """A missing bucket may be there later, so no file is left out for it, and no folder seems to be empty."""
    stored.status, stored.answer = status, json.dumps({"error_code": code, "message": "no bucket"}).encode()
    with pytest.raises(Unavailable, match="no bucket") as raised:
        artifacts.write_text(ROOT, "content", "a.txt")
    assert raised.value.answered
    with pytest.raises(Unavailable, match="no bucket"):
        artifacts.find(ROOT, "a.txt")


def test_an_invalid_path_is_final(stored: Stored, artifacts: ServerArtifacts) -> None:
    """What MLflow's server calls invalid is never accepted."""
    stored.status, stored.answer = 400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "Invalid path"}'
    with pytest.raises(Refused, match="Invalid path"):
        artifacts.write_text(ROOT, "content", "a.txt")


def test_a_login_page_is_no_success(stored: Stored, artifacts: ServerArtifacts) -> None:
    """A web page instead of an answer of MLflow's does not mean that a file is stored."""
    stored.answer, stored.headers = b"<html>Sign in</html>", {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(Unavailable, match="does not answer as MLflow does"):
        artifacts.write_text(ROOT, "content", "a.txt")


def test_a_server_may_pause_while_it_reads(stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a file is sent, the server may be busy for longer than connecting may take."""
    monkeypatch.setattr(_requests, "_CONNECT", 0.2)
    (tmp_path / "large").write_bytes(bytes(30 << 20))
    with contextlib.closing(Gateway(answer=stored)) as gateway, contextlib.closing(Rest(gateway.uri)) as rest:
        gateway.delay_of_reading = 1.0
        ServerArtifacts(rest).write(ROOT, tmp_path / "large", "large", directory=False)
    assert stored.sent == ["large"]


@pytest.mark.parametrize(
    ("own", "configured", "seconds"),
    [(True, "", 10), (True, "7", 7), (False, "", 120), (False, "300", 300), (False, "30.5", 30.5), (False, "x", 120)],
)
def test_how_long_an_answer_is_waited_for(
    own: bool, configured: str, seconds: float, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivery waits longer after a timeout; a program, whose environment is its own, as long as MLflow's client."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", configured)
    with contextlib.closing(Gateway(answer=stored)) as gateway, contextlib.closing(Rest(gateway.uri, own=own)) as rest:
        assert rest._patience() == seconds
        monkeypatch.setattr(rest, "_patience", lambda: 0.2)
        gateway.delay = 5.0
        with pytest.raises(Unavailable) as raised:
            rest.request("GET", "/x")
    assert raised.value.late
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == ("14" if own and configured else configured)


@pytest.mark.parametrize("token", ["hunter2\r\nx: y", "hunter2\u20ac"])
def test_a_token_that_is_no_header(token: str, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, and not shown."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
    with contextlib.closing(Gateway(answer=stored)) as gateway, contextlib.closing(Rest(gateway.uri)) as rest:
        with pytest.raises(Unavailable, match="such as its token, is not valid") as raised:
            rest.request("GET", "/x")
        assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("status", [403, 413, 429, 500, 503])
def test_what_a_server_does_not_take_now(status: int, stored: Stored, artifacts: ServerArtifacts) -> None:
    """Other answers to an upload may be over later, and only a busy server makes delivery wait with everything."""
    stored.status = status
    with pytest.raises(Unavailable, match=str(status)) as raised:
        artifacts.write_text(ROOT, "content", "a.txt")
    assert raised.value.busy == (status in (429, 503))
    assert len(stored.sent) == 1


@pytest.mark.parametrize(("configured", "seconds"), [("0", 120), ("300", 300)])
def test_an_upload_may_take_as_long_as_the_user_says(
    configured: str, seconds: int, artifacts: ServerArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to an upload is waited for longer than others, and as long as `MLFLOW_HTTP_REQUEST_TIMEOUT` was."""
    monkeypatch.setenv("TRACKDSL_UPLOAD_TIMEOUT", configured)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    waits = []
    send = artifacts._rest._session.request

    def watched(*arguments: Any, **options: Any) -> Any:
        waits.append(options["timeout"][1])
        return send(*arguments, **options)

    monkeypatch.setattr(artifacts._rest._session, "request", watched)
    artifacts.write_text(ROOT, "content", "a.txt")
    artifacts.listed(ROOT, None)
    assert waits == [seconds, 10]


def test_large_files_are_left_to_mlflows_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client sends files from a certain size on in parts."""
    (tmp_path / "a").write_bytes(bytes(100))
    assert is_sent_at_once(tmp_path / "a", directory=False)
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", "100")
    assert not is_sent_at_once(tmp_path / "a", directory=False)
    assert not is_sent_at_once(tmp_path, directory=True)


def test_a_large_file_is_read_by_mlflows_client(stored: Stored, artifacts: ServerArtifacts) -> None:
    """Files above 100 MiB are not read into memory here."""
    sink = RestSink(artifacts._rest, lambda: Other(), own=True)  # type: ignore[arg-type, return-value]
    sink._remember("r", f"mlflow-artifacts:/{ROOT}")
    stored.listed = {"": [{"path": "small", "file_size": 1}, {"path": "large", "file_size": 101 << 20}]}
    stored.contents = {"small": b"x"}
    assert [sink.read_artifact("r", path) for path in ("small", "large", "missing")] == [b"x", b"by the client", None]


class Other:
    """The sink that uses MLflow's client."""

    def read_artifact(self, run_id: str, path: str) -> bytes:
        assert (run_id, path) == ("r", "large")
        return b"by the client"


def test_pages_without_end_end() -> None:
    """A server that says of a page that it follows itself is not asked for ever."""
    page = json.dumps({"experiments": [], "next_page_token": "again"}).encode()
    with contextlib.closing(Gateway(answer=lambda *_: (200, page, JSON))) as gateway:
        with contextlib.closing(Rest(gateway.uri)) as rest, pytest.raises(Unavailable, match="followed by itself"):
            ServerRuns(rest).experiments("ALL")
        assert len(gateway.requests) == 2
