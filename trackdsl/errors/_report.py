"""How all faults in tracking are reported: as warnings on the logger `trackdsl`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from trackdsl.errors._exceptions import TrackingFault
from trackdsl.errors._user_code import call_site

logger = logging.getLogger("trackdsl")

#: Causes that concern one call in user code. The message gets the file and line of that call.
_OF_CALLS = frozenset(["artifact", "capture", "example", "image", "model", "omitted", "table"])
#: The keys of the messages that were logged. Their number is limited, as a program may produce any number.
_reported: set[str] = set()
_MAX_REPORTED = 10_000


@dataclass
class _Choices:
    """Choices for how messages are written.

    Attributes:
        mask: masks the secrets in a message; `mask_messages_with` sets it.
        strict: `TRACKDSL_STRICT=1` makes `report` raise instead of log.
    """

    mask: Callable[[str], str] = str
    strict: bool = False


_choices = _Choices()


def mask_messages_with(mask: Callable[[str], str]) -> None:
    """Register the function that masks secrets in messages. This package cannot import it from a higher layer."""
    _choices.mask = mask


def set_strict(strict: bool) -> None:
    """Choose whether faults in tracking raise (`True`) or are logged once per cause (`False`)."""
    _choices.strict = strict


def forget_reported() -> None:
    """Log every cause again: each test has to see its own messages."""
    _reported.clear()


class _Masked(logging.Filter):
    """Masks the secrets in every message on logger `trackdsl`, including those that the program logs there."""

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
        message = f"{message.removesuffix('.')} (at {call_site()})"
    if _choices.strict:
        raise TrackingFault(_choices.mask(message), cause=cause)
    log_once(message, key=f"{cause}:{key}")


def was_logged(key: str) -> bool:
    """Whether `log_once` has logged a message with this key, so that its caller need not make the message again."""
    return key in _reported


def log_once(message: str, *, key: str, traceback: bool = False) -> None:
    """Log a warning that does not report a fault, such as advice, once for each key.

    Args:
        message: what the user should know, and what to do about it.
        key: distinguishes this warning from others.
        traceback: add the traceback of the exception that is being handled.
    """
    if key not in _reported:
        if len(_reported) < _MAX_REPORTED:
            _reported.add(key)
        logger.warning(message, exc_info=traceback)
