"""Worker processes of joblib, scikit-learn, PyTorch and AnyIO: what they record is below the stage that uses them."""

from __future__ import annotations

import pytest

from tests.conftest import StartProgram, all_runs, points
from tests.integration.test_child_processes import Family, ended, family, stored_runs


@pytest.mark.slow
def test_joblib(start: StartProgram, sqlite_store: str) -> None:
    """Tasks of `Parallel` belong to the scope that called it, with every backend, lazily, nested, and by a generator.

    So do those that are submitted to loky's own executor, which is reused and resized.
    """
    pytest.importorskip("joblib")
    program = start("""
        import contextlib, os, tempfile
        from joblib import Memory, Parallel, delayed, parallel_config
        from joblib.externals.loky import get_reusable_executor
        from trackdsl import stage

        @stage("{kind} {how}-{x}")
        def task(kind, how, x):
            return x

        @stage("{kind} outer-{x}")
        def outer(kind, x):
            return Parallel(n_jobs=2)(delayed(task)(kind, f"nested-{x}", y) for y in range(2))

        taken = []

        def lazily(kind):
            for x in range(6):
                taken.append(x)
                with stage(f"{kind} item-{x}"):
                    yield delayed(task)(kind, "lazy", x)

        def drive(kind):
            with stage(kind + " one"):
                made = lazily(kind)
                results = Parallel(pre_dispatch=2, batch_size=1, return_as="list")(made)
                assert results == list(range(6)) and len(taken) == 6
                taken.clear()
                tasks = [delayed(task)(kind, "list", x) for x in range(2)]
                assert Parallel()(tasks) == [0, 1]
                Parallel()(delayed(outer)(kind, x) for x in range(2))
            with stage(kind + " two"), contextlib.suppress(ValueError):  # Not every backend has it.
                made = Parallel(return_as="generator")(delayed(task)(kind, "later", x) for x in range(2))
                assert next(made) == 0
            assert kind == "multiprocessing" or list(made) == [1]
            Parallel()([delayed(task)(kind, "root", 0), delayed(len)("abc")])

        def meet(pipe, side):
            open(pipe, "rw"[side]).close()
            return task("executor", "root", side)

        def remembered(x):
            return x + 1

        if __name__ == "__main__":
            for kind in ("loky", "threading", "multiprocessing"):
                with parallel_config(backend=kind, n_jobs=2):
                    drive(kind)
            with parallel_config(n_jobs=1):
                drive("sequential")
            with stage("reusable"):
                pool = get_reusable_executor(max_workers=1)
                pool.submit(task, "executor", "submit", 0).result()
                assert list(pool.map(abs, [-1, 2])) == [1, 2]
                pool = get_reusable_executor(max_workers=2)
            with stage("later"):
                pool.submit(task, "executor", "submit", 1).result()
            with tempfile.TemporaryDirectory() as folder:
                pipe = os.path.join(folder, "pipe")
                os.mkfifo(pipe)
                # One on each worker, also the one that joined the pool in the scope.
                met = [pool.submit(meet, pipe, side) for side in range(2)]
                assert [future.result() for future in met] == [0, 1]
                pool.shutdown()
                with stage("memory"):
                    memory = Memory(folder, verbose=0)
                    assert memory.cache(remembered)(1) == 2
                    with stage("again"):
                        assert memory.cache(remembered).check_call_in_cache(1)
    """)
    ended(program)
    runs = family(stored_runs())
    for kind in ("loky", "threading", "multiprocessing", "sequential"):
        assert {run: count for run, count in runs.items() if run[0].startswith(kind)} == tasks_of_joblib(kind)
    assert {run: count for run, count in runs.items() if run[0].startswith("executor")} == {
        ("executor submit-0", "reusable"): 1,
        ("executor submit-1", "later"): 1,
        ("executor root-0", None): 1,
        ("executor root-1", None): 1,
    }


def tasks_of_joblib(kind: str) -> Family:
    """What the tasks of a backend of joblib record."""
    one = f"{kind} one"
    expected: Family = {(f"{kind} {name}", None): 1 for name in ("one", "two", "root-0")}
    expected |= {(f"{kind} item-{x}", one): 1 for x in range(6)}
    # The task is handed out inside the block of the generator: its scope is the one that is current there.
    expected |= {(f"{kind} lazy-{x}", f"{kind} item-{x}"): 1 for x in range(6)}
    expected |= {(f"{kind} list-{x}", one): 1 for x in range(2)}
    expected |= {(f"{kind} outer-{x}", one): 1 for x in range(2)}
    expected |= {(f"{kind} nested-{x}-{y}", f"{kind} outer-{x}"): 1 for x in range(2) for y in range(2)}
    if kind != "multiprocessing":
        expected |= {(f"{kind} later-{x}", f"{kind} two"): 1 for x in range(2)}
    return expected


