"""What tasks and threads cost: the same stages one after the other and concurrently."""

from __future__ import annotations

from figures import Row, Target
from pairing import Child, above, compare, interleave
from recording_rows import Announce, Effort
from workspace import Workspace

_STAGES = 4_096
#: Names as the table shows them, and what the program calls them.
_BODIES = {
    "a stage": "calls",
    "an async stage": "awaits",
    "a stage in 256 tasks": "gathered",
    "a stage in one thread": "thread",
    "a stage in 16 threads": "threads",
}


def concurrency(workspace: Workspace, effort: Effort, announce: Announce) -> list[Row]:
    """The group `concurrency`."""
    announce(f"concurrency: {effort.rounds} rounds")
    _, env = workspace.recording("offline")
    with Child("subject_concurrent", env=env, cwd=workspace.folder) as child:
        samples = interleave([child.subject(name, what, _STAGES) for name, what in _BODIES.items()], effort.rounds)
        submits = interleave(
            [
                child.subject("submit to a thread pool inside a run", "submit", 20_000),
                child.subject("the same unpatched", "submit-unpatched", 20_000),
            ],
            effort.rounds,
        )
    return [
        compare("concurrency", "an async stage", "a stage", samples, Target("ratio", 1 / 1.5)),
        compare("concurrency", "a stage in 256 tasks", "an async stage", samples),
        compare("concurrency", "a stage in 16 threads", "a stage in one thread", samples, Target("ratio", 0.8)),
        above(
            "concurrency", "submit to a thread pool inside a run", "the same unpatched", submits, Target("figure", 1e-6)
        ),
    ]
