"""The live tree at a terminal: draws it, and does what the keys say."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console
from rich.live import Live

from trackdsl.cli.watching._drawing import Picture, plain
from trackdsl.cli.watching._journal import WatchedJournal
from trackdsl.cli.watching._rows import Folding, Row, rows_of
from trackdsl.cli.watching._spool import WatchedSpool
from trackdsl.cli.watching._terminal import Keys
from trackdsl.cli.watching._usage import Usage

#: The time between two redraws, in seconds.
_PAUSE = 0.25
#: The CPU time for reading before each redraw, in seconds; a key waits for no more than this.
_READING = 0.1
#: What reading and drawing may take of one CPU.
_SHARE = 0.25


class Screen:
    """The live tree at a terminal.

    Args:
        spool: what is shown.
        folding: how.
        console: the terminal.

    Attributes:
        picture: what is drawn.
    """

    def __init__(self, spool: WatchedSpool, folding: Folding, console: Console) -> None:
        self._spool = spool
        self._folding = folding
        self._console = console
        self._usage = Usage()
        self.picture = Picture()
        self._chosen = 0

    def show(self) -> None:
        """Show the tree until the user quits, or until the run that was asked for has ended.

        Raises:
            KeyboardInterrupt: the user pressed Ctrl-C.
        """
        live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        try:
            with Keys(live.stop, lambda: live.start()) as keys, live:
                self.picture.keys = keys.available
                while self._step(live, keys):
                    pass
        finally:
            self._leave()

    def _step(self, live: Live, keys: Keys) -> bool:
        began = time.thread_time()
        self._spool.read(_READING)
        self._usage.read(self._shown_programs())
        self.draw(live)
        only = self._folding.only
        if only is not None and not only.is_open:
            return False
        next_look = time.monotonic() + max(_PAUSE, (time.thread_time() - began) / _SHARE)
        while (left := next_look - time.monotonic()) > 0:
            size = self._console.size
            pressed = keys.wait(left)
            if "quit" in pressed:
                return False
            for key in pressed:
                self.press(key)
            if pressed or self._console.size != size:
                self.draw(live)
        return True

    def draw(self, live: Live) -> None:
        """Draw what is there now."""
        picture, folding = self.picture, self._folding
        picture.rows = rows_of(self._spool, folding)
        picture.counts, picture.machine = self._spool.runs.totals, self._usage.machine
        picture.programs = self._usage.programs
        picture.delivering, picture.note = self._spool.delivering, self._note()
        self._follow_chosen()
        live.update(picture, refresh=True)

    def _note(self) -> str:
        if not self.picture.rows:
            return f"Nothing is running in {self._spool.spool}. What begins is shown here."
        if self._spool.unreadable:
            return f"{len(self._spool.unreadable)} journals cannot be read: `trackdsl status` says why."
        return ""

    def _follow_chosen(self) -> None:
        """Keep the chosen row chosen and visible while the tree changes."""
        picture = self.picture
        if not picture.keys or not picture.rows:
            picture.chosen, picture.top = None, 0
            return
        keys = [row.key for row in picture.rows]
        if picture.chosen in keys:
            self._chosen = keys.index(picture.chosen)
        self._chosen = max(0, min(self._chosen, len(keys) - 1))
        picture.chosen = keys[self._chosen]
        room = picture.room(self._console.height)
        picture.top = max(0, min(picture.top, len(keys) - room, self._chosen), self._chosen - room + 1)

    def press(self, key: str) -> None:
        """Do what a key says."""
        picture = self.picture
        page = picture.room(self._console.height) - 1
        moves = {"up": -1, "down": 1, "page up": -page, "page down": page, "top": -len(picture.rows)}
        if key == "bottom":
            moves[key] = len(picture.rows)
        if key in moves:
            if key in ("page up", "page down"):  # The first press turns a page too, wherever the chosen row is.
                picture.top += moves[key]
            self._choose(self._chosen + moves[key])
        elif key == "ended":
            self._folding.ended = not self._folding.ended
        elif picture.rows:
            row = picture.rows[self._chosen]
            if key == "toggle" or (row.folded is not None and row.folded == (key == "unfold")):
                self._folding.toggle(row)

    def _choose(self, number: int) -> None:
        rows = self.picture.rows
        if rows:
            self._chosen = max(0, min(number, len(rows) - 1))
            self.picture.chosen = rows[self._chosen].key

    def _shown_programs(self) -> Iterable[WatchedJournal]:
        only = self._folding.only
        if only is None:
            return [row.journal for row in self.picture.rows if row.journal is not None]
        journal = self._spool.journals.get(only.journal)
        return [] if journal is None else [journal]

    def _leave(self) -> None:
        """Leave what was visible last on the ordinary screen."""
        picture = self.picture
        picture.chosen = None
        visible: list[Row] = list(picture.rows[picture.top : picture.top + picture.room(self._console.height)])
        for line in picture.row_lines(self._console.width, visible):
            self._console.out(plain(line)[: self._console.width], highlight=False)
