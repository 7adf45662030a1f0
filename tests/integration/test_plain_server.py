"""Delivery to a server without our plugin: three requests for a run, concurrently, as fast as the server bears it."""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Server, all_runs, deliver
from tests.delivery_settings import ChangeTiming
from tests.gateways import Gateway
from trackdsl import experiment, stage

CREATE, BATCH, END = "runs/create", "runs/log-batch", "runs/update"


pytestmark = pytest.mark.usefixtures("no_retries")


def record(name: str, uri: str, children: int) -> None:
    """Record a run with children, which have parameters and metrics, and a grandchild each."""
    with experiment("plain-server", run_name=name, tracking_uri=uri):
        for number in range(children):
            with stage(f"{name}-child", number=number) as child:
                child.log_metrics({"a": 1.0, "b": float(number)})
                with stage(f"{name}-grandchild", number=number) as grandchild:
                    grandchild.log_metric("c", 0.5)


def check(name: str, uri: str, children: int) -> None:
    """Check that all of it is there once, under the right parents."""
    runs = [run for run in all_runs(uri) if run.info.run_name.startswith(name)]
    ids = {run.info.run_id: run for run in runs}
    by_name = collections.Counter(run.info.run_name for run in runs)
    assert by_name == {name: 1, f"{name}-child": children, f"{name}-grandchild": children}
    for run in runs:
        assert run.info.status == "FINISHED"
        if run.info.run_name == name:
            continue
        parent = ids[run.data.tags["mlflow.parentRunId"]]
        if run.info.run_name.endswith("grandchild"):
            assert parent.data.params["number"] == run.data.params["number"]
            assert run.data.metrics == {"c": 0.5}
        else:
            assert parent.info.run_name == name
            assert run.data.metrics == {"a": 1.0, "b": float(run.data.params["number"])}


def test_a_run_costs_three_requests(gateway: Callable[..., Gateway], shared_server: Server) -> None:
    """For each run that has ended there are three requests, and a handful for the whole program."""
    counting = gateway()
    record("three-requests", counting.uri, 20)
    deliver()

    check("three-requests", shared_server.uri, 20)
    calls = collections.Counter(call.rpartition("mlflow/")[2].partition("?")[0] for call in counting.requests)
    assert calls.pop(CREATE) == 41
    assert calls.pop(BATCH) == 40  # The root has nothing to write.
    assert calls.pop(END) == 41
    assert calls.total() < 10, calls


def test_siblings_are_created_at_the_same_time(gateway: Callable[..., Gateway], shared_server: Server) -> None:
    """Four creations are under way at once, as soon as the parent exists."""
    barrier, created = threading.Barrier(4), list[str]()

    def meet(_: str, path: str, __: Any) -> None:
        if path.endswith(CREATE):
            created.append(path)
            if 1 < len(created) <= 5:
                barrier.wait(60)

    meeting = gateway(answer=meet)
    with experiment("plain-server", run_name="siblings", tracking_uri=meeting.uri):
        for number in range(8):
            with stage("siblings-child", number=number):
                pass
    deliver()

    assert not barrier.broken
    assert len(created) == 9
    assert [run.info.status for run in all_runs(shared_server.uri) if run.info.run_name == "siblings"] == ["FINISHED"]


@pytest.mark.parametrize(
    ("status", "content"),
    [(429, b"slow down"), (429, b'{"error_code": "REQUEST_LIMIT_EXCEEDED"}'), (503, b"<html>busy</html>")],
)
def test_a_server_that_is_too_busy_gets_the_same_requests_again(
    gateway: Callable[..., Gateway],
    shared_server: Server,
    change_timing: ChangeTiming,
    caplog: pytest.LogCaptureFixture,
    status: int,
    content: bytes,
) -> None:
    """If a server answers 429 now and then, only these requests are sent again, and delivery continues."""
    change_timing(first_retry=0.01, longest_retry=0.1)
    numbers, lock = iter(range(1, 10_000)), threading.Lock()

    def limit(_: str, path: str, __: Any) -> tuple[int, bytes, dict[str, str]] | None:
        with lock:
            return (status, content, {}) if path.endswith((CREATE, BATCH, END)) and next(numbers) % 6 == 0 else None

    limited = gateway(answer=limit)
    name = f"limited-{status}-{len(content)}"
    with caplog.at_level(logging.WARNING, "trackdsl"):
        record(name, limited.uri, 15)
        deliver()

    check(name, shared_server.uri, 15)
    assert "delivery waits" not in caplog.text
    calls = [call for call in limited.requests if not call.startswith("GET")]
    assert len(calls) < 2 * 3 * 31, "what was answered is not sent again"


class _LosesAnswers(Gateway):
    """Answers 503 to every second creation, though it was carried out."""

    created = 0

    def _pass_on(self, request: Any, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        answer = super()._pass_on(request, body)
        if request.path.endswith(CREATE):
            self.created += 1
            if self.created % 2:
                return 503, b"gone", {}
        return answer


def test_a_creation_whose_answer_is_lost_is_not_repeated(
    gateway: Callable[..., Gateway], shared_server: Server, change_timing: ChangeTiming
) -> None:
    """If the server creates a run and answers 503, the run is looked up, and is there once."""
    change_timing(first_retry=0.01, longest_retry=0.1)
    losing = gateway(_LosesAnswers)
    record("lost-answers", losing.uri, 10)
    deliver()

    check("lost-answers", shared_server.uri, 10)
