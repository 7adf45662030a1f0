"""Tracking URIs, as MLflow writes them."""

from __future__ import annotations

import os


def absolute(uri: str, cwd: str) -> str:
    """A tracking URI that leads to the same store from every folder.

    MLflow resolves relative paths against the working directory, and delivery has another one than the program.

    >>> absolute("sqlite:///mlflow.db", "/work"), absolute("./mlruns", "/work")
    ('sqlite:////work/mlflow.db', '/work/./mlruns')
    """
    if uri.startswith("sqlite:") and not {"?", "%"}.isdisjoint(cwd):
        return uri  # A URI would read these otherwise: the sink sees to it.
    for prefix in ("sqlite:///", "file:"):
        path = uri.removeprefix(prefix)
        if uri.startswith(prefix) and path and not path.startswith(("/", ":memory:", "file:")):
            return f"{prefix}{'' if prefix.endswith('/') else '//'}{os.path.join(cwd, path)}"
    if "://" not in uri and ":" not in uri:
        return os.path.join(cwd, uri)
    return uri
