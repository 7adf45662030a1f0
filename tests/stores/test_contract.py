"""Every store holds the same of the same program."""

from __future__ import annotations

import pytest

from tests.conftest import deliver
from tests.stores import contract
from tests.stores.conftest import TRACKING_STORES, TrackingStore


@pytest.mark.parametrize("tracking_store", list(TRACKING_STORES), indirect=True)
def test_a_store_holds_exactly_what_was_recorded(tracking_store: TrackingStore) -> None:
    """Statuses, texts, numbers, points, files and models are there as they were recorded, and once."""
    name = contract.fresh_name("contract")
    tracking_store.make_experiment(name)
    contract.use(tracking_store.uri)
    contract.record(name)
    deliver()
    contract.check(tracking_store.uri, name)


@pytest.mark.parametrize("tracking_store", list(TRACKING_STORES), indirect=True)
def test_a_store_knows_what_changed_since_the_run_before(
    tracking_store: TrackingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run before is found by a name with quotation marks; parameters and datasets are compared."""
    monkeypatch.setenv("TRACKDSL_CHANGES", "1")
    name = contract.fresh_name("changes")
    tracking_store.make_experiment(name)
    contract.use(tracking_store.uri)
    contract.record_changes(name, 0.1)
    contract.record_changes(name, 0.2)
    deliver()
    contract.check_changes(tracking_store.uri, name)


@pytest.mark.parametrize("tracking_store", list(TRACKING_STORES), indirect=True)
def test_a_store_gets_reports(tracking_store: TrackingStore) -> None:
    """A report is made of what the store has: a long curve in part, a table, an experiment; made twice, it is one."""
    name = contract.fresh_name("reports")
    tracking_store.make_experiment(name)
    contract.use(tracking_store.uri)
    contract.record_report(name)
    deliver()
    contract.check_report(tracking_store.uri, name)


@pytest.mark.parametrize("tracking_store", list(TRACKING_STORES), indirect=True)
def test_a_store_gets_traces(tracking_store: TrackingStore) -> None:
    """A tree is a trace with the texts and numbers of its runs; made twice, it is one."""
    name = contract.fresh_name("traces")
    tracking_store.make_experiment(name)
    contract.use(tracking_store.uri)
    contract.record_trace(name)
    deliver()
    contract.check_trace(tracking_store.uri, name)
