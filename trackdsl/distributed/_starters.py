"""What is patched: all that starts work, of the standard library, greenlets, joblib, torch and cluster engines."""

from __future__ import annotations

from trackdsl.distributed import _greenlets, _joblib, _processes, _threads, _torch, dask, ray, spark
from trackdsl.distributed._patching import Hook, Patch

_MODULES = (_threads, _greenlets, _processes, _joblib, _torch, dask, ray, spark)


def patches() -> list[Patch]:
    """All patches, in the order in which they are put in place."""
    return [patch for module in _MODULES for patch in module.PATCHES]


def hooks() -> dict[str, Hook]:
    """What is done once a module is imported, where patching it does not do."""
    return dict(_greenlets.HOOKS)
