"""Processes, pools, executors and other programs: runs are children of the scope that started them."""

from __future__ import annotations

import contextlib
import inspect
import json
import multiprocessing.pool
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from tests.conftest import StartProgram, all_runs, deliver, wait_until
from trackdsl import stage
from trackdsl._core import patching
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.service import open_sink
from trackdsl.journal._origin import run_detached
from trackdsl.journal._spool import journals


class StoredRun(NamedTuple):
    """What MLflow says of a run."""

    name: str
    parent: str | None
    status: str
    params: dict[str, str]


def stored_runs() -> list[StoredRun]:
    """Deliver what was recorded, and ask MLflow for all of it."""
    deliver()
    runs = {run.info.run_id: run for run in all_runs()}
    return [
        StoredRun(
            run.info.run_name,
            runs[parent].info.run_name if (parent := run.data.tags.get("mlflow.parentRunId")) else None,
            run.info.status,
            run.data.params,
        )
        for run in runs.values()
    ]


#: How often there is a run of a name whose parent has another name.
Family = dict[tuple[str, str | None], int]


def family(runs: list[StoredRun]) -> Counter[tuple[str, str | None]]:
    """How often each run has which parent, once all of them have ended well."""
    assert {run.status for run in runs} == {"FINISHED"}
    return Counter((run.name, run.parent) for run in runs)


def ended(program: Any) -> str:
    """The output of a program that has ended well."""
    code, out, err = program.finish()
    assert (code, err) == (0, "")
    return str(out)


@pytest.mark.slow
def test_processes_by_every_start_method(start: StartProgram, sqlite_store: str) -> None:
    """A process is a child of the scope that started it, by every start method; its object is unchanged afterwards."""
    program = start("""
        import multiprocessing, trackdsl
        from trackdsl import stage
        from trackdsl.journal import _delivery_hooks

        @stage("work-{name}")
        def work(name, n=1):
            with stage("inner-" + name):
                pass
            # A process that joins it does not wait for its delivery; a program of its own does.
            assert _delivery_hooks.waits_at_exit() == name.startswith("root-")

        class OfFork(multiprocessing.get_context("fork").Process):
            def run(self):
                work("own-fork")
        class OfSpawn(multiprocessing.get_context("spawn").Process):
            def run(self):
                work("own-spawn")
        class OfServer(multiprocessing.get_context("forkserver").Process):
            def run(self):
                work("own-forkserver")

        def started(process):
            before = set(vars(process)), repr(process), process.name
            process.start()
            assert set(vars(process)) == before[0] - {"_target", "_args", "_kwargs"} | {"_sentinel"}
            assert process.name == before[2] and repr(process).startswith(before[1].split(" parent")[0])
            return process

        if __name__ == "__main__":
            for method, kind in (("fork", OfFork), ("spawn", OfSpawn), ("forkserver", OfServer)):
                context = multiprocessing.get_context(method)
                # The forkserver is started in here, and belongs to nobody.
                with stage(method):
                    first = started(context.Process(target=work, args=(method,), kwargs={"n": 3}, name="mine"))
                    own = started(kind())
                    inside = context.Process(target=work, args=("assigned-" + method,))
                    inside.run = inside.run
                    assert started(inside).run.__self__ is inside
                with stage("later-" + method):
                    later = started(context.Process(target=work, args=("again-" + method,)))
                alone = started(context.Process(target=work, args=("root-" + method,)))
                for process in (first, own, inside, later, alone):
                    process.join()
                    assert process.exitcode == 0
    """)
    ended(program)
    runs = stored_runs()
    expected = [processes_of(method) for method in ("fork", "spawn", "forkserver")]
    assert family(runs) == {run: count for each in expected for run, count in each.items()}
    params = {run.name: run.params for run in runs}
    for method in ("fork", "spawn", "forkserver"):
        assert params[f"work-{method}"] == {"name": method, "n": "3"}
        assert params[f"work-own-{method}"] == {"name": f"own-{method}", "n": "1"}


def processes_of(method: str) -> Family:
    """What the processes of a start method record."""
    expected: Family = {(method, None): 1, (f"later-{method}", None): 1, (f"work-root-{method}", None): 1}
    expected |= {(f"work-{method}", method): 1, (f"work-own-{method}", method): 1}
    expected |= {(f"work-assigned-{method}", method): 1, (f"work-again-{method}", f"later-{method}"): 1}
    for name in (method, f"own-{method}", f"assigned-{method}", f"again-{method}", f"root-{method}"):
        expected[f"inner-{name}", f"work-{name}"] = 1
    return expected


