"""What happens, line by line: for a pipe or a file, and as JSON for programs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import click

from trackdsl._core.escaping import printable
from trackdsl._core.redaction import mask_prose
from trackdsl.cli._standard_output import pause
from trackdsl.cli.watching import _texts as texts
from trackdsl.cli.watching._journal import WatchedJournal
from trackdsl.cli.watching._rows import Folding
from trackdsl.cli.watching._runs import WatchedRun, above
from trackdsl.cli.watching._spool import WatchedSpool
from trackdsl.cli.watching._usage import Usage
from trackdsl.query._shown import duration, moment

#: Between two looks, and the time for reading at each, in seconds.
_PAUSE, _READING = 0.25, 0.2
#: For the metrics of a run, in characters.
_ROOM = 120
#: A run that is still open is printed at most so often, in seconds.
_TEXT_EVERY, _JSON_EVERY = 10.0, 1.0


class Lines:
    """Prints what happens.

    Args:
        spool: what is watched.
        folding: which runs are shown.
        as_json: whether to print a JSON object in each line.
    """

    def __init__(self, spool: WatchedSpool, folding: Folding, *, as_json: bool) -> None:
        self._spool = spool
        self._folding = folding
        self._as_json = as_json
        self._usage = Usage()
        #: By run: the version and status that were printed last, and when.
        self._printed: dict[bytes, tuple[int, str, float]] = {}
        self._programs: dict[str, tuple[bool, float]] = {}
        self._seen = -1
        #: What is to be printed of runs that ended since the last look, and are not kept.
        self._dropped: list[dict[str, Any] | str] = []
        spool.runs.before_drop = self._keep_line

    def show(self) -> None:
        """Print until the run has ended that alone is shown; without one, for ever.

        Raises:
            BrokenPipeError: nobody reads what is printed.
            KeyboardInterrupt: the user pressed Ctrl-C.
        """
        while True:
            self._spool.read(_READING)
            only = self._folding.only
            if only is not None:  # The spool may be read for a second time.
                only = self._folding.only = self._spool.runs.get(only.id) or only
            self._usage.read(self._spool.journals.values() if only is None else ())
            # At last, when nothing more can follow.
            over = only is not None and not only.is_open and not self._spool.is_behind
            self._print_programs()
            self.print_runs(everything=over)
            if over:
                return
            pause(_PAUSE)

    def print_runs(self, *, everything: bool = False) -> None:
        """Print what is new about the runs; in full, or as far as it is time for those that are still open."""
        for line in self._dropped:
            self._print(line)
        self._dropped.clear()
        runs = self._spool.runs
        now = time.monotonic()
        every = 0.0 if everything else _JSON_EVERY if self._as_json else _TEXT_EVERY
        # In the order of the changes: a child ends before its parent.
        for run in sorted(self._chosen(), key=lambda run: run.version):
            version, status, at = self._printed.get(run.id, (-1, "", 0.0))
            if run.version == version or (run.status == status and now - at < every):
                continue
            self._printed[run.id] = run.version, run.status, now
            self._print(self._shown(run, began=version == -1))
        if runs.version != self._seen:
            self._seen = runs.version
            for id_ in [id_ for id_ in self._printed if runs.get(id_) is None]:
                del self._printed[id_]

    def _chosen(self) -> Iterator[WatchedRun]:
        if self._folding.only is not None:
            yield from self._folding.only.walk()
            return
        yield from filter(self._is_chosen, list(self._spool.runs))

    def _is_chosen(self, run: WatchedRun) -> bool:
        journal = self._spool.journals.get(run.journal)
        return run.is_open or self._folding.ended or (journal is not None and journal.was_alive)

    def _keep_line(self, run: WatchedRun) -> None:
        """Keep the line of a run that ended and is dropped: the next reading would not find it."""
        only = self._folding.only
        chosen = self._is_chosen(run) if only is None else any(one.id == only.id for one in above(run))
        if chosen and self._printed.pop(run.id, (-1,))[0] != run.version:
            self._dropped.append(self._shown(run, began=False))

    def _shown(self, run: WatchedRun, *, began: bool) -> dict[str, Any] | str:
        return structure_of(run) if self._as_json else line_of(run, began=began)

    def _print_programs(self) -> None:
        """Print programs, only in JSON: in text, the lines about runs say enough."""
        if not self._as_json or self._folding.only is not None:
            return
        now = time.monotonic()
        for journal in self._spool.journals.values():
            alive, at = self._programs.get(journal.name, (None, 0.0))
            if alive == journal.alive and (not alive or now - at < 2 * _JSON_EVERY):
                continue
            if journal.was_alive or self._folding.ended:
                self._programs[journal.name] = journal.alive, now
                self._print(program_structure(journal, self._usage))
        for name in self._programs.keys() - self._spool.journals.keys():
            del self._programs[name]

    def _print(self, what: dict[str, Any] | str) -> None:
        click.echo(what if isinstance(what, str) else json.dumps(what, allow_nan=False))


def line_of(run: WatchedRun, *, began: bool = False) -> str:
    """What is to be said of a run now, in a line without control characters."""
    parts = [time.strftime("%H:%M:%S"), run.status.lower(), printable(run.path or run.name) or "unnamed"]
    if run.began and not (began and run.is_open):
        parts.append(duration(texts.seconds_of(run)))
    parts += [texts.progress_of(run, room=40), *texts.metrics_of(run, room=_ROOM), printable(run.failure or "")]
    return "  ".join(filter(None, parts))


def structure_of(run: WatchedRun) -> dict[str, Any]:
    """A run for programs; NaN and infinity are null."""
    loop = run.loops[0] if run.loops else None
    total = None if loop is None or loop.total is None else _finite(loop.total)
    return {
        "event": "run",
        "id": run.id.hex(),
        "name": run.name,
        "path": run.path,
        "parent": None if run.parent_id is None else run.parent_id.hex(),
        "journal": run.journal,
        "status": run.status,
        "start": moment(run.began // 1_000_000) if run.began else None,
        "seconds": round(texts.seconds_of(run), 3),
        "progress": None
        if loop is None
        else {
            "name": loop.name,
            "done": loop.done,
            "total": total,
            "remaining": None if not run.is_open else texts.remaining(loop),
        },
        "metrics": {
            name: {"value": _finite(values[-1]), "step": run.steps[name]} for name, values in run.metrics.items()
        },
        "failure": run.failure,
        "below": dict(run.dropped),
    }


def program_structure(journal: WatchedJournal, usage: Usage) -> dict[str, Any]:
    """A program, what it takes of the machine, and how far behind delivery is."""
    origin = journal.origin
    return {
        "event": "program",
        "journal": journal.name,
        "source": mask_prose(origin.source),
        "pid": origin.pid,
        "host": origin.host,
        "alive": journal.alive,
        "unsure": journal.unsure or None,
        "usage": dict(usage.programs.get(journal.name, {})),
        "machine": dict(usage.machine),
        "delivery": {
            "bytes_behind": journal.behind,
            "seconds_behind": round(journal.delay, 3),
            "error": journal.error or None,
        },
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
