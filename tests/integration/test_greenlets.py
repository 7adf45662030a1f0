"""Greenlets of gevent and eventlet: children of the run that started them."""

from __future__ import annotations

import importlib.util

import pytest

from tests.conftest import StartProgram

SESSIONS = """
    import sys
    from trackdsl import log_metric, stage, start_logging, stop_logging
    from trackdsl.testing import capture_runs

    if sys.argv[1] == "gevent":
        from gevent import joinall, sleep, spawn
    else:
        from eventlet import sleep, spawn
        joinall = lambda started: [each.wait() for each in started]

    def work(number):
        start_logging(f"session-{number}")
        sleep(0)
        with stage(f"stage-{number}"):
            sleep(0)
        log_metric("m", number)
        stop_logging(status="KILLED" if number else "FINISHED")

    with capture_runs() as captured:
        joinall([spawn(work, number) for number in range(3)])
    for run in sorted(captured.runs, key=lambda run: run.path):
        print(run.path, run.status, {name: found[0].value for name, found in run.metrics.items()})
"""


@pytest.mark.slow
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_sessions_of_greenlets(start: StartProgram, library: str) -> None:
    """Each greenlet has a session of its own: none ends that of another one, and each is found where it ends."""
    pytest.importorskip(library)
    code, out, err = start(SESSIONS, library).finish()
    assert code == 0, err
    assert "ends the run" not in err
    assert out.splitlines() == [
        line
        for number in range(3)
        for line in (
            f"session-{number} {'KILLED' if number else 'FINISHED'} {{'m': {number}.0}}",
            f"session-{number}/stage-{number} FINISHED {{}}",
        )
    ]


GEVENT = """
    import sys
    if "patched" in sys.argv:
        from gevent import monkey
        monkey.patch_all()
    import contextvars, threading
    from concurrent.futures import ThreadPoolExecutor
    import gevent, gevent.pool
    from trackdsl import log_metric, stage, track_returns
    from trackdsl.testing import capture_runs

    own = contextvars.ContextVar("own", default="nothing")

    def work(name):
        with stage(name):
            gevent.sleep(0.001)
            log_metric("m", 1)
        return own.get()

    def forever():
        with stage("forever"):
            gevent.sleep(1000)

    def late():
        with stage("late"):
            with gevent.Timeout(0.01):
                gevent.sleep(1000)

    class Own(gevent.Greenlet):
        def _run(self):
            return work("subclass")

    def inner():
        with stage("inner"):
            gevent.joinall([gevent.spawn(work, "deep1"), gevent.spawn(work, "deep2")])

    with capture_runs() as captured:
        own.set("something")
        with stage("outer"):
            with stage("other"):
                first = gevent.spawn(work, "in_other")  # Begins when the stage has ended.
            seen = [first, gevent.spawn(work, "spawn"), gevent.spawn_later(0, work, "later"), gevent.spawn(inner)]
            pool = gevent.pool.Pool(2)
            pool.map(work, ["map1", "map2", "map3"])
            list(pool.imap_unordered(work, ["imap1", "imap2"]))
            seen.append(pool.spawn(work, "pool"))
            done = gevent.event.Event()
            gevent.spawn_raw(lambda: (work("raw"), done.set()))
            greenlet = Own()
            greenlet.start()
            gevent.joinall([*seen, greenlet])
            done.wait()
            gevent.get_hub().threadpool.apply(log_metric, ("native", 1))
            killed, timed = gevent.spawn(forever), gevent.spawn(late)
            gevent.sleep(0.05)
            killed.kill()
            timed.join()
            with ThreadPoolExecutor(1) as executor:
                executor.submit(work, "executor").result()
                executor.submit(work, "executor2").result()
            thread = threading.Thread(target=work, args=("thread",))
            thread.start()
            thread.join()
            executor = ThreadPoolExecutor(1)
            executor.submit(work, "kept").result()
        executor.submit(work, "outside").result()
        gevent.spawn(work, "after").join()
    print({greenlet.value for greenlet in seen[:3]}, type(timed.exception).__name__)
    for run in captured.runs:
        print(run.path, run.status)
    print(sorted(captured.one("outer").metrics))
"""


