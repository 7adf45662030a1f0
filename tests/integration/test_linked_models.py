"""Models as MLflow 3 knows them: their metrics, the runs that use them, and the handles that stand for them."""

from __future__ import annotations

import contextlib
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trackdsl
from tests.conftest import Server, StartProgram, all_runs, await_git, client, deliver, free_port, wait_until
from tests.memory_store import Crash, MemoryStore, deliver_to
from trackdsl import ArtifactError, Dataset, RunNotReady, experiment, stage
from trackdsl._config.state import state
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.service import open_sink
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.journal import _target
from trackdsl.testing import capture_runs

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from sklearn.linear_model import LinearRegression  # noqa: E402

FRAME = pd.DataFrame({"a": np.arange(6.0), "b": np.arange(6.0)[::-1]})
#: What a model was given: name, value, step and dataset of each point.
Given = set[tuple[str, float, int, Any]]


def a_model() -> Any:
    return LinearRegression().fit(FRAME, FRAME["a"])


def run_of(name: str, uri: str) -> Any:
    """The run of a name that this test has made: a server is shared."""
    found = [run for run in all_runs(uri) if run.info.run_name == name and run.data.tags.get("at") == str(Path.cwd())]
    return client(uri).get_run(found[-1].info.run_id)


def models_of(run: Any, uri: str) -> dict[str, Any]:
    """The models of a run, by name."""
    found = client(uri).search_logged_models([run.info.experiment_id])
    return {model.name: model for model in found if model.source_run_id == run.info.run_id}


def given_to(model: Any) -> Given:
    return {(point.key, point.value, point.step, point.dataset_name) for point in model.metrics or []}


def log_everything(log_metric: Any, log_metrics: Any, log_model: Callable[[str, int], None]) -> None:
    """Metrics before and after models, at their step and at others."""
    log_metric("before", 0.5)
    log_metric("elsewhere", 1.0, step=4)
    log_model("first", 0)
    log_metrics({"acc": 0.9, "f1": 0.8})
    log_metric("late", 3.0, step=9)
    for step in (1, 2):
        log_metric("loss", 1.0 / step, step=step)
        log_model(f"checkpoint{step}", step)
        log_metrics({"val": 10.0 * step}, step=step)


@pytest.mark.slow
def test_metrics_belong_to_models_as_plain_mlflow_links_them(store: str) -> None:
    """Metrics at a model's step, earlier and later ones, belong to the model, as in plain MLflow."""
    import mlflow

    trackdsl.configure(tracking_uri=store)
    with stage("ours", tags={"at": Path.cwd()}) as run:
        log_everything(run.log_metric, run.log_metrics, lambda name, step: run.log_model(a_model(), name, step=step))
    deliver(store)
    mlflow.set_tracking_uri(store)
    with mlflow.start_run(run_name="plain", tags={"at": str(Path.cwd())}):
        log_everything(
            mlflow.log_metric,
            mlflow.log_metrics,
            lambda name, step: _log_plain(name, step),
        )
    ours, plain = (
        {name: given_to(model) for name, model in models_of(run_of(which, store), store).items()}
        for which in ("ours", "plain")
    )
    assert ours == plain
    assert ours["first"] == {("before", 0.5, 0, None), ("acc", 0.9, 0, None), ("f1", 0.8, 0, None)}
    experiment = run_of("ours", store).info.experiment_id
    found = client(store).search_logged_models([experiment], "metrics.acc > 0.85")
    assert run_of("ours", store).info.run_id in {model.source_run_id for model in found}
    # The run has each point once.
    assert [(p.step, p.value) for p in client(store).get_metric_history(run_of("ours", store).info.run_id, "acc")] == [
        (0, 0.9)
    ]


def test_a_store_of_files_keeps_each_point_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a store of files, models have their metrics, also of other experiments, and runs have each point once."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    trackdsl.configure(tracking_uri=uri)
    with stage("train", tags={"at": Path.cwd()}) as run:
        log_everything(run.log_metric, run.log_metrics, lambda name, step: run.log_model(a_model(), name, step=step))
        model = run.log_model(a_model(), "named", step=5)
        run.log_metric("own", 1.0, step=3, model=model, dataset=FRAME)
    deliver(uri)
    train = run_of("train", uri)
    models = models_of(train, uri)
    assert given_to(models["first"]) == {("before", 0.5, 0, None), ("acc", 0.9, 0, None), ("f1", 0.8, 0, None)}
    assert given_to(models["checkpoint2"]) == {("loss", 0.5, 2, None), ("val", 20.0, 2, None)}
    assert {point[:3] for point in given_to(models["named"])} == {("own", 1.0, 3)}
    with experiment("evaluation", tags={"at": Path.cwd()}) as other:
        other.log_metric("elsewhere", 2.0, model=models["first"].model_id)
    deliver(uri)
    assert ("elsewhere", 2.0, 0, None) in given_to(models_of(train, uri)["first"])
    for found in all_runs(uri):
        for key in found.data.metrics:
            history = [(point.step, point.value) for point in client(uri).get_metric_history(found.info.run_id, key)]
            assert len(history) == len(set(history)), key


