"""Paths of artifacts that stay in the folder of the run, and that every store and operating system accepts."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePosixPath

from trackdsl._core.late_pattern import late_pattern
from trackdsl._core.redaction import MASK, mask_name

_OUTSIDE = frozenset("\0\\")
_DRIVE = late_pattern(r"[A-Za-z]:")
_DEVICE = late_pattern(r"(?<![^/])(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?=[.:/]|$)", re.IGNORECASE)
#: Characters that MLflow's client does not quote in the URL of an artifact, so that a server would use another name;
#: and spaces and dots that Windows, or MLflow's parser for `runs:/` URIs, removes.
_UNSAFE = late_pattern(r"[#?%\x00-\x1f\x7f]|(?<![^/])\s|[\s.](?=/|$)")


@lru_cache(1000)  # Most runs have the same paths.
def portable_path(path: str) -> str:
    """The path under which an artifact is stored.

    Raises:
        ValueError: see `inside`.

    >>> portable_path("aux/50%.csv")
    'aux_/50_0x25_.csv'
    """
    return quoted_path(without_devices(checked_path(path)))


def masked_path(path: str) -> str:
    """An artifact path with secrets masked, in characters that every operating system accepts.

    >>> masked_path("https:/me:hunter2@host/x.txt"), masked_path("models/best.pth")
    ('https:/xxx@host/x.txt', 'models/best.pth')
    """
    text = str(path)
    without = mask_name(text)
    return text if without == text else without.replace(MASK, "xxx")


@lru_cache(1000)
def checked_path(path: str) -> str:
    """Check that an artifact path stays in the folder of the run, on every operating system.

    Raises:
        ValueError: the path is absolute, leaves the folder, or contains a NUL or a backslash.

    >>> checked_path("models/best.pth")
    'models/best.pth'
    """
    parsed = PurePosixPath(path)
    if parsed.is_absolute() or ".." in parsed.parts or not _OUTSIDE.isdisjoint(path) or _DRIVE().match(path):
        raise ValueError(f"an artifact's path must stay inside the run's folder: {path!r}")
    return "" if str(parsed) == "." else str(parsed)


def without_devices(path: str) -> str:
    """A path in which no part has the name of a Windows device, because it could not be read there.

    Source of the names: learn.microsoft.com, "Naming Files, Paths, and Namespaces".

    >>> without_devices("aux.csv"), without_devices("models/best.pth")
    ('aux_.csv', 'models/best.pth')
    """
    return _DEVICE().sub(r"\g<0>_", path)


def quoted_path(path: str) -> str:
    """A path in which characters with a special meaning for a store are written as `_0xHH_`.

    >>> quoted_path("runs#1/50%.csv"), quoted_path("models/best.pth")
    ('runs_0x23_1/50_0x25_.csv', 'models/best.pth')
    """
    return _UNSAFE().sub(lambda match: f"_0x{ord(match[0]):02X}_", path)
