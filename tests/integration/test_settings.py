"""Settings: which of several sources counts, and what `trackdsl doctor` prints of them."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trackdsl
from tests.conftest import Server, client, free_port
from trackdsl import OptionError, QueryError, SettingsError, experiment, settings, stage
from trackdsl._config import pyproject
from trackdsl._config.spec import SETTINGS
from trackdsl._core.uris import absolute_uri, describe_mistake
from trackdsl.compat.tracelet.settings import TraceletSettings
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
    "ranks": ["children", "main", "separate"],
    "stages": [("churn.model:fit", "churn.data:*")],
    "show_url": [True, False],
    "cards": [True, False],
    "changes": [True, False],
    "reports": [True, False],
    "traces": [True, False],
}


@pytest.fixture(autouse=True)
def nothing_set(private: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("TRACKDSL_SPOOL")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # The default spool is in there.
    monkeypatch.delenv("TRACKDSL_MODE")
    monkeypatch.delenv("TRACKDSL_CHANGES")
    monkeypatch.delenv("TRACKDSL_REPORTS")
    pyproject.forget()
    yield
    pyproject.forget()


def as_text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


@given(data=st.data())
def test_the_first_that_says_something_counts(data: st.DataObject) -> None:
    """`configure`, then a setting's variables in their order, then the project, then the default; Settings agrees."""
    name = data.draw(st.sampled_from(settings.NAMES))
    value = st.sampled_from(VALUES[name])
    layers: list[tuple[str, Any]] = [("configure()", data.draw(st.none() | value))]
    layers += [(variable, data.draw(st.none() | value)) for variable in SETTINGS[name].variables]
    in_project = data.draw(st.none() | value)
    layers.append((f"{Path.cwd()}/pyproject.toml", in_project))
    before = settings.configured()
    with pytest.MonkeyPatch.context() as patch:
        for source, content in layers[1:-1]:
            if content is not None:
                patch.setenv(source, as_text(content))
        spelling = name if data.draw(st.booleans()) else name.replace("_", "-")
        table = "" if in_project is None else f"{spelling} = {json.dumps(in_project)}\n"
        Path("pyproject.toml").write_text(f"[tool.trackdsl]\n{table}", encoding="utf-8")
        pyproject.forget()
        try:
            if layers[0][1] is not None:
                settings.update(**{name: layers[0][1]})
            found = settings.look_up(name)
            whole = Settings()
        finally:
            settings.restore(before)
    said = [(source, content) for source, content in layers if content is not None]
    assert found.source == (said[0][0] if said else "default")
    expected = said[0][1] if said else SETTINGS[name].default
    kept = tuple(found.value) if isinstance(found.value, list) else found.value
    assert kept == expected
    of_model = getattr(whole, name)
    assert (str(of_model) if isinstance(of_model, Path) else of_model) == expected


def test_what_is_written_out_by_hand_agrees_with_the_rows() -> None:
    """The signature and help of `configure` and the guide's table have the rows of the settings, and no others."""
    parameters = list(inspect.signature(trackdsl.configure).parameters)
    assert parameters == ["chosen", *settings.NAMES, "unknown"]
    text = inspect.getdoc(trackdsl.configure).partition("Raises:")[0]  # type: ignore[union-attr]
    assert re.findall(r"^    \**(\w+): ", text, re.MULTILINE) == parameters
    documented = " ".join(text.split())
    guide = (Path(__file__).parents[2] / "notebooks/settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `TRACKDSL_\w+`", guide, re.MULTILINE)
    assert rows == [*settings.NAMES]
    for setting in SETTINGS.values():
        assert f"{setting.name}: {setting.help}" in documented
        assert (
            f"| `{setting.name}` | {', '.join(f'`{v}`' for v in setting.variables)} | {setting.default_help}" in guide
        )


