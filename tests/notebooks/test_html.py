"""What a notebook shows of runs, frames, trees and comparisons: HTML, escaped, without scripts and style sheets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Server
from tests.notebooks.kernels import Kernel

HOSTILE = "<img src=x onerror=alert(1)>\\x1b]0;owned\\x07"


@pytest.fixture
def hostile(delivering: Kernel) -> Kernel:
    """A kernel with a delivered root run and two executions of a stage, with names and values that are not text."""
    delivering.ok("import trackdsl")
    delivering.ok(
        f"h = '{HOSTILE}'\nroot = trackdsl.experiment('e', run_name=h)\nwith root as run:\n"
        "    for number in range(2):\n"
        "        with trackdsl.stage(h, **{'p' + h: h + str(number)}) as last:\n"
        "            last.log_metric('<script>', number)\n"
        "            last.set_tag('t' + h, h)\n"
        "trackdsl.flush(60);"
    )
    return delivering


@pytest.mark.slow
def test_what_shows_itself(hostile: Kernel) -> None:
    """A `Run`, the frame of `runs`, `tree` and `compare` have an HTML representation that escapes every value.

    The frame is a `pandas.DataFrame` to all who ask, and a stage that returns it records it as one.
    """
    shown = {
        "run": hostile.run("run"),
        "frame": hostile.run("trackdsl.runs('e')"),
        "tree": hostile.run("trackdsl.tree(run)"),
        "compare": hostile.run("trackdsl.compare(*trackdsl.runs('e')['id'][:2])"),
    }
    hostile.ok("import pandas\nassert isinstance(trackdsl.runs('e'), pandas.DataFrame)")
    streams = [one for answer in shown.values() for one in answer.messages if one["msg_type"] == "stream"]
    assert not streams  # Such as warnings of what MLflow imports.
    for what, answer in shown.items():
        assert answer.status == "ok", answer.error
        (data,) = [one["content"]["data"] for one in answer.messages if one["msg_type"] == "execute_result"]
        html = data["text/html"]
        assert "&lt;img src=x" in html, what
        assert "<img" not in html, what
        assert "<script" not in html, what
        assert "\x1b" not in html + data["text/plain"], what
        if what != "frame":  # That is pandas' own HTML.
            assert "<style" not in html, what


@pytest.mark.slow
def test_links_to_a_server(tmp_path: Path, shared_server: Server) -> None:
    """A card and a `Run` link to MLflow's page of the run, once a tracking server has it."""
    kernel = Kernel(tmp_path, TRACKDSL_TRACKING_URI=shared_server.uri, TRACKDSL_MODE="online")
    try:
        kernel.ok("%load_ext trackdsl\nimport trackdsl\n%experiment links")
        answer = kernel.run("%%stage fit\nrun = trackdsl.current_run()\nassert trackdsl.flush(120)")
        shown = [
            str(answer.outputs()[0]["data"]["text/html"]),
            str(kernel.run("run").outputs()[0]["data"]["text/html"]),
        ]
        page = kernel.value("run.url")
        assert page.startswith(shared_server.uri)
        for html in shown:
            assert f'href="{page}"' in html
    finally:
        kernel.end()
