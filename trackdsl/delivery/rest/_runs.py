"""Runs and experiments of a tracking server, read and changed through MLflow's REST API."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from trackdsl.delivery.rest._answers import ExperimentAnswer, Page, Run, RunAnswer
from trackdsl.delivery.rest._requests import Missing, Rest
from trackdsl.delivery.store import _tree_search
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.delivery.store._sink import EXPERIMENT_TAGS, GONE, StoredRun, Times, TreeRun
from trackdsl.store_format.tags import ID_TAG, MISSING_PARENT_TAG


class ServerRuns:
    """The runs and experiments of one server. All methods raise `Unavailable` and `Refused`, see `Rest.get`.

    Args:
        rest: requests to the server.
    """

    def __init__(self, rest: Rest) -> None:
        self._requests = rest

    @property
    def _rest(self) -> Rest:
        """Requests to the server, once what is asked about is written there."""
        return self._requests

    def create_experiment(self, name: str) -> None:
        """Create an experiment, unless another process has done so."""
        tags = [{"key": key, "value": value} for key, value in EXPERIMENT_TAGS.items()]
        try:
            self._rest.post(Page, "experiments/create", {"name": name, "tags": tags})
        except Refused:
            # Another process may have created it in between.
            if self.experiment_by_name(name) is None:
                raise

    def may_fold_keys(self) -> bool:
        """Whether the store may treat keys as equal that differ in case: a server does not say what database it has."""
        return True

    def reopen_run(self, run_id: str) -> None:
        """Make a run that has ended `RUNNING` again."""
        self._rest.post(Page, "runs/update", {"run_id": run_id, "status": "RUNNING"})

    def delete_tag(self, run_id: str, name: str) -> None:
        """Delete a tag of a run; it need not have it."""
        with contextlib.suppress(Refused):
            self._rest.post(Page, "runs/delete-tag", {"run_id": run_id, "key": name})

    def delete_run(self, run_id: str) -> None:
        """Delete a run, which a user may restore."""
        self._rest.post(Page, "runs/delete", {"run_id": run_id})

    def answers(self) -> bool:
        """Whether the server answers a request that concerns no run."""
        try:
            self._rest.post(Page, "experiments/search", {"max_results": 1})
        except (Unavailable, Refused):
            return False
        return True

    def state(self, run_id: str) -> StoredRun | None:
        """A run; None if it never existed."""
        try:
            return self._run(run_id).stored()
        except Missing:
            return None

    def status(self, run_id: str) -> str:
        """`RUNNING`, the final status, or `GONE` if the run is deleted or does not exist."""
        state = self.state(run_id)
        return GONE if state is None or state.deleted else state.status

    def params(self, run_id: str) -> dict[str, str]:
        """The parameters of a run."""
        return self._run(run_id).stored().params

    def tags(self, run_id: str) -> dict[str, str]:
        """The tags of a run."""
        return self._run(run_id).stored().tags

    def keys(self, run_id: str) -> dict[str, list[str]]:
        """The keys of a run: of its `params`, `tags` and `metrics`."""
        data = self._run(run_id).data
        return {
            "params": [each.key for each in data.params],
            "tags": [each.key for each in data.tags],
            "metrics": [each.key for each in data.metrics],
        }

    def metric_history(self, run_id: str, key: str, step: int | None) -> list[tuple[int, float, int]]:
        """See `Sink`."""
        pages = self._pages("metrics/get-history", {"run_id": run_id, "metric_key": key}, ask=True)
        points = [point for page in pages for point in page.metrics]
        return [(point.step, point.value, point.timestamp) for point in points if step in (None, point.step)]

    def points(self, run_id: str, key: str, most: int) -> list[tuple[int, float, int]]:
        """See `Sink`."""
        history = self.metric_history(run_id, key, None)
        return history[:: -(-len(history) // most) or 1]

    def find_runs(self, start: str, experiment_id: int | str | None) -> list[tuple[str, str, str]]:
        """See `Sink`."""
        runs = self._with_tag(ID_TAG, start, experiment_id)
        return [(run.tags[ID_TAG], run.run_id, run.experiment_id) for run in runs]

    def find_without_parent(self, prefix: str) -> list[tuple[str, str]]:
        """See `Sink`."""
        runs = self._with_tag(MISSING_PARENT_TAG, prefix, None)
        return [(run.run_id, run.tags[MISSING_PARENT_TAG]) for run in runs]

    def tagged(self, tag: str, value: str, experiment_id: int | str) -> list[StoredRun]:
        """See `Sink`."""
        runs = self._search([str(experiment_id)], f"tags.`{tag}` = '{value}'", "ACTIVE_ONLY")
        return [run.stored() for run in runs]

    def newest(self, experiment_id: int | str, tag: str, value: str | None, began: Times, most: int) -> list[TreeRun]:
        """See `Sink`."""
        return _tree_search.newest(self._search_trees, str(experiment_id), tag, value, began, most)

    def tree(self, run_id: str, most: int) -> list[TreeRun]:
        """See `Sink`."""
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
        """The id, the name and the lifecycle stage of an experiment; None if there is none of this name."""
        try:
            experiment = self._rest.get(ExperimentAnswer, "experiments/get-by-name", experiment_name=name).experiment
        except Missing:
            return None
        return experiment.experiment_id, experiment.name, experiment.lifecycle_stage

    def experiment(self, experiment_id: int | str) -> tuple[str, str, str]:
        """The name, the lifecycle stage and the artifact location of an experiment."""
        answer = self._rest.get(ExperimentAnswer, "experiments/get", experiment_id=str(experiment_id)).experiment
        return answer.name, answer.lifecycle_stage, answer.artifact_location

    def artifact_uri(self, run_id: str) -> str:
        """Where the artifacts of a run are."""
        return self._run(run_id).info.artifact_uri

    def models_of(self, run_id: str) -> list[tuple[str, int]]:
        """See `Sink`."""
        return [(each.model_id, each.step) for each in self._run(run_id).outputs.model_outputs]

    def _run(self, run_id: str) -> Run:
        return self._rest.get(RunAnswer, "runs/get", run_id=run_id).run

    def _with_tag(self, tag: str, start: str, experiment_id: int | str | None) -> Iterator[StoredRun]:
        wanted = self._all_experiments() if experiment_id is None else [str(experiment_id)]
        for first in range(0, len(wanted), 100):
            runs = self._search(wanted[first : first + 100], f"tags.`{tag}` LIKE '{start}%'", "ALL")
            yield from (run.stored() for run in runs)

    def _search(self, experiment_ids: list[str], wanted: str, view: str, order: str = "") -> Iterator[Run]:
        for page in self.found(experiment_ids, wanted, view, [order] if order else [], 200 if order else 1000):
            yield from page

    def found(
        self, experiment_ids: list[str], wanted: str, view: str, order: list[str], size: int
    ) -> Iterator[list[Run]]:
        """The runs of some experiments that pass a filter, page by page.

        Args:
            experiment_ids: MLflow's ids of the experiments.
            wanted: a filter in MLflow's language; empty for all.
            view: `ACTIVE_ONLY`, `DELETED_ONLY` or `ALL`.
            order: in MLflow's language.
            size: the number of runs on a page.
        """
        content = {"experiment_ids": experiment_ids, "filter": wanted, "run_view_type": view, "max_results": size}
        content |= {"order_by": order} if order else {}
        return (page.runs for page in self._pages("runs/search", content))

    def experiments(self, view: str) -> list[tuple[str, str]]:
        """The ids and names of all experiments.

        Args:
            view: see `found`.
        """
        pages = self._pages("experiments/search", {"view_type": view, "max_results": 1000})
        return [(each.experiment_id, each.name) for page in pages for each in page.experiments]

    def _all_experiments(self) -> list[str]:
        return [experiment_id for experiment_id, _ in self.experiments("ALL")]

    def _pages(self, path: str, content: dict[str, Any], *, ask: bool = False) -> Iterator[Page]:
        while True:
            page = self._rest.get(Page, path, **content) if ask else self._rest.post(Page, path, content)
            yield page
            if not page.next_page_token:
                return
            if page.next_page_token == content.get("page_token"):
                raise self._requests.unlike_mlflow(ValueError("a page is followed by itself"))
            content = {**content, "page_token": page.next_page_token}
