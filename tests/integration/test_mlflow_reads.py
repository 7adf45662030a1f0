"""Plain MLflow reads what the program has recorded: reads wait for delivery, within bounds."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import StartProgram, all_runs, delivery_pids, end_delivery, wait_until
from tests.delivery_settings import ChangeTiming
from trackdsl import experiment, log_metric
from trackdsl.delivery import flush
from trackdsl.delivery.program import _reads
from trackdsl.errors import TrackingFault
from trackdsl.journal import _spool, _spool_choice
from trackdsl.journal._lock import FileLock

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def held(change_timing: ChangeTiming) -> Iterator[FileLock]:
    """A store without delivery, because the test holds the delivery lock; reads time out soon."""
    change_timing(read=0.1)
    lock = FileLock(_spool_choice.find() / _spool.LOCK)
    assert lock.acquire()
    yield lock
    lock.release()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """How each wait of a read has ended: whether all was there."""
    found: list[bool] = []

    class Wait(_reads.Wait):
        def until_done(self, *args: Any, **kwargs: Any) -> bool:
            found.append(super().until_done(*args, **kwargs))
            return found[-1]

    monkeypatch.setattr(_reads, "Wait", Wait)
    return found


def record(name: str = "x") -> trackdsl.Run:
    with experiment(name, tags={"of": name}) as run:
        log_metric("m", 1, step=1)
        log_metric("m", 2, step=2)
        run.log_dict({"a": 1}, "folder/file.json")
        run.log_table({"a": [1]}, "table.json")
    return run


def only(found: Any) -> Any:
    (one,) = found
    return one


def experiment_of(name: str = "x") -> str:
    return str(mlflow.get_experiment_by_name(name).experiment_id)


READS: dict[str, Callable[[trackdsl.Run], bool]] = {
    "mlflow.get_experiment_by_name": lambda _: mlflow.get_experiment_by_name("x") is not None,
    "mlflow.search_experiments": lambda _: "x" in [each.name for each in mlflow.search_experiments()],
    "mlflow.search_runs": lambda _: mlflow.search_runs(experiment_names=["x"])["metrics.m"].tolist() == [2],
    "client.get_experiment_by_name": lambda _: mlflow.MlflowClient().get_experiment_by_name("x") is not None,
    "client.search_experiments": lambda _: len(mlflow.MlflowClient().search_experiments()) == 2,
    "mlflow.artifacts.load_dict": lambda run: (
        mlflow.artifacts.load_dict(f"runs:/{all_runs()[0].info.run_id}/folder/file.json") == {"a": 1}
        and run is not None
    ),
}


@pytest.mark.parametrize("read", READS)
def test_a_read_right_after_a_scope(here: str, read: str) -> None:
    """Plain MLflow finds what a scope has recorded as soon as the scope is closed, by every function."""
    assert READS[read](record())


def test_every_read_of_a_run(here: str, waits: list[bool]) -> None:
    """Reads of a run, by functions, the client, threads and URIs, find what was recorded right before them."""
    client = mlflow.MlflowClient()
    with experiment("x") as run:
        id_ = run.run_id
        reads: list[Callable[[int], Any]] = [
            lambda n: mlflow.get_run(id_).data.metrics[f"m{n}"],
            lambda n: client.get_run(id_).data.metrics[f"m{n}"],
            lambda n: only(client.get_metric_history(id_, f"m{n}")).value,
            lambda n: only(client.search_runs([experiment_of()])).data.metrics[f"m{n}"],
            lambda n: only(mlflow.search_runs(output_format="list")).data.metrics[f"m{n}"],
            lambda n: only(client.list_artifacts(id_, f"d{n}")).path and n,
            lambda n: Path(client.download_artifacts(id_, f"d{n}/a.txt")).read_text() and n,
            lambda n: mlflow.artifacts.load_text(f"runs:/{id_}/d{n}/a.txt") and n,
            lambda n: only(mlflow.artifacts.list_artifacts(run_id=id_, artifact_path=f"d{n}")).path and n,
            lambda n: Path(mlflow.artifacts.download_artifacts(f"runs:/{id_}/d{n}")).is_dir() and n,
            lambda n: mlflow.load_table(f"t{n}.json", [id_])["a"].tolist() == [n] and n,
            lambda n: client.load_table(experiment_of(), f"t{n}.json", [id_])["a"].tolist() == [n] and n,
            lambda n: mlflow.last_active_run().data.metrics[f"m{n}"],
            lambda n: ThreadPoolExecutor(1).submit(client.get_run, id_).result().data.metrics[f"m{n}"],
        ]
        mlflow.set_tag("used", "yes")
        for number, read in enumerate(reads, 1):
            log_metric(f"m{number}", number)
            run.log_text("text", f"d{number}/a.txt")
            run.log_table({"a": [number]}, f"t{number}.json")
            assert read(number) == number, number
    assert waits  # Not one for each read: sometimes delivery is faster than the program.
    assert all(waits)


@pytest.mark.slow
def test_models(here: str) -> None:
    """A model that was recorded is there for `load_model`, its versions and aliases for the client."""
    linear = pytest.importorskip("sklearn.linear_model")
    model = linear.LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    for number, load in enumerate((mlflow.sklearn.load_model, mlflow.pyfunc.load_model)):
        with experiment("models") as run:
            id_ = run.run_id
            run.log_model(model, "line", pip_requirements=["scikit-learn"])
        assert load(f"runs:/{id_}/line").predict([[2.0]]) == pytest.approx([4.0]), number
    with experiment("models") as run:
        run.log_model(model, "line", pip_requirements=["scikit-learn"], registered_model_name="lines")
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("lines", "best", "1")
    assert client.get_model_version_by_alias("lines", "best").version in (1, "1")
    with experiment("models") as run:
        id_ = run.run_id
        run.log_model(model, "other", pip_requirements=["scikit-learn"])
    assert only(mlflow.search_logged_models(filter_string="name = 'other'", output_format="list",
                                            experiment_ids=[experiment_of("models")])).source_run_id == id_  # fmt: skip
    with experiment("models") as run:
        id_ = run.run_id
        run.log_model(model, "third", pip_requirements=["scikit-learn"])
    assert mlflow.register_model(f"runs:/{id_}/third", "lines").version in (2, "2")


def test_writes_after_ours(here: str) -> None:
    """The later one of two values counts, ours or plain MLflow's; so does the later end of a run."""
    client = mlflow.MlflowClient()

    def record() -> str:
        with pytest.raises(ValueError, match="bad"), experiment("x") as run:
            id_ = run.run_id
            run.set_tag("t", "ours")
            run.log_param("p", "ours")
            run.log_text("ours", "a.txt")
            raise ValueError("bad")
        return id_

    def write(write_param: Callable[..., Any], set_tag: Callable[..., Any], log_text: Callable[..., Any]) -> None:
        with contextlib.suppress(mlflow.MlflowException):
            write_param("p", "theirs")
        set_tag("t", "theirs")
        log_text("theirs", "a.txt")

    def again(id_: str) -> None:
        with mlflow.start_run(run_id=id_):
            write(mlflow.log_param, mlflow.set_tag, mlflow.log_text)

    def by_client(id_: str) -> None:
        write(*(functools.partial(method, id_) for method in (client.log_param, client.set_tag, client.log_text)))
        client.set_terminated(id_)

    for later in (again, by_client):
        id_ = record()
        mlflow.set_experiment("x")
        later(id_)
        assert flush(60)
        found = mlflow.get_run(id_)
        assert (found.data.tags["t"], found.data.params["p"], found.info.status) == ("theirs", "ours", "FINISHED"), (
            later
        )
        assert mlflow.artifacts.load_text(f"runs:/{id_}/a.txt") == "theirs"
    with experiment("x") as run:
        run.set_tag("t", "ours")
        mlflow.set_tag("t", "theirs")
        id_ = run.run_id
        run.set_tag("u", "ours")
        mlflow.set_tags({"u": "theirs"})
        run.set_tag("t", "ours again")
    assert {name: mlflow.get_run(id_).data.tags[name] for name in "tu"} == {"t": "ours again", "u": "theirs"}
    with experiment("new"):
        pass
    with pytest.raises(mlflow.MlflowException, match="already exists"):
        mlflow.create_experiment("new")