@pytest.mark.parametrize("name", settings.NAMES)
def test_configure_sets_every_setting(name: str) -> None:
    """A value that `configure` gets for a setting is the one in force, and says that it comes from there."""
    value = next(value for value in VALUES[name] if value != SETTINGS[name].default)
    trackdsl.configure(**{name: value})
    assert settings.look_up(name) == (value, "configure()")
    for in_force in (getattr(settings, name)(), getattr(Settings(), name)):
        assert (str(in_force) if isinstance(in_force, Path) else in_force) == value


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
        ("[tool.trackdsl]\ntracking_uri = 5\n", "takes a string, not 5"),
        ("[tool.trackdsl\n", "is not valid TOML"),
        ("[tool]\ntrackdsl = 3\n", "must be a table"),
    ],
)
def test_a_faulty_project_file_is_reported(text: str, message: str) -> None:
    """A faulty project file is an error that names it at the first run, and the program can be corrected."""
    Path("pyproject.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        settings.mode(), settings.strict(), settings.tracking_uri()


def test_a_project_that_does_not_mention_us_is_not_parsed() -> None:
    """A pyproject.toml that does not name trackdsl costs no TOML parser, and may be broken."""
    Path("pyproject.toml").write_text("[tool.other\n")
    assert settings.mode() == "online"


def test_configure_takes_settings_as_one_object() -> None:
    """`configure(Settings(...))` sets what it was given and leaves the rest to the environment."""
    trackdsl.configure(Settings(experiment_name="churn", strict=True), strict=False)
    assert settings.configured()["experiment_name"] == "churn"
    assert "mode" not in settings.configured()
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
    """`Settings` reports a wrong name or value as everything here does."""
    with pytest.raises(SettingsError, match=message):
        Settings(**wrong)


def test_mlflows_experiment_id_keeps_its_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's id of an experiment counts before its name and the project, and after trackdsl's own settings."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by name")
    assert settings.experiment_id() == "7"
    monkeypatch.setenv("TRACELET_MLFLOW_EXPERIMENT_NAME", "given")
    assert settings.experiment_id() is None


def test_a_call_counts_before_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name in a decorator's call counts before `configure`, which counts before the environment."""
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


#: What people write, and what is offered instead; empty where nothing better can be offered than what is wrong.
WRONG_URIS = {
    "127.0.0.1:5000": "did you mean http://127.0.0.1:5000?",
    "localhost:5000": "did you mean http://localhost:5000?",
    "h:5000": "did you mean http://h:5000?",
    "my-server:5000/path": "did you mean http://my-server:5000/path?",
    "[::1]:5000": "did you mean http://[::1]:5000?",
    "//host:5000": "did you mean http://host:5000?",
    "://host": "did you mean http://host?",
    "localhost": "did you mean http://localhost?",
    "mlflow.db": "did you mean sqlite:///mlflow.db?",
    "/data/runs.sqlite3": "did you mean sqlite:////data/runs.sqlite3?",
    "htp://x": "did you mean http://x?",
    "http//host": "did you mean http://host?",
    "http:/host": "did you mean http://host?",
    "http:///host": "did you mean http://host?",
    "https:host": "did you mean https://host?",
    "http://http://host": "did you mean http://host?",
    "http://host/#/experiments/1": "did you mean http://host?",
    "http://": "names no host",
    "http": "names no host",
    "http://::1:5000": "names no host",
    "http://[::1": "is not a valid URL",
    "http://my host": "is not a valid host name",
    "http://h:50a0": "its port must be a number",
    "http://h:70000": "its port must be a number",
    "http://h:0": "its port must be a number",
    "postgresql://ann:pw@h:54x/db": "its port must be a number",
    "postgres://h/db": "did you mean postgresql://h/db?",
    "postgres+psycopg2://h/db": "did you mean postgresql+psycopg2://h/db?",
    "postgresql:/h/db": "did you mean postgresql://h/db?",
    "sqlite://mlflow.db": "did you mean sqlite:///mlflow.db?",
    "sqlite:mlflow.db": "did you mean sqlite:///mlflow.db?",
    "sqlite:/data/x.db": "did you mean sqlite:////data/x.db?",
    "sqlite3:///x.db": "did you mean sqlite:///x.db?",
    "sqlite://": "names no file",
    "sqlite:///:memory:": "disappears when the delivery process ends",
    "file://mlruns/x": "did you mean file:mlruns/x?",
    " http://x": "did you mean http://x?",
    "http://x\n": "did you mean http://x?",
    "'http://x'": "did you mean http://x?",
    "  ": "it is empty",
    "s3://bucket/runs": "stores files only",
    "arn:aws:sagemaker:eu-west-1:1:mlflow-tracking-server/x": "pip install sagemaker-mlflow",
    "foo://x": "MLflow does not support the scheme foo",
    "C:\\mlruns": "a Windows path",
    "c:/mlruns": "a Windows path",
    "sqlite:///C:\\x.db": "a Windows path",
}
RIGHT_URIS = (
    "http://h", "HTTPS://h:443/x", "http://ann:p@ss:word@h:5000", "http://[::1]:5000", "http://h:/x",
    "sqlite:///mlflow.db", "sqlite:////a b/x.db", "sqlite+pysqlite:///x.db",
    "postgresql://ann:p#w/x@h:5432/db", "postgresql+psycopg2:///db?host=/tmp", "postgresql://a:1,b:2/db",
    "mysql+pymysql://ann@h/db", "mssql+pyodbc://dsn", "file:mlruns", "file:///a", "file://localhost/a",
    "mlruns", "./a:b", "/data/of 12:30", "runs of monday", "databricks", "databricks://profile",
    "databricks://scope:key", "databricks-uc", "uc", "uc:http://h",
)  # fmt: skip
#: Those of local stores, as they are recorded by a program in the folder `/work`; all others stay as they are.
ABSOLUTE_URIS = {
    "sqlite:///mlflow.db": "sqlite:////work/mlflow.db",
    "file:mlruns": "file:///work/mlruns",
    "mlruns": "/work/mlruns",
    "./a:b": "/work/./a:b",
    "runs of monday": "/work/runs of monday",
}


