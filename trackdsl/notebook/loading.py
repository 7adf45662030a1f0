"""What `import trackdsl` does in notebooks: it loads the magics for `TRACKDSL_NOTEBOOK=1`, and follows marimo cells."""

from __future__ import annotations

import os
import sys
from typing import Any

from trackdsl.errors import format_error, report, reraise_from_signal

VARIABLE = "TRACKDSL_NOTEBOOK"


def is_switched_on(value: str | None = None) -> bool:
    """Whether a value of the variable says so; by default, its value in the environment."""
    text = os.environ.get(VARIABLE, "") if value is None else value
    return text.strip().lower() not in ("", "0", "false", "no", "off")


def load_in_kernel(value: str) -> None:
    """Load the extension if the variable says so, and if this process is an IPython kernel or prompt.

    Args:
        value: that of the variable.
    """
    ipython = sys.modules.get("IPython")
    if not is_switched_on(value) or ipython is None:
        return
    shell: Any = ipython.get_ipython()
    if shell is None:
        return
    try:
        shell.extension_manager.load_extension("trackdsl.notebook.magics")
    except Exception as error:
        reraise_from_signal(error)
        report("notebook", f"trackdsl cannot load its magics for {VARIABLE}: {format_error(error)}")


def follow_marimo() -> None:
    """Follow the cells of marimo's editor, if this process is the kernel of one."""
    try:
        if sys.modules["marimo"].app_meta().mode == "edit":
            from trackdsl.notebook import marimo

            marimo.follow()
    except Exception as error:
        reraise_from_signal(error)
        report("notebook", f"trackdsl does not know the cells of marimo: {format_error(error)}")
