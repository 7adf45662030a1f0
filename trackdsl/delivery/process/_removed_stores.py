"""Local stores whose folder was removed, such as that of a test: they must not be created again.

A folder that never existed is created, as MLflow does. A journal records the file system of its store's folder, so
delivery can distinguish the two. If that file system is not mounted now, the folder is not removed.
"""

from __future__ import annotations

import os

from trackdsl._core.uris import local_folder, without_credentials
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.journal._origin import Origin


class StoreRemoved(Unavailable):
    """The folder of a store was removed since the program began."""


class Folders:
    """The folders of local stores that this process has seen."""

    def __init__(self) -> None:
        self._devices: dict[str, int] = {}

    def check(self, origin: Origin) -> None:
        """Check that the folder of a store still exists.

        Raises:
            StoreRemoved: it was removed.
            Unavailable: its file system is not mounted.
        """
        folder = local_folder(origin.uri, origin.cwd)
        if folder is None or os.path.isdir(folder):
            return
        device = self._devices.get(folder) or origin.store_device
        if not device:
            return
        if _device_below(folder) != device:
            raise Unavailable(f"the folder {folder} is on a file system that is not mounted")
        raise StoreRemoved(
            f"the folder {folder} of the store {without_credentials(origin.uri)} has been removed: what programs "
            "recorded for it and is not delivered is dropped once they have ended"
        )

    def opened(self, origin: Origin) -> None:
        """Remember a store that exists now."""
        folder = local_folder(origin.uri, origin.cwd)
        if folder is not None and os.path.isdir(folder):
            self._devices[folder] = os.stat(folder).st_dev


def _device_below(folder: str) -> int:
    """The file system of the nearest existing folder above a missing one."""
    above = os.path.dirname(folder)
    while above != os.path.dirname(above) and not os.path.isdir(above):
        above = os.path.dirname(above)
    return os.stat(above).st_dev
