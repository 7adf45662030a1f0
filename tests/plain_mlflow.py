"""Plain MLflow beside trackdsl: fixtures of a program with delivery at work, and its runs as a tree."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import all_runs, client, end_delivery
from trackdsl.delivery import flush
from trackdsl.journal import _target
from trackdsl.mlflow_bridge import install


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Delivery at work beside the test: from a thread, which has imported MLflow already."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setenv("TRACKDSL_DELIVERY", "thread")
    install()
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.tracking.fluent._active_experiment_id = None
    _target.close_all()
    end_delivery(tmp_path / "spool")


@pytest.fixture
def here(online: None, sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The default store of the working directory, with delivery at work."""
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(None)  # Making the store has pointed MLflow at it.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_store)  # The default of MLflow 3.1 is another.
    return sqlite_store


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """What trackdsl logs; making a database with an old MLflow takes away the handlers of `caplog`."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("trackdsl").addHandler(handler)
    yield messages
    logging.getLogger("trackdsl").removeHandler(handler)


class Tree:
    """The runs of a store, by name.

    Args:
        uri: the store.
        around: a run's id: only this run and its parent count, at a server that other tests use too.
    """

    def __init__(self, uri: str | None = None, around: str | None = None) -> None:
        assert flush(60)
        self.uri = uri
        runs = {run.info.run_id: run for run in all_runs(uri)}
        if around is not None:
            runs = {id_: runs[id_] for id_ in (around, runs[around].data.tags["mlflow.parentRunId"])}
        self.runs = {run.info.run_name: run for run in runs.values()}
        self.count = len(all_runs(uri))

    def __getitem__(self, name: str) -> Any:
        return self.runs[name]

    def parents(self) -> dict[str, str | None]:
        """Each run's parent, by name."""
        names = {run.info.run_id: name for name, run in self.runs.items()}
        return {name: names.get(run.data.tags.get("mlflow.parentRunId", "")) for name, run in self.runs.items()}

    def statuses(self) -> set[str]:
        """How the runs ended."""
        return {run.info.status for run in self.runs.values()}

    def tags(self, name: str, prefix: str = "") -> dict[str, str]:
        """The tags of a run that begin in some way."""
        return {key: value for key, value in self[name].data.tags.items() if key.startswith(prefix)}


def own_thread(function: Callable[[], Any]) -> Any:
    """Call something in a thread, in a copy of this context; returns or raises what it does."""
    found: list[Any] = []

    def call() -> None:
        try:
            found.append(function())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=[call])
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def artifacts(uri: str | None, run: Any) -> set[str]:
    return {file.path for file in client(uri).list_artifacts(run.info.run_id)}


def run_threads(*calls: Callable[[], Any]) -> None:
    """Call several functions, each in a thread and a copy of this context, at the same time."""
    threads = [threading.Thread(target=contextvars.copy_context().run, args=[call]) for call in calls]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


async def meet(count: int, waiting: list[asyncio.Future[None]]) -> None:
    """Wait until this many tasks have come here."""
    mine = asyncio.get_running_loop().create_future()
    waiting.append(mine)
    if len(waiting) == count:
        for each in waiting:
            each.set_result(None)
        waiting.clear()
    await mine
