"""What the answers of MLflow's servers mean, and how long to wait for them."""

from __future__ import annotations

import os

from trackdsl.delivery.environment import UPLOAD_TIMEOUT

#: Error codes that are final; after any other one, the same request may succeed later.
FINAL = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "BAD_REQUEST",
    "INVALID_STATE",
    "NOT_FOUND",
    "NOT_IMPLEMENTED",
}
#: Error codes of a server that gets too many requests: 503, 429 with a text of MLflow's, and 429 without one.
BUSY = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}
#: Error codes that concern the whole store: it is unreachable, locked or busy, or does not know the user.
OF_THE_STORE = {*BUSY, "DEADLINE_EXCEEDED", "UNAUTHENTICATED"}
#: The minimum time to wait for the answer to an upload, in seconds.
_UPLOAD_PATIENCE = 120
#: The environment variable with the time to wait for an answer, in seconds.
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"


def upload_patience() -> int:
    """How long to wait for the answer to an upload, in seconds: a server may copy a file before it answers."""
    wanted = os.environ.get(UPLOAD_TIMEOUT, "")
    return max(_UPLOAD_PATIENCE, int(wanted) if wanted.isdecimal() else 0)


def wait_longer() -> None:
    """Wait twice as long for the next answers, up to the timeout of MLflow's client: the server may be slow."""
    seconds = os.environ.get(TIMEOUT, "")
    if seconds.isdecimal():
        os.environ[TIMEOUT] = str(min(2 * int(seconds), upload_patience()))
