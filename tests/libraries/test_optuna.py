"""Optuna's trials as runs: in threads, in processes, pruned and failed, by the decorator and by the callback."""

from __future__ import annotations

import functools
import inspect
import pickle
from typing import Any

import pytest

import trackdsl
from tests.conftest import StartProgram, all_runs, deliver, points
from trackdsl import OptionError, current_run, experiment, log_metric, stage
from trackdsl.testing import Captured, capture_runs

optuna = pytest.importorskip("optuna", reason="needs Optuna: pip install -e '.[integrations]'")

from trackdsl.integrations.optuna import TrackdslCallback, track_trials  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.CRITICAL)


@pytest.fixture
def captured() -> Any:
    with capture_runs() as found:
        yield found


def study_of(**options: Any) -> Any:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), **options)


def values(run: Any, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in run.metrics.get(name, [])]


def body(trial: Any) -> float:
    """An objective that ends in every way."""
    x = trial.suggest_float("x", -1, 1)
    trial.set_user_attr("half", x / 2)
    for step in range(3):
        trial.report(x * step, step)
    if trial.number == 1:
        raise optuna.TrialPruned
    if trial.number == 2:
        raise ValueError("no good")
    return float("nan") if trial.number == 3 else float(x)


@track_trials
def decorated(trial: Any) -> float:
    log_metric("inside", trial.number)
    with stage("below"):
        log_metric("further", trial.number)
    return body(trial)


@pytest.mark.parametrize("jobs", [1, 4])
@pytest.mark.parametrize("way", ["decorator", "callback", "both"])
def test_every_end_of_a_trial(captured: Captured, way: str, jobs: int) -> None:
    """Each trial is one child run with its parameters, reports, attributes, distributions, value and state."""
    study = study_of(study_name="ends")
    callbacks = [] if way == "decorator" else [TrackdslCallback()]
    with experiment("e"):
        study.optimize(body if way == "callback" else decorated, 8, jobs, catch=(ValueError,), callbacks=callbacks)
    around = captured.one("e")
    trials = sorted(around.children, key=lambda run: int(run.name[6:]))
    assert [run.name for run in trials] == [f"trial-{number}" for number in range(8)]
    for run, trial in zip(trials, study.trials, strict=True):
        assert run.status == ("FAILED" if trial.number in (2, 3) else "FINISHED")
        assert (run.failure is None) == (run.status == "FINISHED" or way == "callback")
        assert run.params == trial.params
        assert run.tags["optuna.state"] == trial.state.name
        assert run.tags["half"] == str(trial.user_attrs["half"])
        assert run.tags["optuna.distribution.x"] == str(trial.distributions["x"])
        assert (run.tags["optuna.trial"], run.tags["optuna.study"]) == (str(trial.number), "ends")
        assert values(run, "intermediate_value") == sorted(trial.intermediate_values.items())
        assert values(run, "value") == ([(0, trial.value)] if trial.state.name == "COMPLETE" else [])
        if way != "callback":
            assert values(run, "inside") == [(0, trial.number)]
            [below] = run.children
            assert values(below, "further") == [(0, trial.number)]
    assert around.params == {
        "best.trial": study.best_trial.number, "best.value": study.best_value, "best.x": study.best_params["x"],
    }  # fmt: skip
    assert values(around, "best_value")[-1] == (study.best_trial.number, study.best_value)
    assert around.tags["optuna.sampler"] == "RandomSampler"


def test_why_a_trial_has_failed(captured: Captured) -> None:
    """What the objective raises reaches Optuna unchanged, and is on the run; so is a fault of its return value."""
    study = study_of(directions=["minimize", "maximize"])
    answers: list[Any] = [None, "high", 1.0, [1, float("nan")], KeyError("k"), KeyboardInterrupt()]

    @track_trials
    def objective(trial: Any) -> Any:
        answer = answers[trial.number]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    for answer in answers:
        if isinstance(answer, BaseException):
            with pytest.raises(type(answer)) as raised:
                study.optimize(objective, 1)
            assert raised.value is answer
        else:
            study.optimize(objective, 1)
    assert {trial.state.name for trial in study.trials} == {"FAIL"}
    assert {run.tags["optuna.state"] for run in captured.runs} == {"FAIL"}
    assert [run.status for run in captured.runs] == ["FAILED"] * 5 + ["KILLED"]
    assert [run.failure.message for run in captured.runs[:4]] == [
        "the objective did not return a number",
        "the objective did not return a number",
        "the objective has returned 1 values, and the study has 2",
        "the objective has returned NaN",
    ]


