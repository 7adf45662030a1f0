"""`trackdsl run`: begin the run of a program, and run the program outside of click."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from trackdsl._config import resolve as settings
from trackdsl._core.redaction import mask_items
from trackdsl._decorate.options import Options
from trackdsl.cli.program.command_lines import CommandLine
from trackdsl.cli.program.main_module import Program, plain_code
from trackdsl.cli.program.main_run import MainRun, begin_run
from trackdsl.cli.program.main_stages import MainStages
from trackdsl.cli.program.stages import Pattern, Stages
from trackdsl.cli.program.tracebacks import hide_frames_in_threads, hide_own_frames
from trackdsl.distributed._processes import prepare_workers
from trackdsl.errors import OptionError, SettingsError


@dataclass(frozen=True)
class Prepared:
    """A program whose run has begun.

    Attributes:
        program: the program.
        run: its run; None if nothing is recorded.
        stages: the functions that become stages.
    """

    program: Program
    run: MainRun | None
    stages: Stages

    def execute(self) -> None:
        """Run the program.

        Raises:
            BaseException: what the program raises.
        """
        main = MainStages(self.stages)
        try:
            self.program.execute(main.compile if self.run is not None and self.stages.for_main() else plain_code)
        except BaseException as error:
            if self.run is not None:
                self.run.ended_by(error)
            hide_own_frames(Prepared.execute.__code__)
            raise


def prepare(
    program: Program,
    options: dict[str, Any],
    tags: Sequence[str],
    stages: Sequence[str],
    returns: Sequence[str],
    *,
    autolog: bool,
    as_json: bool = False,
) -> Prepared:
    """Begin the run of a program, and follow its imports.

    Args:
        program: the program.
        options: of its run, as `experiment` takes them; those that are None do not count.
        tags: tags of the run, as `name=value`.
        stages: the functions that become stages.
        returns: the functions whose results are recorded.
        autolog: whether MLflow's autologging is switched on.
        as_json: whether to print the run as a line of JSON to the standard error.

    Returns:
        the program, which does not run yet.

    Raises:
        click.UsageError: there is no such program, or an option is wrong.
        TrackdslError: a setting is wrong.
    """
    _check(program)
    given = {name: value for name, value in options.items() if value is not None}
    if given.get("tracking_uri"):
        given["tracking_uri"] = _checked_uri(given["tracking_uri"])
    chosen = Options.checked(
        "experiment", given.pop("experiment", None), {**given, "tags": _tags(tags), "run_name": options["run_name"]}
    )
    patterns = _patterns(stages, "--stage") + _patterns(returns, "--track-returns")
    patterns += [Pattern.parsed(text, settings.found_in("stages")) for text in settings.stages()]
    found = Stages(patterns, [program.name])
    program.prepare()
    run = begin_run(program, chosen)
    if as_json:
        click.echo(json.dumps(_structure_of(run)), err=True)
    if run is not None:
        found.run = run.run
        run.before_end.append(found.report_unmet)
        command_line = CommandLine(run.run, program.arguments)
        command_line.follow()
        run.caught_by_click = lambda: command_line.caught
        run.while_running.append(command_line.record_line)
        found.follow()
        if patterns:
            prepare_workers(found.for_workers())
        run.follow_output()
        hide_frames_in_threads()
        if autolog:
            _switch_on_autologging()
    return Prepared(program, run, found)


def _check(program: Program) -> None:
    """Raise if there is no such script. The search for a module would import the packages around it."""
    if program.is_module or os.path.exists(program.path):
        return
    if program.target == "-":
        raise click.UsageError("A program from the standard input cannot be run. Save it as a file, or use /dev/stdin.")
    folder = os.path.dirname(program.path)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    near = difflib.get_close_matches(os.path.basename(program.target), names, 3)
    hint = f"; did you mean {', '.join(near)}?" if near else "."
    if not program.target.endswith(".py") and os.sep not in program.target:
        hint += f" For a module, write `trackdsl run -m {program.target}`."
    raise click.UsageError(f"There is no file {program.target!r}{hint}")


def _structure_of(run: MainRun | None) -> dict[str, str | None]:
    if run is None:
        return {"id": None, "name": None, "parent": None}
    parent = run.run.parent
    return {"id": run.run.id, "name": run.run.name, "parent": None if parent is None else parent.id}


def _checked_uri(uri: str) -> Any:
    try:
        return settings.checked("tracking_uri", uri, "--tracking-uri")
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def _patterns(given: Sequence[str], option: str) -> list[Pattern]:
    try:
        return [Pattern.parsed(text, option) for text in given]
    except OptionError as error:
        raise click.UsageError(str(error)) from None


def _tags(given: Sequence[str]) -> dict[str, str]:
    tags = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise click.BadParameter(f"{mask_items([text])[0]!r} must be NAME=VALUE.", param_hint="'--tag'")
        tags[name] = value
    return tags


def _switch_on_autologging() -> None:
    import importlib

    # `silent`: without it, MLflow prints a line for each library that the program imports.
    importlib.import_module("mlflow").autolog(silent=True)
