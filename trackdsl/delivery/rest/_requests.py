"""Requests to a tracking server without MLflow's client: the REST API of MLflow, and what trackdsl adds to it."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import msgspec

from trackdsl._core.redaction import mask_text
from trackdsl._server import http
from trackdsl._server.request_options import request_options
from trackdsl._server.tracking_server import advice, brief, innermost, json_object
from trackdsl.delivery.store._answers import BUSY, FINAL, OF_THE_STORE, TIMEOUT, wait_longer
from trackdsl.delivery.store._errors import Denied, Refused, Unavailable

#: How long to wait for a connection, and for a piece of an answer where nothing else is set, in seconds.
_CONNECT, _READ = 5.0, 10.0
#: How long MLflow's client waits for an answer.
_READ_OF_MLFLOW = 120.0
_MLFLOW = "/api/2.0/mlflow/"
_JSON = {"Content-Type": "application/json"}


T = TypeVar("T")


class Missing(Refused):
    """The server has nothing of this name or id."""


class Rest:
    """Requests to one server, over connections that are kept.

    Args:
        uri: the tracking URI.
        own: whether this process belongs to delivery: it first waits for a short time, and after a timeout longer.
            Another process waits as long as MLflow's client does.
        retries: how often a request is repeated that a server, or a proxy before it, cannot answer now. Only for
            requests that change nothing.
    """

    def __init__(self, uri: str, *, own: bool = True, retries: int = 0) -> None:
        self._uri = uri.rstrip("/")
        self._own = own
        self._session = http.session(retries)

    def get(self, type_: type[T], path: str, **params: str) -> T:
        """Ask MLflow's REST API.

        Raises:
            Missing: there is no such thing.
            Refused: the server refuses it for good.
            Unavailable: it fails for now, or the answer is not of this type.
        """
        return self._of_mlflow(type_, "GET", path, params=params)

    def post(self, type_: type[T], path: str, content: dict[str, Any] | bytes) -> T:
        """Send JSON to MLflow's REST API, encoded or not; as `get`."""
        if isinstance(content, bytes):
            return self._of_mlflow(type_, "POST", path, data=content, headers=_JSON)
        return self._of_mlflow(type_, "POST", path, json=content)

    def request(self, method: str, path: str, *, at_least: float = 0.0, **arguments: Any) -> Any:
        """The answer to a request, whatever its status.

        Args:
            method: `GET`, `POST` or `PUT`.
            path: the path below the tracking URI.
            at_least: how long to wait for each piece of the answer at least, in seconds: a server may copy a file to
                its store before it answers.
            **arguments: see `requests.Session.request`.

        Raises:
            Unavailable: there is none.
        """
        import requests

        seconds = max(self._patience(), at_least)
        try:
            options = request_options()
            options["headers"].update(arguments.pop("headers", {}))
            return self._session.request(
                method, self._uri + path, timeout=(min(_CONNECT, seconds), seconds), **options, **arguments
            )
        except (UnicodeError, requests.exceptions.InvalidHeader):  # Its text has the header, such as a token.
            raise Unavailable(f"a header for {mask_text(self._uri)}, such as its token, is not valid") from None
        except (requests.exceptions.RequestException, OSError) as error:
            late = isinstance(error, requests.exceptions.Timeout) or isinstance(innermost(error), TimeoutError)
            if late and self._own:
                wait_longer()
            raise Unavailable(self._failed(error), late=late) from None
        except ImportError as error:  # A plugin that signs requests, and its package.
            raise Unavailable(f"requests to {mask_text(self._uri)} cannot be signed: {error}") from None

    def _patience(self) -> float:
        """How long to wait for a piece of an answer, in seconds."""
        try:
            configured = float(os.environ.get(TIMEOUT, ""))
        except ValueError:
            configured = 0.0
        return configured if configured > 0 else _READ if self._own else _READ_OF_MLFLOW

    def close(self) -> None:
        """Close the connections; they are opened again when they are needed."""
        self._session.close()

    def _of_mlflow(self, type_: type[T], method: str, path: str, **arguments: Any) -> T:
        answer = self.request(method, _MLFLOW + path, **arguments)
        check(answer)
        try:
            # MLflow writes large integers as text, and values that JSON does not have in two ways.
            return msgspec.convert(answer.json(), type_, strict=False)
        except (ValueError, msgspec.ValidationError) as error:
            raise self.unlike_mlflow(error) from None

    def unlike_mlflow(self, error: Exception) -> Unavailable:
        """The error for an answer that is not MLflow's."""
        return Unavailable(
            f"{mask_text(self._uri)} does not answer as MLflow does: {str(error)[:200]}. {advice(404, '')}"
        )

    def _failed(self, error: Exception) -> str:
        return f"{mask_text(self._uri)} cannot be reached: {brief(error)}"


def check(answer: Any) -> None:
    """Raise the error that an answer is, if it is one.

    Raises:
        Missing: the server has nothing of this name or id.
        Refused: it refuses this for good.
        Denied: it does not permit this user to do it.
        Unavailable: it fails for now.
    """
    status = int(answer.status_code)
    if status == 200:
        return
    content = json_object(answer) or {}
    code = str(content.get("error_code", ""))
    message = content.get("message") or ("" if answer.text.lstrip().startswith("<") else answer.text)
    text = mask_text(str(message)).strip()[:2000]
    if code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
        raise Missing(text)
    if code in FINAL:
        raise Refused(text)
    hint = advice(status, text)
    shown = f"the server answers {status}{f': {text[:600].rstrip(chr(46))}' if text else ''}"
    shown = f"{shown}. {hint}" if hint else shown
    if status == 403:
        raise Denied(shown)
    busy = status in (429, 503) or code in BUSY
    answered = status not in (401, 408, 425, 429, 502, 503, 504) and code not in OF_THE_STORE
    raise Unavailable(shown, answered=answered, busy=busy)
