"""Checks of datasets, as MLflow makes them."""

from __future__ import annotations

from trackdsl._core.events import Input
from trackdsl.delivery.store._errors import Refused

#: See mlflow/utils/validation.py.
_LIMITS = {"name": 500, "digest": 36, "source": 65535, "schema": 1_048_575, "profile": 16_777_215, "context": 500}


def check_input(event: Input) -> None:
    """Check that MLflow accepts a dataset.

    Raises:
        Refused: it does not.
    """
    for name in ("name", "digest", "source_type", "source"):
        if not getattr(event, name):
            raise Refused(f"the {name} of a dataset must not be empty")
    for name, limit in _LIMITS.items():
        text = getattr(event, name) or ""
        if len(text) > limit:
            raise Refused(f"the {name} of a dataset has {len(text)} characters; MLflow allows {limit}")
