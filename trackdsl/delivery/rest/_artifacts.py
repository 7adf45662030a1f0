"""Files of runs at a tracking server that stores them itself, under its addresses `mlflow-artifacts/artifacts/…`.

Sources: `mlflow/store/artifact/http_artifact_repo.py`, and the handlers of these addresses in
`mlflow/server/handlers.py`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import basename, dirname, join
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from trackdsl._core.artifact_paths import checked_path
from trackdsl._server.tracking_server import json_object
from trackdsl.delivery.rest._occupied_paths import wanted_paths, write_files
from trackdsl.delivery.rest._requests import Rest, check
from trackdsl.delivery.store._answers import upload_patience
from trackdsl.delivery.store._errors import Refused, RefusedParts, Unavailable, explained
from trackdsl.journal._snapshots import content_of

_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
#: MLflow's client sends larger files in parts, or straight to the store behind the server, if the server permits it.
_LARGEST, _LARGEST_VARIABLE = 500 << 20, "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE"
#: Larger files are read by MLflow's client, piece by piece.
LARGEST_READ = 100 << 20


class Listed(msgspec.Struct):
    """A file or a folder in a folder of artifacts.

    Attributes:
        path: its name; below the folder of the run's artifacts, once it is returned.
        is_dir: whether it is a folder.
        file_size: in bytes; None if the server does not say.
    """

    path: str
    is_dir: bool = False
    file_size: int | None = None


class _Listing(msgspec.Struct):
    files: list[Listed] = []


class ServerArtifacts:
    """The files of runs at one server. All methods raise `Unavailable` and `Refused`, see `check`.

    Args:
        rest: requests to the server.
    """

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    def write(self, root: str, local: Path, path: str, *, directory: bool) -> None:
        """Send a file to a path below the root of a run, or the content of a folder below it.

        Raises:
            RefusedParts: some paths of the folder's content cannot be used; the rest of it is there.
        """
        if not directory:
            self._write_file(root, local, path)
            return
        reasons: dict[str, str] = {}
        with _readable():
            content = content_of(local)
        for name, is_folder in content:
            if not is_folder:
                try:
                    self._write_file(root, local / name, join(path, name))
                except Refused as error:
                    reasons[name] = str(error)
        if reasons:
            raise RefusedParts(reasons)

    def write_text(self, root: str, text: str, path: str) -> None:
        """Send text as a file."""
        try:
            content = text.encode()
        except UnicodeEncodeError as error:
            raise Refused(str(error)) from None
        write_files(lambda: self._put(root, content, path), lambda: [path], lambda folder: self.listed(root, folder))

    def find(self, root: str, path: str) -> Listed | None:
        """A file, as its folder lists it; None if there is none."""
        found = self.listed(root, dirname(path) or None)
        return next((file for file in found if file.path == path and not file.is_dir), None)

    def content(self, root: str, path: str) -> bytes:
        """The content of a file."""
        answer = self._rest.request("GET", _address(root, path), at_least=upload_patience())
        _check(answer)
        content: bytes = answer.content
        return content

    def listed(self, root: str, folder: str | None) -> list[Listed]:
        """What is directly in a folder, by path. There is nothing in a file, or in a folder that does not exist."""
        answer = self._rest.request("GET", _ARTIFACTS, params={"path": join(root, folder) if folder else root})
        try:
            _check(answer)
            files = msgspec.json.decode(answer.content, type=_Listing, strict=False).files
        except msgspec.MsgspecError as error:
            raise self._rest.unlike_mlflow(error) from None
        for file in files:
            file.path = join(folder, file.path) if folder else file.path
        if folder and [file.path for file in files if not file.is_dir] == [join(folder, basename(folder))]:
            return []  # Of a file, the server lists the file.
        return sorted(files, key=lambda file: file.path)

    def files(self, root: str, most: int) -> list[tuple[str, int | None]]:
        """All files, at most this many: their paths and sizes in bytes."""
        files: list[tuple[str, int | None]] = []
        waiting: list[str | None] = [None]
        # What a server lists may be without end.
        while waiting and len(files) < most and len(waiting) <= most:
            for file in self.listed(root, waiting.pop(0)):
                if file.is_dir:
                    waiting.append(file.path)
                else:
                    files.append((file.path, file.file_size))
        return files[:most]

    def _write_file(self, root: str, local: Path, path: str) -> None:
        def write() -> None:
            with _readable(), _refused_names(), open(local, "rb") as file:
                self._put(root, file, path)

        write_files(write, lambda: wanted_paths(local, path, directory=False), lambda folder: self.listed(root, folder))

    def _put(self, root: str, content: object, path: str) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        answer = self._rest.request(
            "PUT", _address(root, path), data=content, headers=headers, at_least=upload_patience()
        )
        _check(answer)
        if answer.headers.get("Content-Type", "").startswith("text/html"):  # A page of a proxy, such as for a login.
            raise self._rest.unlike_mlflow(ValueError("a web page"))


def _check(answer: Any) -> None:
    """Raise the error that an answer about a file is, if it is one.

    What the store behind the server lacks, such as a bucket, may be there later: only an invalid path is final.

    Raises:
        Refused: the server takes no such path.
        Unavailable: it fails for now.
    """
    if 200 <= answer.status_code < 300:
        return
    try:
        check(answer)
    except Refused as error:
        if (json_object(answer) or {}).get("error_code") == "INVALID_PARAMETER_VALUE":
            raise
        raise Unavailable(f"the server answers {answer.status_code}: {error}", answered=True) from None


def root_of(artifact_uri: str) -> str | None:
    """The path below which a server keeps the files of a run; None if it does not store them itself.

    >>> root_of("mlflow-artifacts:/1//abc/artifacts"), root_of("s3://bucket/1"), root_of("mlflow-artifacts://other:1/a")
    ('1/abc/artifacts', None, None)
    """
    parts = urlsplit(artifact_uri)
    if parts.scheme != "mlflow-artifacts" or parts.netloc or parts.query or parts.fragment:
        return None
    return re.sub("//+", "/", parts.path).strip("/")


def is_sent_at_once(local: Path, *, directory: bool) -> bool:
    """Whether each of some files is small enough for one request.

    Raises:
        Unavailable: a file cannot be read.
    """
    configured = os.environ.get(_LARGEST_VARIABLE, "")
    largest = int(configured) if configured.isdecimal() else _LARGEST
    with _readable():
        files = [local / name for name, is_folder in content_of(local) if not is_folder] if directory else [local]
        return all(file.stat().st_size < largest for file in files)


def _address(root: str, path: str) -> str:
    with _refused_names():
        return f"{_ARTIFACTS}/{quote(join(root, checked_path(path)))}"


def _readable() -> contextlib.AbstractContextManager[None]:
    return explained("a recorded file cannot be read")


@contextlib.contextmanager
def _refused_names() -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # It leads out of the run's folder, or has no encoding.
        raise Refused(str(error)) from None
