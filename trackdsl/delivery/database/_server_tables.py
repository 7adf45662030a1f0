"""MLflow's tables behind a server that takes change sets; what is asked goes through MLflow's own REST API.

So the server has one endpoint more than MLflow's, and MLflow itself decides what a user may read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import msgspec

from trackdsl._core.redaction import mask_text
from trackdsl.delivery.database._changes import ChangeSet
from trackdsl.delivery.database._rest import Missing, Rest, check
from trackdsl.delivery.database._rest_answers import ExperimentAnswer, Page, Run, RunAnswer
from trackdsl.delivery.database._wire import ABOUT_PATH, CHANGES_PATH, CONTENT_TYPE, About, Written, encoded
from trackdsl.delivery.store import _tree_search
from trackdsl.delivery.store._errors import Denied, Refused, RefusedTogether, Unavailable
from trackdsl.delivery.store._sink import EXPERIMENT_TAGS, GONE, StoredRun, Times, TreeRun
from trackdsl.store_format.tags import ID_TAG, MISSING_PARENT_TAG

_VERSION = 1
#: The answers of a server that no longer takes change sets.
_WITHOUT = (404, 405, 501)
#: Answers of a server, or of a proxy before it, that is busy or being started.
_MOMENTARY = (408, 425, 429, 502, 503, 504)


def ask_server(rest: Rest) -> About | None:
    """A server's answer to the question whether it takes change sets; None if it knows nothing of them.

    Raises:
        Unavailable: it does not answer now.
    """
    answer = rest.request("GET", ABOUT_PATH)
    if answer.status_code in _MOMENTARY:
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


class ServerTables:
    """See `Tables`. What is begun is sent by a thread, so that the server writes while delivery collects what follows.

    Args:
        rest: requests to the server.
    """

    def __init__(self, rest: Rest) -> None:
        self._requests = rest
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

    def create_experiment(self, name: str) -> None:
        """See `Tables`."""
        tags = [{"key": key, "value": value} for key, value in EXPERIMENT_TAGS.items()]
        try:
            self._rest.post(Page, "experiments/create", {"name": name, "tags": tags})
        except Refused:
            # Another process may have created it in between.
            if self.experiment_by_name(name) is None:
                raise

    def reopen_run(self, run_id: str) -> None:
        """See `Tables`."""
        self._rest.post(Page, "runs/update", {"run_id": run_id, "status": "RUNNING"})

    def delete_tag(self, run_id: str, name: str) -> None:
        """See `Tables`."""
        with contextlib.suppress(Refused):
            self._rest.post(Page, "runs/delete-tag", {"run_id": run_id, "key": name})

    def delete_run(self, run_id: str) -> None:
        """See `Tables`."""
        self._rest.post(Page, "runs/delete", {"run_id": run_id})

    def outdated(self) -> bool:
        """See `Tables`."""
        return self._outdated

    def answers(self) -> bool:
        """See `Tables`."""
        try:
            self._rest.post(Page, "experiments/search", {"max_results": 1})
        except (Unavailable, Refused):
            return False
        return True

    def close(self) -> None:
        """See `Tables`."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = self._sending = None
        self._requests.close()

    def state(self, run_id: str) -> StoredRun | None:
        """See `Tables`."""
        try:
            return self._run(run_id).stored()
        except Missing:
            return None

    def status(self, run_id: str) -> str:
        """See `Tables`."""
        state = self.state(run_id)
        return GONE if state is None or state.deleted else state.status

    def params(self, run_id: str) -> dict[str, str]:
        """See `Tables`."""
        return self._run(run_id).stored().params

    def tags(self, run_id: str) -> dict[str, str]:
        """See `Tables`."""
        return self._run(run_id).stored().tags

    def keys(self, run_id: str) -> dict[str, list[str]]:
        """See `Tables`."""
        data = self._run(run_id).data
        return {
            "params": [each.key for each in data.params],
            "tags": [each.key for each in data.tags],
            "metrics": [each.key for each in data.metrics],
        }

    def may_fold_keys(self) -> bool:
        """See `Tables`. A server does not say what database it has."""
        return True

    def metric_history(self, run_id: str, key: str, step: int | None) -> list[tuple[int, float, int]]:
        """See `Tables`."""
        pages = self._pages("metrics/get-history", {"run_id": run_id, "metric_key": key}, ask=True)
        points = [point for page in pages for point in page.metrics]
        return [(point.step, point.value, point.timestamp) for point in points if step in (None, point.step)]

    def points(self, run_id: str, key: str, most: int) -> list[tuple[int, float, int]]:
        """See `Tables`."""
        history = self.metric_history(run_id, key, None)
        return history[:: -(-len(history) // most) or 1]

    def find_by_id(self, run_id: str) -> str | None:
        """See `Tables`. MLflow also forbids to read a run that does not exist; all that can be done is to create it."""
        try:
            return self._run(run_id).info.experiment_id
        except (Missing, Denied):
            return None

    def find_runs(self, start: str, experiment_id: int | None) -> list[tuple[str, str, str]]:
        """See `Tables`."""
        runs = self._with_tag(ID_TAG, start, experiment_id)
        return [(run.tags[ID_TAG], run.run_id, run.experiment_id) for run in runs]

    def find_without_parent(self, prefix: str) -> list[tuple[str, str]]:
        """See `Tables`."""
        runs = self._with_tag(MISSING_PARENT_TAG, prefix, None)
        return [(run.run_id, run.tags[MISSING_PARENT_TAG]) for run in runs]

    def tagged(self, tag: str, value: str, experiment_id: int) -> list[StoredRun]:
        """See `Tables`."""
        runs = self._search([str(experiment_id)], f"tags.`{tag}` = '{value}'", "ACTIVE_ONLY")
        return [run.stored() for run in runs]

    def newest(self, experiment_id: int, tag: str, value: str | None, began: Times, most: int) -> list[TreeRun]:
        """See `Tables`."""
        return _tree_search.newest(self._search_trees, str(experiment_id), tag, value, began, most)

    def tree(self, run_id: str, most: int) -> list[TreeRun]:
        """See `Tables`."""
        try:
            root = self._run(run_id)
        except Missing:
            return []
        if root.info.lifecycle_stage == "deleted":
            return []
        return _tree_search.tree(self._search_trees, root.of_tree(), most)

    def _search_trees(self, experiment_id: str, wanted: str, order: str) -> Iterator[TreeRun]:
        return (run.of_tree() for run in self._search([experiment_id], wanted, "ACTIVE_ONLY", order))

    def experiment_by_name(self, name: str) -> tuple[str, str, str] | None:
        """See `Tables`."""
        try:
            experiment = self._rest.get(ExperimentAnswer, "experiments/get-by-name", experiment_name=name).experiment
        except Missing:
            return None
        return experiment.experiment_id, experiment.name, experiment.lifecycle_stage

    def experiment(self, experiment_id: int) -> tuple[str, str, str]:
        """See `Tables`."""
        answer = self._rest.get(ExperimentAnswer, "experiments/get", experiment_id=str(experiment_id)).experiment
        return answer.name, answer.lifecycle_stage, answer.artifact_location

    def artifact_uri(self, run_id: str) -> str:
        """See `Tables`."""
        return self._run(run_id).info.artifact_uri

    def models_of(self, run_id: str) -> list[tuple[str, int]]:
        """See `Tables`."""
        return [(each.model_id, each.step) for each in self._run(run_id).outputs.model_outputs]

    def _run(self, run_id: str) -> Run:
        return self._rest.get(RunAnswer, "runs/get", run_id=run_id).run

    def _with_tag(self, tag: str, start: str, experiment_id: int | None) -> Iterator[StoredRun]:
        wanted = self._all_experiments() if experiment_id is None else [str(experiment_id)]
        for first in range(0, len(wanted), 100):
            runs = self._search(wanted[first : first + 100], f"tags.`{tag}` LIKE '{start}%'", "ALL")
            yield from (run.stored() for run in runs)

    def _search(self, experiment_ids: list[str], wanted: str, view: str, order: str = "") -> Iterator[Run]:
        content = {"experiment_ids": experiment_ids, "filter": wanted, "run_view_type": view, "max_results": 1000}
        content |= {"order_by": [order], "max_results": 200} if order else {}
        for page in self._pages("runs/search", content):
            yield from page.runs

    def _all_experiments(self) -> list[str]:
        pages = self._pages("experiments/search", {"view_type": "ALL", "max_results": 1000})
        return [each.experiment_id for page in pages for each in page.experiments]

    def _pages(self, path: str, content: dict[str, Any], *, ask: bool = False) -> Iterator[Page]:
        while True:
            page = self._rest.get(Page, path, **content) if ask else self._rest.post(Page, path, content)
            yield page
            if not page.next_page_token:
                return
            content = {**content, "page_token": page.next_page_token}


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
