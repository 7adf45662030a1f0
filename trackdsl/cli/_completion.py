"""Shell completion: the script for a shell, and the names of runs and experiments at the store.

A shell asks at each press of Tab, so nothing here imports MLflow, and a store that does not answer in time has no
names. Names are anybody's, and a shell executes what it finds in a command line. Zsh and fish quote what they insert.
Bash does not, so there only harmless names are offered, and runs with other names by their ids.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from trackdsl.cli._shell_scripts import SHELLS

#: How long a store may take, in seconds.
_PATIENCE = 1.0
#: How many names are offered.
_MOST = 100
#: What no shell gives a meaning to, in the middle of a argument. A comma separates columns in click's scripts.
_HARMLESS = re.compile(r"[\w.@+%][\w.@+%=:/-]*\Z")
#: The shells that quote what they insert, as they ask.
_QUOTE = ("zsh_complete", "fish_complete")
_START_OF_ID = re.compile(r"[0-9a-f]{2,32}\Z")
#: The parameters are the start of the wanted names and its length.
_EXPERIMENTS = """
    SELECT name FROM experiments WHERE lifecycle_stage = 'active' AND SUBSTR(name, 1, :length) = :start
    ORDER BY last_update_time DESC LIMIT :most"""
_RUNS = """
    SELECT name, MAX(run_uuid), MAX(start_time) FROM runs
    WHERE lifecycle_stage = 'active' AND SUBSTR(name, 1, :length) = :start
    GROUP BY name ORDER BY 3 DESC LIMIT :most"""
_IDS = """
    SELECT name, run_uuid, start_time FROM runs
    WHERE lifecycle_stage = 'active' AND SUBSTR(run_uuid, 1, :length) = :start ORDER BY 3 DESC LIMIT :most"""


class Names(NamedTuple):
    """Runs whose names begin as wanted, each with an id, and runs whose ids do."""

    named: list[tuple[str, str]]
    with_id: list[tuple[str, str]]


def script(shell: str) -> str:
    """The script that makes a shell complete `trackdsl`."""
    from trackdsl.cli import main  # It imports this module.

    return SHELLS[shell](main, {}, "trackdsl", "_TRACKDSL_COMPLETE").source()


def complete_run(context: click.Context, _parameter: click.Parameter, start: str) -> list[CompletionItem[str]]:
    """The runs that an argument may mean: by their names, or by their ids once it begins like one."""
    found: Names = _asked(context, start, _runs_of_server, _runs_of_database) or Names([], [])
    items = [_item(name, "") if _is_inert(name) else _item(id_, _shown(name)) for name, id_ in found.named if name]
    return items + [_item(id_, _shown(name)) for name, id_ in found.with_id]


def complete_experiment(context: click.Context, _parameter: click.Parameter, start: str) -> list[CompletionItem[str]]:
    """The experiments that an argument may mean."""
    found: list[str] = _asked(context, start, _experiments_of_server, _experiments_of_database) or []
    return [_item(name, "") for name in found if _is_inert(name)]


def complete_file(_context: click.Context, _parameter: click.Parameter, start: str) -> list[CompletionItem[str]]:
    """Files, which the shell itself knows."""
    return [CompletionItem(start, type="file")]


def complete_function(_context: click.Context, _parameter: click.Parameter, start: str) -> list[CompletionItem[str]]:
    """The modules and functions below the current folder."""
    with contextlib.suppress(Exception):
        from trackdsl.cli._function_names import names

        return [_item(name, "") for name in itertools.islice(names(start), _MOST) if _HARMLESS.match(name)]
    return []


def complete_journal(context: click.Context, _parameter: click.Parameter, start: str) -> list[CompletionItem[str]]:
    """The journals of the spool."""
    with contextlib.suppress(Exception):
        from trackdsl.cli._journals import spool_for
        from trackdsl.journal._spool import journals

        names = [journal.name for journal in journals(spool_for(context.params.get("spool")))]
        return [_item(name, "") for name in names if name.startswith(start) and _HARMLESS.match(name)]
    return []


def complete_watched_run(context: click.Context, _parameter: click.Parameter, start: str) -> list[CompletionItem[str]]:
    """The runs of the spool: by their names, or by their paths and ids once the argument begins like one."""
    found: dict[str, str] = {}
    with contextlib.suppress(Exception):
        from trackdsl.cli._journals import spool_for
        from trackdsl.cli.watching import runs_in

        for run in runs_in(spool_for(context.params.get("spool"))):
            name, id_ = run.path if "/" in start else run.name, run.id.hex()
            if name.startswith(start):
                is_harmless = _is_inert(name)
                found.setdefault(name if is_harmless else id_, run.status.lower() if is_harmless else _shown(run.path))
            if _START_OF_ID.match(start) and id_.startswith(start):
                found.setdefault(id_, _shown(run.path))
    return [_item(value, shown) for value, shown in list(found.items())[:_MOST]]


def _is_inert(name: str) -> bool:
    """Whether a shell that inserts a name gives no meaning to it, nor its script, nor `trackdsl`."""
    if _HARMLESS.match(name):
        return True
    # Answers are lines, in fish with columns. `!` stands for earlier commands, and what begins with `-` for an option.
    plain = name.isprintable() and name == name.strip() and not name.startswith("-") and not set(",!") & set(name)
    return plain and os.environ.get("_TRACKDSL_COMPLETE") in _QUOTE


def _item(value: str, shown: str) -> CompletionItem[str]:
    return CompletionItem(value, help=shown or None)


def _shown(name: str) -> str:
    from trackdsl._core.escaping import printable

    return printable(name)[:60].replace(",", " ")


def _asked(context: click.Context, start: str, of_server: Callable[..., Any], of_database: Callable[..., Any]) -> Any:
    """What the store answers in time; None if it does not, for whatever reason: a shell can show no error."""
    with contextlib.suppress(Exception):
        from trackdsl._config import resolve as settings
        from trackdsl._server.reachable import within

        uri = context.params.get("tracking_uri") or settings.tracking_uri()
        if uri.startswith(("http://", "https://")):
            return within(_PATIENCE, uri, lambda: of_server(uri, start))
        return within(_PATIENCE, uri, lambda: of_database(uri, start))
    return None


def _experiments_of_database(uri: str, start: str) -> list[str]:
    return [row[0] for row in _select(uri, _EXPERIMENTS, start)]


def _runs_of_database(uri: str, start: str) -> Names:
    with_id = _select(uri, _IDS, start) if _START_OF_ID.match(start) else []
    return Names([row[:2] for row in _select(uri, _RUNS, start)], [row[:2] for row in with_id])


def _select(uri: str, statement: str, start: str) -> list[Any]:
    values = {"start": start, "length": len(start), "most": _MOST}
    from trackdsl.store_format.sqlite import sqlite_path

    path = sqlite_path(uri)
    if path is not None:
        import sqlite3

        file = f"{Path(path).absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(file, timeout=_PATIENCE / 2, uri=True)) as database:
            return database.execute(statement, values).fetchall()
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sqlalchemy.text(statement), values)]


def _experiments_of_server(uri: str, start: str) -> list[str]:
    found = _post(uri, "experiments/search", {"max_results": 1000}).get("experiments", [])
    return [one["name"] for one in found if one["name"].startswith(start)][:_MOST]


def _runs_of_server(uri: str, start: str) -> Names:
    if start and not _HARMLESS.match(start):  # It would be part of a filter.
        return Names([], [])
    ids = [one["experiment_id"] for one in _post(uri, "experiments/search", {"max_results": 1000})["experiments"]]
    wanted = {"experiment_ids": ids, "max_results": _MOST, "order_by": ["attributes.start_time DESC"]}
    named = _post(uri, "runs/search", {**wanted, "filter": f"attributes.run_name LIKE '{start}%'"})
    found = {one["info"].get("run_name", ""): one["info"]["run_id"] for one in named.get("runs", [])}
    return Names([(name, id_) for name, id_ in found.items() if name.startswith(start)], [])


def _post(uri: str, path: str, content: dict[str, Any]) -> dict[str, Any]:
    from trackdsl._server.http import session
    from trackdsl._server.request_options import request_options

    with session() as requests:
        address = f"{uri.rstrip('/')}/api/2.0/mlflow/{path}"
        answer = requests.post(address, json=content, timeout=_PATIENCE, **request_options())
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found
