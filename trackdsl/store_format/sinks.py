"""How delivery writes to each store, as programs and commands see it: a small file for each store in the spool."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from trackdsl.errors import logger
from trackdsl.journal._files import read_regular, replace
from trackdsl.store_format.servers import folder_of, server_of

#: Delivery writes to the database's tables, and runs get our ids.
TABLES = "tables"
#: Delivery sends what it writes to a server that takes change sets, and runs get our ids.
SERVER = "server"
#: Delivery sends the requests of MLflow's REST API to a server.
REST = "rest"
#: Delivery uses `MlflowClient`.
CLIENT = "client"
#: What messages call the ways that are slower.
SLOWER = {REST: "MLflow's REST API", CLIENT: "MLflow's client"}
#: The ways in which runs get our ids.
WITH_OWN_IDS = (TABLES, SERVER)


class SinkNote(NamedTuple):
    """A note about how delivery writes to a store.

    Attributes:
        way: `TABLES`, `SERVER`, `REST` or `CLIENT`.
        reason: why not otherwise; empty if there is no reason to expect it.
    """

    way: str
    reason: str


def write_sink(spool: Path, uri: str, cwd: str, note: SinkNote) -> None:
    """Write down how delivery writes to a store."""
    path = _path(spool, uri, cwd)
    try:
        if read_sink(spool, uri, cwd) != note:
            replace(path, f"{note.way}\n{note.reason}\n".encode("utf-8", "replace"))
    except OSError as error:
        logger.warning("trackdsl cannot write how it delivers to %s: %s", path, error)


def read_sink(spool: Path, uri: str, cwd: str) -> SinkNote | None:
    """The note about how delivery last wrote to a store; None if it never did."""
    try:
        way, _, reason = read_regular(_path(spool, uri, cwd)).decode("utf-8", "replace").partition("\n")
    except OSError:
        return None
    return SinkNote(way, reason.rstrip("\n")) if way in (TABLES, SERVER, *SLOWER) else None


def _path(spool: Path, uri: str, cwd: str) -> Path:
    digest = hashlib.sha256(f"{uri}\n{cwd}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return folder_of(spool, server_of(uri)) / f"sink-{digest}"
