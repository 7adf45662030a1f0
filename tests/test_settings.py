"""Settings: which of all that may say something counts, and what `trackdsl doctor` tells of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trackdsl
from tests.conftest import Server, client, free_port
from trackdsl import SettingsError, _pyproject, experiment, settings, stage
from trackdsl.settings import Settings
from trackdsl.testing import capture_runs

VALUES: dict[str, list[Any]] = {
    "tracking_uri": ["sqlite:////a.db", "http://b:1", "postgresql://c/d"],
    "experiment_name": ["churn", "Größe 名前", "'; DROP TABLE experiments"],
    "mode": ["online", "offline", "disabled"],
    "spool": ["/one", "/two", "/three"],
    "strict": [True, False],
    "delivery": ["process", "thread"],
    "secret_names": [("pin",), ("a", "b*")],
    "system_metrics": [2.0, 30.0],
    "public_names": [("token_level",), ("x", "y")],
}


@pytest.fixture(autouse=True)
def nothing_set(private: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("TRACKDSL_SPOOL")
    monkeypatch.delenv("TRACKDSL_MODE")
    _pyproject.forget()
    yield
    _pyproject.forget()


def as_text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


@given(data=st.data())
def test_the_first_that_says_something_counts(data: st.DataObject) -> None:
    """`configure`, then a setting's variables in their order, then the project, then the default; Settings agrees."""
    name = data.draw(st.sampled_from(settings.NAMES))
    value = st.sampled_from(VALUES[name])
    layers: list[tuple[str, Any]] = [("configure()", data.draw(st.none() | value))]
    layers += [(variable, data.draw(st.none() | value)) for variable in settings.VARIABLES[name]]
    in_project = data.draw(st.none() | value)
    layers.append((f"{Path.cwd()}/pyproject.toml", in_project))
    before = settings.configured()
    with pytest.MonkeyPatch.context() as patch:
        for source, told in layers[1:-1]:
            if told is not None:
                patch.setenv(source, as_text(told))
        spelling = name if data.draw(st.booleans()) else name.replace("_", "-")
        table = "" if in_project is None else f"{spelling} = {json.dumps(in_project)}\n"
        Path("pyproject.toml").write_text(f"[tool.trackdsl]\n{table}", encoding="utf-8")
        _pyproject.forget()
        try:
            if layers[0][1] is not None:
                settings.update(**{name: layers[0][1]})
            found = settings.look_up(name)
            whole = Settings()
        finally:
            settings.restore(before)
    said = [(source, told) for source, told in layers if told is not None]
    assert found.source == (said[0][0] if said else "default")
    expected = said[0][1] if said else settings._DEFAULTS[name]
    kept = tuple(found.value) if isinstance(found.value, list) else found.value
    assert kept == expected
    of_model = getattr(whole, name)
    assert (str(of_model) if isinstance(of_model, Path) else of_model) == expected


def test_the_project_says_where_runs_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`[tool.trackdsl]` of the nearest pyproject.toml counts below it too; its relative paths start at the file."""
    (tmp_path / "work/pyproject.toml").write_text(
        '[tool.trackdsl]\ntracking-uri = "sqlite:///runs/mlflow.db"\nexperiment-name = "ours"\nspool = "kept"\n'
    )
    below = tmp_path / "work/src/deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert settings.tracking_uri() == f"sqlite:///{tmp_path}/work/runs/mlflow.db"
    assert settings.spool() == tmp_path / "work/kept"
    with capture_runs() as captured, stage("s"):
        pass
    assert captured.one("s").experiment == "ours"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.trackdsl]\ntracking_url = 'x'\n", r"pyproject.toml has no setting 'tracking_url'; did you mean"),
        ("[tool.trackdsl]\nmode = 'ofline'\n", r"mode in .*pyproject.toml is 'ofline'; did you mean `offline`"),
        ("[tool.trackdsl]\nstrict = 'perhaps'\n", r"strict in .*It must be one of"),
        ("[tool.trackdsl]\ntracking_uri = 5\n", "takes text, not 5"),
        ("[tool.trackdsl\n", "is no valid TOML"),
        ("[tool]\ntrackdsl = 3\n", "must be a table"),
    ],
)
def test_a_project_that_is_wrong_is_told(text: str, message: str) -> None:
    """What cannot be meant is an error at the first run that names the file, and the program can be mended."""
    Path("pyproject.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        settings.mode(), settings.strict(), settings.tracking_uri()


def test_a_project_without_a_word_of_us_is_not_parsed() -> None:
    """A pyproject.toml that does not name trackdsl costs no TOML parser, and may be broken."""
    Path("pyproject.toml").write_text("[tool.other\n")
    assert settings.mode() == "online"


def test_configure_takes_settings_as_one_object() -> None:
    """`configure(Settings(...))` sets what it was given and leaves the rest to the environment."""
    trackdsl.configure(Settings(experiment_name="churn", strict=True), strict=False)
    assert settings.configured().experiment_name == "churn"
    assert settings.configured().mode is None
    assert settings.strict() is False
    with pytest.raises(SettingsError, match=r"trackdsl\.Settings"):
        trackdsl.configure({"mode": "offline"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mod": "offline"}, "did you mean `mode`"),
        ({"mode": "later"}, "'online', 'offline' or 'disabled'"),
        ({"strict": "perhaps"}, "boolean"),
    ],
)
def test_settings_refuse_what_they_do_not_know(wrong: dict[str, Any], message: str) -> None:
    """`Settings` tells a wrong name or value as everything here does."""
    with pytest.raises(SettingsError, match=message):
        Settings(**wrong)


def test_mlflows_experiment_id_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's id of an experiment counts before its name and the project, and after what was told to trackdsl."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by name")
    assert settings.experiment_id() == "7"
    monkeypatch.setenv("TRACELET_MLFLOW_EXPERIMENT_NAME", "told")
    assert settings.experiment_id() is None


def test_a_call_counts_before_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name in a word counts before `configure`, which counts before the environment."""
    monkeypatch.setenv("TRACKDSL_EXPERIMENT_NAME", "of the environment")
    with capture_runs() as captured:
        with stage("first"):
            pass
        trackdsl.configure(experiment_name="configured")
        with stage("second"):
            pass
        with experiment("called"):
            pass
    assert [run.experiment for run in captured.runs] == ["of the environment", "configured", "called"]