@pytest.mark.slow
def test_tasks_of_pools(start: StartProgram, sqlite_store: str) -> None:
    """Tasks belong to the scope that submitted them, initializers to the one that made the pool, refilled workers too.

    What a lazy iterable does is done in the scope that handed it over, long after that has ended.
    """
    program = start("""
        import multiprocessing, multiprocessing.pool, threading
        from trackdsl import stage

        @stage("{kind} {how}-{x}")
        def task(kind, how, x):
            return x

        def plain(pair):
            return task(*pair)

        @stage("init {kind}")
        def begin(kind, _):
            pass

        def lazily(kind, how):
            with stage(f"{kind} items {how}"):
                yield (kind, how, 0)
                with stage(f"{kind} second {how}"):
                    pass
                yield (kind, how, 1)

        def drive(pool, kind):
            def pairs(how):
                return [(kind, how, x) for x in range(2)]
            with stage(kind + " one"):
                assert pool.apply(task, (kind, "apply", 0)) == 0
                assert pool.apply_async(func=task, args=(kind, "apply_async", 0)).get() == 0
                assert pool.map(plain, pairs("map"), 1) == pool.map_async(plain, pairs("map_async")).get() == [0, 1]
            with stage(kind + " two"):
                assert pool.starmap(task, pairs("starmap")) == [0, 1]
                assert pool.starmap_async(task, pairs("starmap_async")).get() == [0, 1]
                lazy = pool.imap(plain, lazily(kind, "imap"))
                chunked = pool.imap(plain, pairs("chunked"), chunksize=2)
                unordered = pool.imap_unordered(plain, iterable=lazily(kind, "unordered"))
            assert list(lazy) == list(chunked) == sorted(unordered) == [0, 1]
            assert pool.apply(task, (kind, "root", 0)) == 0

        if __name__ == "__main__":
            for kind in ("fork", "spawn"):
                with stage(kind + " maker"):
                    pool = multiprocessing.get_context(kind).Pool(2, begin, (kind, None), maxtasksperchild=4)
                drive(pool, kind)
                pool.close()
                pool.join()
            with stage("threads maker"):
                pool = multiprocessing.pool.ThreadPool(2, initializer=begin, initargs=("threads", threading.Lock()))
            drive(pool, "threads")
            pool.close()
            pool.join()
    """)
    ended(program)
    runs = family(stored_runs())
    for kind in ("fork", "spawn", "threads"):
        begun = runs.pop((f"init {kind}", f"{kind} maker"))
        assert begun == 2 if kind == "threads" else begun > 2
        assert {run: count for run, count in runs.items() if run[0].startswith(kind)} == tasks_of_pool(kind)


def tasks_of_pool(kind: str) -> Family:
    """What the tasks of a kind of pool record, without its initializers."""
    expected: Family = {(f"{kind} {name}", None): 1 for name in ("maker", "one", "two", "root-0")}
    expected |= {(f"{kind} {how}-0", f"{kind} one"): 1 for how in ("apply", "apply_async", "map", "map_async")}
    expected |= {(f"{kind} {how}-1", f"{kind} one"): 1 for how in ("map", "map_async")}
    for x in range(2):
        expected |= {(f"{kind} {how}-{x}", f"{kind} two"): 1 for how in ("starmap", "starmap_async", "chunked")}
        # A pool takes the function with the whole iterable.
        expected |= {(f"{kind} {how}-{x}", f"{kind} two"): 1 for how in ("imap", "unordered")}
    for how in ("imap", "unordered"):
        expected[f"{kind} items {how}", f"{kind} two"] = 1
        expected[f"{kind} second {how}", f"{kind} items {how}"] = 1
    return expected