@pytest.mark.parametrize("uri", WRONG_URIS)
def test_a_wrong_tracking_uri_is_refused_wherever_it_is_given(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URI that can never work is an error at once that suggests the right one, from every source."""
    said = re.escape(WRONG_URIS[uri])
    with pytest.raises(SettingsError, match=f"^tracking_uri is .*{said}"):
        trackdsl.configure(tracking_uri=uri)
    with pytest.raises(SettingsError, match=f"^tracking_uri is .*{said}"):
        Settings(tracking_uri=uri)
    with pytest.raises(OptionError, match=rf"^experiment\(tracking_uri=...\) is .*{said}"):
        experiment("e", tracking_uri=uri)
    with pytest.raises(OptionError, match=said):
        trackdsl.start_logging("e", config={"tracking_uri": uri})
    with pytest.raises(OptionError, match=said):
        trackdsl.start_logging("e", settings=TraceletSettings(mlflow_tracking_uri=uri))
    with pytest.raises(QueryError, match=said):
        trackdsl.runs(tracking_uri=uri)
    Path("pyproject.toml").write_text(f"[tool.trackdsl]\ntracking_uri = {json.dumps(uri)}\n")
    pyproject.forget()
    with pytest.raises(SettingsError, match=rf"^tracking_uri in .*pyproject.toml is .*{said}"), stage("s"):
        pass
    for variable in SETTINGS["tracking_uri"].variables[::-1]:
        monkeypatch.setenv(variable, uri)
        with pytest.raises(SettingsError, match=f"^{variable} is .*{said}"), stage("s"):
            pass
    assert "tracking_uri" not in settings.configured()


@pytest.mark.parametrize("uri", RIGHT_URIS)
def test_what_mlflow_takes_is_handed_to_it(uri: str) -> None:
    """Every form that MLflow takes is kept as it was written; a path or file alone is made absolute."""
    trackdsl.configure(tracking_uri=uri)
    experiment("e", tracking_uri=uri)
    assert settings.tracking_uri() == Settings(tracking_uri=uri).tracking_uri == uri
    assert absolute_uri(uri, "/work") == ABSOLUTE_URIS.get(uri, uri)


@pytest.mark.parametrize("uri", ["databricks", "databricks-uc", "uc"])
def test_databricks_is_no_folder(uri: str) -> None:
    """The texts that MLflow takes instead of a URI reach delivery as they are, from every folder."""
    trackdsl.configure(mode="offline")
    with stage("s"), experiment("e", tracking_uri=uri) as run:
        pass
    assert run.target.uri == uri


def test_a_plugin_may_register_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheme that an installed package has registered with MLflow is accepted, and looked for once."""
    uri = "acme-store://team"
    assert "does not support the scheme acme-store" in str(describe_mistake(uri))
    describe_mistake.cache_clear()
    package = tmp_path / "plugins/acme-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[mlflow.tracking_store]\nacme-store = acme:Store\n")
    monkeypatch.syspath_prepend(package.parent)
    trackdsl.configure(tracking_uri=uri)
    assert settings.tracking_uri() == uri
    describe_mistake.cache_clear()


