"""Data that a run uses → a dataset input at MLflow, with a digest of the whole content."""

from __future__ import annotations

import json
import weakref
from dataclasses import dataclass, field
from typing import Any

import msgspec

from trackdsl._core import runtime
from trackdsl._core.events import Input
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import mask_name, mask_text
from trackdsl._core.runtime import Phase
from trackdsl._recording.emit import append_tags
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._types import class_name
from trackdsl.journal._origin import main_file
from trackdsl.markers import Dataset
from trackdsl.store_format.tags import SOURCE_NAME_TAG

#: MLflow refuses inputs beyond these limits, see mlflow/store/tracking/dbmodels/models.py.
_MAX_NAME = 500
_MAX_SCHEMA = 1_048_575
_MAX_PROFILE = 16_777_215


@dataclass(frozen=True)
class RecordedDataset:
    """Data that was recorded as an input of a run. You get one from `log_input`, for `log_metric(..., dataset=...)`.

    Attributes:
        name: the dataset's name.
        digest: the digest of its whole content.
    """

    name: str
    digest: str
    _event: Input = field(repr=False, compare=False)


#: The datasets of each run, by name. A `Dataset` marker refers to them.
_inputs: weakref.WeakKeyDictionary[RunHandle, dict[str, RecordedDataset]] = weakref.WeakKeyDictionary()
runtime.register("the datasets of runs", Phase.RUNS, reset=_inputs.clear)


def measured_on(run: RunHandle, dataset: Any) -> RecordedDataset | None:
    """The dataset that metrics were measured on, which becomes an input of the run.

    Args:
        run: the run of the metrics.
        dataset: the result of `log_input`, a `Dataset` marker that names a dataset of the run or of its parents, an
            `mlflow.data.Dataset`, or data.

    Returns:
        the dataset; None if `dataset` is none of these, which a tag of the run reports.
    """
    if isinstance(dataset, Dataset):
        around: RunHandle | None = run
        while around is not None:
            found = _inputs.get(around, {}).get(dataset.name)
            if found is not None:
                return _used_by(run, found)
            around = around.parent
        append_tags(run, {f"trackdsl.omitted.{mask_name(dataset.name)}": "no dataset of this name was recorded before"})
        return None
    if isinstance(dataset, RecordedDataset):
        return _used_by(run, dataset)
    return record_input(run, dataset, "")


def _used_by(run: RunHandle, dataset: RecordedDataset) -> RecordedDataset:
    if dataset._event.run != run.key:
        event = msgspec.structs.replace(dataset._event, run=run.key)
        run.emit(event)
    return dataset


def record_input(run: RunHandle, value: Any, name: str, context: str | None = None) -> RecordedDataset | None:
    """Record data as an input of a run.

    Args:
        run: whose input it is.
        value: arrays and frames, or an `mlflow.data.Dataset`.
        name: the dataset's name.
        context: what it is used for, such as `training`.

    Returns:
        the reference to it; None if it is not data.
    """
    if run.target.discards:
        return None
    described = _description_of_mlflow(value)
    if described is None:
        found = handler_for(type(value)).dataset(value)
        if found is None:
            reason = f"{class_name(value)} is not data that trackdsl can read"
            append_tags(run, {f"trackdsl.omitted.{mask_name(name) or 'dataset'}": reason})
            return None
        source = {"tags": {SOURCE_NAME_TAG: mask_name(main_file() or "<interactive>")}}
        described = {
            "digest": found.digest,
            "source_type": "code",
            "source": json.dumps(source),
            "schema": found.schema,
            "profile": found.profile,
        }
    name = mask_name(name or described.get("name") or "dataset")[:_MAX_NAME]
    schema = mask_text(described.get("schema") or "")
    event = Input(
        run.key,
        name,
        described["digest"],
        described.get("source_type") or "code",
        mask_text(described.get("source") or "{}"),
        schema if len(schema) <= _MAX_SCHEMA else "",
        mask_text(described.get("profile") or "")[:_MAX_PROFILE],
        None if context is None else mask_text(str(context)),
    )
    run.emit(event)
    recorded = RecordedDataset(event.name, event.digest, event)
    _inputs.setdefault(run, {})[name] = recorded
    return recorded


def _description_of_mlflow(value: Any) -> dict[str, Any] | None:
    """The description that an `mlflow.data.Dataset` gives of itself; None for another object."""
    if any(base.__module__ == "mlflow.data.dataset" for base in type(value).__mro__):
        described: dict[str, Any] = value.to_dict()
        return described
    return None
