"""Redirects of a tracking server that would lose the content of a request."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

#: `requests` follows these redirects with a GET.
LOSSY_REDIRECTS = (301, 302, 303)


class Redirected(requests.exceptions.RequestException):
    """The server redirects a request that `requests` would repeat without its content."""


def refuse_lossy_redirect(request: Any, response: Any) -> None:
    """Raise an error with the server's new address, instead of repeating the request there without its content."""
    if response.status_code not in LOSSY_REDIRECTS or request.method in ("GET", "HEAD"):
        return
    target = _redirect_target(response)
    if target is not None:
        response.close()
        raise Redirected(f"{origin_of(request.url)} redirects to {target}: use that address in the tracking URI")


def _redirect_target(response: Any) -> str | None:
    """The target of a redirect, without path and credentials; None if the answer is not a redirect."""
    location = response.headers.get("location")
    if not response.is_redirect or not location:
        return None
    return origin_of(urljoin(response.url, location))


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, which contain no secrets."""
    try:
        parts = urlsplit(url)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    except ValueError:
        return "another address"
    return "".join(c for c in shown if c.isprintable())[:200]
