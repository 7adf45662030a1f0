"""What is different in Colab and Databricks, in a message: what is unknown there is not guessed."""

from __future__ import annotations

import os
from typing import Any

from trackdsl._config import resolve as settings
from trackdsl._config.spec import DEFAULT_TRACKING_URI
from trackdsl._core.redaction import mask_text
from trackdsl.notebook import frontend

#: An environment variable of each host, and its name.
_HOSTS = {"COLAB_RELEASE_TAG": "Colab", "DATABRICKS_RUNTIME_VERSION": "Databricks"}


def differences(shell: Any) -> str:
    """What is different in the host that this kernel runs in, in sentences; empty elsewhere."""
    host = next((name for variable, name in _HOSTS.items() if variable in os.environ), None)
    if host is None:
        return ""
    found = []
    if not frontend.sends_cell_ids(shell):
        found.append("The ids of cells are not known: a cell that is executed again is recognized by its stage's name.")
    if not frontend.notebook_path(shell):
        found.append("The notebook's file is not known: edited, removed and moved cells are not noticed.")
    uri = settings.tracking_uri()
    if uri == DEFAULT_TRACKING_URI:
        found.append(
            f"Runs go to {uri} in {os.getcwd()}, which may be deleted with this machine: set TRACKDSL_TRACKING_URI to "
            "keep them elsewhere."
        )
    else:
        found.append(f"Runs go to {mask_text(uri)}.")
    return f"trackdsl in {host}: {' '.join(found)}"
