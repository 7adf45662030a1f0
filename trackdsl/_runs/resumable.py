"""Check that a run exists before a session continues it. This needs no MLflow."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from trackdsl._core.ids import is_ours
from trackdsl._core.redaction import mask_text
from trackdsl._core.sqlite_files import first_row
from trackdsl._core.uris import is_path
from trackdsl._server import http as _http
from trackdsl._server.reachable import DATABASES, PATIENCE, within
from trackdsl._server.request_options import request_options
from trackdsl._server.tracking_server import CONNECT, READ
from trackdsl.errors import RunNotFound, TrackdslError
from trackdsl.store_format.tags import ID_TAG

_GET = "api/2.0/mlflow/runs/get"
_QUERY = (
    "SELECT r.run_uuid, r.lifecycle_stage, t.value FROM runs r LEFT JOIN tags t ON t.run_uuid = r.run_uuid AND "
    "t.key = :tag WHERE r.run_uuid = :id OR t.value = :id"
)


class _Row(NamedTuple):
    run_id: str
    stage: str
    ours: str | None = None


def check_run(uri: str, run_id: str) -> None:
    """Check that a run can continue, as far as its store can be searched.

    Args:
        uri: the tracking URI of a store that answers.
        run_id: trackdsl's or MLflow's id of the run.

    Raises:
        RunNotFound: the run is deleted, or MLflow has no run of this id.
    """
    try:
        row = within(PATIENCE, uri, lambda: _look_up(uri, run_id))
    except TrackdslError:
        raise
    except Exception:  # The store answered a moment ago. Delivery reports what is wrong.
        return
    if row is not None and row.stage != "deleted":
        return
    if row is not None:
        raise RunNotFound(
            f"The run {row.run_id} (trackdsl.id {row.ours or run_id}) is deleted. Restore it with `mlflow runs restore "
            f"--run-id {row.run_id}`, or name another one.",
            argument="run_id",
        )
    if not is_ours(run_id):  # A run with an id of ours may be delivered later.
        raise RunNotFound(
            f"There is no run {run_id} at {mask_text(uri)}. Correct run_id or the tracking URI, or leave run_id out "
            "to begin a new run.",
            argument="run_id",
        )


def _look_up(uri: str, run_id: str) -> _Row | None:
    """The run; None if the store has none. In a store that cannot be searched, the run counts as existing."""
    unknown = _Row(run_id, "active")
    scheme = uri.partition(":")[0].partition("+")[0].lower()
    if scheme in ("http", "https"):
        return _ask_server(uri, run_id)
    if scheme == "sqlite":
        path = uri.partition("://")[2].removeprefix("/").partition("?")[0]
        if not path or not os.path.exists(path):
            return None
        found = first_row(path, _QUERY, {"id": run_id, "tag": ID_TAG})
        return None if found is None else _Row(*found)
    if scheme in DATABASES:
        return _ask_database(uri, run_id)
    if scheme == "file" or is_path(uri):
        return _look_up_in_files(Path(unquote(urlsplit(uri).path)) if uri.startswith("file:") else Path(uri), run_id)
    return unknown


def _ask_server(uri: str, run_id: str) -> _Row | None:
    with _http.session() as session:
        answer = session.get(
            f"{uri.rstrip('/')}/{_GET}", params={"run_id": run_id}, timeout=(CONNECT, READ), **request_options()
        )
    content: dict[str, Any] = answer.json()
    if content.get("error_code") == "RESOURCE_DOES_NOT_EXIST":
        return None
    run = content["run"]
    tags = {tag["key"]: tag["value"] for tag in run["data"].get("tags", ())}
    return _Row(run["info"]["run_id"], run["info"]["lifecycle_stage"], tags.get(ID_TAG))


def _ask_database(uri: str, run_id: str) -> _Row | None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.text(_QUERY), {"id": run_id, "tag": ID_TAG}).first()
    return None if found is None else _Row(*found)


def _look_up_in_files(folder: Path, run_id: str) -> _Row | None:
    for meta in [*folder.glob(f"*/{run_id}/meta.yaml"), *folder.glob(f".trash/*/{run_id}/meta.yaml")]:
        stage = re.search(r"^lifecycle_stage: (\w+)", meta.read_text(encoding="utf-8"), re.MULTILINE)
        ours = meta.parent / "tags" / ID_TAG
        return _Row(run_id, "active" if stage is None else stage[1], ours.read_text() if ours.is_file() else None)
    return None
