"""What is patched: everything of the standard library, of joblib, torch and cluster engines that starts work."""

from __future__ import annotations

from trackdsl.distributed import _joblib, _processes, _threads, _torch, dask, ray, spark
from trackdsl.distributed._patching import Patch

_MODULES = (_threads, _processes, _joblib, _torch, dask, ray, spark)


def patches() -> list[Patch]:
    """All patches, in the order in which they are put in place."""
    return [patch for module in _MODULES for patch in module.PATCHES]
