"""`trackdsl server`: starts MLflow's server with trackdsl's plugin."""

from __future__ import annotations

import json
import os
import secrets
import sys

import click

#: What `mlflow server` sets for its own app of this kind only: its workers and their jobs share it.
_TOKEN = "_MLFLOW_INTERNAL_GATEWAY_AUTH_TOKEN"  # noqa: S105
#: The options of `mlflow server` that say where it listens, with its variables and defaults.
_ADDRESS = click.Command(
    "server",
    params=[
        click.Option(["--host", "-h"], envvar="MLFLOW_HOST", default="127.0.0.1"),
        click.Option(["--port", "-p"], envvar="MLFLOW_PORT", default="5000"),
    ],
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)


def run(options: tuple[str, ...], *, users: bool, as_json: bool = False) -> None:
    """Become `mlflow server`.

    Args:
        options: its options.
        users: whether it has users with passwords and permissions.
        as_json: whether to print first, as a line of JSON, where it will listen and as which process.
    """
    if users:
        os.environ.setdefault(_TOKEN, secrets.token_hex(32))
    app = "trackdsl-auth" if users else "trackdsl"
    if as_json:
        click.echo(json.dumps({"url": _address(options), "pid": os.getpid(), "app": app}))
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", app, *options]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606


def _address(options: tuple[str, ...]) -> str:
    """Where a server with these options listens.

    >>> _address(("--workers", "4", "--host=::1", "-p", "8080"))
    'http://[::1]:8080'
    """
    found = _ADDRESS.make_context("server", list(options), resilient_parsing=True).params
    host = found["host"]
    return f"http://[{host}]:{found['port']}" if ":" in host else f"http://{host}:{found['port']}"