@pytest.mark.slow
def test_tasks_of_executors(start: StartProgram, sqlite_store: str) -> None:
    """Tasks of `ProcessPoolExecutor` belong to their scope, by every start method; a killed worker breaks the pool.

    Its run is KILLED, and the program continues.
    """
    program = start("""
        import asyncio, multiprocessing, os, signal
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
        from concurrent.futures.process import BrokenProcessPool
        from trackdsl import stage

        @stage("{kind} {how}-{x}")
        def task(kind, how, x):
            return x

        @stage("init {kind}")
        def begin(kind):
            pass

        @stage("{kind} dies", params=False)
        def die(kind):
            with stage(f"{kind} dies inside"):
                os.kill(os.getpid(), signal.SIGKILL)

        async def on_a_loop(pool, kind):
            with stage(kind + " loop"):
                return await asyncio.get_running_loop().run_in_executor(pool, task, kind, "loop", 0)

        if __name__ == "__main__":
            for kind in ("fork", "spawn", "forkserver"):
                with stage(kind + " maker"):
                    context = multiprocessing.get_context(kind)
                    pool = ProcessPoolExecutor(1, context, initializer=begin, initargs=(kind,))
                with stage(kind + " one"):
                    assert pool.submit(task, kind, "submit", x=0).result() == 0
                    assert list(pool.map(task, [kind] * 2, ["map"] * 2, range(2))) == [0, 1]
                with stage(kind + " two"):
                    chunks = pool.map(task, [kind] * 4, ["chunks"] * 4, range(4), chunksize=2)
                assert list(chunks) == [0, 1, 2, 3]
                assert asyncio.run(on_a_loop(pool, kind)) == 0
                pool.submit(task, kind, "root", 0).result()
                with stage(kind + " three"):
                    for _ in range(2):
                        try:
                            pool.submit(die, kind).result()
                        except BrokenProcessPool as error:
                            print(error)
                    with stage(kind + " continues"):
                        pass
                pool.shutdown()
            with stage("threads maker"):
                pool = ThreadPoolExecutor(1, "name", begin, ("threads",))
            with stage("threads one"):
                pool.submit(task, "threads", "submit", 0).result()
            pool.shutdown()
    """)
    said = ended(program).splitlines()
    assert said == 3 * [
        "A process in the process pool was terminated abruptly while the future was running or pending.",
        "A child process terminated abruptly, the process pool is not usable anymore",
    ]
    runs = stored_runs()
    dead = [run for run in runs if run.status != "FINISHED"]
    kinds = ("fork", "spawn", "forkserver")
    assert {(run.name, run.parent, run.status) for run in dead} == {
        died
        for kind in kinds
        for died in (
            (f"{kind} dies", f"{kind} three", "KILLED"),
            (f"{kind} dies inside", f"{kind} dies", "KILLED"),
        )
    }
    survivors = family([run for run in runs if run not in dead])
    for kind in kinds:
        of_kind = {run: count for run, count in survivors.items() if kind in (run[0].split()[0], run[0][5:])}
        assert of_kind == tasks_of_executor(kind)
    assert {run for run in survivors if "threads" in run[0]} == {
        ("threads maker", None),
        ("init threads", "threads maker"),
        ("threads one", None),
        ("threads submit-0", "threads one"),
    }


def tasks_of_executor(kind: str) -> Family:
    """What the tasks of an executor record that end well, and its initializer."""
    expected: Family = {(f"{kind} {name}", None): 1 for name in ("maker", "one", "two", "three", "loop", "root-0")}
    expected |= {(f"init {kind}", f"{kind} maker"): 1, (f"{kind} submit-0", f"{kind} one"): 1}
    expected |= {(f"{kind} map-{x}", f"{kind} one"): 1 for x in range(2)}
    expected |= {(f"{kind} chunks-{x}", f"{kind} two"): 1 for x in range(4)}
    expected |= {(f"{kind} loop-0", f"{kind} loop"): 1, (f"{kind} continues", f"{kind} three"): 1}
    return expected


PROGRAM = """
    import os, subprocess, sys, trackdsl
    from trackdsl import stage

    @stage("child-{name}")
    def child(name, *more):
        if more:
            subprocess.run([sys.executable, __file__, *more], check=True, env=dict(os.environb))

    child(*sys.argv[1:])
    trackdsl.log_metric("of-" + sys.argv[1], 1)
"""


