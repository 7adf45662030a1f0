"""Data that a run uses → an MLflow dataset input, with a digest of the whole content."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from trackdsl._events import Input
from trackdsl._process import main_file
from trackdsl._record import append_tags, encode_safely
from trackdsl._secrets import mask_text
from trackdsl.handlers._registry import class_name, handler_for

if TYPE_CHECKING:
    from trackdsl._run import Run

#: MLflow's limits, see mlflow/store/tracking/dbmodels/models.py: beyond them it refuses the input.
_MAX_NAME = 500
_MAX_SCHEMA = 1_048_575
_MAX_PROFILE = 16_777_215


def record_input(run: Run, value: Any, name: str, context: str | None = None) -> None:
    """Record data as an input of a run.

    Args:
        run: whose input it is.
        value: arrays and frames, or an `mlflow.data.Dataset`.
        name: the dataset's name.
        context: what it is used for, such as `training`.
    """
    told = _told_by_mlflow(value)
    if told is None:
        found = handler_for(type(value)).dataset(value)
        if found is None:
            reason = f"{class_name(value)} is no data that trackdsl can read"
            append_tags(run, {f"trackdsl.omitted.{mask_text(name) or 'dataset'}": reason})
            return
        source = {"tags": {"mlflow.source.name": mask_text(main_file() or "<interactive>")}}
        told = {
            "digest": found.digest,
            "source_type": "code",
            "source": json.dumps(source),
            "schema": found.schema,
            "profile": found.profile,
        }
    name = mask_text(name or told.get("name") or "dataset")[:_MAX_NAME]
    schema = mask_text(told.get("schema") or "")
    event = Input(
        run._id,
        name,
        told["digest"],
        told.get("source_type") or "code",
        mask_text(told.get("source") or "{}"),
        schema if len(schema) <= _MAX_SCHEMA else "",
        mask_text(told.get("profile") or "")[:_MAX_PROFILE],
        None if context is None else mask_text(str(context)),
    )
    run._target.append(encode_safely(event), run)


def _told_by_mlflow(value: Any) -> dict[str, Any] | None:
    """What an `mlflow.data.Dataset` says of itself; None for anything else."""
    if any(base.__module__ == "mlflow.data.dataset" for base in type(value).__mro__):
        told: dict[str, Any] = value.to_dict()
        return told
    return None
