"""`trackdsl open` and `trackdsl ui`: a run's page in MLflow's UI, and the UI itself where no server shows the store."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator
from typing import IO, Any, NoReturn

import click

from trackdsl._core.escaping import printable
from trackdsl._core.redaction import mask_text
from trackdsl._core.uris import run_page
from trackdsl.cli import _bound_command
from trackdsl.cli._reading import errors_printed
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundRun, Search
from trackdsl.query._run_lookup import asked_for, find
from trackdsl.query._store import opened

_HOST = "127.0.0.1"
#: How often a server that starts is asked whether it is ready, in seconds.
_PAUSE = 0.2
#: How long a server may take to end, in seconds; then it is killed.
_PATIENCE = 10.0
#: The program that ends a command with its parent.
_BOUND = _bound_command.__file__
#: How many of the last characters that a server printed are shown if it fails.
_SHOWN = 2000


def open_page(run: str, tracking_uri: str | None, *, browser: bool, as_json: bool) -> None:
    """Print the address of a run's page, and open it.

    Args:
        run: the run.
        tracking_uri: the store; the configured one by default.
        browser: whether to open a browser.
        as_json: whether to print the address as JSON.

    Raises:
        click.ClickException: the store is not a server, so no page shows its runs yet.
    """
    with errors_printed(), asked_for([run], tracking_uri) as (reader, (found,)):
        base = mask_text(reader.uri)
    if not _is_server(base):
        raise click.ClickException(
            f"{base} is not a server: `trackdsl ui {found.run_id}` starts one and opens the run."
        )
    _show(base, found, browser=browser, as_json=as_json)


def serve(run: str | None, tracking_uri: str | None, port: int | None, *, browser: bool, as_json: bool) -> None:
    """Show a store in MLflow's UI, opened at a run, until Ctrl-C.

    Args:
        run: the run; None for the newest root run.
        tracking_uri: the store; the configured one by default. If it is a server, that server's UI is opened.
        port: where the UI listens; None for a free port.
        browser: whether to open a browser.
        as_json: whether to print the address as JSON.

    Raises:
        click.ClickException: the port is in use; or the server does not start, or ends by itself.
    """
    with errors_printed(), opened(tracking_uri) as reader:
        uri = reader.uri
        found = _newest(reader) if run is None else find(run, reader)
    if _is_server(uri):
        _show(mask_text(uri), found, browser=browser, as_json=as_json)
        return
    if port is None:
        port = _free_port()
    else:
        _check_port(port)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log, _server(uri, port, log) as process:
        while not _is_ready(port):
            _check(process, log)
            time.sleep(_PAUSE)
        _check(process, log)  # Another program may have taken the port meanwhile, and have answered.
        _show(f"http://{_HOST}:{port}", found, browser=browser, as_json=as_json)
        click.echo("Ctrl-C ends the server.", err=True)
        # No `process.wait()`: Ctrl-C does not interrupt it once polars is imported, which MLflow does.
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                _check(process, log)
                time.sleep(_PAUSE)


def _newest(reader: PagedReader) -> FoundRun | None:
    """The newest root run of the store; None if it has none."""
    everywhere = tuple(one.id for one in reader.experiments())
    return next(iter(reader.search(Search(everywhere, order_by=("attributes.start_time DESC",), roots=True))), None)


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _show(base: str, run: FoundRun | None, *, browser: bool, as_json: bool) -> None:
    """Print the address of a run's page, or of the store's where there is no run, and open it."""
    page = base if run is None else run_page(base, run.experiment_id, run.run_id)
    if as_json:
        click.echo(json.dumps({"url": page, "run_id": None if run is None else run.run_id}))
    else:
        click.echo(printable(page))
    if browser:
        webbrowser.open(page)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _check_port(port: int) -> None:
    """Raise an error if the server cannot listen there: the program that does would answer in its place."""
    with socket.socket() as probe:
        # As uvicorn binds it: connections of a server that has ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise click.ClickException(f"port {port} {why}: leave --port out, or name another.") from None


@contextlib.contextmanager
def _server(uri: str, port: int, log: IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server on a store, until the end of the block or of this program."""
    environment = {
        # A dozen more processes for scheduled jobs, which nobody needs to look at runs.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **os.environ,
        # Not in the command line, which other users can read: the address of a database may contain a password.
        "MLFLOW_BACKEND_STORE_URI": uri,
    }
    # With `nohup`, the terminal may be closed.
    asked = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _exit) for number in asked}
    command = [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-I", _BOUND, *command],  # It ends the server if this program is killed.
        env=environment,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C reaches this program only, which ends all processes of the server.
    )
    try:
        yield process
    finally:
        _end(process)
        if process.stdin is not None:
            process.stdin.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, _frame: Any) -> NoReturn:
    raise SystemExit(128 + number)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # A second Ctrl-C kills it.
            process.wait(patience)
            return


def _is_ready(port: int) -> bool:
    from http.client import HTTPConnection, HTTPException  # With `email` and `ssl` it takes as long as the rest.

    connection = HTTPConnection(_HOST, port, timeout=_PATIENCE)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _check(process: subprocess.Popen[bytes], log: IO[str]) -> None:
    """Raise an error with the end of what the server printed, if it has ended."""
    code = process.poll()
    if code is None:
        return
    log.seek(0)
    last = mask_text(log.read()[-_SHOWN:].strip())
    raise click.ClickException(f"`mlflow server` ended with exit code {code}:\n{last}")