def test_a_context_says_where_to_go_whatever_is_set_here() -> None:
    """A process that receives a context does not fail because of a wrong setting that does not count there."""
    with experiment("e", tracking_uri="sqlite:////data/runs.db"):
        context = pickle.dumps(trackdsl.capture())
    program = "import pickle, sys, trackdsl\nwith trackdsl.attach(pickle.loads(bytes.fromhex(sys.argv[1]))):\n"
    program += "    with trackdsl.stage('s') as run: print(run.target.uri)"
    environment = {**os.environ, "TRACKDSL_TRACKING_URI": "localhost:5000", "TRACKDSL_MODE": "offline"}
    command = [sys.executable, "-c", program, context.hex()]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout, done.stderr) == ("sqlite:////data/runs.db\n", "")


def test_no_message_shows_the_credentials_of_a_uri() -> None:
    """No message about a wrong URI shows its password, nor does the suggested URI."""
    for uri in (
        *("htp://ann:hunter2@h", "ann:hunter2@h:5000", "http://ann:hun@ter2@h:x", "postgres://ann:hunter2@h/d"),
        *("postgresql://ann:hunter2/d", "sqlite:/x?key=hunter2", " http://ann:hunter2@h", "foo://ann:hunter2@h"),
    ):
        with pytest.raises(SettingsError) as caught:
            trackdsl.configure(tracking_uri=uri)
        assert "hunter2" not in f"{caught.value} {caught.value.value}", uri
        assert "ter2" not in str(caught.value), uri


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


def findings(report: dict[str, Any], level: str) -> dict[str, dict[str, Any]]:
    return {found["about"]: found for found in report["findings"] if found["level"] == level}


@pytest.mark.slow
def test_the_doctor_says_where_settings_come_from(sqlite_store: str) -> None:
    """The doctor prints each setting with its source and what it hides, masked; a healthy setup exits with 0."""
    Path("pyproject.toml").write_text('[tool.trackdsl]\nexperiment_name = "ours"\nsecret_names = ["pin"]\n')
    code, report = doctor(
        MLFLOW_EXPERIMENT_NAME="of mlflow", TRACKDSL_EXPERIMENT_NAME="here", MLFLOW_TRACKING_PASSWORD="hush-hush"
    )
    assert code == 0
    assert findings(report, "problem") == {}
    found = {each["name"]: each for each in report["settings"]}
    project = f"{Path.cwd()}/pyproject.toml"
    assert found["experiment_name"]["value"] == "here"
    assert found["experiment_name"]["source"] == "TRACKDSL_EXPERIMENT_NAME"
    assert found["experiment_name"]["hides"] == ["MLFLOW_EXPERIMENT_NAME", project]
    assert (found["secret_names"]["value"], found["secret_names"]["source"]) == ("pin", project)
    assert (found["mode"]["value"], found["mode"]["source"]) == ("online", "default")
    assert "hush-hush" not in json.dumps(report)
    fine = findings(report, "ok")
    assert "the first run creates it" in fine["experiment"]["text"]
    assert "matches the installed MLflow" in fine["schema"]["text"]
    assert "free where the spool is" in {**fine, **findings(report, "warning")}["disk"]["text"]