def _log_plain(name: str, step: int) -> None:
    import mlflow

    mlflow.sklearn.log_model(a_model(), name=name, step=step, pip_requirements=[], serialization_format="cloudpickle")


def test_a_model_that_is_deleted_holds_up_nothing(sqlite_store: str) -> None:
    """Metrics that come after a model was deleted are the run's, and those of its other models."""
    with stage("train") as run:
        for name in ("deleted", "kept"):
            run.log_model(a_model(), name)
        worker = Worker(Path("../spool").resolve(), open_sink)
        wait_until(lambda: worker.round() or len(client().search_logged_models(["0"])) == 2, "the models")
        worker.close()
        models = {model.name: model.model_id for model in client().search_logged_models(["0"])}
        client().delete_logged_model(models["deleted"])
        run.log_metric("late", 1.0)
    deliver()
    [model] = client().search_logged_models(["0"])
    assert (model.name, given_to(model)) == ("kept", {("late", 1.0, 0, None)})
    assert all_runs()[0].data.metrics == {"late": 1.0}


def record_linked() -> None:
    """A model with points before and after it, at its step and another, twice in one millisecond, and on data."""
    with stage("train") as run:
        run.log_metric("before", 1.0)
        run.log_metric("other", 1.0, step=3)
        recorded = run.log_model(a_model(), "m")
        for value in (1.0, 2.0, 3.0):
            run.log_metric("many", value, step=0)
        run.log_metrics({"after": 4.0}, dataset=FRAME, model=recorded)
    with stage("evaluate", model=recorded) as run:
        run.log_metric("rmse", 0.5, model=recorded)


def check_linked(store: MemoryStore) -> None:
    [points] = store.models.values()
    train, evaluate = (
        next(run_id for run_id, run in store.runs.items() if run.name == name) for name in ("train", "evaluate")
    )
    assert sorted((run, key) for run, key, _, _ in points if key != "many") == sorted(
        [(train, "before"), (train, "after"), (evaluate, "rmse")]
    )
    # One of each millisecond, at least the last one.
    assert 3.0 in {value for (_, key, _, _), (value, _) in points.items() if key == "many"}
    assert {key: data for (_, key, _, _), (_, data) in points.items() if data is not None}.keys() == {"after"}
    assert store.runs[evaluate].used_models == set(store.models)
    assert [len(store.runs[run].points) for run in (train, evaluate)] == [6, 1]


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("error", [Crash, Unavailable])
def test_points_of_models_arrive_once(tmp_path: Path, error: type[BaseException]) -> None:
    """Whichever call to the store fails, before or after its work is done, a model has each of its points once."""
    record_linked()
    _target.close_all()
    spool = tmp_path / "spool"
    await_git(spool)
    calls = 1000
    for call in range(1, calls):
        kept = _copied(spool, tmp_path / f"spool-{call}")
        store = MemoryStore({call: (error, call % 2 == 0)})
        with contextlib.suppress(Crash):
            deliver_to(store, kept)
        deliver_to(store, kept)
        check_linked(store)
        if store.calls < call:
            break
    assert call > 15  # There was something to fail in.


def _copied(spool: Path, to: Path) -> Path:
    shutil.copytree(spool, to)
    for folder in [to, *(path for path in to.rglob("*") if path.is_dir())]:
        folder.chmod(0o700)
    return to


