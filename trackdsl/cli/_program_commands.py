"""The commands that run a program and show what programs do, and `completion`. Only declarations and help."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from trackdsl.cli._completion import complete_experiment, complete_file, complete_function, complete_watched_run

C = TypeVar("C", bound=Callable[..., Any])


class Started(BaseException):
    """Leaves click, which handles the exceptions of what it calls, to run a program outside of it.

    Args:
        execute: runs the program.
    """

    def __init__(self, execute: Callable[[], None]) -> None:
        super().__init__()
        self.execute = execute


def with_spool(command: C) -> C:
    """Add the option `--spool` to a command."""
    return click.option(
        "--spool",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="PATH",
        help="The folder of records that are not delivered yet. Default: TRACKDSL_SPOOL, else your state folder.",
    )(command)


class _Run(click.Command):
    """`trackdsl run`, in which shells complete no option of ours behind the program's name: it is the program's."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        found = super().get_params(ctx)
        if ctx.resilient_parsing and ctx.params.get("program"):
            return [one for one in found if isinstance(one, click.Argument)]
        return found

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        if ctx.params.get("program"):
            return [CompletionItem(incomplete, type="file")]
        return super().shell_complete(ctx, incomplete)


@click.command(cls=_Run, context_settings={"allow_interspersed_args": False})
@click.option(
    "--experiment",
    metavar="NAME",
    help="The MLflow experiment. Default: the configured one.",
    shell_complete=complete_experiment,
)
@click.option("--name", "run_name", metavar="NAME", help="The run's name. Default: that of the script or module.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="A tag of the run. Can be repeated.")
@click.option(
    "--stage",
    "stages",
    multiple=True,
    metavar="MODULE:FUNCTION",
    help="Make a function a stage: each call is a child run. Can be repeated.",
    shell_complete=complete_function,
)
@click.option(
    "--track-returns",
    "returns",
    multiple=True,
    metavar="MODULE:FUNCTION",
    help="Record what a function returns. Can be repeated.",
    shell_complete=complete_function,
)
@click.option("--system-metrics", is_flag=True, help="Sample CPU, memory, disk, network and GPUs.")
@click.option("--autolog", is_flag=True, help="Switch on MLflow's autologging.")
@click.option("--tracking-uri", metavar="URI", help="The store. Default: the configured one.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the run as a line of JSON to the standard error, before it begins."
)
@click.option("-m", "is_module", is_flag=True, help="The program is a module, as for `python -m`.")
@click.argument("program", metavar="SCRIPT|MODULE", shell_complete=complete_file)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENT]...", shell_complete=complete_file)
def run(
    program: str,
    arguments: tuple[str, ...],
    is_module: bool,
    tags: tuple[str, ...],
    stages: tuple[str, ...],
    returns: tuple[str, ...],
    system_metrics: bool,
    autolog: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run a program as `python` does, and record it as a run.

    The program needs no change. Its arguments are parameters, also as argparse, click, typer or Hydra parse them. The
    end of what it prints is the file output.txt of the run, with secrets masked. Options for `trackdsl` come before
    the program's name.

    FUNCTION is a function of a MODULE that the program imports, or a method as Class.method. `*` matches any
    characters. Without a MODULE, it is a function of the program's own file. The setting `stages` names functions for
    a whole project.

    `trackdsl` prints nothing of its own: only at a terminal, one line at the end says where the run is, and a wait for
    its delivery shows how far it is. A fault in tracking is a line of the logger `trackdsl`.

    The exit code is that of the program. If the program does not start, it is 2 for wrong options and 1 for a wrong
    setting.

    \b
    Examples:
      trackdsl run train.py --lr 0.1
      trackdsl run -m churn.train --lr 0.1
      trackdsl run --experiment churn --name baseline --tag team=cv train.py
      trackdsl run --stage 'churn.model:fit_*' --stage churn.data:load train.py
      trackdsl run --stage main --track-returns churn.model:evaluate train.py
      trackdsl run --json train.py 2>&1 >/dev/null | head -1 | jq -r .id
      torchrun --nproc-per-node 2 --no-python trackdsl run train.py
    """
    from trackdsl.cli._run import prepare
    from trackdsl.cli.program.main_module import Program

    options["system_metrics"] = system_metrics or None
    chosen = Program(program, is_module, arguments)
    prepared = prepare(chosen, options, tags, stages, returns, autolog=autolog, as_json=as_json)
    raise Started(prepared.execute)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.option("--json", "as_json", is_flag=True, help="Print the shell and the script as JSON.")
def completion(shell: str, as_json: bool) -> None:
    """Print the script with which a SHELL completes `trackdsl`.

    It completes commands, options, runs and experiments. The names come from the store that the settings name; those
    for `watch`, from what programs have recorded. A store that does not answer within a second has none. Zsh and fish
    quote names with blanks and special characters. Where a name cannot be quoted, as in bash, a run is offered by its
    id, and an experiment is not offered. For `--stage`, it completes functions of the modules below the current folder.

    The exit code is 0, and 2 for another shell.

    \b
    Examples:
      echo 'eval "$(trackdsl completion bash)"' >> ~/.bashrc
      echo 'eval "$(trackdsl completion zsh)"' >> ~/.zshrc     after compinit
      trackdsl completion fish > ~/.config/fish/completions/trackdsl.fish
      trackdsl completion bash --json | jq -r .script
    """
    from trackdsl.cli._completion import script

    text = script(shell)
    click.echo(json.dumps({"shell": shell, "script": text}) + "\n" if as_json else text, nl=False)


@click.command()
@click.argument("run", required=False, shell_complete=complete_watched_run)
@click.option("--all", "ended", is_flag=True, help="Also runs that have ended and are not all delivered yet.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each change.")
@with_spool
def watch(run: str | None, ended: bool, as_json: bool, spool: Path | None) -> None:
    """Show what is running on this machine, live.

    The command reads what programs have recorded, whether a tracking server is there or not. It shows the tree of
    runs: status, time, the progress of `steps`, the latest metrics, and failures. For each program it shows what it
    takes of the machine, and how far behind delivery is. Programs that begin later appear by themselves.

    With RUN, it shows only this run and those below it, and ends with it. RUN is an id, its first characters, a name,
    or a path such as pipeline/train.

    Keys: arrows choose a row, space folds it, PgUp and PgDn turn pages, a shows ended runs, q quits. Without a
    terminal, a line is printed for each change.

    The exit code is 0 after q, or if RUN has finished. It is 1 if RUN has failed, was killed, or does not exist, and
    130 after Ctrl-C.

    \b
    Examples:
      trackdsl watch
      trackdsl watch pipeline && trackdsl tree pipeline
      trackdsl watch --all
      trackdsl watch --json | jq -c 'select(.status == "FAILED") | .path'
    """
    from trackdsl.cli import watching

    watching.run(spool, run, ended=ended, as_json=as_json)
