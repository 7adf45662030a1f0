"""Runs inside the kernel that tests share: it begins a test, and returns what the cells recorded."""

from __future__ import annotations

import contextlib
import json
from typing import Any

_open = contextlib.ExitStack()
_captured: list[Any] = []


def begin(shell: Any, *, load: bool = True) -> None:
    """Put everything back to what it was, and capture what is recorded from now on."""
    from trackdsl.notebook.magics import load_ipython_extension, unload_ipython_extension
    from trackdsl.testing import capture_runs, reset

    unload_ipython_extension(shell)
    _open.close()
    reset()
    for history in (shell.history_manager.input_hist_parsed, shell.history_manager.input_hist_raw):
        history[:] = [""]  # The cells of earlier tests are of no concern.
    _captured[:] = [_open.enter_context(capture_runs())]
    if load:
        load_ipython_extension(shell)


def recorded() -> str:
    """The captured runs as JSON: with their parent's name, the last values of metrics, the texts of artifacts."""
    return json.dumps([_run(run) for run in _captured[0].runs])


def _run(run: Any) -> dict[str, Any]:
    return {
        "id": run.id,
        "name": run.name,
        "path": run.path,
        "parent": None if run.parent is None else run.parent.name,
        "root": _root(run).id,
        "experiment": run.experiment,
        "params": {key: _plain(value) for key, value in run.params.items()},
        "metrics": {key: points[-1].value for key, points in run.metrics.items()},
        "tags": run.tags,
        "status": run.status,
        "failure": None if run.failure is None else [run.failure.type, run.failure.message, run.failure.traceback],
        "artifacts": {path: file.read_text(errors="replace")[:200_000] if file.is_file() else ""
                      for path, file in run.artifacts.items()},
        "models": list(run.models),
    }  # fmt: skip


def _root(run: Any) -> Any:
    return run if run.parent is None else _root(run.parent)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, bool)) else str(value)