@pytest.mark.slow
def test_grid_search(start: StartProgram, sqlite_store: str) -> None:
    """What the program's own estimator records in a parallel search of scikit-learn is below the search."""
    pytest.importorskip("sklearn")
    program = start("""
        import numpy
        from sklearn.base import BaseEstimator, ClassifierMixin
        from sklearn.model_selection import GridSearchCV
        from trackdsl import stage

        class Threshold(ClassifierMixin, BaseEstimator):
            def __init__(self, depth=1):
                self.depth = depth

            def fit(self, X, y):
                self.classes_ = numpy.unique(y)
                self.learn(self.depth)
                return self

            @stage("learn-{depth}")
            def learn(self, depth):
                pass

            def predict(self, X):
                return numpy.zeros(len(X))

        if __name__ == "__main__":
            X, y = numpy.zeros((8, 2)), numpy.array([0, 1] * 4)
            with stage("search"):
                GridSearchCV(Threshold(), {"depth": [1, 2]}, cv=2, n_jobs=2, refit=False).fit(X, y)
            with stage("refit"):
                GridSearchCV(Threshold(), {"depth": [3]}, cv=2, n_jobs=2).fit(X, y)
    """)
    ended(program)
    runs = stored_runs()
    assert family(runs) == {
        ("search", None): 1,
        ("learn-1", "search"): 2,
        ("learn-2", "search"): 2,
        ("refit", None): 1,
        ("learn-3", "refit"): 3,
    }
    assert all(run.params == {"depth": run.name[-1]} for run in runs if run.name.startswith("learn"))


@pytest.mark.slow
def test_data_loaders(start: StartProgram, sqlite_store: str) -> None:
    """What the workers of a `DataLoader` record is on the run that iterates over it, also with persistent workers."""
    pytest.importorskip("torch")
    program = start("""
        from torch.utils.data import DataLoader, Dataset
        from trackdsl import current_run, log_metric, stage

        class Squares(Dataset):
            def __init__(self, name):
                self.name = name

            def __len__(self):
                return 4

            def __getitem__(self, i):
                with stage(f"{self.name} item-{i}"):
                    pass
                if current_run() is not None:
                    log_metric("item", i, step=i)
                return i

        def begin(number):
            with stage("begin"):
                pass

        if __name__ == "__main__":
            for method in ("fork", "spawn"):
                with stage(method):
                    loader = DataLoader(Squares(method), num_workers=1, worker_init_fn=begin,
                                        multiprocessing_context=method)
                    assert sum(batch.item() for batch in loader) == 6
            loader = DataLoader(Squares("kept"), num_workers=1, persistent_workers=True, multiprocessing_context="fork")
            for epoch in range(3):
                with stage(f"epoch-{epoch}"):
                    assert sum(batch.item() for batch in loader) == 6
                assert sum(batch.item() for batch in loader) == 6
    """)
    ended(program)
    found = family(stored_runs())
    expected: dict[tuple[str, str | None], int] = {(f"epoch-{epoch}", None): 1 for epoch in range(3)}
    expected |= {(f"kept item-{i}", f"epoch-{epoch}"): 1 for i in range(4) for epoch in range(3)}
    expected |= {(f"kept item-{i}", None): 3 for i in range(4)}
    for method in ("fork", "spawn"):
        expected |= {(method, None): 1, ("begin", method): 1}
        expected |= {(f"{method} item-{i}", method): 1 for i in range(4)}
    assert found == expected
    for run in all_runs():
        if run.info.run_name in ("fork", "spawn", "epoch-0", "epoch-1", "epoch-2"):
            assert points(run, "item") == [(i, float(i)) for i in range(4)]


@pytest.mark.slow
def test_worker_processes_of_anyio(start: StartProgram, sqlite_store: str) -> None:
    """What `anyio.to_process` runs belongs to the scope that called it; its kept workers belong to none."""
    program = start("""
        import anyio, anyio.to_process
        from trackdsl import current_run, stage

        @stage
        def leaf(n):
            return n

        async def ask(n):
            assert await anyio.to_process.run_sync(leaf, n) == n

        async def main():
            for n in range(2):
                with stage(f"scope-{n}") as run:
                    await ask(n)
                    assert current_run() is run
            await ask(2)

        if __name__ == "__main__":
            anyio.run(main)
    """)
    code, _, err = program.finish()
    # asyncio says so where its own check of a worker comes before its watcher's.
    lines = [line for line in err.splitlines() if not line.startswith("Unknown child process pid")]
    assert (code, lines) == (0, [])
    expected = {("leaf", f"scope-{n}"): 1 for n in range(2)} | {(f"scope-{n}", None): 1 for n in range(2)}
    assert family(stored_runs()) == {**expected, ("leaf", None): 1}
