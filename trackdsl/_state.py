"""What the hot path asks first: is trackdsl switched off?"""

from __future__ import annotations

import contextlib

from trackdsl import settings
from trackdsl._secrets import choose_names
from trackdsl.errors import SettingsError, set_strict


class State:
    """Process-wide switches, read from the settings at import and at `configure`, kept as plain attributes.

    Attributes:
        disabled: nothing is to be recorded.
    """

    __slots__ = ("disabled",)

    def __init__(self) -> None:
        self.disabled = False
        # A bad environment variable is told at the first run, where the traceback is the user's.
        with contextlib.suppress(SettingsError):
            self.refresh()

    def refresh(self) -> None:
        """Read the settings again."""
        self.disabled = settings.mode() == "disabled"
        self.apply()

    @staticmethod
    def apply() -> None:
        """Hand on the settings that others keep."""
        choose_names(settings.secret_names(), settings.public_names())
        set_strict(settings.strict())

    def __reduce__(self) -> str:
        # Wrappers that travel by cloudpickle refer to the state of the process they arrive in.
        return "state"


state = State()
