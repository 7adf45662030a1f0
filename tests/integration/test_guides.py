"""The README and the guides: every Python block runs and prints what the guide shows, and every link has a target."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

import trackdsl
from tests.conftest import deliver, end_delivery, run_command

ROOT = Path(__file__).parents[2]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "notebooks").glob("*.md"))]
_BLOCK = re.compile(
    r"(?:<!-- needs: (?P<needs>\w+) -->\n)?```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<output>.*?)```)?", re.DOTALL
)
#: Printed between the outputs of two blocks.
_MARK = "----- the next block -----"


def _blocks(guide: Path) -> list[re.Match[str]]:
    return list(_BLOCK.finditer(guide.read_text(encoding="utf-8")))


def _needed(guide: Path) -> list[str | None]:
    """The libraries that blocks of a guide need, each with a program of its own; None for blocks that need none."""
    return list(dict.fromkeys(block["needs"] for block in _blocks(guide)))


def _programs() -> list[Any]:
    return [
        pytest.param(
            guide,
            needs,
            id=f"{guide.stem}-{needs}" if needs else guide.stem,
            marks=[pytest.mark.long] * (needs == "pyspark"),
        )
        for guide in GUIDES
        for needs in _needed(guide)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("guide", "needs"), _programs())
def test_the_blocks_of_a_guide_run_unchanged(guide: Path, needs: str | None, tmp_path: Path) -> None:
    """The Python blocks of a guide are one program, which records all it should and prints what the guide shows."""
    if needs is not None and find_spec(needs) is None:
        pytest.skip(f"needs {needs}")
    # A block that needs a library may use what the blocks before it define.
    blocks = [block for block in _blocks(guide) if block["needs"] in (None, needs)]
    program = "".join(f"{block['code']}\nprint({_MARK!r})\n" for block in blocks)
    # Workers that import the program print into the same output.
    program = f"if __name__ != '__main__':\n    print = lambda *_: None\n{program}"
    (tmp_path / "work/guide.py").write_text(program, encoding="utf-8")
    environment = {**os.environ, "TRACKDSL_MODE": "online", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    try:
        done = subprocess.run(
            [sys.executable, "guide.py"], env=environment, capture_output=True, text=True, encoding="utf-8", check=False
        )
    finally:
        end_delivery(tmp_path / "spool")
    assert done.returncode == 0, done.stderr
    if needs is None:  # Cluster libraries log warnings of their own.
        assert "WARNING" not in done.stderr, "something was not recorded"
    *printed, rest = done.stdout.split(f"{_MARK}\n")
    assert not rest
    assert printed == [block["output"] or "" for block in blocks], "a block prints what the guide does not show"


def test_the_readme_shows_the_tree_of_its_program(tmp_path: Path, sqlite_store: str) -> None:
    """The README's first program runs, and `trackdsl tree` then prints what the README shows, but for durations."""
    readme = GUIDES[0].read_text(encoding="utf-8")
    (tmp_path / "work/pipeline.py").write_text(_blocks(GUIDES[0])[0]["code"], encoding="utf-8")
    done = subprocess.run([sys.executable, "pipeline.py"], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    deliver()
    tree = run_command("tree", "pipeline", COLUMNS="200")
    assert tree.returncode == 0, tree.stderr
    shown = readme[readme.index("pipeline  FINISHED") :].partition("```")[0]
    assert _untimed(tree.stdout.strip()) == _untimed(shown.strip())


def _untimed(tree: str) -> str:
    return re.sub(r"\d+(\.\d+)? m?s", "…", tree)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_every_link_of_a_guide_leads_somewhere(guide: Path) -> None:
    """The target of a relative link exists: a file, and a heading in it."""
    links = re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", guide.read_text(encoding="utf-8"))
    assert links or guide.name != "README.md"
    for path, anchor in links:
        target = guide.parent / path if path else guide
        assert target.is_file(), path
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_the_site_has_every_public_name_and_every_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API page shows each public name, which has a docstring, and the navigation shows each guide."""
    written = SimpleNamespace(open=lambda name, mode: (tmp_path / name).open(mode))
    monkeypatch.setitem(sys.modules, "mkdocs_gen_files", cast(ModuleType, written))
    runpy.run_path(str(ROOT / ".github/site/pages.py"))
    page = (tmp_path / "api.md").read_text(encoding="utf-8")
    for name in set(trackdsl.__all__) - {"__version__"}:
        assert f"::: trackdsl.{name}\n" in page
        assert getattr(trackdsl, name).__doc__
    navigation = (ROOT / ".github/site/mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    for guide in [*GUIDES[1:], *(ROOT / "notebooks").glob("*.ipynb")]:
        assert f" {guide.name}\n" in navigation
