"""Real databases, tracking servers and object stores on loopback, shared by all processes of one test session.

Each is started by the first test that needs it, on a free port and in a folder of its own, and ended by its process id
when no test needs it any more. What is not installed skips the test, and says the command that installs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .conftest import free_port, servers, wait_until

INSTALL = "sh tests/stores/install.sh"
PASSWORD = "correct-horse"
#: What the object stores are given; each of them has its own way to know who asks.
ACCESS_KEY = "trackdsl"
SECRET_KEY = "battery-staple"


@dataclass
class Service:
    """A running service.

    Attributes:
        uri: where it is; for a database the URI of its server, without a database.
        pids: of its processes; each leads a process group.
        environment: what its clients need.
        folders: what is removed when it ends.
    """

    uri: str
    pids: list[int] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)


#: Waits until nobody uses a service any more, however its users ended, and ends it: by its process ids.
_WATCH = """
import contextlib, fcntl, json, os, shutil, signal, sys
os.chdir(sys.argv[1])
gate, users = open("gate"), open("users")
service = json.load(open("service.json"))  # At the end, pytest may have removed the folder.
while True:
    fcntl.flock(users, fcntl.LOCK_EX)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except BlockingIOError:  # Somebody is about to use it.
        fcntl.flock(users, fcntl.LOCK_UN)
with contextlib.suppress(FileNotFoundError):
    os.unlink("service.json")
for pid in service["pids"]:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
for folder in service["folders"]:
    shutil.rmtree(folder, ignore_errors=True)
"""


@contextlib.contextmanager
def shared(folder: Path, start: Callable[[Path], Service]) -> Iterator[Service]:
    """A service that all processes of a session share.

    Args:
        folder: of the service, the same for all of them.
        start: starts it, with its folder as the argument.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "service.json"
    with (folder / "gate").open("w") as gate, (folder / "users").open("w") as users:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if not note.exists():
            note.write_text(json.dumps(asdict(start(folder))))
            launch([sys.executable, "-I", "-S", "-c", _WATCH, str(folder)], folder)
        service = Service(**json.loads(note.read_text()))
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield service


def needs(module: str) -> None:
    """Skip unless a module can be imported."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # What it is in is missing.
        found = None
    if found is None:
        pytest.skip(f"needs {module}: pip install -e '.[stores]'")


def program(name: str, *folders: str) -> str:
    """The path of a program; skip where it is not installed."""
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", *folders]))
    if found is None:
        pytest.skip(f"needs {name}, which `{INSTALL}` installs")
    return found


def launch(command: list[str], folder: Path, user: str | None = None, **environment: str) -> int:
    """Start a process in a group of its own, which outlives this one; returns its id."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            start_new_session=True,
            env={**_clean_environment(), **environment},
            **_as(user),
        )
    process.returncode = 0  # Ended by its id, by whichever process is the last.
    return process.pid


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "TRACKDSL", "AWS_"))}


def _as(user: str | None) -> dict[str, Any]:
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _unprivileged() -> str | None:
    """Databases refuse to run as root."""
    return "nobody" if os.getuid() == 0 else None


def _private_folder(user: str | None) -> str:
    # Not below the folder of the tests, where nobody but their owner may look.
    folder = tempfile.mkdtemp(prefix="trackdsl-store-")
    if user is not None:
        shutil.chown(folder, user)
    return folder


def _run(command: list[str], folder: str, user: str | None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, **_as(user))
    assert done.returncode == 0, done.stdout + done.stderr


