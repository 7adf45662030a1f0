"""MLflow's tables behind a server that takes change sets; what is asked goes through MLflow's own REST API.

So the server has one endpoint more than MLflow's, and MLflow itself decides what a user may read.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import msgspec

from trackdsl._core.redaction import mask_text
from trackdsl._server.http import MOMENTARY
from trackdsl.delivery.database._changes import ChangeSet
from trackdsl.delivery.database._wire import ABOUT_PATH, CHANGES_PATH, CONTENT_TYPE, About, Written, encoded
from trackdsl.delivery.rest._requests import Missing, Rest, check
from trackdsl.delivery.rest._runs import ServerRuns
from trackdsl.delivery.store._errors import Denied, Refused, RefusedTogether, Unavailable

_VERSION = 1
#: The answers of a server that no longer takes change sets.
_WITHOUT = (404, 405, 501)


def ask_server(rest: Rest) -> About | None:
    """A server's answer to the question whether it takes change sets; None if it knows nothing of them.

    Raises:
        Unavailable: it does not answer now.
    """
    answer = rest.request("GET", ABOUT_PATH)
    if answer.status_code in MOMENTARY:
        check(answer)
    if answer.status_code != 200:  # Also one that does not let us in: MLflow's client has the message for it.
        return None
    try:
        about = msgspec.json.decode(answer.content, type=About)
    except msgspec.MsgspecError:  # Some other page, as of a proxy.
        return None
    if about.version != _VERSION:
        return About(about.version, False, f"it takes version {about.version} of change sets, and this is {_VERSION}")
    return about


class ServerTables(ServerRuns):
    """See `Tables`. What is begun is sent by a thread, so that the server writes while delivery collects what follows.

    Args:
        rest: requests to the server.
    """

    def __init__(self, rest: Rest) -> None:
        super().__init__(rest)
        self._outdated = False
        self._thread: ThreadPoolExecutor | None = None
        self._sending: Future[None] | None = None

    def carry_out(self, changes: ChangeSet) -> None:
        """See `Tables`. A large one is sent in parts, each of which is written as a whole."""
        self.settle()
        self._send(changes)

    def begin(self, changes: ChangeSet) -> None:
        """See `Tables`."""
        self.settle()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "trackdsl-changes")
        self._sending = self._thread.submit(self._send, changes)

    def settle(self) -> None:
        """See `Tables`."""
        if self._sending is None:
            return
        try:
            self._sending.result()
        except (Refused, Denied) as error:  # Not of what is done now.
            raise RefusedTogether(mask_text(str(error))) from None

    def forget(self) -> None:
        """See `Tables`."""
        if self._sending is not None:
            wait([self._sending])
            self._sending = None

    @property
    def _rest(self) -> Rest:
        """Requests to the server, which has written by then what was begun."""
        self.settle()
        return self._requests

    def _send(self, changes: ChangeSet) -> None:
        if not changes:
            return
        for runs, part in encoded(changes):
            answer = self._requests.request("POST", CHANGES_PATH, data=part, headers={"Content-Type": CONTENT_TYPE})
            if answer.status_code in _WITHOUT:
                self._outdated = True
                raise Unavailable(f"the server takes no more change sets: {mask_text(answer.text[:300])}")
            check(answer)
            _check_written(answer, runs)

    def outdated(self) -> bool:
        """See `Tables`."""
        return self._outdated

    def close(self) -> None:
        """See `Tables`."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = self._sending = None
        self._requests.close()

    def find_by_id(self, run_id: str) -> str | None:
        """See `Tables`. MLflow also forbids to read a run that does not exist; all that can be done is to create it."""
        try:
            return self._run(run_id).info.experiment_id
        except (Missing, Denied):
            return None


def _check_written(answer: Any, runs: int) -> None:
    """Check that an answer is that of a server that has written a change set, and not some page of a proxy.

    Raises:
        Unavailable: it is not, so nothing is known of the change set.
    """
    try:
        written = msgspec.json.decode(answer.content, type=Written).runs
    except msgspec.MsgspecError as error:
        raise Unavailable(f"the server does not say that it has written what was sent: {error}") from None
    if written != runs:
        raise Unavailable(f"the server says that it has written {written} runs, of {runs} that were sent")
