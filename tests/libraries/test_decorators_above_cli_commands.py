"""Decorators above those of command lines, which call what is below them."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from click.testing import CliRunner

from trackdsl import experiment, stage, track_returns
from trackdsl.errors import OptionError
from trackdsl.testing import capture_runs

typer = pytest.importorskip("typer")


@pytest.mark.parametrize("decorator", [stage, experiment("e"), track_returns])
@pytest.mark.parametrize("kind", ["command", "callback"])
def test_a_decorator_above_a_command_is_refused(decorator: Any, kind: str) -> None:
    """typer returns the function itself and calls that: a decorator above would never see a call, and raises."""
    app = typer.Typer()
    with pytest.raises(OptionError, match=rf"goes below @app\.{kind}\(\)"):

        @decorator
        @getattr(app, kind)()
        def main(x: int = 1) -> None: ...


def test_a_decorator_below_a_command_records_it() -> None:
    """Below the command, a decorator records what the command line calls, with the parameters of the command."""
    app = typer.Typer()

    @app.command()
    @stage
    def main(x: int = 1) -> None: ...

    with capture_runs() as captured:
        result = CliRunner().invoke(typer.main.get_command(app), ["--x", "3"])
    assert result.exit_code == 0, result.output
    assert captured.one("main").params == {"x": 3}


def test_a_decoration_does_not_look_through_all_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that has imported typer decorates as quickly as any: nothing asks the garbage collector."""
    for name in ("get_referrers", "get_objects"):
        monkeypatch.setattr(gc, name, lambda *_: pytest.fail("all objects are looked through"))

    @stage
    @track_returns
    def f(x: int = 1) -> int:
        return x

    assert f() == 1
