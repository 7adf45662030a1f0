"""The pytest fixtures of trackdsl. Loaded into every test session, so it imports what it needs late."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def trackdsl_runs() -> Iterator[Any]:
    """What the test records with trackdsl, as a `trackdsl.testing.Captured`; nothing reaches MLflow."""
    from trackdsl.testing import capture_runs

    with capture_runs() as captured:
        yield captured
