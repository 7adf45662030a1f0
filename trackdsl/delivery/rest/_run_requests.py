"""The requests of a run to a tracking server, as MLflow's client sends them.

That client makes several objects of each value, and checks what the server checks again: it needs more time for a
request than the server saves by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from trackdsl._core.events import Input
from trackdsl.delivery.rest._answers import Info, Page, RunAnswer, UpdateAnswer
from trackdsl.delivery.rest._requests import Rest
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.delivery.store._sink import Batch
from trackdsl.store_format.tags import ID_TAG

#: How protobuf writes what JSON does not have.
_UNUSUAL = {math.inf: "Infinity", -math.inf: "-Infinity"}


def create_run(rest: Rest, experiment_id: str, name: str, start: int, tags: dict[str, str]) -> Info:
    """Create a run.

    Raises:
        Refused, Unavailable: see `check` in `_requests.py`; also if the answer is about another run.
    """
    content = {
        "experiment_id": experiment_id,
        "user_id": tags.get("mlflow.user", "unknown"),
        "run_name": name,
        "start_time": start,
        "tags": _listed(tags),
    }
    run = rest.post(RunAnswer, "runs/create", _encoded(content)).run
    if run.stored().tags.get(ID_TAG, tags.get(ID_TAG)) != tags.get(ID_TAG):
        raise Unavailable(f"the server answers the creation of a run with another one, {run.info.run_id}")
    return run.info


def write(rest: Rest, run_id: str, batch: Batch) -> None:
    """Write a batch that fits into one request.

    Raises:
        Refused, Unavailable: see `check` in `_requests.py`.
    """
    metrics = [
        {
            "key": key,
            "value": value if math.isfinite(value) else _UNUSUAL.get(value, "NaN"),
            "timestamp": at,
            "step": step,
        }
        for key, value, at, step in batch.metrics
    ]
    content = {"run_id": run_id, "metrics": metrics, "params": _listed(batch.params), "tags": _listed(batch.tags)}
    rest.post(Page, "runs/log-batch", _encoded(content))


def end_run(rest: Rest, run_id: str, status: str, end: int) -> None:
    """Send the request that ends a run.

    Raises:
        Refused, Unavailable: see `check` in `_requests.py`; also if the answer does not confirm the change.
    """
    content = {"run_id": run_id, "status": status, "end_time": end}
    changed = rest.post(UpdateAnswer, "runs/update", _encoded(content)).run_info.run_id
    if changed != run_id:
        raise Unavailable(f"the server answers that it has changed the run {changed} instead of {run_id}")


def set_tag(rest: Rest, run_id: str, name: str, value: str) -> None:
    """Set a tag of a run.

    Raises:
        Refused, Unavailable: see `check` in `_requests.py`.
    """
    rest.post(Page, "runs/set-tag", _encoded({"run_id": run_id, "key": name, "value": value}))


def write_input(rest: Rest, run_id: str, event: Input) -> None:
    """Record a dataset as an input of a run.

    Raises:
        Refused, Unavailable: see `check` in `_requests.py`.
    """
    dataset = {
        "name": event.name,
        "digest": event.digest,
        "source_type": event.source_type,
        "source": event.source,
        "schema": event.schema or None,
        "profile": event.profile or None,
    }
    tags = {} if event.context is None else {"mlflow.data.context": event.context}
    content = {
        "run_id": run_id,
        "datasets": [{"tags": _listed(tags), "dataset": {key: value for key, value in dataset.items() if value}}],
    }
    rest.post(Page, "runs/log-inputs", _encoded(content))


def _listed(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _encoded(content: Mapping[str, object]) -> bytes:
    try:
        return msgspec.json.encode(content)
    except (UnicodeEncodeError, OverflowError) as error:
        raise Refused(str(error)) from None
