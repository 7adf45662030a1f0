"""Local stores whose folder has been removed, such as that of a test: nobody wants them to be made again.

A folder that was never there is made, as MLflow does. Which of the two it is, a journal knows from its making: it notes
the file system that the folder was on. Where that is not mounted now, the folder is not gone.
"""

from __future__ import annotations

import os

from trackdsl._core.uris import local_folder, without_credentials
from trackdsl.delivery._sink import Unavailable
from trackdsl.journal._origin import Origin


class Vanished(Unavailable):
    """The folder of a store has been removed since the program began."""


class Folders:
    """The folders of local stores, as this process has seen them."""

    def __init__(self) -> None:
        self._devices: dict[str, int] = {}

    def check(self, origin: Origin) -> None:
        """See whether the folder of a store is where it was.

        Raises:
            Vanished: it has been removed.
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
        raise Vanished(
            f"the folder {folder} of the store {without_credentials(origin.uri)} has been removed: what programs "
            "recorded for it and is not delivered is dropped once they have ended"
        )

    def opened(self, origin: Origin) -> None:
        """Take note of a store that is there now."""
        folder = local_folder(origin.uri, origin.cwd)
        if folder is not None and os.path.isdir(folder):
            self._devices[folder] = os.stat(folder).st_dev


def _device_below(folder: str) -> int:
    """The file system of the nearest folder above one that is gone."""
    above = os.path.dirname(folder)
    while above != os.path.dirname(above) and not os.path.isdir(above):
        above = os.path.dirname(above)
    return os.stat(above).st_dev
