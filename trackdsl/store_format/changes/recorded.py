"""One side of a comparison: the stages of a root run, and the program that recorded them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from trackdsl.store_format.call_tag import call_of
from trackdsl.store_format.run_facts import RunFacts
from trackdsl.store_format.tags import ID_TAG, PARENT_TAG

#: The metrics of CPU, memory and disk say nothing of the program.
_SYSTEM = "system/"


class RunRow(RunFacts, Protocol):
    """A run as a store has it."""

    @property
    def start(self) -> int | None:
        """When it began, in milliseconds since 1970."""

    @property
    def end(self) -> int | None:
        """When it ended, in milliseconds since 1970; 0 or None if it has not."""


class Stage(msgspec.Struct, frozen=True):
    """A run of a tree.

    Attributes:
        path: the names from below the root run to it; empty for the root run itself.
        run_id: MLflow's id.
        name: its name.
        status: its status.
        seconds: how long it took; None if it has not ended.
        params: its parameters, as text.
        metrics: the latest value of each of its metrics.
        datasets: the digests of its datasets, by name and context.
        function: the full name of its function; empty for a block.
        digest: the hash of that function's source.
    """

    path: str
    run_id: str
    name: str
    status: str
    seconds: float | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    datasets: Mapping[str, str]
    function: str = ""
    digest: str = ""

    @property
    def code(self) -> str:
        """The name and the digest of its function, as a key of `Program.code`."""
        return f"{self.function} {self.digest}" if self.function else ""


class Program(msgspec.Struct, frozen=True):
    """The source, packages, Python version and commit of a program.

    Attributes:
        python: the version of Python; empty if it is not known.
        packages: the versions of the installed packages, by name; None if they are not known.
        commit: the git commit; empty if there is none.
        patch: the changes that were not committed; None if they are not known.
        code: by the function of a stage, see `Stage.code`: the digests of what it uses of its project, by name. Under
            an empty name what the program does at the top level of its file, if the root run is a block.
        partial: the functions of which not all of that is known, because a file was edited since.
    """

    python: str = ""
    packages: Mapping[str, str] | None = None
    commit: str = ""
    patch: str | None = None
    code: Mapping[str, Mapping[str, str]] = {}
    partial: tuple[str, ...] = ()

    def uses(self, stage: Stage) -> Mapping[str, str] | None:
        """The digests of all that a stage uses of the project, by name; None if that is not known.

        A root run that is a block stands for the program's file. The code of other blocks is part of something else.
        """
        if stage.path and not stage.function:
            return None
        return None if stage.code in self.partial else self.code.get(stage.code)


class Recorded(msgspec.Struct, frozen=True):
    """A root run with what is compared of it.

    Attributes:
        run_id: MLflow's id.
        name: its name.
        start: when it began, in milliseconds since 1970.
        stages: the run and those below it, in the order in which they began, parents first.
        program: what recorded them.
    """

    run_id: str
    name: str
    start: int
    stages: tuple[Stage, ...]
    program: Program


def stages_of(
    root: RunRow,
    below: Iterable[RunRow],
    datasets: Mapping[str, Mapping[str, str]] | None = None,
    names: Mapping[str, str] | None = None,
) -> tuple[Stage, ...]:
    """The stages of a tree.

    Args:
        root: the root run.
        below: the runs below it, in any order; those whose parents are missing are left out.
        datasets: digests by name, of each run by its id.
        names: the names of parameters and metrics that are shown in place of the store's.
    """
    children: dict[str, list[RunRow]] = {}
    for run in sorted(below, key=lambda one: (one.start or 0, one.tags.get(ID_TAG, ""), one.run_id)):
        children.setdefault(run.tags.get(PARENT_TAG, ""), []).append(run)
    found: list[Stage] = []
    waiting: list[tuple[RunRow, str]] = [(root, "")]
    while waiting:
        run, path = waiting.pop()
        found.append(_stage(run, path, (datasets or {}).get(run.run_id, {}), names or {}))
        inside = f"{path}/" if path else ""
        waiting += ((child, f"{inside}{child.name}") for child in reversed(children.pop(run.run_id, [])))
    return tuple(found)


def without_datasets(side: Recorded) -> Recorded:
    """The same side, where the datasets of the other one are not known: none is reported as new or gone."""
    stages = tuple(msgspec.structs.replace(stage, datasets={}) for stage in side.stages)
    return msgspec.structs.replace(side, stages=stages)


def _stage(run: RunRow, path: str, datasets: Mapping[str, str], names: Mapping[str, str]) -> Stage:
    call = call_of(run.tags)
    return Stage(
        path=path,
        run_id=run.run_id,
        name=run.name,
        status=run.status,
        seconds=(run.end - run.start) / 1000 if run.end and run.start else None,
        params={names.get(key, key): text for key, text in run.params.items()} if names else run.params,
        metrics={names.get(key, key): value for key, value in run.metrics.items() if not key.startswith(_SYSTEM)},
        datasets=datasets,
        function=str(call.get("function") or ""),
        digest=str(call.get("source_hash") or ""),
    )