@pytest.mark.parametrize("how", ["patched", pytest.param("as it is", marks=pytest.mark.slow)])
def test_gevent(start: StartProgram, how: str) -> None:
    """What greenlets of gevent record, started in any way, belongs to the run that started them; killed ones are."""
    pytest.importorskip("gevent")
    code, out, err = start(GEVENT, how).finish()
    assert code == 0, err
    first, *lines, last = out.splitlines()
    # Of the program's own context nothing travels that would not without us.
    assert first == "{'nothing'} Timeout"
    runs = dict(line.rsplit(" ", 1) for line in lines)
    assert len(runs) == len(lines)
    in_outer = [
        "spawn", "later", "map1", "map2", "map3", "imap1", "imap2", "pool", "raw", "subclass", "executor", "executor2",
        "thread", "kept", "inner", "inner/deep1", "inner/deep2", "other", "other/in_other",
    ]  # fmt: skip
    assert runs == {
        "outer": "FINISHED",
        **{f"outer/{name}": "FINISHED" for name in in_outer},
        "outer/forever": "KILLED",
        "outer/late": "KILLED",
        "outside": "FINISHED",
        "after": "FINISHED",
    }
    assert last == "['native']"


EVENTLET = """
    import sys, warnings
    warnings.simplefilter("ignore")
    import eventlet
    if "patched" in sys.argv:
        eventlet.monkey_patch()
    import threading
    from eventlet import tpool
    from trackdsl import log_metric, stage
    from trackdsl.testing import capture_runs

    def work(name):
        with stage(name):
            eventlet.sleep(0.001)
            log_metric("m", 1)

    def forever():
        with stage("forever"):
            eventlet.sleep(1000)

    with capture_runs() as captured:
        with stage("outer"):
            waited = [eventlet.spawn(work, "spawn"), eventlet.spawn_after(0, work, "after")]
            done = eventlet.event.Event()
            eventlet.spawn_n(lambda: (work("raw"), done.send()))
            pool = eventlet.GreenPool(2)
            list(pool.imap(work, ["imap1", "imap2", "imap3"]))
            pool.spawn_n(work, "pool_n")
            pool.spawn(work, "pool")
            pool.waitall()
            for greenlet in waited:
                greenlet.wait()
            done.wait()
            tpool.execute(log_metric, "native", 1)
            killed = eventlet.spawn(forever)
            eventlet.sleep(0.02)
            killed.kill()
            thread = threading.Thread(target=work, args=("thread",))
            thread.start()
            thread.join()
        eventlet.spawn(work, "outside").wait()
    for run in captured.runs:
        print(run.path, run.status)
    print(sorted(captured.one("outer").metrics))
"""


@pytest.mark.parametrize("how", ["patched", pytest.param("as it is", marks=pytest.mark.slow)])
def test_eventlet(start: StartProgram, how: str) -> None:
    """What greenlets of eventlet record, started in any way, belongs to the run that started them; killed ones are."""
    if importlib.util.find_spec("eventlet") is None:
        pytest.skip("needs eventlet")
    code, out, err = start(EVENTLET, how).finish()
    assert code == 0, err
    *lines, last = out.splitlines()
    names = ["spawn", "after", "raw", "imap1", "imap2", "imap3", "pool_n", "pool", "thread"]
    assert sorted(lines) == sorted(
        ["outer FINISHED", "outside FINISHED", "outer/forever KILLED", *(f"outer/{name} FINISHED" for name in names)]
    )
    assert last == "['native']"


LANES = """
    from gevent import monkey
    monkey.patch_all()
    import threading
    import gevent
    from trackdsl._core.current_lane import lane_here

    found = [lane_here()]
    started = [gevent.spawn(lambda: found.append(lane_here())) for _ in range(2)]
    gevent.joinall(started)
    thread = threading.Thread(target=lambda: found.append(lane_here()), name="as a thread")
    thread.start()
    thread.join()
    print(found[0], len(set(found)), [lane[2][:9] for lane in found[1:3]], found[3][0])
"""


def test_greenlets_are_tasks(start: StartProgram) -> None:
    """Where gevent replaces threads, each greenlet has a lane with its name, and so has what is started as a thread."""
    pytest.importorskip("gevent")
    code, out, err = start(LANES).finish()
    assert code == 0, err
    assert out.split("\n")[0] == "None 4 ['Greenlet-', 'Greenlet-'] as a thread"
