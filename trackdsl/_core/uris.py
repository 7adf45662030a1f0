"""Make tracking URIs absolute, and find obvious mistakes in them."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from trackdsl._core.late_pattern import late_pattern
from trackdsl._core.suggest import suggestion_for
from trackdsl.errors import report

#: Bound at import: a test that replaces `os.getcwd` must not see our calls.
_getcwd = os.getcwd
#: Tracking URIs without a scheme that MLflow accepts, besides paths.
_WITHOUT_SCHEME = ("databricks", "databricks-uc", "uc")
_DATABASES = ("postgresql", "mysql", "mssql")
#: The schemes that MLflow knows. For databases, a driver may follow after a plus sign.
_SCHEMES = ("file", "http", "https", "sqlite", *_DATABASES, *_WITHOUT_SCHEME)
#: The packages that register common schemes.
_PLUGINS = {"arn": "sagemaker-mlflow", "azureml": "azureml-mlflow"}
_ARTIFACT_SCHEMES = ("s3", "gs", "wasb", "wasbs", "abfs", "abfss", "dbfs", "hdfs", "viewfs", "ftp", "sftp", "r2")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_HOST_AND_PORT = late_pattern(r"(?:[^/@\s]+@)?(?:[A-Za-z0-9][\w.\-]*|\[[0-9A-Fa-f:.]+\]):\d+(?:[/?#].*)?")
_LOCAL_HOST = late_pattern(r"(?:localhost|\d{1,3}(?:\.\d{1,3}){3})(?:/.*)?")
_BROKEN_HTTP = late_pattern(r"(https?)(?::/*|/+)(?=[^/])", re.IGNORECASE)
_TWICE_HTTP = late_pattern(r"https?://(https?):?/+", re.IGNORECASE)
_WINDOWS_PATH = late_pattern(r"(?:(?:file|sqlite):/*)?(?:[A-Za-z]:(?:[\\/]|(?!\d+$)[^:/]*$)|\.{0,2}\\)")
_SQLITE = late_pattern(r"(sqlite(?:\+\w+)?):(/*)(.*)", re.IGNORECASE | re.DOTALL)
#: As SQLAlchemy parses it: a password may contain `/` and `#`.
_AUTHORITY = late_pattern(r"(?:[^:/]*(?::[^@]*)?@)?(?:\[[^\]]*\]|[^:/?]*)(?::(?P<port>[^/?]*))?(?=[/?]|$)")
#: The credentials, up to the last `@`, as passwords may contain some; or a text in the position of a port that is no
#: number, and may be a password.
_CREDENTIALS = late_pattern(r"(?<=//).*@|^[^/@]+@", re.DOTALL)
#: The beginning of a URI that names no user: no host at all, or a host of a web server with or without a port.
_NO_USER = late_pattern(r"\w[\w+.\-]*:///|https?://(?:\[[^\]]*\]|[^/@:\[]*)(?::\d*)?(?=/|$)", re.IGNORECASE)
#: The credentials of a web server's address, whose host ends at the first `/`: behind it, `@` is part of a path.
_WEB_CREDENTIALS = late_pattern(r"(?<=^http://)[^/]*@|(?<=^https://)[^/]*@", re.IGNORECASE)
#: The user of a URI, whose password is masked already or has no `/`.
_USER = late_pattern(r"(?<=://)[^/@]*@")
_NO_PORT = late_pattern(r"(//[^/:@\[]*):(?![\d/])[^/]+")
_MOST_PORTS = 65_535
_NO_HOST = "it names no host; write http://host:port (and http://[::1]:5000 for an address of IPv6)."
_NO_FILE = "it names no file; write sqlite:///mlflow.db."


def absolute_uri(uri: str, cwd: str) -> str:
    """A tracking URI that leads to the same store from every folder.

    MLflow resolves relative paths against the working directory, and delivery has a different one than the program.

    >>> absolute_uri("sqlite:///mlflow.db", "/data"), absolute_uri("./mlruns", "/data")
    ('sqlite:////data/mlflow.db', '/data/./mlruns')
    >>> absolute_uri("databricks", "/data")
    'databricks'
    """
    if uri.startswith("sqlite:") and not {"?", "%"}.isdisjoint(cwd):
        return uri  # In a URI, these characters have a special meaning; delivery quotes them.
    for prefix in ("sqlite:///", "file:"):
        path = uri.removeprefix(prefix)
        if uri.startswith(prefix) and path and not path.startswith(("/", ":memory:", "file:")):
            return f"{prefix}{'' if prefix.endswith('/') else '//'}{os.path.join(cwd, path)}"
    return os.path.join(cwd, uri) if is_path(uri) else uri


def is_path(uri: str) -> bool:
    """Whether a tracking URI is the path of a folder, without any scheme.

    >>> is_path("./mlruns"), is_path("/runs/of 12:30"), is_path("databricks"), is_path("http://host")
    (True, True, False, False)
    """
    return uri not in _WITHOUT_SCHEME and _SCHEME.match(uri) is None


def local_folder(uri: str, cwd: str) -> str | None:
    """The folder of a local store: the folder of a SQLite file, or a file store itself; None for other stores.

    >>> local_folder("sqlite:////data/mlflow.db", "/"), local_folder("file:///runs", "/"), local_folder("mlruns", "/a")
    ('/data', '/runs', '/a/mlruns')
    >>> local_folder("http://host", "/"), local_folder("sqlite:///:memory:", "/")
    (None, None)
    """
    if uri.startswith("sqlite:///"):
        path = uri.removeprefix("sqlite:///").partition("?")[0]
        return None if not path or path.startswith((":", "file:")) else os.path.dirname(os.path.join(cwd, path))
    if uri.startswith("file:"):
        path = unquote(urlsplit(uri).path)
        return os.path.join(cwd, path) if path else None
    return os.path.join(cwd, uri) if is_path(uri) else None


def is_database(uri: str) -> bool:
    """Whether a tracking URI leads to a database.

    >>> is_database("mysql+pymysql://host/runs"), is_database("databricks://profile")
    (True, False)
    """
    scheme = _SCHEME.match(uri)
    return scheme is not None and scheme[1].lower().partition("+")[0] in ("sqlite", *_DATABASES)


def without_credentials(uri: str) -> str:
    """A tracking URI without its credentials, for messages.

    >>> without_credentials("postgresql://ann:secret@db/runs")
    'postgresql://***@db/runs'
    >>> without_credentials("http://ann:secret@host/team@home"), without_credentials("sqlite:////data/a@b/mlflow.db")
    ('http://***@host/team@home', 'sqlite:////data/a@b/mlflow.db')
    """
    bare = uri.partition("?")[0]
    if _NO_USER().match(bare):
        return bare
    masked, count = _WEB_CREDENTIALS().subn("***@", bare)
    return masked if count else _NO_PORT().sub(r"\1:***", _CREDENTIALS().sub("***@", bare))


def run_page(base: str, experiment_id: str, run_id: str) -> str:
    """The address of a run's page in MLflow's UI, without the credentials in that of the server: it is shown.

    >>> run_page("http://me:hunter2@localhost:5000/", "1", "9e51")
    'http://localhost:5000/#/experiments/1/runs/9e51'
    >>> run_page("https://***@host/a@b", "1", "9e51")
    'https://host/a@b/#/experiments/1/runs/9e51'
    """
    return f"{_USER().sub('', base).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


@lru_cache(maxsize=256)
def describe_mistake(uri: str) -> str | None:
    """The mistake in a tracking URI, as far as its text shows it, and the correct form; None if there is none.

    A scheme that a plugin of MLflow has registered is correct.

    >>> describe_mistake("htp://host:5000"), describe_mistake("http://host:5000")
    ('MLflow does not support the scheme htp; did you mean http://host:5000?', None)
    """
    bare = uri.strip().strip("'\"").strip()
    if not bare:
        return "it is empty; leave it out, or name a store such as http://host:5000 or sqlite:///mlflow.db."
    if bare != uri:
        return f"there are spaces or quotes around it; did you mean {without_credentials(bare)}?"
    if os.name != "nt" and _WINDOWS_PATH().match(uri):
        return "this is a Windows path, and this system is not Windows; name a path such as /data/mlruns."
    if is_path(uri):
        return _mistake_of_path(uri)
    scheme, _, _ = uri.partition(":")
    kind = scheme.lower().partition("+")[0]
    if kind in _MISTAKES:
        return _MISTAKES[kind](uri)
    if kind in _WITHOUT_SCHEME or _is_registered(scheme):
        return None
    return _mistake_of_scheme(uri, scheme, kind)


def _mistake_of_path(uri: str) -> str | None:
    broken = _BROKEN_HTTP().match(uri)
    if uri.rstrip("/").lower() in ("http", "https"):
        return _NO_HOST
    if broken and "//" in broken[0]:
        return _instead(f"{broken[1]}://{uri[broken.end() :]}", "the colon after its scheme is missing")
    if uri.startswith(":"):
        return _instead(f"http://{uri.lstrip(':/')}", "it has no scheme")
    bare = uri.lstrip("/")
    if not uri.startswith("//") and uri.lower().endswith((".db", ".sqlite", ".sqlite3")) and not os.path.isdir(uri):
        return _instead(f"sqlite:///{uri}", "it has no scheme")
    if uri.startswith(("/", ".")) and not uri.startswith("//"):
        return None
    if _HOST_AND_PORT().fullmatch(bare) or (_LOCAL_HOST().fullmatch(bare) and not os.path.exists(uri)):
        return _instead(f"http://{bare}", "it has no scheme")
    return None


def _mistake_of_http(uri: str) -> str | None:
    twice, broken = _TWICE_HTTP().match(uri), _BROKEN_HTTP().match(uri)
    if twice:
        return _instead(f"{twice[1]}://{uri[twice.end() :]}", "it has two schemes")
    if broken and broken[0].lower() not in ("http://", "https://"):
        return _instead(f"{broken[1]}://{uri[broken.end() :]}", "a scheme is followed by `://`")
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError as error:
        return f"it is not a valid URL: {error}."
    if not host:
        return _NO_HOST
    if re.search(r"[\s\\]", parts.netloc):
        return f"{host!r} is not a valid host name."
    if parts.fragment:  # An address of the user interface.
        return _instead(uri.partition("#")[0].rstrip("/"), "this is the address of a page")
    return _mistake_of_port(parts.netloc.rpartition("@")[2].rpartition("]")[2].partition(":")[2])


def _mistake_of_port(port: str) -> str | None:
    if not port or (port.isascii() and port.isdigit() and 0 < int(port) <= _MOST_PORTS):
        return None
    return f"its port must be a number from 1 to {_MOST_PORTS}."


def _mistake_of_sqlite(uri: str) -> str | None:
    parts = _SQLITE().fullmatch(uri)
    if parts is None:
        return None
    path = parts[3].partition("?")[0]
    if not path:
        return _NO_FILE
    if path == ":memory:":
        return "an in-memory database disappears when the delivery process ends; write sqlite:///mlflow.db."
    if parts[2].startswith("///"):
        return None
    slashes = "////" if parts[2] == "/" else "///"
    return _instead(f"{parts[1]}:{slashes}{parts[3]}", "a relative path follows three slashes, an absolute path four")


def _mistake_of_file(uri: str) -> str | None:
    host = urlsplit(uri).netloc
    if not host or host == "." or host.startswith(("localhost", "127.0.0.1")):
        return None
    return _instead(f"file:{uri.partition('//')[2]}", f"it names a host, {without_credentials(host)}")


def _mistake_of_database(uri: str) -> str | None:
    scheme, _, rest = uri.partition(":")
    if not rest.startswith("//"):
        return _instead(f"{scheme}://{rest.lstrip('/')}", "a scheme is followed by `://`")
    authority = _AUTHORITY().match(rest, 2)
    port = authority["port"] if authority is not None else None
    return None if port is None or "," in port else _mistake_of_port(port)


_MISTAKES = {
    "http": _mistake_of_http,
    "https": _mistake_of_http,
    "sqlite": _mistake_of_sqlite,
    "file": _mistake_of_file,
    **dict.fromkeys(_DATABASES, _mistake_of_database),
}


def _mistake_of_scheme(uri: str, scheme: str, kind: str) -> str:
    if _HOST_AND_PORT().fullmatch(uri):
        return _instead(f"http://{uri}", "it has no scheme")
    rest = uri[len(scheme) :]
    if kind == "postgres":
        return _instead(f"postgresql{scheme[len(kind) :]}{rest}", "SQLAlchemy no longer accepts the scheme postgres")
    if kind in _ARTIFACT_SCHEMES:
        return (
            f"{kind}: stores files only, and MLflow cannot keep runs there; name a server or a database, such as "
            "http://host:5000, and pass this URI to `mlflow server --artifacts-destination`."
        )
    if kind in _PLUGINS:
        return f"MLflow does not support the scheme {kind}; `pip install {_PLUGINS[kind]}` adds it."
    meant = suggestion_for(kind, _SCHEMES).name
    if meant is not None:
        return _instead(f"{meant}{scheme[len(kind) :]}{rest}", f"MLflow does not support the scheme {scheme}")
    return (
        f"MLflow does not support the scheme {scheme}, and no installed plugin adds it. It knows "
        f"{', '.join(_SCHEMES)}; a relative "
        "path with a colon begins with `./`."
    )


def _instead(meant: str, why: str) -> str:
    """The sentence with the suggested URI, which must be free of mistakes itself."""
    return f"{why}; did you mean {without_credentials(meant)}?"


def _is_registered(scheme: str) -> bool:
    """Whether a plugin of MLflow has registered a scheme. Only called for unknown schemes, because it takes a while."""
    from importlib.metadata import entry_points

    names = {entry.name for entry in entry_points(group="mlflow.tracking_store")}
    return scheme in names or scheme.lower() in names


def working_directory() -> str:
    """The folder that relative URIs start at: the current one, else the user's home."""
    try:
        cwd = _getcwd()
        cwd.encode()
    except OSError:  # It has been removed.
        return os.path.expanduser("~")
    except UnicodeEncodeError:
        home = os.path.expanduser("~")
        report("cwd", f"The working directory has a name that is not valid UTF-8: relative paths start at {home}.")
        return home
    return cwd
