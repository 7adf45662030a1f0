"""Models → a folder of files that MLflow can load, written without MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trackdsl import _artifacts
from trackdsl._run import Run
from trackdsl.handlers._registry import handler_of


def record_model(
    run: Run,
    model: Any,
    name: str,
    *,
    registered_model_name: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    step: int = 0,
    signature: Any = None,
    input_example: Any = None,
    pip_requirements: Sequence[str] | None = None,
) -> None:
    """Record a model."""
    _artifacts.keep_object(run, f"{name}/{name}{handler_of(model).suffix}", model)