def test_the_doctor_names_what_to_fix(shared_server: Server, sqlite_store: str) -> None:
    """A dead server, a deleted experiment, an old schema and a bad setting have their fixes, and exit code 1."""
    dead = f"http://ann:hush@127.0.0.1:{free_port()}"
    code, report = doctor("--tracking-uri", dead)
    assert code == 1
    assert "cannot be reached" in findings(report, "problem")["store"]["text"]
    assert "hush" not in json.dumps(report)

    mlflow = client(shared_server.uri)
    mlflow.delete_experiment(mlflow.create_experiment("doctored"))
    code, report = doctor(MLFLOW_TRACKING_URI=shared_server.uri, MLFLOW_EXPERIMENT_NAME="doctored")
    assert code == 1
    assert "mlflow experiments restore" in findings(report, "problem")["experiment"]["fix"]

    import sqlite3

    with sqlite3.connect("mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    code, report = doctor("--tracking-uri", sqlite_store, TRACKDSL_MODE="offline")
    assert code == 1
    assert "mlflow db upgrade" in findings(report, "problem")["schema"]["fix"]
    assert "trackdsl sync" in findings(report, "warning")["recording"]["fix"]

    code, report = doctor(TRACKDSL_MODE="ofline")
    assert code == 1
    assert "TRACKDSL_MODE is 'ofline'; did you mean `offline`?" in findings(report, "problem")["setting mode"]["text"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("mod = 'offline'", "has no setting 'mod'; did you mean `mode`?"),
        ("mode = offline", "is not valid TOML"),
    ],
)
def test_the_doctor_of_a_bad_project(content: str, said: str) -> None:
    """A fault of `[tool.trackdsl]` is one problem of that table, and not of a setting that is right."""
    Path("pyproject.toml").write_text(f"[tool.trackdsl]\n{content}\n")
    code, report = doctor(TRACKDSL_MODE="offline", TRACKDSL_EXPERIMENT_NAM="x")
    assert code == 1
    assert list(findings(report, "problem")) == ["[tool.trackdsl]"]
    assert said in findings(report, "problem")["[tool.trackdsl]"]["text"]
    by_name = {setting["name"]: setting for setting in report["settings"]}
    assert (by_name["mode"]["value"], by_name["mode"]["source"]) == ("offline", "TRACKDSL_MODE")
    assert (by_name["strict"]["value"], by_name["strict"]["source"]) == (None, "unknown: see [tool.trackdsl] below")
    assert all(setting["problem"] is None for setting in report["settings"])
    assert "did you mean `TRACKDSL_EXPERIMENT_NAME`?" in findings(report, "warning")["environment"]["text"]
    assert "spool" in findings(report, "ok")


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
    for part in ("tracking_uri", "sqlite:///mlflow.db", "default", "✔", "waiting", "No problems found."):
        assert part in done.stdout


@pytest.mark.parametrize("variable", ["STRICT", "RANKS", "SHOW_URL", "DELIVERY", "SYSTEM_METRICS", "MODE"])
def test_a_bad_variable_is_refused_by_the_first_run(
    monkeypatch: pytest.MonkeyPatch, sqlite_store: str, variable: str
) -> None:
    """Every variable is looked at when the first run begins, also one that counts only later, or elsewhere."""
    monkeypatch.setenv(f"TRACKDSL_{variable}", "purple")
    with pytest.raises(SettingsError, match=f"TRACKDSL_{variable} is 'purple'"), stage("s"):
        pass


def test_choices_may_be_written_in_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    """`OFFLINE` is `offline`, in the environment and elsewhere."""
    monkeypatch.setenv("TRACKDSL_MODE", "OFFLINE")
    assert trackdsl.settings.mode() == "offline"


def test_variables_that_are_misspelt(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that resembles one of trackdsl's is reported once, where something is recorded."""
    monkeypatch.setenv("TRACKDSL_TRAKING_URI", "http://nowhere")
    monkeypatch.setenv("TRACKDSL_CONTEXT_OF_NOBODY", "x")
    for _ in range(2):
        with stage("s"):
            pass
    known, unknown = [record.getMessage() for record in caplog.records if record.name == "trackdsl"]
    assert "unknown environment variable TRACKDSL_TRAKING_URI; did you mean `TRACKDSL_TRACKING_URI`?" in known
    assert "unknown environment variable TRACKDSL_CONTEXT_OF_NOBODY" in unknown
