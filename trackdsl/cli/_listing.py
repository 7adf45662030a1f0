"""`trackdsl ls`: lists runs, once or as they change.

The output of `--json` is `{"runs": [run, …], "more": whether there are more than `--max`}`, with runs as `show` prints
them. With `--watch`, it is one such object in each line.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from trackdsl.cli._console import output
from trackdsl.cli._reading import errors_printed
from trackdsl.cli._run_tables import table_of
from trackdsl.cli._standard_output import pause
from trackdsl.cli._structures import structure_of
from trackdsl.query import _shown
from trackdsl.query._frame import paths_of
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundRun, Search
from trackdsl.query._runs import Question
from trackdsl.query._store import opened

if TYPE_CHECKING:
    from rich.console import RenderableType

#: If an experiment has no runs, the message names at most this many experiments that have runs.
_MOST_NAMED = 10
#: Between two queries of the store, in seconds, and as a multiple of the time that one takes.
_PAUSE, _SHARE = 2.0, 4
_INTERRUPTED = 130


@dataclass(frozen=True)
class ListOptions:
    """What the user asks for.

    Attributes:
        experiments: names; all experiments where there are none.
        where: a filter in MLflow's language.
        order_by: as for `trackdsl.runs`.
        most: the largest number of runs; 0 for all.
        tracking_uri: the store; the configured one by default.
        superseded: as for `trackdsl.runs`.
        as_json: whether to print JSON instead of a table.
    """

    experiments: Sequence[str]
    where: str | None
    order_by: Sequence[str]
    most: int
    tracking_uri: str | None
    superseded: bool
    as_json: bool


@dataclass(frozen=True)
class Listing:
    """What the store has.

    Attributes:
        runs: the runs, in order.
        names: of experiments, by MLflow's id.
        more: whether there are more runs.
        paths: of runs in the tree, by MLflow's id; only for JSON.
        empty: why there are no runs.
    """

    runs: Sequence[FoundRun]
    names: Mapping[str, str]
    more: bool = False
    paths: Mapping[str, str] = field(default_factory=dict)
    empty: str = ""

    def structure(self) -> dict[str, Any]:
        """The listing as JSON has it."""
        return {"runs": [structure_of(run, self.names, self.paths) for run in self.runs], "more": self.more}

    def parts(self, most: int) -> list[RenderableType]:
        """The table, and what is to be said with it."""
        from rich.text import Text

        if not self.runs:
            return [Text(self.empty)]
        more = [Text(f"There are more than these {most}: --max 0 shows all.")] if self.more else []
        return [table_of(self.runs, self.names), *more]


def ls(asked: ListOptions) -> None:
    """Print runs."""
    found = _look(asked)
    if asked.as_json:
        click.echo(json.dumps(found.structure(), indent=2, allow_nan=False))
    else:
        _print(found, asked.most)


def watch(asked: ListOptions) -> None:
    """Show runs as they change, until the user ends it.

    Raises:
        click.ClickException: there is no such store or experiment, or a wrong option.
        SystemExit: the user pressed Ctrl-C; or the program was ended by a signal.
    """
    from trackdsl.cli.watching._terminal import ending_by_signal

    console = output()
    try:
        with ending_by_signal():
            first = _look(asked)
            if asked.as_json or not console.is_terminal or console.is_dumb_terminal:
                _print_changes(asked, first)
            else:
                _show_changes(asked, first)
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None


def _print_changes(asked: ListOptions, found: Listing) -> None:
    before: Any = None
    for listing, error in _looks(asked, found, pause):
        structure = listing.structure()
        if error:
            click.echo(f"Error: {error}", err=True)
        elif structure != before:
            before = structure
            if asked.as_json:
                click.echo(json.dumps(structure, allow_nan=False))
            else:
                click.echo(time.strftime("%H:%M:%S"))
                _print(listing, asked.most)


def _show_changes(asked: ListOptions, found: Listing) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from trackdsl.cli.watching._terminal import Keys

    live = Live(console=output(), screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    with Keys(live.stop, lambda: live.start(refresh=True)) as keys, live:

        def wait(seconds: float) -> bool:
            """Wait; returns whether the user quits."""
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                if "quit" in keys.wait(left):
                    return True
                live.refresh()  # The size of the terminal may have changed.
            return False

        for listing, error in _looks(asked, found, wait):
            status = Text(time.strftime("%H:%M:%S") + ("  q quits" if keys.available else ""), "dim")
            failed = [Text(error, "red")] if error else []
            live.update(Group(status, *failed, *listing.parts(asked.most)), refresh=True)
    _print(listing, asked.most)


def _looks(asked: ListOptions, found: Listing, wait: Callable[[float], bool | None]) -> Iterator[tuple[Listing, str]]:
    """Yield the runs of the store until `wait` returns true, again and again; and the reason if it does not answer."""
    took = 0.0
    error = ""
    while True:
        yield found, error
        if wait(max(_PAUSE, _SHARE * took)):
            return
        began = time.monotonic()
        error = ""
        try:
            found = _look(asked)
        except click.ClickException as failed:  # The server may answer later.
            error = failed.message
        took = time.monotonic() - began


def _look(asked: ListOptions) -> Listing:
    with errors_printed(), opened(asked.tracking_uri) as reader:
        question = Question.of(
            reader, list(asked.experiments) or None, asked.where, list(asked.order_by) or None, {},
            superseded=asked.superseded,
        )  # fmt: skip
        found = question.ask(asked.most + 1 if asked.most else None, roots_first=True)
        shown, more = (found[: asked.most], len(found) > asked.most) if asked.most else (found, False)
        paths = paths_of(shown, reader) if asked.as_json else {}
        empty = "" if shown or asked.as_json else _why_empty(question, asked.where)
        return Listing(shown, question.names, more, paths, empty)


def _print(listing: Listing, most: int) -> None:
    for part in listing.parts(most):
        output().print(part, soft_wrap=not listing.runs)


def _why_empty(asked: Question, where: str | None) -> str:
    """The message if no run was found: records wait for delivery, or other experiments have runs."""
    from trackdsl.store_format.journals import undelivered_sentence

    if waiting := undelivered_sentence(asked.reader.uri):
        return f"No runs yet: {waiting}"
    named = ", ".join(repr(_shown.printable(name)) for name in asked.names.values())
    if where:
        return "No runs."
    holders = list(islice(_experiments_with_runs(asked.reader), _MOST_NAMED + 1))
    if not holders:
        return "No runs."
    listed = ", ".join(repr(_shown.printable(name)) for name in holders[:_MOST_NAMED])
    more = " and more" if len(holders) > _MOST_NAMED else ""
    return f"No runs in {named}. There are runs in {listed}{more}: `trackdsl ls {shlex.quote(holders[0])}`."


def _experiments_with_runs(reader: PagedReader) -> Iterator[str]:
    for one in reader.experiments():
        if next(iter(reader.search(Search((one.id,), limit=1))), None) is not None:
            yield one.name
