"""Pages of the site that are made from other files: the README as its start, and the API from the docstrings."""

from __future__ import annotations

from pathlib import Path

import mkdocs_gen_files

import trackdsl

ROOT = Path(__file__).parents[2]


def start() -> str:
    """The README, with links as they are on the site."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("](notebooks/", "](")
    lines = [line for line in text.splitlines() if "](.github/" not in line]
    return "\n".join(lines)


def api() -> str:
    """Everything public, in the order of its kinds."""
    names = [name for name in trackdsl.__all__ if name != "__version__"]
    errors = [
        name
        for name in names
        if isinstance(getattr(trackdsl, name), type) and issubclass(getattr(trackdsl, name), Exception)
    ]
    functions = [name for name in names if name[0].islower()]
    classes = [name for name in names if name not in errors and name not in functions]
    parts = ["# API"]
    for title, members in (("Functions", functions), ("Classes", classes), ("Errors", errors)):
        parts.append(f"## {title}")
        parts += [f"::: trackdsl.{name}\n    options:\n      heading_level: 3" for name in members]
    modules = ("trackdsl.handlers", "trackdsl.testing", "trackdsl.integrations.optuna", "trackdsl.compat.tracelet")
    parts.append("## Modules")
    parts += [f"::: {name}\n    options:\n      heading_level: 3" for name in modules]
    return "\n\n".join(parts)


for name, content in {"index.md": start(), "api.md": api()}.items():
    with mkdocs_gen_files.open(name, "w") as page:
        page.write(content)
