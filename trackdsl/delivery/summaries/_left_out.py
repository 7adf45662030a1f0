"""Says why a run lacks what delivery makes of it: in the log, once for each cause, and as a tag of the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from trackdsl._core.redaction import mask_text
from trackdsl.delivery.batches._single_writes import tag_omitted
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.delivery.store._sink import GONE, Sink
from trackdsl.delivery.summaries._reports import Interrupted
from trackdsl.errors import format_error, log_once


def make_or_leave_out(sink: Sink, run_id: str, name: str, make: Callable[[], bool]) -> bool:
    """Make something of a run; if that fails and would fail again, say so, and leave it out.

    Args:
        sink: the store.
        run_id: the store's id of the run.
        name: what is made: the path of a file, or `trace`.
        make: makes it; returns whether there is nothing more to do.

    Returns:
        what `make` returns; True if it is left out.

    Raises:
        Interrupted: it has to be made later.
        Unavailable: the store cannot be reached.
    """
    try:
        return make()
    except (Interrupted, Unavailable):
        raise
    except Refused as error:
        _leave_out(sink, run_id, name, f"the store refused it: {error}", traceback=False)
    except Exception as error:  # In trackdsl or in MLflow.
        _leave_out(sink, run_id, name, mask_text(format_error(error)), traceback=True)
    return True


def _leave_out(sink: Sink, run_id: str, name: str, reason: str, *, traceback: bool) -> None:
    if sink.status(run_id) == GONE:
        return  # Somebody has deleted the run a moment ago.
    log_once(
        f"trackdsl: {name} of run {run_id} is left out: {reason}",
        key=f"left out:{name}:{reason.replace(run_id, '')}",
        traceback=traceback,
    )
    tag_omitted(sink, run_id, name, reason)
    with contextlib.suppress(Refused):
        sink.commit()
