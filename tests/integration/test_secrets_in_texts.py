"""Secrets in the error messages of commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trackdsl import stage
from trackdsl.testing import capture_runs


def test_the_errors_of_commands(tmp_path: Path) -> None:
    """Secrets in a command are masked in the errors of `subprocess` and in the line of its traceback."""
    plant = "hunter2.horse"

    @stage
    def fails(command: list[str]) -> None:
        subprocess.run([*command, "--user", "curl", "-u", f"me:{plant}"], check=True)

    @stage
    def hangs(command: list[str]) -> None:
        subprocess.run([*command, "--password", plant], check=True, timeout=0.001)

    with capture_runs() as captured:
        with pytest.raises(subprocess.CalledProcessError):
            fails([sys.executable, "-c", "raise SystemExit(3)", "--token", plant])
        with pytest.raises(subprocess.TimeoutExpired):
            hangs([sys.executable, "-c", "input()", "mysql", f"-p{plant}"])
    for name in ("fails", "hangs"):
        failure = captured.one(name).failure
        assert failure is not None
        assert "***" in str(failure)
        assert plant not in str(failure)
