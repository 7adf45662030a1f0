"""Links of notebooks to guides and to other notebooks, as the site has them: each page is a folder."""

from __future__ import annotations

import re
from typing import Any

_LINK = re.compile(r'href="([\w-]+)\.(ipynb|md)(#[^"]*)?"')


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001 - mkdocs passes by name
    """Rewrite the links of a page that mkdocs-jupyter made; mkdocs does so for pages of Markdown only.

    Raises:
        ValueError: the site has no such page.
    """
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def link(found: re.Match[str]) -> str:
        name, suffix, anchor = found.groups()
        if files.get_file_from_path(f"{name}.{suffix}") is None:
            raise ValueError(f"{page.file.src_uri} links to {name}.{suffix}, which is not a page of the site")
        return f'href="../{name}/{anchor or ""}"'

    return _LINK.sub(link, html)
