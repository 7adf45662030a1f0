"""Secrets: no byte that a process wrote holds one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import StartProgram, all_runs, sync

#: Plants every kind of secret in every field, each with a number of its own.
PROGRAM = """
    import argparse, collections, dataclasses, logging, os, sys, typing
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
    class Stubborn:
        def __init__(self, text):
            self.text = text
        def __float__(self):
            raise ValueError(self.text)
        __str__ = __index__ = __float__
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
        run = trackdsl.current_run()
        run.log_metric("bad", Stubborn(f"https://u:{plant(40)}@host"))
        run.log_metrics({"worse": Stubborn(f"https://u:{plant(41)}@host")})
        run.set_tag("bad", Stubborn(f"https://u:{plant(42)}@host"))
        run.log_metric("step", 1.0, step=Stubborn(f"https://u:{plant(43)}@host"))
        run.log_metric(f"https://u:{plant(44)}@host", 0.5)
        run.log_metrics({f"https://u:{plant(45)}@host": 0.5})
        run.set_tags({"asdict": {"password": plant(46)}, "login": Login("me", plant(47))})
        run.log_text(str(Login("me", plant(48))), "login.txt")
        run.log_text("x", f"a/https://u:{plant(49)}@host/x.txt")
        run.log_text(f"[db]\\nDB_PASSWORD={plant(50)}\\n", "settings.env")
        run.log_artifact(f"https://u:{plant(51)}@host/x")
        open("plain.txt", "w").close()
        run.log_artifact("plain.txt", f"https://u:{plant(52)}@host")
        run.log_image(object(), f"https://u:{plant(53)}@host.png")
        run.log_figure(object(), f"https://u:{plant(54)}@host.png")
        run.log_input(pd.DataFrame({f"https://u:{plant(55)}@h": [1]}), f"https://u:{plant(56)}@h",
                      name=f"https://u:{plant(57)}@h")
        run.log_table({"a": [f"Password={plant(58)}", f"login(password={plant(59)!r})"]}, "cells.json")
        run.log_params({"set": {f"https://u:{plant(60)}@host"}})
        run.log_params({"dsn": f"Server=h;Password={plant(61)};", "page": f"https://h/x?api_key={plant(62)}"})
        trackdsl.errors.logger.warning("cannot reach %s", f"https://u:{plant(63)}@host")
        try:
            raise RuntimeError(f"cannot log in with {password} at {url}")
        except RuntimeError as error:
            first = error
        return {"acc": 0.9, "password": plant(21), "info": {"token": plant(22)}, "said": f"with {hidden}"}
    @stage
    @track_returns
    def give():
        return {
            "users": [Login("me", plant(64))], "apis": [Api(url="x", anything=plant(65), raw=plant(66).encode())],
            "marked": [Login("me", "", plant(67))], "queue": collections.deque([f"https://u:{plant(68)}@host"]),
            "group": {f"https://u:{plant(69)}@host", "b"}, "raw": f"see https://u:{plant(70)}@host".encode(),
            "odd": {1: {"password": plant(71)}},
        }
    @stage
    @track_returns
    def give_as() -> typing.Annotated[object, trackdsl.Artifact("given.pkl")]:
        return Login("me", plant(72))
    @stage
    @track_returns(artifacts={"text": "given.txt", "page": "given.html", "mapping": "mapping.pkl"})
    def give_text():
        return {"text": Login("me", "", plant(73)), "page": Login("me", plant(74)), "mapping": {"password": plant(75)}}
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
        give(), give_as(), give_text()
        try:
            fail(plant(35), f"https://{plant(36)}@host")
        except ValueError:
            pass
    main()
    logging.getLogger("trackdsl").warning("done")
"""


PLANT = re.compile(rb"PLANT0\d\d")


def found_in(folder: Path) -> dict[str, set[bytes]]:
    """The planted secrets in every file below a folder, its names included."""
    found: dict[str, set[bytes]] = {}
    for path in folder.rglob("*"):
        text = bytes(path.relative_to(folder)) + (path.read_bytes() if path.is_file() else b"")
        if hits := set(PLANT.findall(text)):
            found[str(path)] = hits
    return found


@pytest.mark.slow
def test_no_byte_that_is_written_holds_a_secret(start: StartProgram, tmp_path: Path) -> None:
    """Secrets by name, type, marker and shape, at any depth, are in no spool, store, artifact or log."""
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
    # What is not a secret is there.
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
    assert (fit.data.metrics["acc"], fit.data.metrics["loss"]) == (0.9, 0.5)
    failed = next(run for run in all_runs() if run.info.run_name == "fail")
    assert failed.data.tags["trackdsl.exception.message"] == "login('***') at https://***@host with ***"


def test_names_from_the_environment(start: StartProgram) -> None:
    """`TRACKDSL_SECRET_NAMES` and `TRACKDSL_PUBLIC_NAMES` take effect without a line of code."""
    source = """
        from trackdsl import stage
        from trackdsl.testing import capture_runs
        with capture_runs() as captured, stage("f", pin_code=1234, password="public"):
            pass
        print(captured.one("f").params)
    """
    program = start(source, TRACKDSL_SECRET_NAMES="pin_*,x", TRACKDSL_PUBLIC_NAMES="password")
    assert program.finish()[1].strip() == "{'pin_code': '***', 'password': 'public'}"
