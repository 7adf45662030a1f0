"""Secrets: whatever was planted is in no byte that trackdsl has written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trackdsl
from tests.conftest import StartProgram, all_runs, sync
from trackdsl import Secret, SettingsError, _secrets, stage, track_returns
from trackdsl.testing import RecordedRun, capture_runs

#: Plants every kind of secret in every place, each of them told apart by its number.
PROGRAM = """
    import argparse, dataclasses, logging, os, sys, typing
    import attrs, pydantic, omegaconf
    import pandas as pd
    import trackdsl
    from trackdsl import Secret, experiment, stage, track_returns
    logging.basicConfig()
    def plant(number):
        return f"PLANT{number:03d}" + "x7Qz"
    @dataclasses.dataclass
    class Login:
        user: str
        password: str
        hint: typing.Annotated[str, Secret] = ""
    class Api(pydantic.BaseModel):
        url: str
        anything: pydantic.SecretStr
        raw: pydantic.SecretBytes
    @attrs.define
    class Cloud:
        region: str
        access_key: str
    class Pair(typing.NamedTuple):
        name: str
        auth_token: str
    trackdsl.configure(secret_names=["*pin_code*"])
    login = Login("me", plant(1), plant(2))
    api = Api(url=f"https://me:{plant(3)}@host/path", anything=plant(4), raw=plant(5).encode())
    conf = omegaconf.OmegaConf.create({"db": {"password": plant(6), "port": 1}})
    deep = {"a": {"b": [{"c": {"api_key": plant(7)}}]}, "headers": {"Authorization": f"Bearer {plant(8)}"}}
    large = {f"k{i}": {"secret": plant(9), "n": i} for i in range(3000)}
    aws, github = "AKIA" + "IOSFODNN7PLANT10", "ghp_" + "PLANT011" * 5
    @stage("fit-{password}-{url}")
    @track_returns
    def fit(login, api, conf, deep, large, cloud, pair, spaces, url, hidden: typing.Annotated[str, Secret],
            password=plant(12), *credentials, pin_code=0, **extra):
        trackdsl.log_params({"db_password": plant(13), "note": f"used {password}", "keys": [aws, github]})
        trackdsl.log_param("list_of", [{"token": plant(14)}])
        trackdsl.set_tags({"api_key": plant(15), "note": f"{aws} and {hidden}", "url": url})
        trackdsl.log_dict({"x": {"passwd": plant(16)}, "text": f"key {github}"}, "config.json")
        trackdsl.log_dict({"x": {"passwd": plant(17)}}, "config.yaml")
        trackdsl.log_text(f"token {github} and {password}", "notes.txt")
        trackdsl.log_table({"user": ["a"], "password": [plant(18)], "note": [f"see {url}"]}, "table.json")
        trackdsl.log_metric("loss", 0.5)
        with stage(f"inner {url}", secret_key=plant(19), description="x", tags={"token": plant(20)}) as run:
            run.log_param(github, 1)
            run.log_params({"m": {github: 1}})
        try:
            raise RuntimeError(f"cannot log in with {password} at {url}")
        except RuntimeError as error:
            first = error
        return {"acc": 0.9, "password": plant(21), "info": {"token": plant(22)}, "said": f"with {hidden}"}
    @stage
    def fail(password, url):
        key = "harmless"
        try:
            dict(password="PLANT023x7Qz")["missing" + password]
        except KeyError as error:
            raise ValueError(f"login({password!r}) at {url} with {os.environ['DB_PASSWORD']}") from error
    @experiment("ex", tags={"secret": plant(24)}, description=f"see https://u:{plant(25)}@host/")
    def main():
        fit(login, api, conf, deep, large, Cloud("eu", plant(26)), Pair("a", plant(27)),
            argparse.Namespace(lr=1, api_token=plant(28)), f"postgresql://u:{plant(29)}@host/db", plant(30),
            plant(31), plant(32), pin_code=plant(33), client_secret=plant(34))
        try:
            fail(plant(35), f"https://{plant(36)}@host")
        except ValueError:
            pass
    main()
    logging.getLogger("trackdsl").warning("done")
