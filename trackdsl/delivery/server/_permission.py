"""Who may write to which experiment: asks MLflow itself, through the authentication that it is configured with."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from trackdsl.delivery.server._backend import CannotWrite

#: The requests of MLflow's client that do what a change set does: with a new run, and with one that exists.
_CREATE = "/api/2.0/mlflow/runs/create"
_WRITE = "/api/2.0/mlflow/runs/log-batch"
#: Set by `mlflow server --static-prefix` for the processes that it starts.
_PREFIX = "_MLFLOW_STATIC_PREFIX"


def refusal(app: Any, request: Any, new_in: Iterable[int], existing: Iterable[str]) -> Any | None:
    """MLflow's answer to a user who may not write what is sent; None if nothing is forbidden.

    Everything that MLflow does before a request is done for requests that would do the same: security, authentication,
    permissions, and other plugins. Nothing is carried out.

    Args:
        app: MLflow's Flask app.
        request: the request, with the user's credentials.
        new_in: the experiments of runs that are to be created.
        existing: one run of each other experiment that is to be written to.

    Raises:
        CannotWrite: this MLflow has no such requests, so that nobody would check them.
    """
    questions = [(_CREATE, {"experiment_id": str(each)}) for each in new_in]
    questions += [(_WRITE, {"run_id": each}) for each in existing]
    headers = [(name, value) for name, value in request.headers if not _of_content(name)]
    remote = {name: value for name, value in request.environ.items() if name.startswith("REMOTE_")}
    for path, content in questions:
        with app.test_request_context(
            address(app, path), method="POST", json=content, headers=headers, environ_base=remote,
            base_url=request.host_url,
        ) as context:  # fmt: skip
            if context.request.url_rule is None:
                raise CannotWrite(f"this server does not answer {path}")
            answer = app.preprocess_request()
        if answer is not None:
            return answer
    return None


def _of_content(name: str) -> bool:
    return name.lower().startswith("content-") or name.lower() == "transfer-encoding"


def address(app: Any, path: str) -> str:
    """The path of an endpoint at this server: with the prefix that the server was given, if its REST API has that.

    Versions of MLflow differ in that, so it is taken from the addresses of MLflow's own requests.

    Args:
        app: MLflow's Flask app.
        path: of MLflow's API, or next to it.
    """
    prefix = os.environ.get(_PREFIX, "").rstrip("/")
    return prefix + path if prefix and _answers(app, prefix + _CREATE) else path


def _answers(app: Any, path: str) -> bool:
    return any(rule.rule == path for rule in app.url_map.iter_rules())
