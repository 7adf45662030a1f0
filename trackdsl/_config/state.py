"""The switches of the process that are read from the settings: whether trackdsl records, masks, raises."""

from __future__ import annotations

import contextlib

from trackdsl._config import resolve as settings
from trackdsl._core import runtime
from trackdsl._core.redaction import choose_names
from trackdsl._core.runtime import Phase
from trackdsl._core.suppression import suppression
from trackdsl.errors import SettingsError, set_strict


class State:
    """Switches of the process, read from the settings at import and by `configure`."""

    __slots__ = ()

    def __init__(self) -> None:
        self.refresh_leniently()

    @property
    def disabled(self) -> bool:
        """Whether nothing is recorded."""
        return suppression.off

    @staticmethod
    def disable(disabled: bool = True) -> None:
        """Record nothing from now on, or record again."""
        suppression.switch_off(disabled)

    def refresh(self) -> None:
        """Read the settings again."""
        self.disable(settings.mode() == "disabled")
        self.apply()

    def refresh_leniently(self) -> None:
        """Read the settings again. A bad environment variable raises at the first run, in the user's code."""
        with contextlib.suppress(SettingsError):
            self.refresh()

    @staticmethod
    def apply() -> None:
        """Pass settings on to the modules that keep a copy."""
        choose_names(settings.secret_names(), settings.public_names())
        set_strict(settings.strict())


def _reset() -> None:
    settings.restore({})
    state.disable(False)
    set_strict(False)
    choose_names()
    state.refresh_leniently()


state = State()
runtime.register("settings", Phase.SETTINGS, reset=_reset)