"""

PLANT = re.compile(rb"PLANT0\d\d")


SECRETS = st.from_regex(r"[A-Za-z0-9!$]{8,30}", fullmatch=True)


def found_in(folder: Path) -> dict[str, set[bytes]]:
    """The planted secrets in every file below a folder, its names included."""
    found: dict[str, set[bytes]] = {}
    for path in folder.rglob("*"):
        text = bytes(path.relative_to(folder)) + (path.read_bytes() if path.is_file() else b"")
        if hits := set(PLANT.findall(text)):
            found[str(path)] = hits
    return found


def test_no_byte_that_is_written_holds_a_secret(start: StartProgram, tmp_path: Path) -> None:
    """By name, type, marker and shape, at any depth: not in the spool, the store, the artifacts, nor the logs."""
    program = start(PROGRAM, "--password=PLANT037x7Qz", DB_PASSWORD="PLANT038x7Qz", TRACKDSL_MODE="offline")
    code, out, err = program.finish()
    assert code == 0, err
    assert not PLANT.search((out + err).encode())
    assert len(list((tmp_path / "spool").rglob("*.seg"))) == 1
    assert found_in(tmp_path / "spool") == {}
    done = sync(DB_PASSWORD="PLANT038x7Qz")
    assert done.returncode == 0, done.stderr
    assert found_in(tmp_path / "spool") == {}
    assert found_in(Path.cwd()) == {}
    assert not PLANT.search((done.stdout + done.stderr).encode())
    # What is no secret is there.
    fit = next(run for run in all_runs() if run.info.run_name.startswith("fit-"))
    assert fit.info.run_name == "fit-***-postgresql://***@host/db"
    assert (fit.data.params["login.user"], fit.data.params["login.password"]) == ("me", "***")
    assert (fit.data.params["api.url"], fit.data.params["api.anything"]) == ("https://***@host/path", "***")
    assert (fit.data.params["conf.db.port"], fit.data.params["conf.db.password"]) == ("1", "***")
    assert (fit.data.params["cloud.region"], fit.data.params["pair.name"], fit.data.params["spaces.lr"]) == (
        "eu",
        "a",
        "1",
    )
    assert fit.data.metrics == {"acc": 0.9, "loss": 0.5}
    failed = next(run for run in all_runs() if run.info.run_name == "fail")
    assert failed.data.tags["trackdsl.exception.message"] == "login('***') at https://***@host with ***"


def recorded(value: Any, name: str = "x") -> RecordedRun:
    with capture_runs() as captured, stage("f") as run:
        run.log_param(name, value)
    return captured.one("f")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password", True), ("db_password", True), ("PGPASSWORD", True), ("api_key", True), ("apikey", True),
        ("aws_secret_access_key", True), ("token", True), ("hf_token", True), ("auth_token", True), ("bearer", True),
        ("client_secret", True), ("private_key", True), ("connection_string", True), ("credentials", True),
        ("max_tokens", False), ("token_count", False), ("n_tokens", False), ("tokenizer", False), ("keyword", False),
        ("monkey", False), ("passes", False), ("lr", False), ("key", False), ("author", False),
    ],
)  # fmt: skip
def test_names_of_secrets(name: str, secret: bool) -> None:
    """What is named like a secret is masked, and hyper-parameters that only look so are not."""
    assert recorded("some value", name).params == {name: "***" if secret else "some value"}


def test_names_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """`configure(secret_names=, public_names=)` and the environment: also for functions decorated before."""

    @stage
    def f(pin_code: str, token_level: str, hf_token: str) -> None: ...

    def params(pin: str = "1234") -> dict[str, Any]:
        with capture_runs() as captured:
            f(pin, "word", "public")
        return captured.one("f").params

    assert params() == {"pin_code": "1234", "token_level": "word", "hf_token": "***"}
    trackdsl.configure(secret_names=["PIN_*"], public_names="hf_token")
    assert params() == {"pin_code": "***", "token_level": "word", "hf_token": "public"}
    trackdsl.configure(secret_names=[], public_names=[])
    monkeypatch.setenv("TRACKDSL_SECRET_NAMES", "pin_code, other")
    assert params()["pin_code"] == "1234"  # What `configure` said stands.
    with pytest.raises(SettingsError, match="takes names"):
        trackdsl.configure(secret_names=[1])  # type: ignore[list-item]


def test_names_from_the_environment(start: StartProgram) -> None:
    """`TRACKDSL_SECRET_NAMES` and `TRACKDSL_PUBLIC_NAMES` hold without a line of code."""
    source = """
        from trackdsl import stage
        from trackdsl.testing import capture_runs
        with capture_runs() as captured, stage("f", pin_code=1234, password="public"):
            pass
        print(captured.one("f").params)
    """
    program = start(source, TRACKDSL_SECRET_NAMES="pin_*,x", TRACKDSL_PUBLIC_NAMES="password")
    assert program.finish()[1].strip() == "{'pin_code': '***', 'password': 'public'}"


def test_a_masked_value_is_masked_wherever_it_comes_again() -> None:
    """A password that was an argument is taken out of parameters, tags, texts and messages that come later."""

    @stage
    def f(password: str) -> None:
        trackdsl.log_param("command", f"login --with {password}")
        trackdsl.set_tag("note", password)
        raise RuntimeError(password)

    with capture_runs() as captured, pytest.raises(RuntimeError, match="correct horse"):
        f("correct horse")
    run = captured.one("f")
    assert (run.params["command"], run.tags["note"]) == ("login --with ***", "***")
    assert run.failure is not None
    assert "correct horse" not in str(run.failure)


def test_a_short_password_does_not_spoil_other_values() -> None:
    """A password that is a word like any other is masked under its name, and leaves equal words elsewhere alone."""
    with capture_runs() as captured, stage("f", password="adam", optimizer="adam"):
        pass
    assert captured.one("f").params == {"password": "***", "optimizer": "adam"}


def test_the_users_secret_is_given_back_whole() -> None:
    """Masking changes nothing that the function gets or returns."""

    @stage
    @track_returns
    def f(password: str, hidden: Annotated[str, Secret]) -> dict[str, str]:
        return {"password": password, "hidden": hidden}

    with capture_runs():
        assert f("hunter22", "hunter33") == {"password": "hunter22", "hidden": "hunter33"}


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_text_without_a_secret_stays_as_it_is(text: str) -> None:
    """Masking takes nothing out of text that holds neither a URL with credentials nor the shape of a token."""
    if "://" not in text and len(text) < 16:
        assert _secrets.mask_text(text) == text


@given(
    before=st.text(max_size=20),
    after=st.text(max_size=20),
    secret=st.from_regex(r"[A-Za-z0-9!$]{8,30}", fullmatch=True),
)
def test_what_is_remembered_never_gets_through(before: str, after: str, secret: str) -> None:
    """Whatever stands around a remembered secret, masking takes it out."""
    _secrets.remember(secret)
    assert secret not in _secrets.mask_text(f"{before}{secret}{after}")
    _secrets._remembered.clear()
    _secrets._long_remembered = ()
