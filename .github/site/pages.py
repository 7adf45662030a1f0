"""Generated pages of the site: the start page from the README, and the API reference from the docstrings."""

from __future__ import annotations

from pathlib import Path

import mkdocs_gen_files

import trackdsl

ROOT = Path(__file__).parents[2]


def start() -> str:
    """The README with the links of the site, and without the paragraph for contributors."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    paragraphs = [part for part in text.split("\n\n") if "](.github/CONTRIBUTING" not in part]
    return _relinked("\n\n".join(paragraphs))


def _relinked(text: str) -> str:
    """A page with links to other pages of the site, all of which are in one folder."""
    for folder in ("../notebooks/", "notebooks/", "../.github/", ".github/"):
        text = text.replace(f"]({folder}", "](")
    return text


def api() -> str:
    """The API reference: functions, classes, errors, and public modules."""
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


pages = {"index.md": start(), "api.md": api()}
pages["COMPATIBILITY.md"] = _relinked((ROOT / ".github/COMPATIBILITY.md").read_text(encoding="utf-8"))
for guide in (ROOT / "notebooks").glob("*.md"):
    pages[guide.name] = _relinked(guide.read_text(encoding="utf-8"))
for name, content in pages.items():
    with mkdocs_gen_files.open(name, "w") as page:
        page.write(content)
for name in ("run-tree.png", "report.png"):
    with mkdocs_gen_files.open(name, "wb") as picture:
        picture.write((ROOT / ".github" / name).read_bytes())
