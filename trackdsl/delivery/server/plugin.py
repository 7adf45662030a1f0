"""The app plugin of MLflow's server: `mlflow server --app-name trackdsl`, or `trackdsl-auth` for one with users.

It adds two addresses to MLflow's own, below `/api/2.0/trackdsl`, and changes nothing else. What comes in is hostile
until it is checked: its size, each field, and whether MLflow permits this user to write to the experiments of the runs.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from trackdsl.delivery.database._changes import MOST_EXPERIMENTS, ChangeSet
from trackdsl.delivery.database._wire import (
    ABOUT_PATH,
    CHANGES_PATH,
    CONTENT_TYPE,
    MOST_BYTES,
    About,
    TooLarge,
    Written,
    decoded,
)
from trackdsl.delivery.server._backend import Backend, CannotWrite
from trackdsl.delivery.server._permission import address, refusal
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.errors import logger

_VERSION = 1
#: Set by `mlflow server` for the processes that it starts.
_SERVER_KIND = "_MLFLOW_SGI_NAME"
_BACKEND_URI = "_MLFLOW_SERVER_FILE_STORE"


def create_app() -> Any:
    """MLflow's app, which also takes change sets."""
    from mlflow.server import app

    add_addresses(app, Backend(os.environ.get(_BACKEND_URI, "")))
    if os.environ.get(_SERVER_KIND) != "uvicorn":
        return app
    from mlflow.server.fastapi_app import app as around_it

    return around_it


def create_app_with_users() -> Any:
    """MLflow's app with its basic authentication, which also takes change sets."""
    from mlflow.server import app, auth

    add_addresses(app, Backend(os.environ.get(_BACKEND_URI, "")))
    for path, method in ((ABOUT_PATH, "GET"), (CHANGES_PATH, "POST")):
        # Every user may ask; what is asked is checked here. MLflow may be set to refuse what it does not know.
        auth.BEFORE_REQUEST_VALIDATORS[address(app, path), method] = lambda: True
    return auth.create_app(app)


def add_addresses(app: Any, backend: Backend) -> None:
    """Add what this plugin answers to a Flask app of MLflow's.

    Args:
        app: the app.
        backend: the server's database.
    """
    receiver = _Receiver(app, backend)
    app.add_url_rule(address(app, ABOUT_PATH), "trackdsl_about", receiver.about, methods=["GET"])
    app.add_url_rule(address(app, CHANGES_PATH), "trackdsl_changes", receiver.receive, methods=["POST"])


class _Receiver:
    def __init__(self, app: Any, backend: Backend) -> None:
        self._app = app
        self._backend = backend

    def about(self) -> Any:
        """This server's answer to the question which change sets it takes."""
        try:
            self._backend.check()
        except CannotWrite as error:
            return _answer(200, About(_VERSION, False, str(error)))
        except Unavailable as error:
            return _error(503, "TEMPORARILY_UNAVAILABLE", error)
        return _answer(200, About(_VERSION, True))

    def receive(self) -> Any:
        """Write a change set."""
        from mlflow.exceptions import MlflowException

        answer: list[Any] = []
        try:
            self._backend.in_turn(lambda: answer.append(self._receive()))
            return answer[0]
        except TooLarge as error:
            return _error(413, "INVALID_PARAMETER_VALUE", error)
        except Refused as error:
            return _error(400, "INVALID_PARAMETER_VALUE", error)
        except Unavailable as error:
            return _error(503, "TEMPORARILY_UNAVAILABLE", error)
        except CannotWrite as error:
            return _error(501, "NOT_IMPLEMENTED", error)
        except MlflowException as error:  # From the checks of an older MLflow.
            return _error(int(error.get_http_status_code()), str(error.error_code), error)  # type: ignore[no-untyped-call]

    def _receive(self) -> Any:
        from flask import request

        # A page in a browser cannot send this type to another site without asking that site first.
        if request.mimetype != CONTENT_TYPE:
            raise Refused(f"the type of a change set is {CONTENT_TYPE}")
        if (request.content_length or 0) > MOST_BYTES:
            raise TooLarge(f"a change set has at most {MOST_BYTES >> 20} MiB")
        changes = decoded(request.get_data(cache=False))
        existing = self._backend.experiments_of(changes)
        new_in = _experiments_of_new(changes, existing)
        others = {each: run_id for run_id, each in existing.items()}
        if len(new_in | others.keys()) > MOST_EXPERIMENTS:
            raise TooLarge(f"a change set writes to at most {MOST_EXPERIMENTS} experiments")
        forbidden = refusal(self._app, request, sorted(new_in), others.values())
        if forbidden is not None:
            return forbidden
        self._backend.write(changes, new_in | others.keys())
        return _answer(200, Written(len(changes)))


def _experiments_of_new(changes: ChangeSet, existing: dict[str, int]) -> set[int]:
    """The experiments of runs that are to be created.

    Raises:
        Refused: a run exists in another experiment: somebody may have created it there, to get what belongs to it.
    """
    wanted = set()
    for run_id, change in changes.items():
        if change.new is None:
            continue
        wanted.add(change.new.experiment_id)
        if existing.get(run_id, change.new.experiment_id) != change.new.experiment_id:
            raise Refused(f"the run {run_id} exists in another experiment")
    return wanted


def _answer(status: int, content: Any) -> Any:
    from flask import Response

    return Response(msgspec.json.encode(content), status=status, content_type="application/json")


def _error(status: int, code: str, error: Exception) -> Any:
    if status >= 500:
        logger.warning("trackdsl: a change set was not written: %s", error)
    return _answer(status, {"error_code": code, "message": str(error)[:2000]})
