"""Signals, interrupts and captured runs in processes of their own."""

from __future__ import annotations

from pathlib import Path

import trackdsl
from tests.conftest import StartProgram
from trackdsl import log_metric, stage
from trackdsl.journal._reader import read_all
from trackdsl.journal._replay import RecordedRun, replay
from trackdsl.journal._spool import journals
from trackdsl.testing import capture_runs


def recorded(spool: Path) -> dict[str, RecordedRun]:
    """The runs in the journals of a spool, by name."""
    runs = replay((event, directory) for directory in journals(spool) for event in read_all(directory))
    assert len({run.name for run in runs}) == len(runs)
    return {run.name: run for run in runs}


def test_capturing_inside_a_run(tmp_path: Path) -> None:
    """`capture_runs` inside an open run captures what begins there, and the run around it is as before."""
    with stage("around") as around:
        with capture_runs() as captured, stage("inside"):
            log_metric("m", 1)
        assert trackdsl.current_run() is around
        log_metric("after", 1)
    assert [run.name for run in captured.roots] == ["inside"]
    assert set(recorded(tmp_path / "spool")) == {"around"}
    assert recorded(tmp_path / "spool")["around"].metric("after") == 1


def test_an_interrupt_leaves_nothing_behind(start: StartProgram) -> None:
    """Ctrl-C wherever Python looks for it, as in a notebook, leaves no run current, no patch and no silence.

    Python looks where a function begins and after calls into C. What it raises where `__exit__` itself begins no
    context manager can know of.
    """
    program = start(
        """
        import os, sys
        import trackdsl
        from trackdsl import current_run, stage
        from trackdsl._core.suppression import suppression
        from trackdsl._core import patching

        class Interrupt(BaseException):
            pass

        block, section = stage("block", x=1), stage("section", nested=False, y=1)

        @stage(nested=False)
        def part(x):
            return x

        @stage
        def call(x):
            with block, section:
                return part(x)

        def interrupt_at(number):
            def look(frame, event, _):
                nonlocal number
                if event not in ("call", "c_return") or not frame.f_code.co_filename.startswith(HERE):
                    return
                if event == "call" and frame.f_code is type(block).__exit__.__code__:
                    return
                number -= 1
                if not number:
                    sys.setprofile(None)
                    raise Interrupt
            return look

        HERE = os.path.dirname(trackdsl.__file__) + os.sep
        call(1)
        number, wrong, ended = 0, [], False
        while not ended:
            number += 1
            sys.setprofile(interrupt_at(number))
            try:
                call(1)
                ended = True
            except Interrupt:
                pass
            sys.setprofile(None)
            if current_run() is not None or patching._open or suppression.on:
                wrong.append((number, current_run(), len(patching._open), suppression.on))
                break
        assert number > 100 and not wrong, (number, wrong)
        """,
        TRACKDSL_MODE="offline",
    )
    code, _, err = program.finish()
    assert (code, err) == (0, "")


def test_what_a_signal_handler_raises_reaches_the_program(start: StartProgram) -> None:
    """A time limit that strikes while a value is asked or kept is not a fault of tracking: the program gets it."""
    program = start(
        """
        import signal
        from trackdsl import stage
        from trackdsl.testing import capture_runs

        class Slow:
            def __reduce__(self):
                while True:
                    pass

        def strike(*_):
            raise TimeoutError("time is up")

        @stage(returns=True)
        def make():
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            return {"model": Slow()}

        signal.signal(signal.SIGALRM, strike)
        with capture_runs() as captured:
            try:
                make()
            except TimeoutError as error:
                assert str(error) == "time is up"
            else:
                raise AssertionError("it was swallowed")
        assert [run.name for run in captured.runs] == ["make"]
        """
    )
    code, _, err = program.finish()
    assert (code, err) == (0, "")