@pytest.mark.slow
def test_other_programs(start: StartProgram, sqlite_store: str, tmp_path: Path) -> None:
    """A program that is started inside a run is below that run, however it is started.

    The environment that the starting program gives or has is not changed, and what it chose itself stands.
    """
    (tmp_path / "child.py").write_text(textwrap.dedent(PROGRAM))
    program = start(
        """
        import asyncio, os, subprocess, sys
        from trackdsl import capture, stage

        command = [sys.executable, sys.argv[1]]
        text, binary = {**os.environ, "OTHER": "1"}, {**os.environb, b"OTHER": b"1"}
        before = [dict(os.environ), dict(text), dict(binary)]

        async def on_a_loop():
            with stage("loop"):
                process = await asyncio.create_subprocess_exec(*command, "exec")
                await process.wait()
                process = await asyncio.create_subprocess_shell(" ".join([*command, "coshell"]))
                await process.wait()

        with stage("plain") as run:
            subprocess.run([*command, "plain", "grandchild", "great-grandchild"], check=True)
            chosen = {**os.environ, "TRACKDSL_CONTEXT": capture().to_text()}
            with stage("inside"):
                subprocess.run(" ".join([*command, "shell"]), shell=True, check=True)
                subprocess.run([*command, "chosen"], check=True, env=chosen)
        with stage("given"):
            subprocess.check_call([*command, "text"], env=text)
            subprocess.Popen([*command, "binary"], env=binary).wait()
            subprocess.Popen([*command, "positional"], -1, None, None, None, None, None, True, False, None, text).wait()
        asyncio.run(on_a_loop())
        subprocess.run([*command, "root"], check=True, stderr=subprocess.DEVNULL)
        assert before == [dict(os.environ), text, binary]
        """,
        str(tmp_path / "child.py"),
    )
    ended(program)
    runs = stored_runs()
    assert family(runs) == Counter(
        [
            *((name, None) for name in ("plain", "given", "loop", "child-root")),
            *(("inside", "plain"), ("child-plain", "plain"), ("child-chosen", "plain"), ("child-shell", "inside")),
            *(("child-grandchild", "child-plain"), ("child-great-grandchild", "child-grandchild")),
            *((f"child-{name}", "given") for name in ("text", "binary", "positional")),
            *((f"child-{name}", "loop") for name in ("exec", "coshell")),
        ]
    )
    # What a program records outside of its own runs is on the one that started it.
    metrics = {run.info.run_name: set(run.data.metrics) for run in all_runs()}
    assert metrics["child-plain"] == {"of-grandchild"}
    assert metrics["plain"] == {"of-plain", "of-chosen"}
    assert metrics["child-root"] == set()


@pytest.mark.slow
def test_a_parent_that_is_killed(start: StartProgram, sqlite_store: str, tmp_path: Path) -> None:
    """Children of a program that is killed continue, end truthfully, and are children of its KILLED run.

    So also where that has long been delivered, and its journal is gone.
    """
    for name in ("fork", "spawn", "dies"):
        os.mkfifo(tmp_path / name)
    program = start(
        """
        import multiprocessing, os, sys
        from trackdsl import log_metric, stage

        def work(path):
            with stage("of " + os.path.basename(path)):
                open(path).read()
                log_metric("end", 1)
                with stage("in " + os.path.basename(path)):
                    pass

        if __name__ == "__main__":
            with stage("parent"):
                for method, name in (("fork", "fork"), ("spawn", "spawn"), ("fork", "dies")):
                    context = multiprocessing.get_context(method)
                    process = context.Process(target=work, args=(os.path.join(sys.argv[1], name),))
                    process.start()
                    print(process.pid)
                sys.stdin.readline()
        """,
        str(tmp_path),
    )
    pids = [int(program.say()) for _ in range(3)]
    pipes = [waited_for(tmp_path / name) for name in ("fork", "spawn", "dies")]
    of_parent = next(journals(tmp_path / "spool"))
    program.process.send_signal(signal.SIGKILL)
    program.process.wait()
    worker = Worker(tmp_path / "spool", open_sink)
    wait_until(lambda: not (worker.round() or of_parent.exists()), "the delivery of the parent's journal")
    worker.close()
    assert {run.info.status for run in all_runs() if run.info.run_name == "parent"} == {"KILLED"}
    os.kill(pids[2], signal.SIGKILL)
    for pipe in pipes:
        os.close(pipe)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the children to end")
    assert sorted((run.name, run.parent, run.status) for run in stored_runs()) == [
        ("in fork", "of fork", "FINISHED"),
        ("in spawn", "of spawn", "FINISHED"),
        ("of dies", "parent", "KILLED"),
        ("of fork", "parent", "FINISHED"),
        ("of spawn", "parent", "FINISHED"),
        ("parent", None, "KILLED"),
    ]
    assert {run.info.run_name for run in all_runs() if run.data.metrics} == {"of fork", "of spawn"}


def waited_for(pipe: Path) -> int:
    """A FIFO, opened for writing as soon as somebody reads it."""

    def opened() -> int | None:
        with contextlib.suppress(OSError):
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        return None

    return int(wait_until(opened, f"a reader of {pipe.name}"))


