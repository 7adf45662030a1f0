"""A tracking server with the plugin, in a thread of the test, and content to send to it."""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import flask
import msgspec

from trackdsl.delivery.database import _wire
from trackdsl.delivery.database._changes import (
    NewRun,
    RunChange,
)
from trackdsl.delivery.server._backend import Backend
from trackdsl.delivery.server.plugin import add_addresses

RUN = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32
encode = msgspec.msgpack.encode


class Served:
    """MLflow's own server app in a thread of the test, with the plugin's addresses before it.

    Attributes:
        uri: the tracking URI.
        path: its database.
        app: has the plugin's addresses.
        backend: what they write with.
        plugged: whether they are there.
        answer: what to answer to change sets instead of writing them.
        permits: whether something may be written; called with the JSON of MLflow's own request.
    """

    def __init__(self, path: Path) -> None:
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_request(self, *_: Any, **__: Any) -> None:
                pass

        self.path = path
        self.plugged = True
        self.answer: Callable[[], flask.Response | None] = lambda: None
        self.permits: Callable[[dict[str, Any]], bool] = lambda _: True
        self.app = flask.Flask("plugin")
        self.app.before_request(self._before)
        for known in ("create", "log-batch"):
            self.app.add_url_rule(f"/api/2.0/mlflow/runs/{known}", known, lambda: "", methods=["POST"])
        self.backend = Backend(f"sqlite:///{path}")
        add_addresses(self.app, self.backend)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=Quiet)
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def _before(self) -> Any:
        if "/mlflow/" in flask.request.path and not self.permits(flask.request.get_json()):
            return flask.Response("Permission denied", status=403)
        return self.answer() if flask.request.method == "POST" and "trackdsl" in flask.request.path else None

    def _serve(self, environ: Any, start_response: Any) -> Any:
        from mlflow.server import app as of_mlflow

        ours = self.plugged and environ["PATH_INFO"].startswith("/api/2.0/trackdsl")
        return (self.app if ours else of_mlflow)(environ, start_response)

    def rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()

    def send(self, content: bytes, **options: Any) -> Any:
        options.setdefault("content_type", _wire.CONTENT_TYPE)
        return self.app.test_client().post(_wire.CHANGES_PATH, data=content, **options)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def new(experiment_id: int = 0, **change: Any) -> RunChange:
    return RunChange(NewRun(experiment_id, "a run", 1, "me"), **change)


def packed(changes: Any) -> bytes:
    return zlib.compress(encode(changes))
