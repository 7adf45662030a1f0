"""What the magic of a notebook cell costs."""

from __future__ import annotations

from figures import Row, Target
from pairing import Child, Subject, above, interleave
from recording_rows import Announce, Effort
from workspace import Workspace

_STAGE, _PLAIN = "a cell with %%stage, executed again", "the same cell without a magic"
_LOOPS = 40


def cells(workspace: Workspace, effort: Effort, announce: Announce) -> list[Row]:
    """The group `cells`: by the clock on the wall, and by the CPU's, which other programs hardly change."""
    announce("cells")
    rows = []
    _, env = workspace.recording("offline")
    with Child("subject_cells", env=env, cwd=workspace.folder) as child:
        for clock, note in enumerate(("", "processor time")):
            subjects = [_subject(child, _STAGE, "stage", clock), _subject(child, _PLAIN, "plain", clock)]
            samples = interleave(subjects, effort.rounds)
            rows.append(above("cells", _STAGE, _PLAIN, samples, Target("figure", 5e-3), note))
    return rows


def _subject(child: Child, name: str, what: str, clock: int) -> Subject:
    return Subject(name, lambda count: child.ask_both(what, count)[clock], _LOOPS)
