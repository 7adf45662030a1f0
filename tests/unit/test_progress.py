"""The progress of loops, for a display beside the program."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trackdsl import stage, steps
from trackdsl._api.iterations import progress_of, show_progress
from trackdsl.testing import capture_runs


class Unsized:
    """Items whose `__len__` fails."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))

    def __len__(self) -> int:
        raise NotImplementedError


@pytest.mark.parametrize("shown", [False, True])
def test_a_length_that_fails_reaches_nobody(shown: bool) -> None:
    """If the user gives the total, an error of the iterable's `__len__` does not end the loop."""
    with capture_runs(), stage("s") as run:
        show_progress(run, shown)
        assert list(steps(Unsized(), total=3)) == [0, 1, 2]
        assert progress_of(run) == (("step", 3, 3) if shown else None)
        show_progress(run, False)


def test_the_loop_that_began_last_is_shown() -> None:
    """The display of the outer run shows the innermost of nested loops and runs, by its own count."""
    with capture_runs(), stage("outer") as run:
        show_progress(run, True)
        for _ in steps(range(10, 30, 10), "epoch"):
            assert progress_of(run) in (("epoch", 1, 2), ("batch", 2, 2))
            with stage("inner"):
                for _ in steps("ab", "batch"):
                    pass
        show_progress(run, False)
        assert progress_of(run) is None