@pytest.mark.slow
def test_errors_are_those_of_undecorated_code(start: StartProgram) -> None:
    """Errors are the same inside a scope and outside, with at most two more frames; nothing is left behind."""
    program = start("""
        import asyncio, json, multiprocessing, re, subprocess, sys, traceback
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing.pool import ThreadPool
        from joblib import Parallel, delayed
        from trackdsl import stage

        spawn, fork = multiprocessing.get_context("spawn"), multiprocessing.get_context("fork")
        SHARED = {}

        def fails(x=0):
            raise ValueError(f"no {x}")

        def broken(n):
            yield delayed(abs)(1)
            raise KeyError(n)

        def start_twice():
            process = fork.Process(target=abs, args=(1,))
            process.start()
            process.join()
            process.start()

        def unpicklable(process):
            try:
                process.start()
            finally:
                assert "run" not in vars(process) and process._target is not None

        def closed():
            pool = ThreadPool(1)
            pool.close()
            pool.apply_async(abs, (1,))

        def shut():
            pool = ProcessPoolExecutor(1)
            pool.shutdown()
            pool.submit(abs, 1)

        ACTIONS = {
            "submit nothing": lambda: SHARED["executor"].submit(),
            "submit no function": lambda: SHARED["executor"].submit(3).result(),
            "submit a lambda": lambda: SHARED["executor"].submit(lambda: 1).result(),
            "submit wrong arguments": lambda: SHARED["executor"].submit(fails, 1, 2).result(),
            "a task that fails": lambda: SHARED["executor"].submit(fails).result(),
            "a chunk that fails": lambda: list(SHARED["executor"].map(fails, range(4), chunksize=2)),
            "shut": shut,
            "no initializer": lambda: ProcessPoolExecutor(1, initializer=3),
            "no number": lambda: ProcessPoolExecutor(0),
            "apply nothing": lambda: SHARED["pool"].apply_async(),
            "apply a lambda": lambda: SHARED["pool"].apply(lambda: 1),
            "map a lambda": lambda: SHARED["pool"].map(lambda x: 1, [1]),
            "map nothing": lambda: SHARED["pool"].map(abs),
            "map over no iterable": lambda: SHARED["pool"].map(abs, 3),
            "map a function that fails": lambda: SHARED["pool"].map(fails, [1]),
            "imap over no iterable": lambda: list(SHARED["pool"].imap(abs, 3)),
            "imap by no chunks": lambda: SHARED["pool"].imap(abs, [1], chunksize=0),
            "imap a function that fails": lambda: list(SHARED["pool"].imap_unordered(fails, [1])),
            "imap over what fails": lambda: list(SHARED["pool"].imap(abs, (1 // x for x in (0,)))),
            "no initializer of a pool": lambda: ThreadPool(1, 3),
            "closed": closed,
            "a process twice": start_twice,
            "a process of a lambda": lambda: unpicklable(spawn.Process(target=lambda: 1)),
            "no program": lambda: subprocess.run(["/nowhere/at-all"]),
            "no command": lambda: subprocess.Popen(),
            "no environment": lambda: subprocess.Popen(["true"], env=3),
            "an environment of numbers": lambda: subprocess.Popen(["true"], env={1: 2}),
            "an impossible name": lambda: subprocess.Popen(["true"], env={"a=b": "c"}),
            "a program that fails": lambda: subprocess.run(["false"], check=True),
            "Parallel over no iterable": lambda: Parallel(n_jobs=2, backend="threading")(3),
            "Parallel over no tasks": lambda: Parallel(n_jobs=2, backend="threading")([3]),
            "Parallel without anything": lambda: Parallel(n_jobs=2, backend="threading")(),
            "Parallel over what fails": lambda: Parallel(n_jobs=2, backend="threading")(broken(1)),
            "Parallel of what fails": lambda: Parallel(n_jobs=2)([delayed(fails)(1)]),
            "Parallel of a lambda that fails": lambda: Parallel(n_jobs=2)([delayed(lambda: 1 // 0)()]),
        }

        def outcome(action):
            try:
                action()
            except Exception as error:
                cause = error.__cause__
                return {
                    "error": re.sub("0x[0-9a-f]+", "0x", f"{type(error).__module__}.{type(error).__name__}: {error}"),
                    "cause": type(cause).__name__,
                    "frames": len(traceback.extract_tb(error.__traceback__)),
                    "frames there": str(cause).count("  File ") if cause is not None else 0,
                }

        if __name__ == "__main__":
            SHARED.update(executor=ProcessPoolExecutor(1, fork), pool=fork.Pool(1))
            for name, action in ACTIONS.items():
                without = outcome(action)
                with stage("s"):
                    within = outcome(action)
                print(json.dumps([name, without, within]))
            SHARED["executor"].shutdown()
            SHARED["pool"].terminate()
    """)
    said = [json.loads(line) for line in ended(program).splitlines()]
    assert len(said) == 35
    for name, without, within in said:
        assert without is not None, name
        for frames in ("frames", "frames there"):
            assert 0 <= within.pop(frames) - without.pop(frames) <= 2, (name, frames)
        assert within == without, name


