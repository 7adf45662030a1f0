"""What the front end says of a cell: its id, its notebook, its kernel. What it does not say is not guessed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import sys
from typing import Any

from trackdsl.journal._origin import notebook_file

_KERNEL = re.compile(r"kernel-(.+)\.json")


def cell_id(shell: Any, name: str) -> str:
    """The id of the cell that is executed; a hash of the stage's name if the front end sends none."""
    found = _sent_id(shell)
    if found:
        # VS Code's ids contain the path of the notebook, and the cell's own part after `#`.
        return found.rpartition("#")[2] if found.startswith("vscode-notebook-cell:") else found
    return "name-" + hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:12]


def sends_cell_ids(shell: Any) -> bool:
    """Whether the front end has said which cell is executed now."""
    return bool(_sent_id(shell))


def _sent_id(shell: Any) -> str:
    found = (parent_message(shell).get("metadata") or {}).get("cellId")
    return found if isinstance(found, str) else ""


def code(shell: Any) -> str:
    """The whole cell as the front end sent it; empty in a terminal."""
    found = (parent_message(shell).get("content") or {}).get("code")
    return found if isinstance(found, str) else ""


def execution(shell: Any) -> str:
    """An id of the current execution, different for each one."""
    parent = parent_message(shell)
    return str((parent.get("header") or {}).get("msg_id") or shell.execution_count)


def has_widgets() -> bool:
    """Whether there may be widgets, which can take what a cell shows."""
    return sys.modules.get("ipywidgets") is not None


def execution_count(shell: Any) -> int:
    """The number that the notebook shows beside the cell which is executed."""
    return int(shell.displayhook.prompt_count)  # `shell.execution_count` is one more since IPython 9.


def position(shell: Any) -> int:
    """The position of the current cell in IPython's history, which leaves some cells out; 0 without a history."""
    return len(shell.history_manager.input_hist_parsed) - 1 if shell.history_manager is not None else 0


def parent_message(shell: Any) -> dict[str, Any]:
    """The message of the front end that is being answered; empty in a terminal."""
    get_parent = getattr(shell, "get_parent", None)
    if get_parent is not None:
        with contextlib.suppress(Exception):  # Before the first message there is none.
            return dict(get_parent() or {})
    return {}


def notebook_path(shell: Any) -> str:
    """The path of the notebook's file; empty if it is not known."""
    found = shell.user_ns.get("__vsc_ipynb_file__")  # The shell of a test has a namespace of its own.
    return found if isinstance(found, str) and found.endswith(".ipynb") else notebook_file()


def kernel_id(shell: Any) -> str:
    """Jupyter's id of the kernel; empty in a terminal."""
    kernel = getattr(shell, "kernel", None)
    if kernel is None or "ipykernel" not in sys.modules:
        return ""
    with contextlib.suppress(Exception):
        return _connected_kernel()
    return ""


@functools.cache
def _connected_kernel() -> str:
    from ipykernel.connect import get_connection_file

    found = _KERNEL.fullmatch(os.path.basename(get_connection_file()))
    return "" if found is None else found[1]
