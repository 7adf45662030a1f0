"""Small faults in the code of delivery and journals do not pass the tests."""

from __future__ import annotations

import ast

import pytest

from tests import planted_faults


def test_every_fault_can_be_planted() -> None:
    """The code has the text of each fault once, and the tests that a fault names exist."""
    outdated = []
    for file, before, after, tests in planted_faults.FAULTS:
        source = (planted_faults.ROOT / "trackdsl" / file).read_text()
        if source.count(before) != 1:
            outdated.append(f"{file} has {before!r} {source.count(before)} times")
            continue
        ast.parse(source.replace(before, after), file)
        path, _, name = tests.partition("::")
        if name and f"def {name.partition('[')[0]}(" not in (planted_faults.ROOT / path).read_text():
            outdated.append(f"there is no {tests}")
    assert not outdated, "bring these rows up to date"
    assert len(planted_faults.FAULTS) >= 80


def test_a_text_that_no_row_contains(capsys: pytest.CaptureFixture[str]) -> None:
    """A text that selects no row is an error that names it, with the exit code 2; no test is run."""
    assert planted_faults.main(only="no such row") == 2
    assert capsys.readouterr().err == "no row of FAULTS contains 'no such row'\n"
