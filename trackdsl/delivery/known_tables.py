"""MLflow's tables for queries: read without MLflow, where their version is known, and the artifacts next to them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trackdsl.delivery.database._connection import MOST_VALUES, Connection, Row, chunks, for_driver, marks
from trackdsl.delivery.database._opening import connect, revision_of, why_unknown
from trackdsl.delivery.database._schema import UNUSUAL_VARIABLES
from trackdsl.delivery.store._errors import Refused, Unavailable

if TYPE_CHECKING:
    from trackdsl.delivery.store._local_artifacts import Entry, LocalArtifacts, local_folder

__all__ = [
    "MOST_VALUES",
    "STORE_ERRORS",
    "Connection",
    "Entry",
    "LocalArtifacts",
    "Row",
    "chunks",
    "for_driver",
    "local_folder",
    "marks",
    "open_tables",
]

#: What the functions here raise if a database cannot be read.
STORE_ERRORS = (Refused, Unavailable)
#: How long one query of a database server may take, in seconds.
_LONGEST_QUERY = 600


def __getattr__(name: str) -> Any:
    if name in ("Entry", "LocalArtifacts", "local_folder"):  # Few queries read files.
        from trackdsl.delivery.store import _local_artifacts

        return getattr(_local_artifacts, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open_tables(uri: str, cwd: str) -> Connection | None:
    """A connection to a database whose tables are known; None for every other store, which only MLflow can read.

    Args:
        uri: the tracking URI.
        cwd: the folder that it is relative to.

    Raises:
        Unavailable: the database cannot be read now.
        ModuleNotFoundError: its driver is not installed.
    """
    if any(os.environ.get(name) for name in UNUSUAL_VARIABLES):
        return None
    try:
        connection = connect(uri, cwd, _LONGEST_QUERY)
    except Unavailable as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise error.__cause__ from None
        raise
    if connection is None:
        return None
    revision = revision_of(connection)
    if revision is not None and not why_unknown(connection, revision):
        return connection
    connection.close()
    return None
