"""The compose file that `trackdsl compose` gives: its form, and its command lines against real services."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests import services as real
from tests.conftest import deliver
from tests.services import Database, Service
from tests.stores import contract
from trackdsl.cli import main

#: What the user fills in; the keys and the password are those of the services of the tests.
FILLED = {
    "POSTGRES_PASSWORD": real.PASSWORD,
    "S3_ACCESS_KEY": real.ACCESS_KEY,
    "S3_SECRET_KEY": real.SECRET_KEY,
    "S3_BUCKET": "runs",
    "MLFLOW_WORKERS": "1",
}


def written(folder: Path) -> Path:
    """The compose file, written by the command."""
    result = CliRunner().invoke(main, ["compose", "--output", str(folder)])
    assert result.exit_code == 0, result.output
    return folder / "compose.yaml"


def filled_in(text: str, environment: dict[str, str]) -> str:
    """The text with variables replaced, by the rules for `${A:-b}` and `${A:?b}` of the Compose specification."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if not environment.get(name) and kind == "?":
            raise KeyError(name)
        return environment.get(name) or rest

    return re.sub(r"\$\{(\w+):([-?])([^}]*)\}", value, text)


def test_it_keeps_to_the_compose_specification(tmp_path: Path) -> None:
    """The schema of the Compose specification takes the file, and every variable in it is one that may be filled in."""
    real.needs("check_jsonschema")
    path = written(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = set(re.findall(r"\$\{(\w+)", path.read_text()))
    example = (tmp_path / ".env.example").read_text()
    assert names == set(re.findall(r"^#?([A-Z0-9_]+)=", example, re.MULTILINE))
    required = set(re.findall(r"\$\{(\w+):\?", path.read_text()))
    assert required == set(re.findall(r"^([A-Z0-9_]+)=$", example, re.MULTILINE))


def test_its_server_runs_against_postgresql_and_s3(
    tmp_path: Path, postgresql_database: Database, services: Callable[..., Service]
) -> None:
    """The server's command line and environment hold the contract, with real addresses instead of services' names."""
    text = written(tmp_path).read_text()
    with pytest.raises(KeyError):
        filled_in(text, {**FILLED, "POSTGRES_PASSWORD": ""})
    tracking: dict[str, Any] = yaml.safe_load(filled_in(text, FILLED))["services"]["tracking"]
    address = postgresql_database.fresh("compose").partition("@")[2]
    environment = {
        name: value.replace("database:5432/mlflow", address).replace("http://storage:8333", services("s3", real.s3).uri)
        for name, value in tracking["environment"].items()
    }
    assert environment["MLFLOW_BACKEND_STORE_URI"].startswith(f"postgresql+psycopg2://mlflow:{real.PASSWORD}@127.0.0.1")
    program, command, host, port, *options = tracking["command"]
    assert (program, command, host, port) == ("trackdsl", "server", "--host=0.0.0.0", "--port=5000")
    options = [option.replace(":5000", ":{port}") for option in options]

    def start(folder: Path) -> Service:
        return real.mlflow_server(folder, "--app-name=trackdsl", *options, **environment)

    uri = services("compose", start).uri
    name = contract.fresh_name("compose")
    contract.use(uri)
    contract.record(name)
    deliver()
    run = contract.check(uri, name)["files"]
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
