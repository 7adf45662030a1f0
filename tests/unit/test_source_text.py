"""The source of functions: what is read for it, and what is not."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE
from trackdsl import experiment, stage
from trackdsl.testing import capture_runs

_PROGRAM = """
chosen = lambda x: x + 1
def works(): pass
def fails():
    try:
        raise KeyError("cause")
    except KeyError as error:
        raise ValueError("effect") from error
def grouped():
    try: fails()
    except ValueError as error: return error
"""


def _decorated(names: dict[str, Any]) -> None:
    stage(names["works"])()


def _parameter(names: dict[str, Any]) -> None:
    with stage("block", chosen=names["chosen"]):
        pass


def _failure(names: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="effect"), experiment("block"):
        names["fails"]()


def _failure_in_group(names: dict[str, Any]) -> None:
    with pytest.raises(ExceptionGroup), experiment("block"):
        raise ExceptionGroup("several", [names["grouped"]()])


@pytest.mark.parametrize("use", [_decorated, _parameter, _failure, _failure_in_group])
def test_a_program_from_a_pipe_is_not_read_again(use: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    """What a program from a named pipe has defined is recorded; the pipe, which nobody writes to, is not read again."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(_PROGRAM, str(pipe), "exec"), names)  # noqa: S102
    with capture_runs() as found:
        thread = threading.Thread(target=use, args=(names,), daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    (run,) = found.runs
    assert run.status in ("FINISHED", "FAILED")
