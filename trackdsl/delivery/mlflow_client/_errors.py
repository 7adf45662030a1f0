"""The errors of MLflow's client, as delivery's own."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from trackdsl._core.redaction import mask_text
from trackdsl.delivery.mlflow_client._advice import advised
from trackdsl.delivery.store._answers import BUSY, FINAL, OF_THE_STORE, wait_longer
from trackdsl.delivery.store._errors import Denied, Refused, Unavailable
from trackdsl.errors import format_error, reraise_from_signal
from trackdsl.store_format.installed_mlflow import explain_version

_CHECKED = {"INVALID_PARAMETER_VALUE"}
#: A path that no file system accepts, or that something else occupies.
_FINAL_ERRNO = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL)


@contextlib.contextmanager
def for_now() -> Iterator[None]:
    """The error for a store that cannot be opened now. The cause may be fixed, so nothing is left out for good."""
    try:
        yield
    except Refused as error:
        raise Unavailable(advised(error, str(error), remote=False)) from None


@contextlib.contextmanager
def translated(remote: bool, own: bool = False) -> Iterator[None]:
    """Turn MLflow's exceptions into `Unavailable` or `Refused`.

    Args:
        remote: whether the store is behind a tracking server.
        own: whether this process belongs to delivery, and may wait longer for the next answers.
    """
    try:
        yield
    except (Unavailable, Refused):
        raise
    except Exception as error:
        reraise_from_signal(error)
        text = explain_version(mask_text(format_error(error)).strip())[:2000]
        if is_final(error, remote):
            raise Refused(text) from None
        text = advised(error, text, remote=remote)
        if _is_denied(error):
            raise Denied(text) from None
        late = remote and "timed out" in text.lower()
        if late and own:
            wait_longer()
        answered = not late and _is_of_the_request(error)
        raise Unavailable(text, late=late, answered=answered, busy=remote and _is_busy(error)) from None


def is_final(error: Exception, remote: bool) -> bool:
    """Whether another attempt would have the same result."""
    from mlflow.exceptions import MlflowException, RestException

    if isinstance(error, RestException):
        return error.error_code in FINAL
    if isinstance(error, MlflowException):
        # From a server, these may be pages of a proxy, with a code that MLflow derived from their status. The client's
        # own checks use only this code.
        return error.error_code in (_CHECKED if remote else FINAL)
    if isinstance(error, OSError):
        return error.errno in _FINAL_ERRNO
    return isinstance(error, (OverflowError, TypeError, ValueError))


def _is_denied(error: Exception) -> bool:
    """Whether permission is missing, perhaps only for this request."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return str(error.error_code) == "PERMISSION_DENIED"
    return isinstance(error, PermissionError)


def _is_busy(error: Exception) -> bool:
    """Whether a server answers that it gets too many requests."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in BUSY
    return getattr(getattr(error, "response", None), "status_code", None) in (429, 503)


def _is_of_the_request(error: Exception) -> bool:
    """Whether only this request may fail, while the store accepts others."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code not in OF_THE_STORE
    return not isinstance(error, OSError)
