"""Requests for different runs are concurrent, and those for one run in their order."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackdsl.delivery.rest._concurrent_requests import ConcurrentRequests
from trackdsl.delivery.store._errors import Refused, RefusedTogether, Unavailable


@given(st.lists(st.integers(0, 5), max_size=60))
def test_requests_of_a_run_keep_their_order(runs: list[int]) -> None:
    """All requests are sent, those for one run in order and never two at once."""
    requests, sent, busy = ConcurrentRequests(), dict[str, list[int]](), set[str]()

    def send(run: str, number: int) -> None:
        assert run not in busy
        busy.add(run)
        sent.setdefault(run, []).append(number)
        busy.remove(run)

    for number, run in enumerate(runs):
        requests.send(str(run), lambda run=str(run), number=number: send(run, number))  # type: ignore[misc]
    requests.finish()
    requests.close()

    assert sent == {str(run): [at for at, each in enumerate(runs) if each == run] for run in runs}


def test_different_runs_do_not_wait_for_each_other() -> None:
    """Four requests for four runs are under way at the same time."""
    requests, barrier = ConcurrentRequests(), threading.Barrier(4)

    def meet() -> None:
        barrier.wait(60)

    for run in "abcd":
        requests.send(run, meet)
    requests.finish()
    requests.close()


@pytest.mark.parametrize(("error", "raised"), [(Refused("no"), RefusedTogether), (Unavailable("away"), Unavailable)])
def test_an_error_stops_the_rest(error: Exception, raised: type[Exception]) -> None:
    """After an error, the waiting requests are not sent; `finish` raises it once, and later requests are sent again."""
    requests, sent = ConcurrentRequests(), list[str]()

    def fail() -> None:
        raise error

    with pytest.raises(raised):  # `send` raises it too, if the request has failed by then.
        requests.send("a", fail)
        requests.send("a", lambda: sent.append("after"))
        requests.finish()
    requests.send("a", lambda: sent.append("again"))
    requests.finish()
    requests.close()

    assert sent == ["again"]


def most_at_once(requests: ConcurrentRequests, expected: int, answers: int = 12) -> int:
    """The largest number of requests under way; the first ones wait until the expected number has come."""
    most, now, lock, barrier = 0, 0, threading.Lock(), threading.Barrier(expected)

    def count() -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
            meets = answers_left[0] > 0
            answers_left[0] -= 1
        if meets:
            barrier.wait(60)
        with lock:
            now -= 1

    answers_left = [expected]
    for run in range(answers):
        requests.send(str(run), count)
    requests.finish()
    return most


def test_a_server_that_fails_gets_fewer_requests_at_once(change_timing: Callable[..., None]) -> None:
    """After a server did not answer, two runs are sent at once instead of four; after answers, more again."""
    change_timing(first_retry=0.01)
    requests = ConcurrentRequests()

    def fail() -> None:
        raise Unavailable("timed out", late=True)

    requests.send("a", fail)
    with pytest.raises(Unavailable):
        requests.finish()

    assert requests._concurrency.limit == 2
    assert most_at_once(requests, 2) == 2
    most_at_once(requests, 2, 20)
    assert most_at_once(requests, 3) == 3
    most_at_once(requests, 3, 20)
    assert most_at_once(requests, 4) == 4
    requests.close()


def test_what_a_server_was_too_busy_for_is_sent_again(change_timing: Callable[..., None]) -> None:
    """A request that is answered by 429 is sent again, in its order, and only it; then fewer go at once."""
    change_timing(first_retry=0.01)
    requests, sent, refusals = ConcurrentRequests(), list[str](), [Unavailable("429", busy=True)] * 3

    def busy_at_first() -> None:
        if refusals:
            raise refusals.pop()
        sent.append("first")

    requests.send("a", busy_at_first)
    requests.send("a", lambda: sent.append("second"))
    requests.finish()

    assert sent == ["first", "second"]
    assert not refusals
    assert most_at_once(requests, 1) == 1
    requests.close()


def test_a_server_that_stays_busy_is_given_up(change_timing: Callable[..., None]) -> None:
    """If a server answers 429 to each attempt, the error is raised after a few."""
    change_timing(first_retry=0.001)
    requests, tries = ConcurrentRequests(), list[int]()

    def busy() -> None:
        tries.append(1)
        raise Unavailable("429", busy=True)

    requests.send("a", busy)
    with pytest.raises(Unavailable):
        requests.finish()
    requests.close()

    assert 2 < len(tries) < 20
