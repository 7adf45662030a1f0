"""Each row of the table in COMPATIBILITY.md has a test, and the table has each row."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE.parent.parent / ".github/COMPATIBILITY.md"
ROWS = set(range(1, 115))


def rows_of(name: str) -> set[int]:
    """The rows that a test's name has: `test_r31_to_r33_…`, `test_r83_r84_…`, `test_r98_…`."""
    found = re.match(r"test_r(\d+)(?:_(?:to_)?r(\d+))?_", name)
    return set(range(int(found[1]), int(found[2] or found[1]) + 1)) if found else set()


def rows_in(path: Path) -> set[int]:
    """The rows that the tests of a file have."""
    tree = ast.parse(path.read_text())
    return set().union(*(rows_of(node.name) for node in tree.body if isinstance(node, ast.FunctionDef)))


def test_every_row_has_a_test() -> None:
    """Each row is in the name of a test."""
    named: set[int] = set()
    for path in HERE.glob("test_*.py"):
        if path.name not in ("test_documents.py", Path(__file__).name):
            named |= rows_in(path)
    assert named == ROWS


def test_every_row_is_in_the_table() -> None:
    """The table has a line for each row, which names the file of its test."""
    lines = re.findall(r"^\| R(\d+) \|.*\| (.*) \|$", TABLE.read_text(), re.MULTILINE)
    assert [int(row) for row, _ in lines] == sorted(ROWS)
    for row, tests in lines:
        assert int(row) in set().union(*(rows_in(HERE / name) for name in re.findall(r"`(.*?)`", tests))), row
