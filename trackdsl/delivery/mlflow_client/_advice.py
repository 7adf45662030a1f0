"""Advice about errors of stores, for users of `trackdsl status`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from trackdsl._core.redaction import mask_text
from trackdsl._server.tracking_server import advice, brief
from trackdsl.delivery.database._errors import code_of
from trackdsl.errors._databases import database_advice
from trackdsl.errors._packages import install_command

_LONGEST = 600


def advised(error: Exception, text: str, *, remote: bool) -> str:
    """The error message of a store, with advice if the cause is known.

    Args:
        error: what MLflow raised.
        text: its message, without secrets.
        remote: whether it comes from a tracking server.
    """
    if remote:
        text = _no_connection(error) or text
    command = install_command(error) if isinstance(error, ImportError) else None
    if command is not None:
        hint: str | None = f"The store needs it: {command}"
    else:
        status: Any = getattr(error, "get_http_status_code", int)() if remote else None
        hint = advice(status or None, text) or _of_database(error)
    # Added to the first line, because commands show only that; the rest of a database's error is the whole statement.
    return text if not hint else f"{text.partition(chr(10))[0][:_LONGEST].rstrip('.')}. {hint}"


def _of_database(error: BaseException | None) -> str:
    """Advice about the error of a database server that caused an error of SQLAlchemy or MLflow."""
    while error is not None:
        original = getattr(error, "orig", None)
        if isinstance(original, Exception):
            return database_advice(code_of(original), str(original))
        error = error.__cause__ or error.__context__
    return ""


def _no_connection(error: BaseException) -> str | None:
    """The server that could not be reached, and why; None if it could."""
    from requests.exceptions import ConnectionError as NoConnection
    from urllib3.exceptions import NewConnectionError

    address = ""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NoConnection) and cause.request is not None and cause.request.url:
            parts = urlsplit(str(cause.request.url))
            address = mask_text(f"{parts.scheme}://{parts.netloc}")
        if isinstance(cause, NewConnectionError) and address:
            return f"{address} cannot be reached: {brief(cause)}"
        cause = cause.__cause__ or cause.__context__
    return None