def test_metrics_say_of_which_model_and_data_they_are(store: str) -> None:
    """`model` and `dataset` of metrics may be handles, ids, markers, recorded objects, frames and MLflow's own."""
    import mlflow

    trackdsl.configure(tracking_uri=store)
    model, other = a_model(), a_model()
    with stage("train", tags={"at": Path.cwd()}) as run:
        recorded = run.log_model(model, "m", step=7)
        run.log_model(other, "other", step=7)
        given = run.log_input(FRAME, "training", name="train-set")
        run.log_metrics({"handle": 1.0}, model=recorded, dataset=given)
        trackdsl.log_metric("object", 2.0, model=model, dataset=Dataset("train-set"))
        run.log_metric("frame", 3.0, model=recorded, dataset=FRAME[:3])
        run.log_metric("own", 4.0, model=recorded, dataset=mlflow.data.from_pandas(FRAME, name="own-set"))
        run.log_metrics({"same": 5.0}, model=recorded, dataset=given)
        run.log_metrics({"same": 6.0}, model=recorded, dataset=FRAME[:3])
        run.log_metric("nothing", 7.0, model="bogus", dataset=Dataset("missing"))
        run.log_metric("step", 8.0, step=7, dataset=given)
    deliver(store)
    found = models_of(run_of("train", store), store)
    assert given_to(found["m"]) == {
        ("handle", 1.0, 0, "train-set"), ("object", 2.0, 0, "train-set"), ("frame", 3.0, 0, "dataset"),
        ("own", 4.0, 0, "own-set"), ("same", 5.0, 0, "train-set"), ("same", 6.0, 0, "dataset"),
        ("step", 8.0, 7, "train-set"),
    }  # fmt: skip
    assert given_to(found["other"]) == {("step", 8.0, 7, "train-set")}
    run = run_of("train", store)
    assert {each.dataset.name for each in run.inputs.dataset_inputs} == {"train-set", "dataset", "own-set"}
    assert run.data.metrics["nothing"] == 7.0
    assert "bogus" not in str(found)
    assert "is not a model" in run.data.tags["trackdsl.omitted.log_metrics.model"]
    assert "trackdsl.omitted.missing" in run.data.tags
    with stage("by id", tags={"at": Path.cwd()}) as again:
        again.log_metric("id", 1.0, model=found["m"].model_id)
        again.log_metric("entity", 2.0, model=found["m"])
        again.log_metric("uri", 3.0, model=f"models:/{found['m'].model_id}")
        again.log_metric("gone", 4.0, model="m-" + 32 * "0")
    deliver(store)
    model_points = given_to(models_of(run_of("train", store), store)["m"])
    assert {("id", 1.0, 0, None), ("entity", 2.0, 0, None), ("uri", 3.0, 0, None)} <= model_points
    by_id = run_of("by id", store)
    assert by_id.data.metrics["gone"] == 4.0
    assert "not found" in by_id.data.tags["trackdsl.omitted.log_metrics.model"]
    # The run measures a model of another, and so uses it.
    assert [each.model_id for each in by_id.inputs.model_inputs] == [found["m"].model_id]
    assert not run_of("train", store).inputs.model_inputs


@stage(tags={"kind": "evaluation"})
def evaluate(model: Any, rows: int = 3) -> None:
    trackdsl.log_metric("rows", rows)