def test_everything_is_undone() -> None:
    """After the last scope has ended, all patched functions are the originals, also while pools made in it are open.

    Inside it looks the same: names, signatures, documentation.
    """
    for module in ("concurrent.futures.process", "multiprocessing.pool", "multiprocessing.queues", "joblib.parallel"):
        pytest.importorskip(module)
    with stage("first"):
        patched = [(patch.module, patch.name) for patch in patching._patches if patch.module in sys.modules]
    before = [current_value(*each) for each in patched]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with contextlib.ExitStack() as stack:
        with stage("outer"):
            inside = [current_value(*each) for each in patched]
            with stage("inner"):
                assert [current_value(*each) for each in patched] == inside
            for ours, original in zip(inside, before, strict=True):
                if original is not None:
                    assert ours is not original
                    assert inspect.signature(ours) == inspect.signature(original)
                    assert (ours.__name__, ours.__doc__) == (original.__name__, original.__doc__)
            stack.enter_context(multiprocessing.pool.ThreadPool(1)).apply(abs, (1,))
            assert stack.enter_context(ProcessPoolExecutor(1, context)).submit(abs, -1).result() == 1
            queue.put(1)
            assert queue.get() == 1
        assert all(
            after is original for after, original in zip([current_value(*p) for p in patched], before, strict=True)
        )
    assert {"BaseProcess.start", "Pool.imap", "Popen.__init__", "Parallel.__call__"} <= {name for _, name in patched}


def test_helpers_are_no_part_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What trackdsl starts for itself gets no context, neither that of the current run nor an inherited one."""
    for inherited in ("", "text"):
        output = tmp_path / f"environment{inherited}"
        monkeypatch.setenv("TRACKDSL_CONTEXT", inherited)
        monkeypatch.setenv("OTHER", "1")
        with stage("s"):
            run_detached(["/bin/sh", "-c", 'env > "$0.part"; mv "$0.part" "$0"', str(output)])
            shown = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
        assert "TRACKDSL_CONTEXT={" in shown
        assert "MLFLOW_RUN_ID" not in shown
        wait_until(output.exists, "the helper")
        assert "TRACKDSL_CONTEXT" not in output.read_text()
        assert "OTHER=1" in output.read_text()
        assert os.environ["TRACKDSL_CONTEXT"] == inherited


def test_beside_the_wrappers_of_others(start: StartProgram) -> None:
    """Wrappers that others made with wrapt, such as OpenTelemetry's, are called, and stay after our patches."""
    program = start("""
        import subprocess, threading, trackdsl, wrapt
        from concurrent.futures import ThreadPoolExecutor

        seen = []

        def note(wrapped, instance, args, kwargs):
            seen.append(type(instance).__name__)
            return wrapped(*args, **kwargs)

        def work():
            seen.clear()
            subprocess.run(["true"], check=True)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(abs, 1).result()
            print(*seen)

        wrapt.wrap_function_wrapper(subprocess, "Popen.__init__", note)
        theirs = vars(subprocess.Popen)["__init__"]
        work()
        with trackdsl.stage("one"):
            work()
            wrapt.wrap_function_wrapper(threading, "Thread.start", note)
            also_theirs = vars(threading.Thread)["start"]
            work()
        assert vars(subprocess.Popen)["__init__"] is theirs and vars(threading.Thread)["start"] is also_theirs
        with trackdsl.stage("two"):
            work()
    """)
    assert ended(program).splitlines() == ["Popen", "Popen", "Popen Thread", "Popen Thread"]


def current_value(module: str, name: str) -> Any:
    """What is now under the name that a patch replaces; None where this version has no such name."""
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
