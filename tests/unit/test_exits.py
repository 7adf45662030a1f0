"""What is kept of a run that ends by an exit: the error that the program exited for."""

from __future__ import annotations

import argparse
import optparse
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest
import typer

from trackdsl import stage
from trackdsl.testing import capture_runs


def handled(error: BaseException, leave: Callable[[], Any]) -> Callable[[], None]:
    """Code that exits while it handles an error."""

    def body() -> None:
        try:
            raise error
        except type(error):
            leave()

    return body


def leave(code: Any = 1) -> Callable[[], None]:
    def leave() -> None:
        raise SystemExit(code)

    return leave


def without_cause() -> None:
    try:
        raise ValueError("hidden")
    except ValueError:
        raise SystemExit(4) from None


def error_as_code() -> None:
    try:
        raise ValueError("the code")
    except ValueError as error:
        sys.exit(error)  # type: ignore[arg-type]


def typer_exit() -> None:
    try:
        raise ValueError("behind typer")
    except ValueError as error:
        raise typer.Exit(2) from error


def ask_twice() -> None:
    try:
        handled(ValueError("first"), leave(3))()
    finally:
        sys.exit(4)


def parse(*arguments: str) -> Callable[[], None]:
    def body() -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("path")
        parser.add_argument("--lr", type=float)
        parser.parse_args(arguments)

    return body


@click.command()
@click.argument("path")
def command(path: str) -> None:
    raise click.ClickException(f"no {path}")


ENDS: dict[str, tuple[Callable[[], Any], str, str, str]] = {
    "code": (leave(3), "FAILED", "SystemExit", "3"),
    "text": (leave("no data"), "FAILED", "SystemExit", "no data"),
    "text for an error": (handled(ValueError("x"), leave("no data")), "FAILED", "SystemExit", "no data"),
    "error": (handled(ValueError("too high"), leave()), "FAILED", "ValueError", "too high"),
    "without cause": (without_cause, "FAILED", "SystemExit", "4"),
    "error as code": (error_as_code, "FAILED", "ValueError", "the code"),
    "asked twice": (ask_twice, "FAILED", "ValueError", "first"),
    "Ctrl-C": (handled(KeyboardInterrupt(), leave(130)), "KILLED", "KeyboardInterrupt", ""),
    "typer's exit": (typer_exit, "FAILED", "ValueError", "behind typer"),
    "argparse, an argument": (
        parse("x", "--lr", "high"), "FAILED", "argparse.ArgumentError", "argument --lr: invalid float value: 'high'",
    ),
    "argparse, none": (parse(), "FAILED", "SystemExit", "2 (the following arguments are required: path)"),
    "optparse": (lambda: optparse.OptionParser().error("no such option"), "FAILED", "SystemExit", "2 (no such option)"),
    "click, none": (lambda: command([]), "FAILED", "click.exceptions.MissingParameter", "Missing parameter: path"),
    "click": (lambda: command(["data"]), "FAILED", "click.exceptions.ClickException", "no data"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_what_a_program_exits_for(name: str) -> None:
    """A run that ends by an exit has the error behind it, and its status is that of the code, or of Ctrl-C."""
    body, status, kind, message = ENDS[name]
    with capture_runs() as captured, pytest.raises(BaseException), stage("s"):  # noqa: B017, PT011 - of any kind
        body()
    run = captured.one("s")
    assert run.failure is not None
    assert (run.status, run.failure.type, run.failure.message) == (status, kind, message)
    assert run.failure.traceback.splitlines()[-1] == (f"{kind}: {message}" if message else kind)


@pytest.mark.parametrize(
    "body", [leave(0), leave(None), leave(False), handled(ValueError("x"), leave(0)), handled(typer.Exit(), leave(0))]
)
def test_a_successful_exit(body: Callable[[], None]) -> None:
    """An exit with the code 0 is a success, also while an error is being handled."""
    with capture_runs() as captured, pytest.raises(SystemExit), stage("s"):
        body()
    assert (captured.one("s").status, captured.one("s").failure) == ("FINISHED", None)


def test_typer_exits_without_an_error() -> None:
    """`typer.Exit()` inside a stage is a success, as it is for the program."""
    with capture_runs() as captured, pytest.raises(typer.Exit), stage("s"):
        raise typer.Exit()
    assert (captured.one("s").status, captured.one("s").failure) == ("FINISHED", None)