def test_a_stage_that_takes_a_model_has_it_as_an_input(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handles, models that trackdsl, a flavour of MLflow's or pyfunc has loaded, MLflow's entities; in blocks too."""
    import mlflow

    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setenv("TRACKDSL_DELIVERY", "thread")
    with stage("train") as run:
        recorded = run.log_model(a_model(), "m")
    evaluate(recorded)
    mlflow.set_tracking_uri(sqlite_store)
    assert recorded.uri == f"models:/{recorded.model_id}"
    loaded = recorded.load()
    assert loaded.coef_.shape == (2,)
    assert int(recorded.register("line").version) == 1
    evaluate(loaded)
    evaluate(trackdsl.load_model("models:/line/1", trusted=True), rows=4)
    evaluate(mlflow.pyfunc.load_model(recorded.uri))
    evaluate(client().get_logged_model(recorded.model_id))
    evaluate({"of": "a dict", "model": pickle.loads(pickle.dumps(recorded))})
    native = mlflow.sklearn.load_model(recorded.uri)
    evaluate(native)
    evaluate([mlflow.sklearn.load_model("models:/line/1"), "a list"])
    evaluate(mlflow.pyfunc.load_model(recorded.uri).get_raw_model())
    with stage("block", candidate=recorded):
        pass
    evaluate(a_model())
    assert trackdsl.flush(60)
    runs = [client().get_run(run.info.run_id) for run in all_runs()]
    used = [
        [each.model_id for each in run.inputs.model_inputs]
        for run in runs
        if run.info.run_name in ("evaluate", "block")
    ]
    assert used == [*[[recorded.model_id]] * 10, []]
    assert {run.data.params.get("model") for run in runs[1:]} >= {
        "RecordedModel(m)", f"models:/{recorded.model_id}", "LinearRegression()"
    }  # fmt: skip


def test_a_handle_says_what_to_do_where_there_is_no_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Offline, for a model that was not recorded, or with recording off, a handle fails at once and names the fix."""
    with stage("offline") as run:
        recorded = run.log_model(a_model(), "m")
        broken = run.log_model(LinearRegression(n_jobs=(each for each in ())), "broken")  # type: ignore[call-overload]
    with pytest.raises(RunNotReady, match="trackdsl sync"):
        recorded.wait()
    assert "not delivered" in repr(recorded)
    with pytest.raises(ArtifactError, match=r"was not recorded: .*generator"):
        broken.load()
    with capture_runs(), stage("captured"):
        captured = trackdsl.log_model(a_model(), "m")
    with pytest.raises(RunNotReady, match="TRACKDSL_MODE"):
        _ = captured.model_id
    monkeypatch.setenv("TRACKDSL_MODE", "disabled")
    state.refresh()
    with stage("disabled"), pytest.raises(ArtifactError, match="not recorded"):
        _ = trackdsl.log_model(a_model(), "m").uri


@pytest.mark.slow
def test_a_handle_waits_no_longer_than_it_may_for_a_store_that_is_away(
    start: StartProgram,
) -> None:
    """If the server does not answer, the handle says so within its limit, and how to deliver later."""
    program = start(
        """
        import trackdsl
        from sklearn.linear_model import LinearRegression
        with trackdsl.stage("train") as run:
            recorded = run.log_model(LinearRegression(), "m")
        for ask in (recorded.wait, recorded.load, lambda timeout: recorded.register("n", timeout=timeout)):
            try:
                ask(timeout=1)
            except trackdsl.RunNotReady as error:
                print(error)
        """,
        TRACKDSL_TRACKING_URI=f"http://127.0.0.1:{free_port()}",
        TRACKDSL_MODE="online",
    )
    code, out, err = program.finish()
    assert code == 0, err
    lines = out.splitlines()
    assert len(lines) == 3
    assert all("make sure that the store answers and run `trackdsl sync`" in line for line in lines)


def test_metrics_belong_to_models_that_plain_mlflow_logs_in_a_scope(
    sqlite_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of `mlflow.sklearn.log_model` inside a stage has the metrics that trackdsl records before and after."""
    import mlflow

    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setenv("TRACKDSL_DELIVERY", "thread")
    mlflow.set_tracking_uri(sqlite_store)
    with stage("train") as run:
        run.log_metric("before", 1.0)
        _log_plain("plain", 0)
        run.log_metric("after", 2.0)
        run.log_metric("elsewhere", 3.0, step=5)
    assert trackdsl.flush(60)
    [model] = client().search_logged_models(["0"])
    assert given_to(model) == {("before", 1.0, 0, None), ("after", 2.0, 0, None)}


def test_metrics_belong_to_the_active_model(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What trackdsl records while MLflow has an active model is the model's, as of plain MLflow, at every step."""
    import mlflow

    mlflow.set_tracking_uri(sqlite_store)
    for log, scope in ((trackdsl, stage), (mlflow, mlflow.start_run)):
        external = mlflow.create_external_model(name=log.__name__)
        with scope(run_name="run") if log is mlflow else scope("run"):
            log.log_metric("before", 1.0)
            with mlflow.set_active_model(model_id=external.model_id):
                log.log_metric("one", 1.0, step=4)
                log.log_metrics({"two": 2.0, "three": 3})
            log.log_metric("after", 1.0)
    deliver()
    ours, plain = (
        next(model for model in client().search_logged_models(["0"]) if model.name == log.__name__)
        for log in (trackdsl, mlflow)
    )
    assert given_to(ours) == given_to(plain) == {("one", 1.0, 4, None), ("two", 2.0, 0, None), ("three", 3.0, 0, None)}
    used = {run.inputs.model_inputs[0].model_id for run in (client().get_run(r.info.run_id) for r in all_runs())}
    assert used == {ours.model_id, plain.model_id}


@pytest.mark.slow
def test_a_forked_process_waits_for_the_model_of_its_parent(start: StartProgram, sqlite_store: str) -> None:
    """A handle that a process inherits by `fork` has the model's id there, while the parent still records."""
    program = start(
        """
        import os, trackdsl
        from sklearn.linear_model import LinearRegression
        with trackdsl.stage("train") as run:
            recorded = run.log_model(LinearRegression(), "m")
            child = os.fork()
            if child == 0:
                print(recorded.model_id, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            print(recorded.model_id, flush=True)
        """,
        TRACKDSL_MODE="online",
        TRACKDSL_TRACKING_URI=sqlite_store,
    )
    code, out, err = program.finish()
    assert code == 0, err
    assert out.split() == [client().search_logged_models(["0"])[0].model_id] * 2


@pytest.mark.slow
def test_a_server_of_a_store_of_files_keeps_each_point_once(own_server: Server) -> None:
    """A server with a store of files would add points of models to runs again, so models get none there."""
    own_server.backend = str(own_server.folder / "mlruns")
    own_server.start()
    uri = own_server.uri
    trackdsl.configure(tracking_uri=uri)
    with stage("train", tags={"at": Path.cwd()}) as run:
        run.log_metric("before", 0.5)
        recorded = run.log_model(a_model(), "m")
        run.log_metric("after", 1.0)
        run.log_metric("named", 2.0, model=recorded)
    deliver(uri)
    train = run_of("train", uri)
    assert set(train.data.metrics) == {"before", "after", "named"}
    for key in train.data.metrics:
        assert len(client(uri).get_metric_history(train.info.run_id, key)) == 1
    assert set(models_of(train, uri)) == {"m"}
