"""The decorators that each test tries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.transparency.decorators import DECORATORS, Decorator
from trackdsl import stage
from trackdsl.testing import capture_runs


@pytest.fixture(params=DECORATORS.values(), ids=DECORATORS)
def decorator(request: pytest.FixtureRequest) -> Iterator[Decorator]:
    """A decorator, or none; its runs are captured."""
    with capture_runs(), stage("around"):
        yield request.param