def test_several_objectives(captured: Captured) -> None:
    """Each of several values has a name, the study's own if it has given them; the best trials are a tag."""
    for names in (None, ["loss", "size"]):
        study = study_of(directions=["minimize", "minimize"])
        if names:
            study.set_metric_names(names)

        @track_trials
        def objective(trial: Any) -> tuple[float, float]:
            return trial.number, 3 - trial.number

        with experiment(f"several {names}"):
            study.optimize(objective, 3)
        run = captured.one(f"several {names}")
        assert run.tags["optuna.best_trials"] == "0,1,2"
        assert run.tags["optuna.directions"] == "MINIMIZE,MINIMIZE"
        last = run.children[-1]
        first, second = names or ["values.0", "values.1"]
        assert (values(last, first), values(last, second)) == ([(0, 2.0)], [(0, 1.0)])


def test_names_tags_and_objectives_of_every_kind(captured: Captured) -> None:
    """The decorator takes a name, tags and a metric's name, and functions, methods and partial functions."""
    plan = track_trials(name="{study}/{number}", tags={"team": "a"}, metric_name="accuracy")

    class Search:
        @plan
        def objective(self, trial: Any, scale: float = 2.0) -> float:
            """Documented."""
            assert current_run() is not None
            return scale * trial.suggest_int("n", 1, 1)

    study = study_of(study_name="named")
    study.optimize(Search().objective, 1)
    study.optimize(functools.partial(Search().objective, scale=3.0), 1)
    study.optimize(lambda trial: Search().objective(trial=trial), 1)
    assert [run.name for run in captured.runs] == ["named/0", "named/1", "named/2"]
    assert [values(run, "accuracy")[0][1] for run in captured.runs] == [2.0, 3.0, 2.0]
    assert {run.tags["team"] for run in captured.runs} == {"a"}
    assert Search.objective.__doc__ == "Documented."
    assert list(inspect.signature(Search.objective).parameters) == ["self", "trial", "scale"]
    assert pickle.loads(pickle.dumps(decorated)) is decorated
    assert plan(body)(optuna.trial.FixedTrial({"x": 0.5}, number=5)) == 0.5
    assert captured.runs[-1].params == {"x": 0.5}
    assert captured.runs[-1].tags["optuna.state"] == "COMPLETE"


def test_ask_and_tell(captured: Captured) -> None:
    """Trials that the program asks for itself are runs too, below whichever run is current then."""
    study = study_of()
    with stage("loop"):
        for _ in range(2):
            trial = study.ask()
            study.tell(trial, plain := decorated(trial) if trial.number != 1 else 0.0)
            assert plain == study.trials[trial.number].value
    assert [run.name for run in captured.one("loop").children] == ["trial-0"]


def test_a_stage_as_objective(captured: Captured) -> None:
    """A stage's parameter is the number of the trial, and a trial that is pruned has not failed."""

    @stage(returns=True)
    def objective(trial: Any) -> float:
        if trial.number:
            raise optuna.TrialPruned("late")
        return 0.5

    study = study_of()
    study.optimize(objective, 2)
    first, second = captured.runs
    assert (first.params, values(first, "objective")) == ({"trial": 0}, [(0, 0.5)])
    assert (second.params, second.status) == ({"trial": 1}, "FINISHED")
    assert second.failure.type == "optuna.exceptions.TrialPruned"


