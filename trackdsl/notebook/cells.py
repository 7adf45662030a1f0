"""One execution of a cell: its run begins at the cell's magic, and ends when IPython is done with the cell."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from trackdsl._api.exit_hook import last_uncaught
from trackdsl._config import resolve as settings
from trackdsl._core import context as _context
from trackdsl._core.redaction import mask_name, mask_text
from trackdsl._core.suppression import suppression
from trackdsl._decorate.options import Options
from trackdsl._decorate.scopes import close_scope, open_scope
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.emit import append_tags, guarded
from trackdsl._recording.flatten import Flat
from trackdsl._runs.ending import call_before_end
from trackdsl._runs.exceptions import FINISHED, describe, status_of
from trackdsl.errors import OptionError, format_error, report, reraise_from_signal
from trackdsl.notebook import frontend
from trackdsl.notebook.arguments import Arguments
from trackdsl.notebook.evaluation import evaluate, filled, given_name
from trackdsl.notebook.executions import Execution, Executions, supersedes
from trackdsl.notebook.export import export
from trackdsl.notebook.history import History
from trackdsl.notebook.names import MAX_CELL, Names, is_long, names_in, with_expressions
from trackdsl.notebook.open_cell import OpenCell
from trackdsl.notebook.outputs import Outputs
from trackdsl.notebook.page import Page
from trackdsl.notebook.provenance import Provenance
from trackdsl.notebook.roots import BY_CELL, Opened, Root, root_of, run_around
from trackdsl.notebook.shown import display_for
from trackdsl.notebook.staleness import input_tags
from trackdsl.notebook.steps import Step
from trackdsl.notebook.syntax import has_line
from trackdsl.notebook.translation import python_of
from trackdsl.notebook.values import flat_of, flat_params, note_replaced, record_value, record_variables

#: The tag with what the front end says of a cell: one JSON object.
CELL_TAG = "trackdsl.cell"
#: The artifact with the cell's source.
SOURCE = "cell.py"
_MAX_SOURCE = 1_000_000


class Cells:
    """Begins and ends the runs of a shell's cells.

    A callback of IPython is registered only while a cell with a run is executed.

    Args:
        shell: IPython's shell.
        root: the notebook's root.
    """

    def __init__(self, shell: Any, root: Root) -> None:
        self._shell = shell
        self._root = root
        self._open: list[OpenCell] = []
        self.executions = Executions()
        self.provenance = Provenance(shell.user_ns)
        self.history = History(shell, self.provenance.catch_up)
        self._page = Page(shell)
        root.call_before_end(self.export)
        root.call_when_run_begins(self.provenance.note_run)

    def begin(self, magic: str, line: str, arguments: Arguments, body: str) -> None:
        """Begin the run of the cell that is executed.

        Raises:
            OptionError: the name or an option is not valid. What the user's expressions raise passes through.
        """
        self._end_left_open()
        namespace = self._shell.user_ns
        values = evaluate(f"%%{magic}", arguments, namespace)
        template = given_name(f"%%{magic}", arguments)
        name = filled(f"%%{magic}", template, values, namespace) if template else ""
        options = _options(magic, name, arguments)
        namespace.update(values)
        if suppression.on and suppression.here():
            return
        with guarded("beginning a cell"):
            self._begin(magic, line, arguments, body, options, values)

    def _begin(
        self, magic: str, line: str, arguments: Arguments, body: str, options: Options, values: Mapping[str, Any]
    ) -> None:
        alone = magic == "experiment"
        name = mask_name((options.run_name or options.name or magic) if alone else options.name or magic)
        code = body if is_long(body) else python_of(body, self._shell.transform_cell)
        listed = [each for option in ("metrics", "artifacts") for each in arguments.names(option)]
        own = names_in(code)
        names = with_expressions(own, arguments.expressions, listed)
        flat = flat_params(arguments, values, names)
        if not alone and run_around() is None:
            self._root.open(None, {}, {})
        execution = self.new_execution(
            name, "" if alone else root_of(run_around()), f"%%{magic} {line}\n{body}", body, names,
            kept="keep" in arguments.options,
        )  # fmt: skip
        execution.arguments = arguments
        step = self._follow(execution, magic, line, code)
        display = display_for(self._shell, execution, quiet="quiet" in arguments.options)
        cell = OpenCell(magic, line, arguments, execution, step, display, Outputs(self._shell, display.place))
        namespace = self._shell.user_ns
        cell.objects = {key: id(namespace[key]) for key in names.written if key in namespace}
        cell.given = {key: flat_of(key, value) for key, value in values.items() if key in own.written}
        self._open_run(cell, options, flat, alone=alone)
        with guarded("showing a cell", execution.run):
            display.shown(execution.run)
        with guarded("recording a cell", execution.run):
            if is_long(body):
                _left_out(execution)
            if flat:
                _artifacts.keep_whole(execution.run, flat)
            _artifacts.write_text(execution.run, execution.source[:_MAX_SOURCE], SOURCE)
            followed = "no-capture" not in arguments.options and cell.outputs.start()
            if not followed or frontend.has_widgets():
                display.place()  # Later, it might come below what the cell shows, or inside of a widget.

    def _open_run(self, cell: OpenCell, options: Options, flat: Flat, *, alone: bool) -> None:
        execution = cell.execution
        experiment = mask_name(options.name) if alone and options.name else None
        tags = {**options.static_tags(), **self._tags(execution)}
        file = mask_name(frontend.notebook_path(self._shell))
        site = (f"cell {execution.name}", file, _hash(execution.body))
        if alone:
            cell.around = _context.current()
            _context.enter(None)
        self._open.append(cell)
        try:
            cell.scope = open_scope(options, execution.name, experiment, flat.values, tags, site, execution)
            execution.run = cell.scope.run
            self.executions.add(execution)
            self._shell.events.register("post_run_cell", self._after)
            if alone:
                call_before_end(execution.run, lambda: self._export([execution], Opened(execution.run, 0, by=BY_CELL)))
        except BaseException as error:  # A fault, or Ctrl-C.
            self._close(cell, error)
            raise

    def export(self, opened: Opened) -> None:
        """Keep what was executed below a root run that ends: as a notebook, and as a program."""
        self._export(self.executions.current(), opened)

    def _export(self, executions: Iterable[Execution], opened: Opened) -> None:
        self.history.catch_up()
        export(opened, executions, self.provenance, self.history.outputs())

    def new_execution(
        self, name: str, root: str, source: str, body: str, names: Names, *, kept: bool = False
    ) -> Execution:
        """A new execution of the cell that is executed, with the executions that it supersedes."""
        shell = self._shell
        new = Execution(
            identity=(root, frontend.cell_id(shell, name), name),
            moment=frontend.execution(shell),
            count=frontend.execution_count(shell),
            source=source,
            page=frontend.code(shell) or source,
            body=body,
            kept=kept,
            names=names,
        )
        new.older = self.executions.older(new)
        return new

    def _follow(self, execution: Execution, magic: str, line: str, code: str) -> Step:
        """Find out where the variables of a cell that begins come from."""
        history = self._shell.history_manager
        stored = bool(history.input_hist_raw) and has_line(history.input_hist_raw[-1], magic, line)
        self.provenance.catch_up(history, execution.count, without_last=stored)
        if stored:
            self.provenance.skip(history)
        step = self.provenance.begin(code, execution.names, execution)
        execution.inputs = step.inputs_of(execution)
        execution.plain_inputs = step.plain_sources()
        return step

    def add_tracked(self, execution: Execution) -> None:
        """Note the run of a function that `%tracked` has called as an execution of the current cell."""
        history = self._shell.history_manager
        if history.input_hist_raw and "tracked" in history.input_hist_raw[-1]:  # Not all cells are stored.
            self.provenance.track(history, execution.count, execution)
        append_tags(execution.run, self._tags(execution))
        self.executions.add(execution)

    def _tags(self, execution: Execution) -> dict[str, str]:
        self._page.refresh(execution.cell)
        return {
            **supersedes(execution.older),
            **input_tags(execution, self.executions, self._page),
            CELL_TAG: self._about(execution),
        }

    def _about(self, execution: Execution) -> str:
        """The tag `trackdsl.cell`."""
        about = {
            "id": execution.cell,
            "count": execution.count,
            "hash": _hash(execution.source),
            "notebook": frontend.notebook_path(self._shell),
            "kernel": frontend.kernel_id(self._shell),
        }
        return mask_text(json.dumps({key: value for key, value in about.items() if value != ""}))

    def _after(self, result: Any) -> None:
        """IPython is done with a cell. After a fault, this callback is removed, and the runs of open cells end."""
        try:
            self._end_executed(result)
        except Exception as error:
            reraise_from_signal(error)
            report("cells", f"trackdsl could not end a cell as it should: {format_error(error)}")
            for cell in reversed(self._open[:]):
                with guarded("ending a cell", cell.execution.run):
                    self._close(cell, _error_of(cell, result))

    def _end_executed(self, result: Any) -> None:
        """End the run of the cell that was executed. Cells that the user's code runs inside of it do not count."""
        raw = getattr(getattr(result, "info", None), "raw_cell", None)
        for cell in [one for one in reversed(self._open[:]) if one.thread == threading.get_ident()]:
            if result is None or raw is None or has_line(raw, cell.magic, cell.line):
                self._end(cell, _error_of(cell, result), getattr(result, "result", None))
                if raw is not None:
                    break

    def _end(self, cell: OpenCell, error: BaseException | None, value: Any) -> None:
        execution = cell.execution
        try:
            with guarded("ending a cell", execution.run):
                cell.outputs.stop()
                note_replaced(execution.run, cell.given, self._shell.user_ns)
                self.provenance.end(cell.step, None if error is None else cell.changed(self._shell.user_ns))
                if error is None:
                    self._record(cell, value)
                cell.outputs.record(execution.run, frames=error is not None)
                execution.outputs = cell.outputs.cells()
        finally:
            execution.status = FINISHED if error is None else status_of(error)
            execution.exited = error is not None and not isinstance(error, Exception)
            if error is not None and (failure := describe(error)) is not None:
                execution.failure = (failure.type, failure.message, failure.traceback)
            execution.seconds = (time.time_ns() - execution.run.began) / 1e9
            self._close(cell, error)
        with guarded("showing a cell"):
            cell.display.ended()

    def _record(self, cell: OpenCell, value: Any) -> None:
        """Record what a cell has left: variables, and the value of its last expression."""
        execution, arguments = cell.execution, cell.arguments
        metrics, execution.missing = record_variables(
            execution.run, arguments, execution.names, self._shell.user_ns,
            cell.display.last_steps() if "metrics" in arguments.options else {},
        )  # fmt: skip
        execution.metrics = {key: one for key, one in metrics.items() if type(one) in (int, float)}
        if "no-capture" not in arguments.options:
            record_value(execution.run, execution.name, value, arguments.names("returns"))

    def _close(self, cell: OpenCell, error: BaseException | None) -> None:
        """End the run of a cell, and forget the cell."""
        cell.outputs.stop()
        with contextlib.suppress(ValueError):
            self._open.remove(cell)
        if not self._open:
            with contextlib.suppress(ValueError):  # Another library has removed all callbacks.
                self._shell.events.unregister("post_run_cell", self._after)
        # A cell that awaits has a context of its own, in which IPython does not call back.
        here = _context.current() is None or _context.find(cell.execution) is not None
        if cell.scope is not None:
            close_scope(cell.scope, error)
        if here and cell.around is not None:
            _context.enter(cell.around)

    def _end_left_open(self) -> None:
        """End the runs of earlier executions whose end IPython did not report: it reports none of silent ones."""
        now = frontend.execution(self._shell)
        for cell in reversed(self._open[:]):
            if cell.execution.moment != now and cell.thread == threading.get_ident():
                self._end(cell, None, None)

    def refuse_within(self) -> None:
        """Refuse a magic that begins or ends a root run, if a cell with a run executes it.

        Raises:
            OptionError: one does.
        """
        self._end_left_open()
        if any(cell.thread == threading.get_ident() for cell in self._open):
            raise OptionError(
                "%experiment would end the run that this cell belongs to: write it in a cell of its own, before this "
                "one.",
                option="experiment",
            )

    def end_all(self) -> None:
        """End the runs of all cells that are being executed."""
        for cell in reversed(self._open[:]):
            self._end(cell, None, None)


