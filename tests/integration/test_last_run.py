"""`last()` where trackdsl is disabled, in a process of its own."""

from __future__ import annotations

from tests.conftest import StartProgram


def test_where_trackdsl_is_disabled(start: StartProgram) -> None:
    """A disabled program has handles that do nothing: the program runs unchanged."""
    code, out, err = start(
        """
        import trackdsl

        @trackdsl.experiment("e")
        def fn():
            return 1

        fn()
        fn.last_run.log_metric("a", 1)
        trackdsl.last().set_tag("a", 1)
        print(fn.last_run.name, trackdsl.last().name)
        """,
        TRACKDSL_MODE="disabled",
    ).finish()
    assert (code, out, err) == (0, "disabled disabled\n", "")
