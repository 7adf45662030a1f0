"""What a tracking server answers, and what to do about it.

Nothing here imports MLflow: it takes seconds, and the answer is wanted within five of them.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
from dataclasses import dataclass
from typing import Any

from trackdsl._secrets import mask_text
from trackdsl.errors import ExperimentDeleted, TrackingServerError, TrackingServerUnreachable, told

#: How long to wait for a connection, and for an answer, in seconds.
CONNECT, READ = 2.0, 4.0
#: The variable without which MLflow takes no folder of files as a store.
FILE_STORE = "MLFLOW_ALLOW_FILE_STORE"
#: What trackdsl works with; that of `mlflow` in pyproject.toml.
VERSIONS = ((3, 1), (4, 0))
#: What urllib3 says of its own objects in its errors.
_NOISE = re.compile(r"(<[^>]*>|HTTPS?Connection(Pool)?\([^)]*\)):?\s*")
_FIND = "api/2.0/mlflow/experiments/get-by-name"
#: What a gateway answers whose server is away.
_GATEWAY = (502, 503, 504)


@dataclass(frozen=True)
class Store:
    """What was found out about a tracking URI.

    Attributes:
        version: MLflow's version at the server; empty where there is none, or it does not say.
        experiment_id: MLflow's id of the experiment that was asked for, or None where it is still to be made.
    """

    version: str = ""
    experiment_id: str | None = None


def advice(status: int | None, text: str) -> str | None:
    """What to do about the answer of a tracking server or store, in one sentence; None where nothing is known.

    Args:
        status: its HTTP status, or None.
        text: what it said.

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
        return "The user that the credentials belong to may not do this: ask whoever runs the server for permission."
    if status == 404:
        return "Is this the address of an MLflow server? A path in front of it, as in http://host/mlflow, counts too."
    if FILE_STORE in text:
        return f"Set {FILE_STORE}=true, or use a database: sqlite:///mlflow.db."
    return None


def ask_server(uri: str, experiment: str | None) -> Store:
    import requests

    with requests.Session() as session:
        _authenticate(session)
        version = _version(session, uri)
        # Any name will do to see whether it is an MLflow server that lets us in.
        answer = _get(session, uri, _FIND, {"experiment_name": experiment or "Default"})
    return Store(version, _experiment_id(uri, answer, experiment))


def _authenticate(session: Any) -> None:
    """As MLflow does it, see mlflow/utils/credentials.py; what is in the URI itself requests sees by itself."""
    environ = os.environ
    config = configparser.ConfigParser()
    with contextlib.suppress(configparser.Error, OSError):
        config.read(os.path.expanduser("~/.mlflow/credentials"))
    kept = config["mlflow"] if config.has_section("mlflow") else {}
    user, password = (
        environ.get(name) or kept.get(name.lower()) for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    )
    if user and password:
        session.auth = (user.encode(), password.encode())
    elif environ.get("MLFLOW_TRACKING_TOKEN"):
        session.headers["Authorization"] = f"Bearer {environ['MLFLOW_TRACKING_TOKEN']}"
    if environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        session.verify = False
    elif environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"):
        session.verify = environ["MLFLOW_TRACKING_SERVER_CERT_PATH"]
    session.cert = environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH") or None


def _get(session: Any, uri: str, path: str, params: dict[str, str] | None = None) -> Any:
    import requests

    try:
        return session.get(f"{uri.rstrip('/')}/{path}", params=params, timeout=(CONNECT, READ))
    except requests.exceptions.SSLError as error:
        raise TrackingServerError(
            f"{mask_text(uri)} cannot be trusted: {brief(error)}. Set MLFLOW_TRACKING_SERVER_CERT_PATH to the "
            "certificate of whoever signed the server's.",
            uri=mask_text(uri),
        ) from None
    except (requests.exceptions.RequestException, OSError, ValueError) as error:
        raise unreachable(uri, brief(error)) from None


def _version(session: Any, uri: str) -> str:
    """The version of the server; a proxy in front of it may not let this through."""
    answer = _get(session, uri, "version")
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
    """The experiment in the answer; refusals are raised."""
    status, text = answer.status_code, answer.text
    content = _json(answer)
    found = content.get("experiment") if content is not None else None
    if status == 200 and isinstance(found, dict):
        id_ = str(found.get("experiment_id"))
        if experiment is not None and found.get("lifecycle_stage") == "deleted":
            raise deleted(experiment, id_)
        return id_ if experiment is not None else None
    if status == 404 and content is not None and content.get("error_code") == "RESOURCE_DOES_NOT_EXIST":
        return None
    shown = mask_text(uri)
    if status in _GATEWAY:
        raise unreachable(uri, f"it answers {status}", status)
    if status == 401 and (os.environ.get("MLFLOW_TRACKING_AUTH") or os.environ.get("MLFLOW_TRACKING_AWS_SIGV4")):
        return None  # A plugin of MLflow's signs requests, which delivery alone can do.
    hint = advice(status, text)
    if hint is None or (status == 404 and content is None) or status == 200:
        what = f"{shown} answers {status}, and not as an MLflow server does."
        raise TrackingServerError(f"{what} {advice(404, '')}", uri=shown, status=status)
    said = mask_text(str((content or {}).get("message") or text).strip().partition("\n")[0][:200])
    raise TrackingServerError(f"{shown} answers {status}: {said!r}. {hint}", uri=shown, status=status)


def _json(answer: Any) -> dict[str, Any] | None:
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


def brief(error: BaseException) -> str:
    """The innermost reason of an error of requests or of a driver, in one line."""
    seen = error
    while True:
        inner = next((e for e in (getattr(seen, "reason", None), *seen.args) if isinstance(e, Exception)), None)
        if inner is None or inner is seen:
            break
        seen = inner
    text = told(seen).partition("\n")[0]
    return mask_text(_NOISE.sub("", text)).strip().rstrip(".")[:300]


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
