"""`%tracked` and `%trackdsl`."""

from __future__ import annotations

import ast
import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from trackdsl._api.open_sessions import outcome
from trackdsl._core.redaction import mask_name
from trackdsl._core.suggest import suggestion_for
from trackdsl._core.suppression import suppression
from trackdsl._decorate.decoration import decorate
from trackdsl._decorate.options import Options
from trackdsl._decorate.wrappers_importlib_bootstrap import call_of
from trackdsl._recording.emit import guarded
from trackdsl._runs.exceptions import FAILED, FINISHED
from trackdsl._runs.run import NULL_RUN, Run
from trackdsl.errors import OptionError, TrackdslError
from trackdsl.notebook.arguments import Arguments
from trackdsl.notebook.cells import Cells
from trackdsl.notebook.evaluation import evaluate
from trackdsl.notebook.executions import Execution
from trackdsl.notebook.followed import Followed
from trackdsl.notebook.names import Names
from trackdsl.notebook.roots import Root, root_of, run_around
from trackdsl.notebook.shown import line_of, show, show_text

#: A cell with nothing else.
_COMMAND = re.compile(r"%?trackdsl\b.*")


class Commands:
    """The magics of a line.

    Args:
        shell: IPython's shell.
        root: the notebook's root.
        cells: its cells.
    """

    def __init__(self, shell: Any, root: Root, cells: Cells) -> None:
        self._shell = shell
        self._root = root
        self._cells = cells

    def tracked(self, arguments: Arguments) -> Any:
        """Call a function as a stage. Returns what it returns.

        Raises:
            OptionError: there is no function.
        """
        if not arguments.positional:
            raise OptionError("%tracked takes a function: `%tracked train lr=0.3`.", option="function")
        _refuse_call(arguments)
        namespace = self._shell.user_ns
        function, *positional = (self._value(expression) for expression in arguments.positional)
        keywords = evaluate("%tracked", arguments, namespace)
        if not callable(function):
            raise OptionError(
                f"%tracked takes a function, and {arguments.positional[0]} is not one.", option="function"
            )
        if not (suppression.on and suppression.here()) and run_around() is None:
            with guarded("opening an experiment"):
                self._root.open(None, {}, {})
        inner = call_of(function)
        if inner is None or inner.options is None:
            function = decorate(function, Options("stage", returns=True))
        status = FAILED
        with Followed() as followed:
            try:
                value = function(*positional, **keywords)
                status = FINISHED
                return value
            finally:
                with guarded("superseding a run"):
                    self._note(function, arguments, status, followed)

    def _value(self, expression: str) -> Any:
        try:
            ast.parse(expression, mode="eval")
        except (SyntaxError, ValueError):
            raise OptionError(f"%tracked: {expression} is not a Python expression.", option=expression) from None
        return eval(expression, self._shell.user_ns)  # noqa: S307 - code that the user wrote into the cell

    def _note(self, function: Callable[..., Any], arguments: Arguments, status: str, followed: Followed) -> None:
        """Note the run of a function as an execution of the cell, and supersede the one before."""
        run: Run | None = getattr(function, "last_run", None)
        if run is None or run is NULL_RUN:
            return
        source = " ".join(["%tracked", *arguments.positional, *(f"{k}={v}" for k, v in arguments.expressions.items())])
        new = self._cells.new_execution(mask_name(run.name), root_of(run.parent), source, source, Names())
        new.run, new.status = run, status
        new.seconds = (time.time_ns() - run.began) / 1e9
        followed.describe(new)
        self._cells.add_tracked(new)

    @contextlib.contextmanager
    def without_outcome(self) -> Iterator[None]:
        """A command that only shows something decides nothing about how the notebook's run ends, also if it fails."""
        put_back = outcome()
        refused: list[TrackdslError] = []

        def after(result: Any) -> None:
            with contextlib.suppress(ValueError):  # Another library has removed all callbacks.
                self._shell.events.unregister("post_run_cell", after)
            cell = str(getattr(getattr(result, "info", None), "raw_cell", "")).strip()
            error = getattr(result, "error_in_exec", None)
            if _COMMAND.fullmatch(cell) or (error is not None and error.__context__ in refused):
                put_back()

        self._shell.events.register("post_run_cell", after)
        try:
            yield
        except TrackdslError as error:
            refused.append(error)
            raise

    def has_runs(self) -> bool:
        """Whether there is a tree to show."""
        return self._root.run is not NULL_RUN or self._cells.executions.last() is not None

    def command(self, arguments: Arguments) -> None:
        """Do one of the commands of `%trackdsl`: without an argument, show the tree.

        Raises:
            OptionError: there is no such command.
            QueryError: the runs cannot be read.
        """
        known = {"tree": self._tree, "status": self._status, "last": self._last, "compare": self._compare}
        known["undo"] = self._undo
        name, *more = arguments.positional or ("tree",)
        if name in known and more:
            raise OptionError(f"%trackdsl takes one command: `%trackdsl {name}`.", option=more[0])
        if name not in known:
            hint = suggestion_for(name, known)
            raise OptionError(f"%trackdsl has no command {name!r}{hint.text} It has: {', '.join(known)}.", option=name)
        known[name]()

    def _tree(self) -> None:
        from trackdsl.query import tree

        run = self._root.run
        if run is NULL_RUN:
            last = self._cells.executions.last()
            run = NULL_RUN if last is None else last.run
        if run is NULL_RUN:
            show_text(self._shell, "This notebook has no runs yet.")
        else:
            show(self._shell, tree(run, whole=True))

    def _status(self) -> None:
        from trackdsl.journal._target import target_for
        from trackdsl.store_format.journals import undelivered_sentence

        waiting = undelivered_sentence(target_for(None).uri)
        show_text(self._shell, waiting or "Nothing is waiting: all that was recorded is at MLflow.")

    def _last(self) -> None:
        last = self._newest()
        if last is not None:
            self._shell.display_pub.publish(last.card or {"text/plain": line_of(last)})

    def _compare(self) -> None:
        from trackdsl.query import compare

        last = self._newest()
        if last is not None and not last.older:
            show_text(self._shell, f"The cell of {last.name!r} was executed once, so there is no earlier run.")
        elif last is not None:
            show(self._shell, compare(last.older[-1].run, last.run))

    def _undo(self) -> None:
        last = self._newest()
        if last is not None:
            self._cells.executions.undo()
            again = f"; {last.older[-1].run.id} counts again" if last.older else ""
            show_text(self._shell, f"taken back: {last.name} {last.run.id}{again}. Variables stay as they are.")

    def _newest(self) -> Execution | None:
        """The last execution. Without one, a sentence says so: an error would stop Run All in a new notebook."""
        last = self._cells.executions.last()
        if last is None:
            show_text(self._shell, "No cell of this notebook is a stage yet.")
        return last


def _refuse_call(arguments: Arguments) -> None:
    """Refuse `%tracked train(3)`, which would call the function without a run.

    Raises:
        OptionError: the function is a call that is not in brackets.
    """
    text = arguments.positional[0]
    with contextlib.suppress(SyntaxError, ValueError):
        call = ast.parse(text, mode="eval").body
        if isinstance(call, ast.Call) and not text.startswith("("):
            parts = [ast.unparse(call.func), *(_bracketed(ast.unparse(one)) for one in call.args)]
            parts += [f"{one.arg}={_bracketed(ast.unparse(one.value))}" for one in call.keywords]
            raise OptionError(
                f"%tracked calls the function: `%tracked {' '.join(parts)}`. If {text} gives a function, write it in "
                "brackets.",
                option="function",
            )


def _bracketed(expression: str) -> str:
    """An expression as the line of a magic takes it."""
    return f"({expression})" if " " in expression and expression[0] not in "([{'\"" else expression