def answers(uri: str, path: str, good: range = range(200, 500)) -> Callable[[], bool]:
    """Whether a server answers a request."""
    import http.client

    def ask() -> bool:
        connection = http.client.HTTPConnection(uri.removeprefix("http://"), timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status in good
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ask


def postgresql(folder: Path) -> Service:
    """A private PostgreSQL cluster."""
    needs("psycopg2")
    folders = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    initdb, postgres = program("initdb", *folders), program("postgres", *folders)
    user = _unprivileged()
    data = _private_folder(user)
    Path(data, "password").write_text(PASSWORD)
    Path(data, "password").chmod(0o644)
    locale = ["--encoding=UTF8", "--locale=C.UTF-8"]
    _run([initdb, "-D", f"{data}/data", "-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={data}/password", "--no-sync",
          *locale], data, user)  # fmt: skip
    port = free_port()
    pid = launch(
        [postgres, "-D", f"{data}/data", "-h", "127.0.0.1", "-p", str(port), "-k", data, "-c", "fsync=off"],
        folder,
        user,
    )
    service = Service(f"postgresql://mlflow:{PASSWORD}@127.0.0.1:{port}", [pid], folders=[data])
    wait_until(lambda: _sql_answers(service.uri + "/postgres"), "PostgreSQL to answer")
    return service


def mariadb(folder: Path) -> Service:
    """A private MariaDB server."""
    needs("pymysql")
    install, server = program("mariadb-install-db"), program("mariadbd")
    user = _unprivileged()
    data = _private_folder(user)
    _run([install, "--no-defaults", f"--datadir={data}/data", "--auth-root-authentication-method=normal",
          "--skip-test-db"], data, user)  # fmt: skip
    port = free_port()
    pid = launch(
        [server, "--no-defaults", f"--datadir={data}/data", f"--socket={data}/socket", f"--pid-file={data}/pid",
         "--bind-address=127.0.0.1", f"--port={port}", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"],
        folder,
        user,
    )  # fmt: skip
    service = Service(f"mysql+pymysql://mlflow:{PASSWORD}@127.0.0.1:{port}", [pid], folders=[data])
    root = f"mysql+pymysql://root@127.0.0.1:{port}/mysql"
    wait_until(lambda: _sql_answers(root), "MariaDB to answer")
    execute(root, f"CREATE USER mlflow IDENTIFIED BY '{PASSWORD}'", "GRANT ALL ON *.* TO mlflow")
    return service


def execute(uri: str, *statements: str) -> None:
    """Run SQL, each statement by itself."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def _sql_answers(uri: str) -> bool:
    import sqlalchemy

    try:
        execute(uri, "SELECT 1")
    except sqlalchemy.exc.OperationalError:
        return False
    return True


def s3(folder: Path) -> Service:
    """An S3 server, with one bucket `runs`."""
    needs("moto")
    needs("boto3")
    uri = f"http://127.0.0.1:{(port := free_port())}"
    pid = launch([sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], folder)
    environment = {
        "MLFLOW_S3_ENDPOINT_URL": uri,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    wait_until(answers(uri, "/moto-api/"), "the S3 server to answer")
    import boto3

    boto3.client(
        "s3",
        endpoint_url=uri,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    ).create_bucket(Bucket="runs")
    return Service(uri, [pid], environment)


def azure(folder: Path) -> Service:
    """Azure Blob storage, with one container `runs`."""
    needs("azure.storage.blob")
    command = program("azurite-blob", str(Path(azurite_home(), "node_modules", ".bin")))
    uri = f"http://127.0.0.1:{(port := free_port())}"
    key = "dHJhY2tkc2w="
    pid = launch(
        [command, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder / "blobs"),
         "--silent", "--skipApiVersionCheck", "--disableTelemetry"],
        folder,
        AZURITE_ACCOUNTS=f"trackdsl:{key}",
    )  # fmt: skip
    connection_string = (
        f"DefaultEndpointsProtocol=http;AccountName=trackdsl;AccountKey={key};BlobEndpoint={uri}/trackdsl;"
    )
    wait_until(answers(uri, "/trackdsl"), "the Azure Blob server to answer")
    from azure.storage.blob import BlobServiceClient

    BlobServiceClient.from_connection_string(connection_string).create_container("runs")
    return Service(uri, [pid], {"AZURE_STORAGE_CONNECTION_STRING": connection_string})


def azurite_home() -> str:
    """Where `install.sh` puts azurite."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return str(Path(cache, "trackdsl-azurite"))


def gcs(folder: Path) -> Service:
    """Google Cloud Storage, with one bucket `runs`."""
    needs("google.cloud.storage")
    needs("gcp_storage_emulator")
    uri = f"http://127.0.0.1:{(port := free_port())}"
    pid = launch(
        [sys.executable, "-W", "ignore", "-m", "gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={port}",
         "--in-memory", "--default-bucket=runs"],
        folder,
    )  # fmt: skip
    wait_until(answers(uri, "/storage/v1/b/runs", range(200, 201)), "the Google Cloud Storage server to answer")
    return Service(uri, [pid], {"STORAGE_EMULATOR_HOST": uri, "GOOGLE_CLOUD_PROJECT": "trackdsl"})


def mlflow_server(folder: Path, *options: str, host: str = "127.0.0.1", **environment: str) -> Service:
    """`mlflow server` with some options, which know its folder as `{folder}`; `host` is where it listens."""
    port = free_port()
    pid = servers.start(
        ["--host", host, "--port", str(port), *(option.format(folder=folder, port=port) for option in options)],
        folder,
        folder / "log",
        {**_clean_environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **environment},
    )
    uri = f"http://{host}:{port}"
    wait_until(answers(uri, "/health", range(200, 201)), "the MLflow server to answer")
    return Service(uri, [pid])


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Service]]:
    """Starts a service unless it runs: its name, and what starts it where that is none of those above."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with contextlib.ExitStack() as stack:
        running: dict[str, Service] = {}

        def service(name: str, start: Callable[[Path], Service]) -> Service:
            if name not in running:
                running[name] = stack.enter_context(shared(base / "services" / name, start))
            return running[name]

        service.base = base / "services"  # type: ignore[attr-defined]
        yield service


def folder_of(services: Any, name: str) -> Path:
    """The folder of a service, where it was started."""
    folder: Path = services.base / name
    return folder


#: The options of a server whose clients write their files to S3 themselves.
S3_ROOT = (
    "--workers=1",
    "--backend-store-uri=sqlite:///{folder}/runs.db",
    "--default-artifact-root=s3://runs/root",
    "--no-serve-artifacts",
)


@dataclass(frozen=True)
class Database:
    """A database on a server of its own.

    Attributes:
        uri: of the database `runs`, with its tables made.
        root: of a database that is always there, for statements of an administrator.
    """

    uri: str
    root: str

    def fresh(self, name: str) -> str:
        """Make an empty database; returns its URI."""
        charset = "" if self.root.endswith("/postgres") else " CHARACTER SET utf8mb4"
        execute(self.root, f"CREATE DATABASE {name}{charset}")
        return f"{self.root.rpartition('/')[0]}/{name}"


def _database(service: Service, root: str) -> Database:
    return Database(f"{service.uri}/runs", f"{service.uri}/{root}")


@pytest.fixture(scope="session")
def postgresql_database(services: Callable[..., Service]) -> Database:
    """A PostgreSQL database."""
    return _database(services("postgresql", _with_database(postgresql, "postgres")), "postgres")


@pytest.fixture(scope="session")
def mariadb_database(services: Callable[..., Service]) -> Database:
    """A MariaDB database."""
    return _database(services("mariadb", _with_database(mariadb, "mysql")), "mysql")


def _with_database(start: Callable[[Path], Service], root: str) -> Callable[[Path], Service]:
    def started(folder: Path) -> Service:
        service = start(folder)
        _database(service, root).fresh("runs")
        return service

    return started
