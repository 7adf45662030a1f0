"""Interleaved measurements: the subjects run alternately in rounds, and are compared within each round.

On a machine with noise of its own the ratio of two neighbours is far steadier than either of them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from figures import Row, Target

PROGRAMS = Path(__file__).parent / "programs"

Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Subject:
    """Something that takes time.

    Attributes:
        name: as shown in the table.
        measure: does it this many times, and returns the seconds of one.
        loops: how many times in each round.
    """

    name: str
    measure: Callable[[int], float]
    loops: int


class Child:
    """A program of `programs/` that measures inside itself when it is asked to.

    Each subject has a process of its own, so that none pays for what another has imported or left behind.

    Args:
        program: its file, without the suffix.
        args: its arguments.
        env: its environment.
        cwd: its working directory.
    """

    def __init__(self, program: str, *args: str, env: dict[str, str], cwd: Path) -> None:
        command = [sys.executable, "-W", "ignore", str(PROGRAMS / f"{program}.py"), *args]
        self._name = program
        self._log = open(cwd / "children.log", "ab")  # noqa: SIM115 - closed with the child
        self.process = subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self._ready = False

    def ask(self, what: str, loops: int) -> float:
        """Let it do `what` this many times; returns the seconds of one."""
        return self.ask_both(what, loops)[0]

    def ask_both(self, what: str, loops: int) -> tuple[float, float]:
        """As `ask`, with the CPU seconds second.

        Raises:
            RuntimeError: the program is gone.
        """
        self.wait()
        self._send(f"{what} {loops}")
        wall, processor = map(int, self._receive().split())
        return wall / loops / 1e9, processor / loops / 1e9

    def subject(self, name: str, what: str, loops: int) -> Subject:
        """The measurement `what` of this child process, for interleaving with others."""
        return Subject(name, lambda count: self.ask(what, count), loops)

    def wait(self) -> None:
        """Wait until it has warmed up."""
        if not self._ready:
            self._receive()
            self._ready = True

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # Killed, so that nothing of it waits for delivery or ends runs.
        self.process.kill()
        self.process.wait()
        self._log.close()

    def _send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def _receive(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the benchmark program {self._name} died; it said:\n{self._end_of_output()}")
        return line

    def _end_of_output(self) -> str:
        return Path(self._log.name).read_text(errors="replace")[-2000:]


def interleave(subjects: Sequence[Subject], rounds: int) -> Samples:
    """Measure A B C, C B A, A B C …; returns the seconds of each subject, round by round."""
    samples: Samples = {subject.name: [] for subject in subjects}
    for number in range(rounds):
        # There and back, so that whatever drifts does not always favour the same one.
        for subject in subjects if number % 2 == 0 else reversed(subjects):
            samples[subject.name].append(subject.measure(subject.loops))
    return samples


def compare(group: str, name: str, against: str, samples: Samples, target: Target | None = None, note: str = "") -> Row:
    """A row of two subjects: medians, and the median of the ratios of the rounds."""
    ours, theirs = samples[name], samples[against]
    ratios = [baseline / figure for figure, baseline in zip(ours, theirs, strict=True)]
    return Row(
        group=group,
        name=name,
        figure=statistics.median(ours),
        unit="s",
        against=against,
        baseline=statistics.median(theirs),
        ratio=statistics.median(ratios),
        fastest=min(theirs) / min(ours),
        spread=spread(ratios),
        target=target,
        note=note,
    )


def above(group: str, name: str, over: str, samples: Samples, target: Target | None = None, note: str = "") -> Row:
    """A row of what one subject takes above another: the median of the differences of the rounds."""
    differences = [figure - baseline for figure, baseline in zip(samples[name], samples[over], strict=True)]
    return Row(
        group=group,
        name=f"{name}, above {over}",
        figure=statistics.median(differences),
        unit="s",
        against=over,
        baseline=statistics.median(samples[over]),
        spread=spread(differences),
        target=target,
        note=note,
    )


def spread(values: Sequence[float]) -> float | None:
    """Half of the interquartile range, as a share of the median."""
    middle = statistics.median(values)
    if len(values) < 3 or not middle:
        return None
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / abs(middle)
