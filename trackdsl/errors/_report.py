"""The one place where faults in tracking are reported, and the logger `trackdsl`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from trackdsl.errors._exceptions import TrackingFault
from trackdsl.errors._user_code import place_of_call

logger = logging.getLogger("trackdsl")

#: Causes that concern one call in user code: their messages name its file and line.
_OF_CALLS = frozenset(["artifact", "capture", "example", "image", "model", "omitted", "table"])
#: The keys of what was logged; bounded, as a program may have any number of them.
_reported: set[str] = set()
_MAX_REPORTED = 10_000


@dataclass
class _Choices:
    """How messages are written.

    Attributes:
        mask: takes secrets out of a message; `mask_messages_with` sets it.
        strict: `TRACKDSL_STRICT=1` makes `report` raise instead of log.
    """

    mask: Callable[[str], str] = str
    strict: bool = False


_choices = _Choices()


def mask_messages_with(mask: Callable[[str], str]) -> None:
    """Choose the function that takes secrets out of messages. It is registered, as it lies above this module."""
    _choices.mask = mask


def set_strict(strict: bool) -> None:
    """Choose whether faults in tracking raise (`True`) or are logged once per cause (`False`)."""
    _choices.strict = strict


def forget_reported() -> None:
    """Log every cause once more: each test has to see its own messages."""
    _reported.clear()


class _Masked(logging.Filter):
    """Takes secrets out of every message on logger `trackdsl`, also of those that the program logs there."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        try:
            record.msg = _choices.mask(record.getMessage())
        except Exception:  # An argument cannot be formatted: the line has the message without its arguments.
            record.msg = str(record.msg)
        record.args = ()
        return True


logger.addFilter(_Masked())


def report(cause: str, message: str, *, key: str | None = None) -> None:
    """Report a fault in tracking: one warning on logger `trackdsl` per cause.

    Args:
        cause: short stable name of the kind of fault.
        message: what happened and what to do about it.
        key: distinguishes causes of the same kind; each key gets a line of its own.

    Raises:
        TrackingFault: under `TRACKDSL_STRICT=1`.
    """
    if cause in _OF_CALLS:
        message = f"{message.removesuffix('.')} (at {place_of_call()})"
    if _choices.strict:
        raise TrackingFault(_choices.mask(message), cause=cause)
    note(message, key=f"{cause}:{key}")


def is_noted(key: str) -> bool:
    """Whether `note` has logged a message with this key, so that its caller need not make the message again."""
    return key in _reported


def note(message: str, *, key: str) -> None:
    """Log a warning that is no fault, such as advice; once for each key.

    Args:
        message: what the user should know, and what to do about it.
        key: distinguishes this note from others.
    """
    if key not in _reported:
        if len(_reported) < _MAX_REPORTED:
            _reported.add(key)
        logger.warning(message)
