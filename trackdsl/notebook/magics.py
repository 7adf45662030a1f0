"""`%load_ext trackdsl`: the magics `%experiment`, `%%experiment`, `%%stage`, `%tracked` and `%trackdsl`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trackdsl._core.suppression import suppression
from trackdsl._recording.emit import guarded
from trackdsl._runs.run import NULL_RUN
from trackdsl.errors import OptionError, TrackdslError
from trackdsl.notebook import syntax
from trackdsl.notebook.arguments import Arguments, parse
from trackdsl.notebook.cells import Cells
from trackdsl.notebook.commands import Commands
from trackdsl.notebook.evaluation import evaluate, filled, given_name
from trackdsl.notebook.hosts import differences
from trackdsl.notebook.papermill import follow_papermill
from trackdsl.notebook.roots import Root, experiment_of, run_around
from trackdsl.notebook.shown import show_text
from trackdsl.notebook.texts import EXPERIMENT_HELP, STAGE_HELP, TRACKDSL_HELP, TRACKED_HELP

#: Option → whether it takes a value.
_STAGE = {
    "metrics": True,
    "params": True,
    "returns": True,
    "artifacts": True,
    "tags": True,
    "capture": False,
    "no-capture": False,
    "keep": False,
    "quiet": False,
    "help": False,
}
_RUN = {"tags": True, "run-name": True, "help": False}
_EXPERIMENT = {**_RUN, "end": False}
_NO_OPTIONS = {"help": False}


class Notebook:
    """The magics of one shell.

    Args:
        shell: IPython's shell.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._syntax = syntax.CellMagics(shell)
        self._root = Root(shell)
        self._cells = Cells(shell, self._root)
        self._commands = Commands(shell, self._root, self._cells)

    def load(self) -> None:
        """Register the magics, and the syntax of those for cells."""
        for name, kind, function in (
            ("stage", "cell", self._stage),
            ("experiment", "line_cell", self._experiment),
            ("tracked", "line", self._tracked),
            ("trackdsl", "line", self._trackdsl),
        ):
            self._shell.register_magic_function(_magic(function), magic_kind=kind, magic_name=name)
        self._syntax.install()
        self._root.follow()
        self._root.papermill = follow_papermill() or self._root.papermill
        if self._root.papermill is not None and self._root.papermill.begins and run_around() is None:
            with guarded("opening an experiment"):
                self._root.open(None, {}, {})
        with guarded("loading the magics"):
            if found := differences(self._shell):
                show_text(self._shell, found)

    def unload(self) -> None:
        """Remove the magics, and end the notebook's root."""
        self._cells.end_all()
        self._root.end()
        self._root.unfollow()
        self._cells.history.remove()
        self._syntax.remove()
        for kind, names in (("cell", ("stage", "experiment")), ("line", ("experiment", "tracked", "trackdsl"))):
            for name in names:
                self._shell.magics_manager.magics[kind].pop(name, None)

    def _stage(self, line: str, cell: Any = None) -> None:
        if cell is not syntax.BELOW:
            self._run_whole("stage", line, cell)
            return
        arguments = parse("%%stage", line, _STAGE)
        if "help" in arguments.options:
            show_text(self._shell, STAGE_HELP)
            return
        self._cells.begin("stage", line, arguments, self._body("stage", line))

    def _experiment(self, line: str, cell: Any = None) -> None:
        if cell is None:
            self._experiment_line(line)
        elif cell is not syntax.BELOW:
            self._run_whole("experiment", line, cell)
        else:
            arguments = parse("%%experiment", line, {**_STAGE, **_RUN})
            if "help" in arguments.options:
                show_text(self._shell, EXPERIMENT_HELP)
                return
            self._cells.begin("experiment", line, arguments, self._body("experiment", line))

    def _experiment_line(self, line: str) -> None:
        arguments = parse("%experiment", line, _EXPERIMENT)
        if "help" in arguments.options:
            show_text(self._shell, EXPERIMENT_HELP)
        elif "end" in arguments.options:
            self._cells.refuse_within()
            run = self._root.end()
            show_text(self._shell, _NONE if run is NULL_RUN else f"ended: {_described(run)}")
        elif not (arguments.positional or arguments.expressions or arguments.options):
            run = self._root.run
            show_text(self._shell, _NONE if run is NULL_RUN else _described(run))
        else:
            self._open_root(arguments)

    def _open_root(self, arguments: Arguments) -> None:
        self._cells.refuse_within()
        namespace = self._shell.user_ns
        values = evaluate("%experiment", arguments, namespace)
        template = given_name("%experiment", arguments)
        name = filled("%experiment", template, values, namespace) if template else None
        options: dict[str, Any] = {"tags": arguments.tags()} if "tags" in arguments.options else {}
        if "run-name" in arguments.options:
            options["run_name"] = arguments.options["run-name"]
        namespace.update(values)
        if suppression.on and suppression.here():
            return
        with guarded("opening an experiment"):
            self._root.open(name, options, values)

    def _tracked(self, line: str) -> Any:
        arguments = parse("%tracked", line, _NO_OPTIONS)
        if "help" in arguments.options:
            return show_text(self._shell, TRACKED_HELP)
        return self._commands.tracked(arguments)

    def _trackdsl(self, line: str) -> None:
        with self._commands.without_outcome():
            arguments = parse("%trackdsl", line, _NO_OPTIONS)
            if "help" in arguments.options or not (arguments.positional or self._commands.has_runs()):
                show_text(self._shell, TRACKDSL_HELP)
                return
            self._commands.command(arguments)

    def _body(self, magic: str, line: str) -> str:
        return self._syntax.bodies.get((magic, line), "")

    def _run_whole(self, magic: str, line: str, cell: Any) -> None:
        """The magic was called with a cell as text: run that as a cell of its own."""
        head = f"%%{magic} {line}\n" if self._syntax.installed else ""  # A fault may have removed it.
        self._shell.run_cell(f"{head}{cell}").raise_error()


_NONE = "no experiment is open: `%experiment churn` opens one."


def _described(run: Any) -> str:
    return f"experiment {experiment_of(run)!r}, run {run.name!r} {run.id}"


def _magic(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function for IPython: it takes the line as it is, and errors of use are shown in one line."""
    from IPython.core.error import UsageError
    from IPython.core.magic import no_var_expand

    def magic(line: str, cell: Any = None) -> Any:
        try:
            return function(line) if cell is None else function(line, cell)
        except TrackdslError as error:
            raise UsageError(str(error)) from None

    magic.__doc__ = _DOCS[function.__name__]
    marked: Callable[..., Any] = no_var_expand(magic)
    return marked


_DOCS = {"_stage": STAGE_HELP, "_experiment": EXPERIMENT_HELP, "_tracked": TRACKED_HELP, "_trackdsl": TRACKDSL_HELP}
#: The magics of each shell that has loaded them; in practice there is one shell.
_loaded: dict[int, Notebook] = {}


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext trackdsl`.

    Raises:
        OptionError: this is called outside of IPython.
    """
    if not hasattr(shell, "register_magic_function"):
        message = "the magics of trackdsl need IPython: run `%load_ext trackdsl` in a notebook or in IPython."
        raise OptionError(message, option="shell")
    if id(shell) not in _loaded:
        _loaded[id(shell)] = Notebook(shell)
    _loaded[id(shell)].load()


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext trackdsl`."""
    notebook = _loaded.pop(id(shell), None)
    if notebook is not None:
        notebook.unload()
