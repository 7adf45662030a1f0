"""What a notebook shows of a `Run`: its name, its path in the tree, and the link to MLflow's page if it is known."""

from __future__ import annotations

from trackdsl._core.escaping import markup
from trackdsl._core.handle import RunHandle

_LONGEST = 200


def run_html(run: RunHandle, page: str | None) -> str:
    """A run as one line of HTML, escaped, without scripts.

    Args:
        run: the run.
        page: the address of MLflow's page of it, if that is known.
    """
    running = run.is_open
    dot = f'<span style="color:{"#3b82c4" if running else "#808080"}">●</span>'
    parts = [f"{dot} <b>{_text(run.name)}</b>", _faint("running" if running else "ended")]
    if run.parent is not None:
        parts.append(_faint(_text(run.path)))
    parts.append(f'<code style="opacity:.75;background:none">{_text(run.id)}</code>')
    if page is not None:
        parts.append(f'<a href="{markup(page)}" target="_blank" rel="noopener noreferrer">MLflow</a>')
    return f'<div style="font-family:system-ui,sans-serif;font-size:13px">{" &nbsp; ".join(parts)}</div>'


def _text(text: str) -> str:
    return markup(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def _faint(html: str) -> str:
    return f'<span style="opacity:.75">{html}</span>'
