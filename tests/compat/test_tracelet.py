"""tracelet's MLflow backend, row by row: what its documentation promises, as MLflow then holds it."""

from __future__ import annotations

import ast
import inspect
import shutil
from pathlib import Path

import pytest

import trackdsl.compat.tracelet as tracelet
from tests.compat.recorded import Recorded, run_program
from tests.conftest import Server, deliver, free_port, once
from trackdsl import OptionError
from trackdsl.testing import capture_runs


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Recorded:
    """The store of the working folder, which the program used where it named none."""

    def make(folder: Path) -> None:
        for name in ("mlflow.db", "other.db"):
            shutil.copy(empty_store, folder / name)
        run_program("sessions.py", folder, f"sqlite:///{folder}/other.db", f"http://127.0.0.1:{free_port()}")

    folder = once(tmp_path_factory, "sessions", make)
    return Recorded(folder, f"sqlite:///{folder}/mlflow.db")


@pytest.fixture(scope="session")
def there(here: Recorded) -> Recorded:
    """The one that it named in some of its calls."""
    return Recorded(here.folder, f"sqlite:///{here.folder}/other.db")


@pytest.fixture(scope="session")
def with_mlflow(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Recorded:
    """The store of a program that calls MLflow's functions in its sessions."""

    def make(folder: Path) -> None:
        shutil.copy(empty_store, folder / "mlflow.db")
        run_program("sessions_and_mlflow.py", folder)

    folder = once(tmp_path_factory, "sessions-and-mlflow", make)
    return Recorded(folder, f"sqlite:///{folder}/mlflow.db")


@pytest.fixture(scope="session")
def errors(here: Recorded) -> dict[str, str]:
    found = ast.literal_eval((here.folder / "errors.txt").read_text())
    assert isinstance(found, dict)
    return found


def test_r01_the_backend_is_documented() -> None:
    """The call that starts a session names its arguments, and everything public here has a docstring."""
    assert list(inspect.signature(tracelet.start_logging).parameters)[:5] == [
        "exp_name", "project", "backend", "config", "settings",
    ]  # fmt: skip
    assert {"exp_name:", "project:", "backend:", "config:", "settings:"} <= set(tracelet.start_logging.__doc__.split())
    assert all(inspect.getdoc(getattr(tracelet, name)) for name in tracelet.__all__)


def test_r02_a_server_gets_runs_and_experiments(shared_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and the experiments they are in appear at an MLflow server."""
    tracelet.start_logging("at a server", config={"tracking_uri": shared_server.uri, "experiment_name": "Managed"})
    tracelet.stop_logging()
    deliver(shared_server.uri)
    recorded = Recorded(Path(), shared_server.uri)
    assert recorded.run("at a server").info.status == "FINISHED"
    assert recorded.experiment_of("at a server") == "Managed"


def test_r03_project_and_backend(here: Recorded) -> None:
    """A start with name, project and backend makes a run of that name, tagged with the project."""
    run = here.run("basic")
    assert run.data.tags["project"] == "project-a"
    assert here.experiment_of("basic") == "project-a"


def test_r04_the_tracking_uri_of_config(here: Recorded, there: Recorded) -> None:
    """A run goes to the store that `config` names, and to no other."""
    assert len(there.named("placed")) == 1
    assert not here.named("placed")


def test_r05_the_experiment_is_not_the_run(there: Recorded) -> None:
    """`experiment_name` names MLflow's experiment, `exp_name` the run in it."""
    assert there.experiment_of("placed") == "Custom Experiments"


def test_r06_the_handle_may_be_ignored(here: Recorded) -> None:
    """The return value of `start_logging` may be ignored: module functions record on the current run."""
    assert here.run("fallback").data.metrics == {"here": 1.0}


def test_r07_project_of_settings(there: Recorded) -> None:
    """The project of a settings object is that of the run."""
    assert there.run("configured").data.tags["project"] == "settled"


def test_r08_backends_as_a_list() -> None:
    """Settings may list backends: MLflow alone is taken, another one is reported."""
    with capture_runs() as captured:
        tracelet.start_logging("listed", settings=tracelet.TraceletSettings(backend=["mlflow"]))
        tracelet.stop_logging()
        with pytest.raises(OptionError, match="records to MLflow only"):
            tracelet.start_logging("no", settings=tracelet.TraceletSettings(backend=["mlflow", "wandb"]))
    assert [run.name for run in captured.runs] == ["listed"]


def test_r09_tracking_uri_of_settings(here: Recorded, there: Recorded) -> None:
    """Settings say where runs go."""
    assert len(there.named("configured")) == 1
    assert not here.named("configured")


def test_r10_experiment_of_settings(there: Recorded) -> None:
    """Settings name MLflow's experiment."""
    assert there.experiment_of("configured") == "Settled Experiments"


def test_r11_settings_are_an_argument(there: Recorded) -> None:
    """A start takes the settings object beside the name of the run."""
    assert there.run("configured").info.run_name == "configured"


def begin_by_environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> tuple[str, str | None]:
    """The store and the experiment of a session that only the environment says something of."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run = tracelet.start_logging("by environment", project="p")
    tracelet.stop_logging()
    return run.target.uri, run.experiment


def test_r12_mlflows_tracking_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own variable says where runs go."""
    assert begin_by_environment(monkeypatch, MLFLOW_TRACKING_URI="http://one:5000")[0] == "http://one:5000"


def test_r13_mlflows_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own variable names the experiment."""
    assert begin_by_environment(monkeypatch, MLFLOW_EXPERIMENT_NAME="Production")[1] == "Production"


def test_r14_tracelets_tracking_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    """tracelet's variable says where runs go."""
    assert begin_by_environment(monkeypatch, TRACELET_MLFLOW_TRACKING_URI="http://two:5000")[0] == "http://two:5000"


def test_r15_tracelets_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    """tracelet's variable names the experiment."""
    assert begin_by_environment(monkeypatch, TRACELET_MLFLOW_EXPERIMENT_NAME="Development")[1] == "Development"


def test_r16_one_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call counts before settings, these before trackdsl's variables, tracelet's, MLflow's; all is documented."""
    for prefix in ("MLFLOW", "TRACELET_MLFLOW", "TRACKDSL"):
        found = begin_by_environment(
            monkeypatch, **{f"{prefix}_TRACKING_URI": f"http://{prefix.lower()}", f"{prefix}_EXPERIMENT_NAME": prefix}
        )
        assert found == (f"http://{prefix.lower()}", prefix)
    given = tracelet.TraceletSettings(mlflow_tracking_uri="http://settings", mlflow_experiment_name="settings")
    run = tracelet.start_logging("r", settings=given)
    tracelet.stop_logging()
    assert (run.target.uri, run.experiment) == ("http://settings", "settings")
    run = tracelet.start_logging("r", settings=given, config={"tracking_uri": "http://call", "experiment_name": "call"})
    tracelet.stop_logging()
    assert (run.target.uri, run.experiment) == ("http://call", "call")
    guide = (Path(__file__).parents[2] / "notebooks/settings.md").read_text(encoding="utf-8")
    assert "`TRACKDSL_TRACKING_URI`, `TRACELET_MLFLOW_TRACKING_URI`, `MLFLOW_TRACKING_URI`" in guide


def test_r17_the_name_of_the_run(there: Recorded) -> None:
    """`run_name` names the run instead of `exp_name`."""
    assert there.run("baseline-001")
    assert not there.named("four-keys")


def test_r18_tags_of_config(there: Recorded) -> None:
    """The tags of `config` are tags of the run."""
    assert there.run("baseline-001").data.tags.items() >= {"team": "research", "version": "v1.0"}.items()


def test_r19_all_keys_together(there: Recorded) -> None:
    """Store, experiment, name and tags work at once; another key is an error that names these four."""
    assert there.experiment_of("baseline-001") == "Four Keys"
    with pytest.raises(OptionError, match="Known: tracking_uri, experiment_name, run_name, tags"):
        tracelet.start_logging("x", config={"artifact_location": "s3://bucket"})


def test_r28_a_human_experiment_name(here: Recorded) -> None:
    """An experiment may be called as people talk."""
    assert here.experiment_of("joined") == "Shared Experiment"


def test_r29_a_tag_called_project(there: Recorded) -> None:
    """A tag `project` counts before the argument of that name."""
    assert there.run("baseline-001").data.tags["project"] == "of the tags"


def test_r30_the_handle_is_the_run(here: Recorded) -> None:
    """`start_logging` returns the handle of the run, which recorded files, parameters and metrics."""
    assert here.files("files")
    assert here.run("loop").data.params["model"] == "resnet18"


@pytest.mark.parametrize(
    ("source", "path"),
    [
        pytest.param("model.pth", "models/trained_model.pth", id="r31"),
        pytest.param("config.yaml", "configs/training_config.yaml", id="r32"),
        pytest.param("train_data.csv", "datasets/processed_train.csv", id="r33"),
    ],
)
def test_r31_to_r33_files_get_their_new_names(here: Recorded, source: str, path: str) -> None:
    """A file is stored at exactly the path that it is given, with a new name and in a folder."""
    assert path in here.files("files")
    assert here.text("files", path) == f"content of {source}"


@pytest.mark.slow
def test_r34_a_model_lands_on_the_session(with_mlflow: Recorded) -> None:
    """MLflow's own `log_model` in a session logs the model to its run, and so does trackdsl's."""
    outputs = with_mlflow.run("models").outputs.model_outputs
    assert {with_mlflow.client.get_logged_model(output.model_id).name for output in outputs} == {"model", "own"}


@pytest.mark.slow
def test_r35_a_version_is_registered(with_mlflow: Recorded) -> None:
    """The registered name has a version that comes from this run."""
    for name in ("ImageClassifier", "OwnClassifier"):
        (version,) = with_mlflow.client.search_model_versions(f"name = '{name}'")
        assert version.run_id == with_mlflow.run("models").info.run_id


@pytest.mark.slow
@pytest.mark.long  # The first test runs the program.
def test_r36_autologging_before_the_start(with_mlflow: Recorded) -> None:
    """Autologging that was switched on before opens no run of its own."""
    assert [run.info.run_name for run in with_mlflow.runs] == ["clash", "models"]


@pytest.mark.slow
def test_r37_both_write_to_one_run(with_mlflow: Recorded) -> None:
    """Plain MLflow calls in a session land on the run that trackdsl's functions write to."""
    assert with_mlflow.run("models").data.metrics.items() >= {"by_mlflow": 2.0, "final_accuracy": 0.9}.items()


def test_r38_an_unreachable_server_raises(errors: dict[str, str], here: Recorded, there: Recorded) -> None:
    """A start that nobody answers raises, and leaves no run anywhere."""
    assert errors["unreachable"] == "TrackingServerUnreachable"
    assert not here.named("lost")
    assert not there.named("lost")


def test_r39_the_next_start_records_locally(here: Recorded) -> None:
    """After that a start without config records to the usual store, with nothing left of the first."""
    assert here.experiment_of("fallback") == "project-a"
    assert here.run("fallback").info.status == "FINISHED"
    assert here.named("after-placed"), "also after a session elsewhere"


def test_r40_an_experiment_is_joined(here: Recorded) -> None:
    """A second start with the same experiment joins it."""
    assert len(here.named("joined")) == 2
    assert list(here.experiments.values()).count("Shared Experiment") == 1


@pytest.mark.slow
def test_r41_errors_of_mlflow_reach_the_caller(with_mlflow: Recorded) -> None:
    """MLflow's own error in a session reaches the program as it is, and its text says what already exists."""
    assert "already exists" in (with_mlflow.folder / "error.txt").read_text()


def test_r42_parameters_of_all_kinds(here: Recorded) -> None:
    """Floats, integers and text are parameters."""
    wanted = {"learning_rate": "0.001", "batch_size": "32", "epochs": "100", "model": "resnet18"}
    assert here.run("loop").data.params.items() >= wanted.items()


def test_r43_iteration_is_the_step(here: Recorded) -> None:
    """`iteration` is the step of a point, 0 included."""
    assert here.points("loop", "train_loss")[0] == (0, 1.0)


def test_r44_every_point_is_kept(here: Recorded) -> None:
    """All hundred points are there, in order."""
    assert here.points("loop", "train_loss") == [(epoch, 1 / (epoch + 1)) for epoch in range(100)]


@pytest.mark.slow
def test_r45_checkpoints(here: Recorded) -> None:
    """Every tenth epoch left a checkpoint under its new name."""
    wanted = sorted(f"checkpoints/epoch_{epoch}.pth" for epoch in range(0, 100, 10))
    assert [path for path in here.files("loop", "checkpoints") if path.endswith(".pth")] == wanted
    assert here.text("loop", "checkpoints/epoch_90.pth") == "90"


def test_r46_a_stop_ends_the_run(here: Recorded) -> None:
    """After the stop the run is finished, with an end."""
    run = here.run("loop")
    assert (run.info.status, run.info.end_time >= run.info.start_time) == ("FINISHED", True)


def test_r47_a_run_for_each_trial(here: Recorded) -> None:
    """Start and stop, repeated in one process, make one root run each."""
    for number in range(3):
        assert "mlflow.parentRunId" not in here.run(f"trial_{number}").data.tags


def test_r48_names_made_at_run_time(here: Recorded) -> None:
    """The name of a run may be made for each trial."""
    assert {run.info.run_name for run in here.runs} >= {"trial_0", "trial_1", "trial_2"}


def test_r49_tags_for_each_trial(here: Recorded) -> None:
    """Each trial has tags of its own."""
    assert [here.run(f"trial_{n}").data.tags["trial_number"] for n in range(3)] == ["0", "1", "2"]


@pytest.mark.slow
def test_r50_parameters_for_each_trial(here: Recorded) -> None:
    """Each trial has parameters of its own."""
    assert [here.run(f"trial_{n}").data.params["lr"] for n in range(3)] == ["0.1", "0.01", "0.001"]


def test_r51_the_handle_is_passed_on(here: Recorded) -> None:
    """A function that is given the handle logs on that run."""
    assert [here.run(f"trial_{n}").data.metrics["inside"] for n in range(3)] == [0.1, 0.01, 0.001]


def test_r52_a_point_without_iteration(here: Recorded) -> None:
    """A metric that is given no iteration is one point, at step 0."""
    assert here.points("loop", "final_accuracy") == [(0, 0.9)]


def test_r54_names_with_the_time(here: Recorded) -> None:
    """A name may hold a time."""
    assert here.run("resnet50_20260102_0304")


def test_r55_a_tag_with_a_date(here: Recorded) -> None:
    """A date in ISO form is a tag, as it is."""
    assert here.run("resnet50_20260102_0304").data.tags["date"] == "2026-01-02T03:04:05"


def test_r56_names_with_slashes(here: Recorded) -> None:
    """Metrics may be grouped by slashes."""
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr_schedule/learning_rate"):
        assert here.points("loop", name) == [(3, 0.5)]


def test_r57_a_stop_at_exit(here: Recorded) -> None:
    """A stop that is registered for the end of the program ends what is still open then."""
    assert here.run("stopped-at-exit").info.status == "FINISHED"


def test_r58_a_stop_in_finally(here: Recorded) -> None:
    """A stop in a `finally`, and one more, end the run once."""
    assert here.run("stopped-in-finally").info.status == "FINISHED"


def test_nothing_else_was_recorded(here: Recorded, there: Recorded) -> None:
    """The program's runs are all there are, each once."""
    names: dict[str, int] = {}
    for run in here.runs:
        names[run.info.run_name] = names.get(run.info.run_name, 0) + 1
    assert {name: count for name, count in names.items() if count > 1} == {"joined": 2}
    assert all(run.info.status == "FINISHED" for run in here.runs)
