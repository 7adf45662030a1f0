"""The answers of a tracking server, and advice about them.

Nothing here imports MLflow: the import takes seconds, and the answer is needed within five seconds.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from trackdsl._core.redaction import mask_text
from trackdsl._server.redirects import LOSSY_REDIRECTS
from trackdsl.errors import (
    ExperimentDeleted,
    TrackingServerError,
    TrackingServerUnreachable,
    format_error,
    reraise_from_signal,
)

#: How long to wait for a connection and for an answer, in seconds.
CONNECT, READ = 2.0, 4.0
#: MLflow accepts a folder of files as a store only if this variable is set.
FILE_STORE = "MLFLOW_ALLOW_FILE_STORE"
#: The versions of MLflow that trackdsl supports, as in pyproject.toml.
VERSIONS = ((3, 1), (4, 0))
#: The descriptions of its own objects in urllib3's errors.
_NOISE = re.compile(r"(<[^>]*>|HTTPS?Connection(Pool)?\([^)]*\)):?\s*")
_FIND = "api/2.0/mlflow/experiments/get-by-name"
_SEARCH = "api/2.0/mlflow/experiments/search"
#: Part of the error that MLflow's client raises if another program answers, such as a proxy that asks for a password.
_NO_JSON = "was not in a valid JSON format"
#: The answers of a server that is overloaded, is starting, or fails: the same request may succeed later.
_MOMENTARY = (408, 425, 429)
#: How long to wait for a connection and for a piece of an answer before MLflow is imported, in seconds.
_PROBE = (5.0, 10.0)
#: If less time than this is left, the version of the server is not requested, in seconds.
_LEAST = 0.2


@dataclass(frozen=True)
class Store:
    """Facts about the store of a tracking URI.

    Attributes:
        version: the version of MLflow at the server; empty if there is no server, or the server does not report it.
        experiment_id: MLflow's id of the requested experiment, or None if it does not exist yet.
    """

    version: str = ""
    experiment_id: str | None = None


def advice(status: int | None, text: str) -> str | None:
    """Advice about the answer of a tracking server or store, in one sentence; None if there is none.

    Args:
        status: its HTTP status, or None.
        text: its message.

    Example:
        >>> advice(401, "You are not authenticated.")
        'Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.'
    """
    if "Invalid Host header" in text:
        return (
            "The server does not take the host name in the tracking URI: start it with `mlflow server --allowed-hosts "
            "<host>[:<port>]`, or use a name that it takes, such as localhost."
        )
    if status == 401:
        return "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
    if status == 403:
        return "The user of these credentials may not do this: ask the administrator of the server for permission."
    if status == 404 or _NO_JSON in text:
        return "Is this the address of an MLflow server? Add the server's path if it has one, as in http://host/mlflow."
    if FILE_STORE in text:
        return f"Set {FILE_STORE}=true, or use a database: sqlite:///mlflow.db."
    return None


def answers(uri: str) -> None:
    """Check that anything answers at the address of a tracking server. MLflow's client judges the answer.

    The request is one of MLflow's client: a server whose database hangs still claims to be healthy.

    Raises:
        TrackingServerUnreachable: nothing answers in time.
        TrackingServerError: its certificate cannot be trusted, or it redirects to another address.
    """
    from trackdsl._server.request_options import request_options

    with _session() as session:
        _get(session, uri, _SEARCH, {"max_results": "1"}, request_options(), _PROBE)


def ask_server(uri: str, experiment: str | None, options: dict[str, Any], patience: float) -> Store:
    """Request the version of a tracking server, and an experiment.

    Args:
        uri: the tracking URI.
        experiment: the name of an experiment, or None.
        options: see `request_options`.
        patience: the time for all answers, in seconds; the version is requested only if enough is left.

    Raises:
        TrackingServerUnreachable: it does not answer, or cannot at the moment.
        TrackingServerError: it refuses, or is not an MLflow server.
        ExperimentDeleted: the experiment is deleted.
    """
    give_up = time.monotonic() + patience
    with _session() as session:
        # Any name shows whether it is an MLflow server that accepts our credentials.
        answer = _get(session, uri, _FIND, {"experiment_name": experiment or "Default"}, options, (CONNECT, READ))
        left = give_up - time.monotonic()
        version = _version(session, uri, options, left) if left > _LEAST else ""
    return Store(version, _experiment_id(uri, answer, experiment))


def _session() -> Any:
    """A `requests` session with a deadline for each request.

    Most stores are not servers, so `requests` is imported late.
    """
    from trackdsl._server.http import session

    return session()


def _get(
    session: Any,
    uri: str,
    path: str,
    params: dict[str, str] | None,
    options: dict[str, Any],
    timeout: tuple[float, float],
) -> Any:
    import requests

    try:
        answer = session.get(f"{uri.rstrip('/')}/{path}", params=params, timeout=timeout, **options)
    except requests.exceptions.SSLError as error:
        raise TrackingServerError(
            f"{mask_text(uri)} cannot be trusted: {brief(error)}. Set MLFLOW_TRACKING_SERVER_CERT_PATH to the "
            "certificate of the authority that signed the server's.",
            uri=mask_text(uri),
        ) from None
    except (requests.exceptions.RequestException, OSError, ValueError) as error:
        reraise_from_signal(innermost(error))
        raise unreachable(uri, brief(error)) from None
    _refuse_redirect(uri, path, answer)
    return answer


def _refuse_redirect(uri: str, path: str, answer: Any) -> None:
    """Raise an error with the target of a redirect: there, requests that write would lose their content."""
    if not answer.history or any(hop.status_code not in LOSSY_REDIRECTS for hop in answer.history):
        return
    target = mask_text(answer.url.partition("?")[0].removesuffix(path).rstrip("/"))
    raise TrackingServerError(
        f"{mask_text(uri)} redirects to {target}. Set the tracking URI to {target}.",
        uri=mask_text(uri),
        status=answer.history[0].status_code,
    )


def _version(session: Any, uri: str, options: dict[str, Any], patience: float) -> str:
    """The version of the server; empty if a proxy blocks the request."""
    try:
        answer = _get(session, uri, "version", None, options, (CONNECT, min(READ, patience)))
    except TrackingServerUnreachable:  # It has just answered another request, so it may only be slow.
        return ""
    text = str(answer.text).strip()[:40]
    found = re.match(r"(\d+)\.(\d+)", text) if answer.status_code == 200 else None
    if found is None:
        return ""
    least, beyond = VERSIONS
    number = (int(found[1]), int(found[2]))
    if not least <= number < beyond:
        older = "Upgrade the server (`pip install --upgrade mlflow`, then `mlflow db upgrade`)"
        newer = "Upgrade here (`pip install --upgrade trackdsl mlflow`)"
        raise TrackingServerError(
            f"{mask_text(uri)} runs MLflow {text}; trackdsl works with {_dotted(least)} or newer, below "
            f"{_dotted(beyond)}. {older if number < least else newer}, or name another one.",
            uri=mask_text(uri),
            status=200,
        )
    return text


def _experiment_id(uri: str, answer: Any, experiment: str | None) -> str | None:
    """The experiment in the answer; raises an error for a refusal."""
    status, text = answer.status_code, answer.text
    content = json_object(answer)
    found = content.get("experiment") if content is not None else None
    if status == 200 and isinstance(found, dict):
        id_ = str(found.get("experiment_id"))
        if experiment is not None and found.get("lifecycle_stage") == "deleted":
            raise deleted(experiment, id_)
        return id_ if experiment is not None else None
    if status == 404 and content is not None and content.get("error_code") == "RESOURCE_DOES_NOT_EXIST":
        return None
    shown = mask_text(uri)
    if status >= 500 or status in _MOMENTARY:
        raise unreachable(uri, f"it answers {status}{_message_in(content, text)}", status)
    hint = advice(status, text)
    if hint is None or (status == 404 and content is None) or status == 200:
        what = f"{shown} answers {status}, and not as an MLflow server does."
        raise TrackingServerError(f"{what} {advice(404, '')}", uri=shown, status=status)
    raise TrackingServerError(f"{shown} answers {status}{_message_in(content, text)}. {hint}", uri=shown, status=status)


def _message_in(content: dict[str, Any] | None, text: str) -> str:
    """The message in an answer; empty if the answer is a web page."""
    message = str((content or {}).get("message") or ("" if text.lstrip().startswith("<") else text))
    reason = mask_text(message.strip().partition("\n")[0][:200])
    return f": {reason!r}" if reason else ""


def json_object(answer: Any) -> dict[str, Any] | None:
    """The JSON object in an answer of a server; None if there is something else in it."""
    try:
        content = answer.json()
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def deleted(experiment: str, id_: str) -> ExperimentDeleted:
    return ExperimentDeleted(
        f"The MLflow experiment {experiment!r} is deleted. Restore it with `mlflow experiments restore "
        f"--experiment-id {id_}`, or name another one.",
        experiment=experiment,
        experiment_id=id_,
    )


def unreachable(uri: str, reason: str, status: int | None = None) -> TrackingServerUnreachable:
    shown = mask_text(uri)
    happened = f"{shown} cannot be reached: {reason}."
    return TrackingServerUnreachable(
        f"{happened} Start the server, correct the "
        "tracking URI, or record for later: start_logging(..., offline='spool').",
        uri=shown,
        reason=happened,
        status=status,
    )


def innermost(error: BaseException) -> BaseException:
    """The error inside an error of requests, urllib3 or a database driver, or the error itself."""
    while True:
        inner = next((e for e in (getattr(error, "reason", None), *error.args) if isinstance(e, Exception)), None)
        if inner is None or inner is error:
            return error
        error = inner


def brief(error: BaseException) -> str:
    """The innermost cause of an error of requests or of a driver, in one line."""
    text = format_error(innermost(error)).partition("\n")[0]
    return mask_text(_NOISE.sub("", text)).strip().rstrip(".")[:300]


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
