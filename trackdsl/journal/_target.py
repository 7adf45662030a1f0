"""The targets of this process: one for each tracking URI and working directory, each with its own journal."""

from __future__ import annotations

import atexit
import contextlib
import copyreg
import sys
from typing import Any

from trackdsl._config import resolve as settings
from trackdsl._core import runtime
from trackdsl._core.runtime import Phase
from trackdsl._core.uris import absolute_uri, working_directory
from trackdsl.errors import TrackdslError, report
from trackdsl.journal import _delivery_hooks
from trackdsl.journal._store_target import DISCARDED, NOWHERE, Target, with_journal

_targets: dict[tuple[str, str], Target] = {}
#: At most one target. While there is one, every new root run uses it, as in `trackdsl.testing.capture_runs`.
_overrides: list[Target] = []


def target_for(uri: str | None = None, cwd: str | None = None) -> Target:
    """The target of a tracking URI, by default that of the settings.

    Raises:
        SettingsError: MLflow cannot use the URI, or another setting is invalid.
    """
    for override in _overrides:
        return override
    if uri == DISCARDED:
        return NOWHERE
    cwd = cwd or working_directory()
    key = (uri or settings.tracking_uri(), cwd)
    target = _targets.get(key)
    if target is None:
        settings.check_all()  # All of them now, at the start of the program, including those that are used later.
        absolute = absolute_uri(key[0], cwd)
        same = (t for t in _targets.values() if t.uri == absolute and t.cwd == cwd)
        target = _targets[key] = next(same, None) or Target(absolute, cwd)
    return target


def _reduced(target: Target) -> tuple[Any, ...]:
    return target_for, (target.uri, target.cwd)


# Not as `__reduce__`: targets do not know the functions that find them.
copyreg.pickle(Target, _reduced)
copyreg.pickle(type(NOWHERE), _reduced)


def override(target: Target | None) -> Target | None:
    """Send every new root run to `target`; returns the previous override."""
    before = next(iter(_overrides), None)
    _overrides[:] = [] if target is None else [target]
    return before


def overridden() -> bool:
    """Whether every new root run uses one target, whatever the settings say."""
    return bool(_overrides)


def targets() -> list[Target]:
    """The targets that this process has recorded to."""
    return [target for target in with_journal() if target.delivers]


def start_new_journals() -> None:
    """Let new runs begin new journals, after settings have moved the spool; open runs keep their journals."""
    _targets.clear()


def close_all() -> None:
    """Close every journal."""
    for target in with_journal():
        target.close()
    _targets.clear()


def check_all() -> None:
    """Call `Target.check` for every journal."""
    for target in with_journal():
        target.check()


def known_targets() -> list[Target]:
    """The targets that this process has recorded to, or tried to."""
    return [target for target in dict.fromkeys([*with_journal(), *_targets.values()]) if target.delivers]


def _report_unrecorded() -> None:
    lost = sum(target.unrecorded for target in dict.fromkeys([*with_journal(), *_targets.values()]))
    if lost:
        with contextlib.suppress(TrackdslError):
            report("spool-total", f"trackdsl could not record {lost} events: no journal could be written.")


def _at_exit() -> None:
    with contextlib.suppress(TrackdslError):
        check_all()
    _report_unrecorded()
    writers = [target.writer for target in targets() if target.writer is not None]
    if writers and _delivery_hooks.waits_at_exit():
        with contextlib.suppress(TrackdslError):  # A bad TRACKDSL_MODE was reported when the first run began.
            _delivery_hooks.wait_for(writers)
            check_all()
        _delivery_hooks.call_afterwards()
    for target in with_journal():
        if target.writer is not None:
            target.writer.mark_end()
    _keep_interrupted()


def _keep_interrupted() -> None:
    """Let a program that Ctrl-C interrupted end by the signal, as usual.

    CPython forgets that it must do so if text is executed afterwards, as `namedtuple` and `dataclass` do in imports.
    """
    if issubclass(getattr(sys, "last_type", None) or Exception, KeyboardInterrupt):
        with contextlib.suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")  # noqa: S102 - constant, and the only way to set the flag


def _after_fork() -> None:
    for target in with_journal():
        target.reset_after_fork()


def _reset() -> None:
    close_all()
    override(None)


atexit.register(_at_exit)
runtime.register("journals", Phase.JOURNALS, after_fork=_after_fork, reset=_reset)
