"""What delivery asks of a store through MLflow's client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trackdsl._core.redaction import mask_text
from trackdsl._server.tracking_server import advice
from trackdsl.delivery.mlflow_client._connection import MlflowConnection
from trackdsl.delivery.mlflow_client._errors import is_final
from trackdsl.delivery.store import _tree_search
from trackdsl.delivery.store._errors import RunBlocked, Unavailable, deleted_experiment
from trackdsl.delivery.store._fallback_encoding import cased_name
from trackdsl.delivery.store._sink import EXPERIMENT_TAGS, GONE, StoredRun, Times, TreeRun
from trackdsl.delivery.store._tree_search import digests_by_name
from trackdsl.store_format.tags import ID_TAG, MISSING_PARENT_TAG


class MlflowReads(MlflowConnection):
    """Reads runs and experiments."""

    _folds: bool | None = None

    def experiment(self, name: str) -> str:
        """See `Sink`."""
        known = self._experiments.get(name)
        if known is None:
            with self._translated():
                known = self._experiments[name] = self._find_or_make(name)
        return known

    def find_run(self, id_: str, experiment_id: str | None) -> tuple[str, str] | None:
        """See `Sink`."""
        with self._translated():
            experiment_ids = [experiment_id] if experiment_id is not None else self._all_experiments()
            for start in range(0, len(experiment_ids), 100):
                runs = self._client.search_runs(
                    experiment_ids[start : start + 100], f"tags.`{ID_TAG}` = '{id_}'", run_view_type=3, max_results=1
                )
                if runs:
                    return runs[0].info.run_id, runs[0].info.experiment_id
        return None

    def find_runs(self, start: str, experiment_id: str | None) -> list[tuple[str, str, str]]:
        """See `Sink`."""
        runs = self._search(ID_TAG, start, experiment_id)
        return [(run.data.tags[ID_TAG], run.info.run_id, run.info.experiment_id) for run in runs]

    def tagged(self, tag: str, value: str, experiment_id: str) -> list[StoredRun]:
        """See `Sink`."""
        with self._translated():
            return [_found(run) for run in self._pages([experiment_id], f"tags.`{tag}` = '{value}'", run_view_type=1)]

    def newest(self, experiment_id: str, tag: str, value: str | None, began: Times, most: int) -> list[TreeRun]:
        """See `Sink`."""
        return _tree_search.newest(self._search_trees, experiment_id, tag, value, began, most)

    def tree(self, run_id: str, most: int) -> list[TreeRun]:
        """See `Sink`."""
        state = self.state(run_id)
        if state is None or state.deleted:
            return []
        with self._translated():
            root = _of_tree(self._client.get_run(run_id))
        return _tree_search.tree(self._search_trees, root, most)

    def _search_trees(self, experiment_id: str, wanted: str, order: str) -> Iterator[TreeRun]:
        with self._translated():
            yield from map(_of_tree, self._pages([experiment_id], wanted, run_view_type=1, order=order))

    def find_without_parent(self, prefix: str) -> list[tuple[str, str]]:
        """See `Sink`."""
        return [
            (run.info.run_id, run.data.tags[MISSING_PARENT_TAG])
            for run in self._search(MISSING_PARENT_TAG, prefix, None)
        ]

    def metric_history(self, run_id: str, key: str, step: int | None = None) -> list[tuple[int, float, int]]:
        """See `Sink`."""
        with self._translated():
            metrics = self._client.get_metric_history(run_id, key) if step is None else self._at_step(run_id, key, step)
            return [(p.step, p.value, p.timestamp) for p in metrics if step in (None, p.step)]

    def _at_step(self, run_id: str, key: str, step: int) -> list[Any]:
        """The points of a metric at one step, and others if the store cannot search for a step."""
        store: Any = getattr(getattr(self._client, "_tracking_client", None), "store", None)
        if hasattr(store, "engine") and hasattr(store, "get_metric_history_bulk_interval_from_steps"):
            return list(store.get_metric_history_bulk_interval_from_steps(run_id, key, [step], None))
        return list(self._client.get_metric_history(run_id, key))

    def points(self, run_id: str, key: str, most: int) -> list[tuple[int, float, int]]:
        """See `Sink`."""
        history = self.metric_history(run_id, key)
        return history[:: -(-len(history) // most) or 1]

    def experiment_name(self, experiment_id: str) -> str:
        """See `Sink`."""
        with self._translated():
            return str(self._client.get_experiment(experiment_id).name)

    def experiment_is_deleted(self, experiment_id: str) -> bool:
        """See `Sink`."""
        with self._translated():
            return bool(self._client.get_experiment(experiment_id).lifecycle_stage == "deleted")

    def status(self, run_id: str) -> str:
        """See `Sink`."""
        state = self.state(run_id)
        return GONE if state is None or state.deleted else state.status

    def state(self, run_id: str) -> StoredRun | None:
        """See `Sink`."""
        with self._translated():
            try:
                run = self._client.get_run(run_id)
            except Exception as error:
                if is_final(error, self._uri.startswith("http")):
                    return None
                raise
            return _found(run)

    def params(self, run_id: str) -> dict[str, str]:
        """See `Sink`."""
        with self._translated():
            return dict(self._client.get_run(run_id).data.params)

    def tags(self, run_id: str) -> dict[str, str]:
        """See `Sink`."""
        with self._translated():
            return dict(self._client.get_run(run_id).data.tags)

    def keys(self, run_id: str) -> dict[str, list[str]]:
        """See `Sink`."""
        with self._translated():
            data = self._client.get_run(run_id).data
            return {"params": list(data.params), "tags": list(data.tags), "metrics": list(data.metrics)}

    def folds_keys(self) -> bool:
        """See `Sink`. A server does not say what database it has, but it finds experiments the way it finds keys."""
        if self._folds is None:
            with self._translated():
                name = cased_name(self._experiments)
                experiment = self._client.get_experiment_by_name(name.swapcase())
                self._folds = experiment is not None and experiment.name != name.swapcase()
        return self._folds

    def _search(self, tag: str, start: str, experiment_id: str | None) -> list[Any]:
        """Runs with a tag that begins with `start`; MLflow cannot search for a list of values."""
        runs: list[Any] = []
        with self._translated():
            experiment_ids = [experiment_id] if experiment_id is not None else self._all_experiments()
            for first in range(0, len(experiment_ids), 100):
                runs += self._pages(
                    experiment_ids[first : first + 100], f"tags.`{tag}` LIKE '{start}%'", run_view_type=3
                )
        return runs

    def _pages(self, experiment_ids: list[str], wanted: str, *, run_view_type: int, order: str = "") -> Iterator[Any]:
        token = None
        options: dict[str, Any] = {"order_by": [order], "max_results": 200} if order else {}
        while True:
            page = self._client.search_runs(
                experiment_ids, wanted, run_view_type=run_view_type, page_token=token, **options
            )
            yield from page
            token = page.token
            if not token:
                return

    def _find_or_make(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self._client.create_experiment(name, tags=EXPERIMENT_TAGS))
            except Exception:
                # Another process may have created it in between; if not, the error is raised.
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if not experiment.experiment_id:
            # MLflow's client makes an experiment of any JSON object.
            raise Unavailable(f"{mask_text(self._uri)} does not answer as MLflow does: {advice(404, '')}")
        if experiment.lifecycle_stage == "deleted":
            raise RunBlocked(deleted_experiment(repr(name), experiment.experiment_id), experiment=True)
        return str(experiment.experiment_id)


def _found(run: Any) -> StoredRun:
    info, data = run.info, run.data
    return StoredRun(
        info.run_id,
        str(info.status),
        int(info.end_time or 0),
        dict(data.tags),
        dict(data.params),
        str(info.experiment_id),
        deleted=info.lifecycle_stage == "deleted",
    )


def _of_tree(run: Any) -> TreeRun:
    info, data = run.info, run.data
    used = getattr(getattr(run, "inputs", None), "dataset_inputs", ())
    return TreeRun(
        info.run_id,
        info.run_name or "",
        str(info.status),
        int(info.start_time or 0),
        int(info.end_time or 0),
        str(info.experiment_id),
        dict(data.tags),
        dict(data.params),
        dict(data.metrics),
        digests_by_name((each.dataset.name, each.dataset.digest) for each in used),
    )
