"""What to do about what keeps a store from working, for whoever reads `trackdsl status`."""

from __future__ import annotations

from typing import Any

from trackdsl._tracking_server import advice

#: What to install for the modules that MLflow imports for databases and stores of artifacts.
_PACKAGES = {
    "MySQLdb": "mysqlclient",
    "azure": "azure-storage-blob azure-identity",
    "google": "google-cloud-storage",
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
}
_LONGEST = 600


def advised(error: Exception, text: str, *, remote: bool) -> str:
    """What a store said, with what to do about it where that is known.

    Args:
        error: what MLflow raised.
        text: what it said, without secrets.
        remote: whether a tracking server said it.
    """
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.split(".")[0]
        hint: str | None = f"The store needs it: pip install '{_PACKAGES.get(package, package)}'"
    else:
        status: Any = getattr(error, "get_http_status_code", int)() if remote else None
        hint = advice(status or None, text)
    if hint is None:
        return text
    return f"{text[:_LONGEST].rstrip('.')}. {hint}"