def test_beside_a_blocked_run(here: str, log_lines: list[str]) -> None:
    """A run that is blocked keeps no read from waiting for the others."""
    id_ = mlflow.create_experiment("gone")
    mlflow.delete_experiment(id_)
    with experiment("gone"):
        pass
    for number in range(3):
        record(f"e{number}")
        assert mlflow.get_experiment_by_name(f"e{number}") is not None
    assert len([line for line in log_lines if "plain MLflow may miss some of it" in line]) == 1
    mlflow.MlflowClient()._tracking_client.restore_experiment(id_)
    wait_until(lambda: flush(1), "the blocked run")


def test_on_a_run_of_plain_mlflow(here: str) -> None:
    """What trackdsl logs to a run of plain MLflow is there for the next read, also if no scope was opened."""
    with mlflow.start_run() as active:
        log_metric("ours", 1)
        assert mlflow.get_run(active.info.run_id).data.metrics == {"ours": 1}


def test_nothing_is_waited_for_where_nothing_waits(here: str, waits: list[bool]) -> None:
    """Once all is delivered reads return at once, and look at no journal again."""
    record()
    assert flush(60)
    looked = []
    with pytest.MonkeyPatch.context() as patch:
        assert mlflow.get_experiment_by_name("x") is not None
        patch.setattr(_reads, "read_progress", looked.append)
        assert mlflow.get_experiment_by_name("x") is not None
    assert (waits, looked) == ([], [])


