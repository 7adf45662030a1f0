"""What a program recorded, as MLflow holds it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from tests.conftest import all_runs


class Tree:
    """The runs of a store, by their parents.

    Args:
        uri: the store.
        reported: what the program itself wrote down.
    """

    def __init__(self, uri: str, reported: dict[str, Any]) -> None:
        self.uri = uri
        self.reported = reported
        self.runs = all_runs(uri)

    def roots(self, name: str) -> list[Any]:
        return [run for run in self.runs if run.info.run_name == name and "mlflow.parentRunId" not in run.data.tags]

    def root(self, name: str) -> Any:
        (found,) = self.roots(name)
        assert found.info.status == "FINISHED"
        return found

    def below(self, run: Any) -> list[Any]:
        return [child for child in self.runs if child.data.tags.get("mlflow.parentRunId") == run.info.run_id]

    def below_root(self, name: str) -> list[Any]:
        return self.below(self.root(name))


@functools.cache
def tree(folder: Path) -> Tree:
    """What a program recorded at the server that it had in its folder."""
    return Tree(f"sqlite:///{folder}/server/srv.db", json.loads((folder / "reported.json").read_text()))


def shown(runs: list[Any]) -> list[tuple[str, str]]:
    """Names, and parameters `x`, of runs that went well."""
    assert all(run.info.status == "FINISHED" for run in runs)
    return sorted((run.info.run_name, run.data.params.get("x", "")) for run in runs)


def attempts(runs: list[Any]) -> list[tuple[str, str]]:
    """Numbers of attempts, and how they ended, of the runs of one task."""
    assert len({run.data.tags["trackdsl.task"] for run in runs}) == 1
    return sorted((run.data.tags["trackdsl.attempt"], run.info.status) for run in runs)
