"""The options of requests to a tracking server: credentials, certificates and plugins, from the environment.

The rules are those of `http_request` in mlflow/utils/rest_utils.py and of mlflow/utils/credentials.py. Like MLflow,
this reads the environment each time, because a program may refresh a token while it runs, and looks for plugins once.
"""

from __future__ import annotations

import base64
import configparser
import contextlib
import functools
import os
from importlib.metadata import entry_points
from typing import Any

#: Entry points of packages that add headers to the requests of MLflow's client.
_HEADER_PLUGINS = "mlflow.request_header_provider"
_WORKSPACE_HEADER = "X-MLFLOW-WORKSPACE"


def request_options() -> dict[str, Any]:
    """Keyword arguments for `requests.Session.request`: `headers`, `verify`, and if necessary `cert` and `auth`.

    MLflow is imported only if one of its plugins has to sign the request.

    Example:
        >>> request_options()["verify"]
        True
    """
    environ = os.environ
    options: dict[str, Any] = {"headers": _headers(), "verify": _verify()}
    certificate = environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
    if certificate:
        options["cert"] = certificate
    plugin = environ.get("MLFLOW_TRACKING_AUTH")
    if _is_true("MLFLOW_TRACKING_AWS_SIGV4"):
        from requests_auth_aws_sigv4 import AWSSigV4  # type: ignore[import-not-found]

        options["auth"] = AWSSigV4("execute-api")
    elif plugin:
        from mlflow.tracking.request_auth.registry import fetch_auth

        options["auth"] = fetch_auth(plugin)  # type: ignore[no-untyped-call]
    return options


def _headers() -> dict[str, str]:
    headers: dict[str, str] = {}
    if _has_header_plugins():
        from mlflow.tracking.request_header.registry import resolve_request_headers

        headers.update(resolve_request_headers())  # type: ignore[no-untyped-call]
    workspace = os.environ.get("MLFLOW_WORKSPACE", "").strip()
    if workspace:
        headers.setdefault(_WORKSPACE_HEADER, workspace)
    authorization = _authorization()
    if authorization:
        headers["Authorization"] = authorization
    return headers


@functools.cache  # To look through all packages takes longer than a request.
def _has_header_plugins() -> bool:
    return bool(entry_points(group=_HEADER_PLUGINS))


def _authorization() -> str | None:
    user, password = _credentials()
    kubernetes = os.environ.get("MLFLOW_TRACKING_AUTH", "").startswith("kubernetes")
    if user and password and not kubernetes:
        return "Basic " + base64.standard_b64encode(f"{user}:{password}".encode()).decode()
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return f"Bearer {token}" if token else None


def _credentials() -> tuple[str | None, str | None]:
    config = configparser.ConfigParser()
    with contextlib.suppress(configparser.Error, OSError):
        config.read(os.path.expanduser("~/.mlflow/credentials"))
    kept = config["mlflow"] if config.has_section("mlflow") else {}
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    user, password = (os.environ.get(name) or kept.get(name.lower()) for name in names)
    return user, password


def _verify() -> bool | str:
    """Whether to check the server's certificate, or the file to check it with.

    Pass it with each request: `requests` prefers REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE to `Session.verify`.
    """
    certificate = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    return certificate or not _is_true("MLFLOW_TRACKING_INSECURE_TLS")


def _is_true(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("true", "1")
