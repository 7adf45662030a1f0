"""Redirects of a tracking server that would lose the content of a request. Without `requests`: few stores need it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin, urlsplit

#: `requests` follows these redirects with a GET.
LOSSY_REDIRECTS = (301, 302, 303)


def target_of_lossy_redirect(request: Any, response: Any) -> str | None:
    """Where a request would be repeated without its content, without path and credentials; None if nowhere."""
    if response.status_code not in LOSSY_REDIRECTS or request.method in ("GET", "HEAD"):
        return None
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
