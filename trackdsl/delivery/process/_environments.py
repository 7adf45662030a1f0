"""The environments of programs that one delivery process knows, and which of them reaches the store of a journal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from trackdsl.delivery.environment import UPLOAD_TIMEOUT, ProgramEnvironment, current

#: How many programs' environments are remembered.
_MOST = 10_000


class Environments:
    """The environments of programs, and the choice of one for each journal.

    Args:
        kept: names of variables that delivery sets for itself.

    Attributes:
        version: grows with each new environment.
    """

    def __init__(self, kept: Iterable[str] = ()) -> None:
        self.version = 0
        self._kept = frozenset(kept)
        self._base = self._normal(current())
        self._applied: Mapping[str, str] = self._base
        self._own: dict[str, Mapping[str, str]] = {}
        self._latest: Mapping[str, str] | None = None
        self._for_all: Mapping[str, str] | None = None
        #: The environment to try next for a program's journal, after its first choice failed.
        self._next: dict[str, Mapping[str, str]] = {}

    def take(self, handed: ProgramEnvironment) -> None:
        """Keep an environment that a program has sent."""
        variables = self._same(self._normal(handed.variables))
        if handed.for_all:
            known, self._for_all = self._for_all, variables
        else:
            known = self._own.pop(handed.prefix, None)
            self._own[handed.prefix] = variables  # The latest one is the last.
            self._latest = variables
            for oldest in list(self._own)[: max(0, len(self._own) - _MOST)]:
                del self._own[oldest]
        if known != variables:
            self._next = dict.fromkeys(self._next, variables)
            self.version += 1

    def learn(self, program: str, variables: Mapping[str, str]) -> None:
        """Keep the environment with which a program was started, until it sends the one that it has now."""
        self._own.setdefault(program, self._same(self._normal(variables)))

    def knows(self, program: str) -> bool:
        """Whether the environment of a program is known."""
        return program in self._own

    def of(self, program: str, alive: bool) -> Mapping[str, str]:
        """The environment to deliver a journal with.

        That of a running program comes first. Other environments are tried only if it fails: the one of the user's
        `trackdsl sync`, and, for a program that has ended, those of later programs.

        Args:
            program: the prefix of the ids of its runs, in hexadecimal.
            alive: whether the program still runs.
        """
        choices = self._choices(program, alive)
        wanted = self._next.get(program)
        return wanted if wanted is not None and wanted in choices else choices[0]

    def failed(self, program: str, alive: bool) -> None:
        """A store was not reached with the environment that was chosen for a journal."""
        choices = self._choices(program, alive)
        tried = self.of(program, alive)
        self._next[program] = choices[(choices.index(tried) + 1) % len(choices)]

    def _choices(self, program: str, alive: bool) -> list[Mapping[str, str]]:
        own = self._own.get(program)
        wanted = [own, self._for_all] if alive and own is not None else [self._for_all, own, self._latest, self._base]
        choices: list[Mapping[str, str]] = []
        for each in wanted:
            if each is not None and each not in choices:
                choices.append(each)
        return choices

    def apply(self, chosen: Mapping[str, str]) -> bool:
        """Make an environment that of this process; returns whether this changed anything."""
        if chosen == self._applied:
            return False
        for name in self._normal(current()):
            if name not in chosen:
                del os.environ[name]
        os.environ.update(chosen)
        self._applied = chosen
        return True

    def _normal(self, variables: Mapping[str, str]) -> Mapping[str, str]:
        """The variables without those that delivery sets itself; a timeout that the user set is kept for uploads."""
        timeout = variables.get(UPLOAD_TIMEOUT) or variables.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "0")
        wanted = {name: value for name, value in variables.items() if name not in self._kept}
        return {**wanted, UPLOAD_TIMEOUT: timeout} if self._kept else wanted

    def _same(self, variables: Mapping[str, str]) -> Mapping[str, str]:
        """An equal environment that is known already, so that a thousand equal ones take the memory of one."""
        known: list[Any] = [self._base, self._latest, self._for_all]
        return next((each for each in known if each == variables), variables)