def _options(magic: str, name: str, arguments: Arguments) -> Options:
    given: dict[str, Any] = {"tags": arguments.tags()} if "tags" in arguments.options else {}
    if magic == "experiment":
        # A run in a store that is named is a root, whatever is open.
        given["tracking_uri"] = settings.tracking_uri()
        if "run-name" in arguments.options:
            given["run_name"] = arguments.options["run-name"]
    return Options.checked(magic, name or None, given)


def _error_of(cell: OpenCell, result: Any) -> BaseException | None:
    """The exception that ended a cell. Some magics, such as `%%time`, show an exception and continue."""
    error: BaseException | None = getattr(result, "error_in_exec", None) or getattr(result, "error_before_exec", None)
    if error is None and (shown := last_uncaught()) is not cell.before:
        error = shown
    return error


def _left_out(execution: Execution) -> None:
    """Say that a cell is too long to be read."""
    reason = f"the cell has more than {MAX_CELL:,} characters, so its literals and the names in it are not read"
    append_tags(execution.run, {"trackdsl.omitted.cell": reason})
    report("cells", f"trackdsl left out the parameters and inputs of {execution.name!r}: {reason}", key=execution.name)


def _hash(source: str) -> str:
    return hashlib.sha256(source.encode("utf-8", "backslashreplace")).hexdigest()[:16]
