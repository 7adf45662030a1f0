"""Fixtures of several files here."""

from __future__ import annotations

from pathlib import Path

import pytest

from trackdsl.journal import _origin


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def git_never_answers(no_pauses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere; besides, git never answers by itself."""
    monkeypatch.setattr(_origin, "ask_git", lambda directory: None)
