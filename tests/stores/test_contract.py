"""Every store holds the same of the same program."""

from __future__ import annotations

import pytest

from tests.conftest import deliver
from tests.stores import contract
from tests.stores.conftest import PLACES, Place


@pytest.mark.parametrize("place", list(PLACES), indirect=True)
def test_a_store_holds_exactly_what_was_recorded(place: Place) -> None:
    """Statuses, texts, numbers, points, files and models are there as they were recorded, and once."""
    name = contract.fresh_name("contract")
    place.make_experiment(name)
    contract.use(place.uri)
    contract.record(name)
    deliver()
    contract.check(place.uri, name)
