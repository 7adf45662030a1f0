"""Fixtures of several files here."""

from __future__ import annotations

import pytest

from trackdsl.journal import _origin


@pytest.fixture
def git_never_answers(no_pauses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere; besides, git never answers by itself."""
    monkeypatch.setattr(_origin, "ask_git", lambda directory: None)