def test_callbacks_record_the_times_of_a_trial(sqlite_store: str) -> None:
    """A run that the callback creates later has the trial's start and end time."""
    study = study_of()
    study.optimize(body, 1, callbacks=[TrackdslCallback(name="t{number}", tags={"a": 1})])
    deliver()
    [trial], [run] = study.trials, all_runs(sqlite_store)
    assert run.info.start_time == int(trial.datetime_start.timestamp() * 1e3)
    assert run.info.end_time == int(trial.datetime_complete.timestamp() * 1e3)
    assert (run.info.run_name, run.info.status, run.data.tags["a"]) == ("t0", "FINISHED", "1")


def test_misuse() -> None:
    """A bad name, something that is not an objective and a call without a trial are errors that name the fix."""
    with pytest.raises(OptionError, match="number"):
        track_trials(name="{trial}")
    with pytest.raises(OptionError, match="number"):
        TrackdslCallback(name="{0}")
    with pytest.raises(OptionError, match="decorates a function"):
        track_trials("objective")  # type: ignore[call-overload]
    with pytest.raises(OptionError, match=r"optuna\.Trial"):
        decorated(3)


def test_a_study_after_the_other(captured: Captured) -> None:
    """A second study in the same run has names of its own, and a study that is gone leaves its best values."""
    with experiment("two"):
        for name, answers in (("one", [3.0, 1.0, 2.0]), ("other", [4.0, 5.0])):
            objective = track_trials(lambda trial, answers=answers: answers[trial.number])
            study_of(study_name=name).optimize(objective, len(answers))
    run = captured.one("two")
    assert (run.params["best.value"], run.params["best.trial"]) == (1.0, 1)
    assert (run.params["other.best.value"], run.params["other.best.trial"]) == (4.0, 0)
    assert (run.tags["optuna.study"], run.tags["other.optuna.study"]) == ("one", "other")


def test_disabled(monkeypatch: pytest.MonkeyPatch, captured: Captured) -> None:
    """Where trackdsl is disabled the objective is called, and nothing else happens."""
    trackdsl.configure(mode="disabled")
    study = study_of()
    study.optimize(track_trials(body), 1, callbacks=[TrackdslCallback()])
    assert len(study.trials) == 1
    assert captured.runs == []


WORKERS = """
    import multiprocessing, sys
    import optuna, trackdsl
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from trackdsl.integrations.optuna import TrackdslCallback, log_study, track_trials

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def load():
        return optuna.load_study(study_name="shared", storage=JournalStorage(JournalFileBackend("journal.log")))

    @track_trials
    def objective(trial):
        x = trial.suggest_float("x", -1, 1)
        trackdsl.log_metric("square", x * x)
        return x

    def work(decorated):
        if decorated:
            load().optimize(objective, n_trials=4)
        else:
            load().optimize(objective.__wrapped__, n_trials=4, callbacks=[TrackdslCallback()])

    if __name__ == "__main__":
        storage = JournalStorage(JournalFileBackend("journal.log"))
        optuna.create_study(study_name="shared", storage=storage)
        with trackdsl.experiment("search"):
            context = multiprocessing.get_context("spawn")
            workers = [context.Process(target=work, args=[decorated]) for decorated in (True, False)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            log_study(load())
        print(load().best_value)
        sys.exit(any(worker.exitcode for worker in workers))
"""


@pytest.mark.slow
def test_a_study_across_processes(start: StartProgram, sqlite_store: str) -> None:
    """Trials of several processes on one storage are children of the run around them, each exactly once."""
    code, out, err = start(WORKERS, TRACKDSL_MODE="online").finish()
    assert code == 0, err
    runs = {run.info.run_name: run for run in all_runs(sqlite_store)}
    search, trials = runs.pop("search"), list(runs.values())
    assert set(runs) == {f"trial-{number}" for number in range(8)}
    assert len(all_runs(sqlite_store)) == 9
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {search.info.run_id}
    assert {run.info.status for run in [search, *trials]} == {"FINISHED"}
    for run in trials:
        assert run.data.metrics["value"] == pytest.approx(float(run.data.params["x"]))
    # What an objective logs lands on its own run where that is made before, else on the run around.
    assert sum("square" in run.data.metrics for run in trials) == len(points(search, "square")) == 4
    assert float(search.data.params["best.value"]) == float(out)
    assert min(value for _, value in points(search, "best_value")) == float(out)
