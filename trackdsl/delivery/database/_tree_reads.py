"""Reads trees of runs from MLflow's tables, many runs at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import Any

from trackdsl.delivery.database._connection import Connection, Row, chunks, marks
from trackdsl.delivery.store._sink import Times, TreeRun
from trackdsl.delivery.store._tree_search import below, digests_by_name, while_open
from trackdsl.store_format.tags import PARENT_TAG

#: Runs that are read for one tree: other programs may have recorded at the same time.
_MOST_SEEN = 20_000
_COLUMNS = "r.run_uuid, r.name, r.status, r.start_time, r.end_time, r.experiment_id"
_PRIMES = (2, 3, 5, 7, 13, 29, 61, 127, 251, 509, 1021, 2039, 4093, 8191, 16381, 32749)
#: CROSS JOIN makes SQLite join in this order: it looks up the tags of the runs of a time, instead of scanning all tags.
#: MLflow has an index neither on times nor on values of tags.
_TAGGED = (
    "FROM runs r CROSS JOIN tags t WHERE t.run_uuid = r.run_uuid AND r.lifecycle_stage = 'active' AND t.\"key\" = ? "
    "AND r.start_time >= ? AND r.start_time <= ?"
)


class TreeReads:
    """See the methods of `Sink`.

    Args:
        connection: to the database.
    """

    def __init__(self, connection: Connection) -> None:
        self._rows = connection.rows
        # `%` has a meaning of its own for the drivers of servers, and SQLite may lack `MOD`.
        self._divides = "step % ? = 0" if connection.dialect == "sqlite" else "MOD(step, ?) = 0"

    def newest(self, experiment_id: int, tag: str, value: str | None, began: Times, most: int) -> list[TreeRun]:
        """See `Sink`."""
        equal, values = ("", ()) if value is None else (" AND t.value = ?", (value,))
        rows = self._rows(
            f"SELECT {_COLUMNS} {_TAGGED}{equal} AND r.experiment_id = ? "
            f"ORDER BY r.start_time DESC, r.run_uuid DESC LIMIT {int(most)}",
            (tag, *began, *values, experiment_id),
        )
        return self._filled(rows)

    def tree(self, run_id: str, most: int) -> list[TreeRun]:
        """See `Sink`."""
        top = self._rows(
            f"SELECT {_COLUMNS} FROM runs r WHERE r.run_uuid = ? AND r.lifecycle_stage = 'active'",  # noqa: S608
            (run_id,),
        )
        if not top:
            return []
        children: dict[str, list[Row]] = {}
        for *row, parent in self._rows(
            f"SELECT {_COLUMNS}, t.value {_TAGGED} ORDER BY r.start_time, r.run_uuid LIMIT {_MOST_SEEN}",
            (PARENT_TAG, *while_open(int(top[0][3] or 0), int(top[0][4] or 0))),
        ):
            children.setdefault(parent, []).append(tuple(row))
        rows = below(top[0], children, lambda row: str(row[0]))
        return self._filled(list(islice(rows, most)))

    def points(self, run_id: str, key: str, most: int) -> list[tuple[int, float, int]]:
        """See `Sink`."""
        of_metric = 'FROM metrics WHERE run_uuid = ? AND "key" = ?'
        count = int(self._rows(f"SELECT COUNT(*) {of_metric}", (run_id, key))[0][0])
        chosen, values = "", list[int]()
        if count > most:
            # A prime number, which the distance of steps is hardly a multiple of.
            apart = next((prime for prime in _PRIMES if count <= prime * most), _PRIMES[-1])
            chosen, values = f" AND {self._divides}", [apart]
        rows = self._rows(
            f"SELECT step, value, timestamp, is_nan {of_metric}{chosen} LIMIT {int(2 * most)}", (run_id, key, *values)
        )
        return [(step, math.nan if is_nan else value, time) for step, value, time, is_nan in rows]

    def _filled(self, rows: list[Row]) -> list[TreeRun]:
        ids = [row[0] for row in rows]
        tags, params = self._texts("tags", ids), self._texts("params", ids)
        metrics, datasets = self._metrics(ids), self._datasets(ids)
        return [
            TreeRun(
                id_,
                name or tags.get(id_, {}).get("mlflow.runName") or "",
                status,
                int(start or 0),
                int(end or 0),
                str(experiment),
                tags.get(id_, {}),
                params.get(id_, {}),
                metrics.get(id_, {}),
                datasets.get(id_, {}),
            )
            for id_, name, status, start, end, experiment in rows
        ]

    def _texts(self, table: str, ids: list[str]) -> dict[str, dict[str, str]]:
        texts: dict[str, dict[str, str]] = {}
        for run_id, key, value in self._of_runs(f'SELECT run_uuid, "key", value FROM {table} WHERE run_uuid', ids):  # noqa: S608
            texts.setdefault(run_id, {})[key] = value
        return texts

    def _metrics(self, ids: list[str]) -> dict[str, dict[str, float]]:
        metrics: dict[str, dict[str, float]] = {}
        wanted = 'SELECT run_uuid, "key", value, is_nan FROM latest_metrics WHERE run_uuid'
        for run_id, key, value, is_nan in self._of_runs(wanted, ids):
            metrics.setdefault(run_id, {})[key] = math.nan if is_nan else value
        return metrics

    def _datasets(self, ids: list[str]) -> dict[str, dict[str, str]]:
        pairs: dict[str, list[tuple[str, str]]] = {}
        wanted = (
            "SELECT i.destination_id, d.name, d.digest FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id "
            "WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN' AND i.destination_id"
        )
        for run_id, name, digest in self._of_runs(wanted, ids):
            pairs.setdefault(run_id, []).append((name, digest))
        return {run_id: digests_by_name(of_run) for run_id, of_run in pairs.items()}

    def _of_runs(self, wanted: str, ids: list[str]) -> Iterable[Any]:
        for part in chunks(ids):
            yield from self._rows(f"{wanted} IN ({marks(part)})", part)
