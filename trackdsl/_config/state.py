"""Is trackdsl switched off?"""

from __future__ import annotations

import contextlib

from trackdsl._config import resolve as settings
from trackdsl._core.redaction import choose_names
from trackdsl._core.suppression import quiet
from trackdsl.errors import SettingsError, set_strict


class State:
    """Process-wide switches, read from the settings at import and at `configure`."""

    __slots__ = ()

    def __init__(self) -> None:
        # A bad environment variable is told at the first run, where the traceback is the user's.
        with contextlib.suppress(SettingsError):
            self.refresh()

    @property
    def disabled(self) -> bool:
        """Nothing is to be recorded."""
        return quiet.off

    @disabled.setter
    def disabled(self, disabled: bool) -> None:
        quiet.off = disabled

    def refresh(self) -> None:
        """Read the settings again."""
        self.disabled = settings.mode() == "disabled"
        self.apply()

    @staticmethod
    def apply() -> None:
        """Hand on the settings that others keep."""
        choose_names(settings.secret_names(), settings.public_names())
        set_strict(settings.strict())


state = State()
