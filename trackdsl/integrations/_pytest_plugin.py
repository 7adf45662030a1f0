"""The pytest fixtures of trackdsl. Every test session loads this module, so it imports trackdsl inside the fixture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def trackdsl_runs() -> Iterator[Any]:
    """The runs that the test records, as a `trackdsl.testing.Captured`; nothing is delivered to MLflow."""
    from trackdsl.testing import capture_runs

    with capture_runs() as captured:
        yield captured