def test_a_delivery_that_does_not_come(
    here: str,
    held: FileLock,
    waits: list[bool],
    log_lines: list[str],
    change_timing: ChangeTiming,
) -> None:
    """A read gives up and says so once; later ones do not wait while nothing arrives, and wait again once it does."""
    record()
    for _ in range(3):
        assert mlflow.get_experiment_by_name("x") is None
    assert waits == [False]
    assert len([line for line in log_lines if "plain MLflow may miss some of it" in line]) == 1
    change_timing(read=60.0)
    held.release()
    wait_until(lambda: flush(1), "delivery to continue")
    log_metric_of_another()
    assert mlflow.get_experiment_by_name("another") is not None
    assert waits == [False, True]


def log_metric_of_another() -> None:
    with experiment("another"):
        log_metric("m", 1)


def test_strict(here: str, held: FileLock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `TRACKDSL_STRICT` a read that cannot have what was recorded raises."""
    record()
    monkeypatch.setenv("TRACKDSL_STRICT", "1")
    trackdsl.configure(strict=True)
    with pytest.raises(TrackingFault, match="not everything"):
        mlflow.search_experiments()


def test_who_does_not_wait(here: str, held: FileLock, waits: list[bool], tmp_path: Path, empty_store: Path) -> None:
    """Reads of other stores, MLflow's own reads, and offline programs do not wait."""
    (tmp_path / "other.db").write_bytes(empty_store.read_bytes())
    other = mlflow.MlflowClient(f"sqlite:///{tmp_path}/other.db")
    active = mlflow.start_run()
    record()
    other.search_experiments()
    mlflow.log_metric("m", 1)  # It looks up the models of the run.
    mlflow.set_experiment("theirs")
    mlflow.end_run()
    trackdsl.configure(mode="offline")
    assert mlflow.get_run(active.info.run_id).data.metrics == {"m": 1}
    assert waits == []
    mlflow.set_experiment("Default")


def test_threads_read_at_once(here: str) -> None:
    """Threads that record and read at the same time each find their own."""
    found: list[int] = []

    def work(name: str) -> None:
        with experiment(name):
            log_metric("m", 1)
        found.append(len(mlflow.search_runs(experiment_names=[name])))

    threads = [threading.Thread(target=work, args=[f"e{number}"]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1, 1, 1]


def test_warnings_point_at_the_program(here: str) -> None:
    """What MLflow warns its caller of names the line of the program, not one of ours."""
    record()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mlflow.MlflowClient().search_traces(experiment_ids=["0"])
    mine = [warning for warning in caught if "experiment_ids" in str(warning.message)]
    assert [warning.filename for warning in mine] == [__file__]


#: A machine that is busy with other tests is not a fault of delivery.
PATIENT = """
    from trackdsl.delivery._timing import change_timing

    change_timing(read=90.0, longest_wait=90.0)
"""

DOCUMENTED = f"""{PATIENT}
    import sys

    if "before" in sys.argv:
        import mlflow
    import trackdsl.compat.tracelet as tracelet

    for lr in (0.1, 0.01, 0.001):
        exp = tracelet.start_logging(exp_name=f"sweep_lr_{{lr}}", project="sweep", backend="mlflow")
        exp.log_params({{"lr": lr}})
        for step in range(3):
            exp.log_metric("loss", lr * step, step)
        tracelet.stop_logging()

    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    runs = client.search_runs(client.get_experiment_by_name("sweep").experiment_id)
    print(sorted((run.data.params["lr"], len(client.get_metric_history(run.info.run_id, "loss"))) for run in runs))
"""

WORKERS = f"""{PATIENT}
    import multiprocessing

    import mlflow
    import trackdsl

    def work(number):
        with trackdsl.stage(f"worker-{{number}}"):
            trackdsl.log_metric("m", number)

    if __name__ == "__main__":
        with trackdsl.experiment("workers"):
            workers = [multiprocessing.get_context("spawn").Process(target=work, args=[n]) for n in range(2)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        runs = mlflow.search_runs(experiment_names=["workers"], output_format="list")
        print(sorted(run.info.run_name for run in runs))
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", ["before", "after"])
def test_the_documented_loop(start: StartProgram, sqlite_store: str, order: str) -> None:
    """A search right after the documents' loop finds all of its runs, whole, whenever MLflow was imported."""
    code, out, err = start(DOCUMENTED, order, TRACKDSL_MODE="online", MLFLOW_TRACKING_URI=sqlite_store).finish()
    assert (code, out.strip()) == (0, "[('0.001', 3), ('0.01', 3), ('0.1', 3)]"), err


@pytest.mark.slow
def test_processes_of_a_run(start: StartProgram, sqlite_store: str) -> None:
    """A search finds the runs of processes that were started inside a scope and have ended."""
    code, out, err = start(WORKERS, TRACKDSL_MODE="online", MLFLOW_TRACKING_URI=sqlite_store).finish()
    assert (code, out.strip()) == (0, "['worker-0', 'worker-1', 'workers']"), err


INTERRUPTED = """
    import sys

    import mlflow
    import trackdsl
    from trackdsl.delivery._timing import change_timing

    change_timing(read=float(sys.argv[1]), longest_wait=float(sys.argv[1]))
    with trackdsl.experiment("x") as run:
        id_ = run.wait_for_mlflow(90).run_id
        print("there")
        input()
        trackdsl.log_metric("m", 1)
        print(mlflow.get_run(id_).data.metrics)
"""


@pytest.mark.slow
def test_a_delivery_process_that_dies(start: StartProgram, sqlite_store: str, tmp_path: Path) -> None:
    """A read sees that the delivery process is gone, starts another one, and finds what was recorded."""
    program = start(INTERRUPTED, "90", TRACKDSL_MODE="online", MLFLOW_TRACKING_URI=sqlite_store)
    assert program.say() == "there"
    end_delivery(tmp_path / "spool")
    program.resume()
    assert program.say() == "{'m': 1.0}"
    assert program.finish()[0] == 0


@pytest.mark.slow
def test_a_delivery_process_that_hangs(start: StartProgram, sqlite_store: str, tmp_path: Path) -> None:
    """A read gives up on a delivery process that lives and does nothing."""
    program = start(INTERRUPTED, "0.5", TRACKDSL_MODE="online", MLFLOW_TRACKING_URI=sqlite_store)
    assert program.say() == "there"
    pids = wait_until(lambda: delivery_pids(tmp_path / "spool"), "the delivery process")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    program.resume()
    assert program.say() == "{}"
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    code, _, err = program.finish()
    assert (code, "plain MLflow may miss some of it" in err) == (0, True), err


@pytest.mark.slow
def test_a_program_without_runs(start: StartProgram) -> None:
    """Where trackdsl records nothing, MLflow's functions are MLflow's own."""
    program = start("""
        import mlflow, trackdsl
        assert not hasattr(mlflow.MlflowClient.log_batch, "__wrapped__") and trackdsl.current_run() is None
        print("trackdsl.mlflow_bridge._run_functions" in __import__("sys").modules)
    """)
    assert program.finish()[:2] == (0, "False\n")
