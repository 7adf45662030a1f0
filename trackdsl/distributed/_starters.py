"""What is patched: everything of the standard library and of joblib that starts work elsewhere."""

from __future__ import annotations

from trackdsl.distributed import _threads
from trackdsl.distributed._patching import Patch


def patches() -> list[Patch]:
    """All patches, in the order in which they are put in place."""
    return [*_threads.PATCHES]