# The doctor.


def doctor(*arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "trackdsl.cli", "doctor", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, "TRACKDSL_SPOOL": str(Path.cwd() / "spool"), **environment},
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def findings(told: dict[str, Any], level: str) -> dict[str, dict[str, Any]]:
    return {found["about"]: found for found in told["findings"] if found["level"] == level}


def test_the_doctor_says_where_settings_come_from(sqlite_store: str) -> None:
    """Each setting with its source, what it hides, credentials masked; a healthy place exits with 0."""
    Path("pyproject.toml").write_text('[tool.trackdsl]\nexperiment_name = "ours"\nsecret_names = ["pin"]\n')
    code, told = doctor(
        MLFLOW_EXPERIMENT_NAME="of mlflow", TRACKDSL_EXPERIMENT_NAME="here", MLFLOW_TRACKING_PASSWORD="hush-hush"
    )
    assert code == 0
    assert findings(told, "problem") == {}
    found = {each["name"]: each for each in told["settings"]}
    project = f"{Path.cwd()}/pyproject.toml"
    assert found["experiment_name"]["value"] == "here"
    assert found["experiment_name"]["source"] == "TRACKDSL_EXPERIMENT_NAME"
    assert found["experiment_name"]["hides"] == ["MLFLOW_EXPERIMENT_NAME", project]
    assert (found["secret_names"]["value"], found["secret_names"]["source"]) == ("pin", project)
    assert (found["mode"]["value"], found["mode"]["source"]) == ("online", "default")
    assert "hush-hush" not in json.dumps(told)
    fine = findings(told, "ok")
    assert "made by the first run" in fine["experiment"]["text"]
    assert "is that of the installed MLflow" in fine["schema"]["text"]
    assert "free where the spool is" in {**fine, **findings(told, "warning")}["disk"]["text"]


def test_the_doctor_names_what_to_mend(shared_server: Server, sqlite_store: str) -> None:
    """A dead server, a deleted experiment, an old schema, a bad setting: each with its fix, and exit code 1."""
    dead = f"http://ann:hush@127.0.0.1:{free_port()}"
    code, told = doctor("--tracking-uri", dead)
    assert code == 1
    assert "cannot be reached" in findings(told, "problem")["store"]["text"]
    assert "hush" not in json.dumps(told)

    mlflow = client(shared_server.uri)
    mlflow.delete_experiment(mlflow.create_experiment("doctored"))
    code, told = doctor(MLFLOW_TRACKING_URI=shared_server.uri, MLFLOW_EXPERIMENT_NAME="doctored")
    assert code == 1
    assert "mlflow experiments restore" in findings(told, "problem")["experiment"]["fix"]

    import sqlite3

    with sqlite3.connect("mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    code, told = doctor("--tracking-uri", sqlite_store, TRACKDSL_MODE="offline")
    assert code == 1
    assert "mlflow db upgrade" in findings(told, "problem")["schema"]["fix"]
    assert "trackdsl sync" in findings(told, "warning")["recording"]["fix"]

    code, told = doctor(TRACKDSL_MODE="ofline")
    assert code == 1
    assert "TRACKDSL_MODE is 'ofline'; did you mean `offline`?" in findings(told, "problem")["setting mode"]["text"]


@pytest.mark.slow
def test_the_doctor_for_people(sqlite_store: str) -> None:
    """Without --json there is a table of settings, a line for each check, and a verdict."""
    done = subprocess.run(
        [sys.executable, "-m", "trackdsl.cli", "doctor"],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, "TRACKDSL_SPOOL": str(Path.cwd() / "spool")},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("tracking_uri", "sqlite:///mlflow.db", "default", "✔", "waiting", "All is well."):
        assert part in done.stdout
