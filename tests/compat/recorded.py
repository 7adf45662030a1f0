"""What a program has left at MLflow: run once, looked at by many tests."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

PROGRAMS = Path(__file__).parent / "programs"


@dataclass
class Recorded:
    """A program that has ended, and the store that it recorded to.

    Attributes:
        folder: where it ran.
        uri: the store.
        output: what it printed.
    """

    folder: Path
    uri: str
    output: str = ""

    @cached_property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.uri, self.uri)

    @cached_property
    def experiments(self) -> dict[str, str]:
        """Ids to names."""
        return {each.experiment_id: each.name for each in self.client.search_experiments()}

    @cached_property
    def runs(self) -> list[Any]:
        """All runs, in the order they began."""
        found = self.client.search_runs(list(self.experiments), max_results=1000)
        return sorted(found, key=lambda run: run.info.start_time)

    def named(self, name: str) -> list[Any]:
        return [run for run in self.runs if run.info.run_name == name]

    def run(self, name: str) -> Any:
        (found,) = self.named(name)
        return found

    def experiment_of(self, name: str) -> str:
        """The experiment that all runs of a name are in."""
        (found,) = {self.experiments[run.info.experiment_id] for run in self.named(name)}
        return found

    def points(self, name: str, key: str) -> list[tuple[int, float]]:
        history = self.client.get_metric_history(self.run(name).info.run_id, key)
        return [(point.step, point.value) for point in history]

    def files(self, name: str, folder: str | None = None) -> list[str]:
        """The paths of all files of a run, below a folder."""
        found = []
        for each in self.client.list_artifacts(self.run(name).info.run_id, folder):
            found += self.files(name, each.path) if each.is_dir else [each.path]
        return sorted(found)

    def text(self, name: str, path: str) -> str:
        """The content of a file of a run."""
        from mlflow import artifacts

        return artifacts.load_text(f"{self.run(name).info.artifact_uri}/{path}")


def run_program(name: str, folder: Path, *arguments: str, **environment: str) -> str:
    """Run a program in a folder of its own, deliver what it recorded, and return what it printed.

    Raises:
        AssertionError: it failed, or its delivery did.
    """
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("TRACKDSL_", "MLFLOW_", "TRACELET_"))
    }
    clean |= {"TRACKDSL_SPOOL": str(folder / "spool"), **environment}
    options: dict[str, Any] = {"cwd": folder, "env": clean, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run([sys.executable, str(PROGRAMS / name), *arguments], check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    synced = subprocess.run([sys.executable, "-m", "trackdsl.cli", "sync"], check=False, **options)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    return done.stdout
