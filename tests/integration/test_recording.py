"""Recording in a process of its own: its imports, its files, its secrets."""

from __future__ import annotations

import os
import pathlib
import textwrap
from typing import Any

import pytest

from tests.conftest import wait_until
from trackdsl import stage
from trackdsl.journal._spool import journals


def test_a_secret_is_nowhere_in_the_spool(tmp_path: pathlib.Path) -> None:
    """Not one byte of a secret reaches the disk: as argument, nested, in a name, a tag, a message, a traceback."""
    planted = "hunter2-super-secret"

    @stage("run-{password}")
    def login(password: str, config: dict[str, Any], url: str) -> None:
        raise ValueError(f"cannot log in with {password} at {url}")

    with pytest.raises(ValueError, match="cannot log in"):
        login(planted, {"nested": {"api_key": planted}}, f"https://me:{planted}@host/")
    with stage("s", token=planted) as run:
        run.set_tag("password", planted)
        run.log_dict({"a": 1}, "a.json")
        run.log_text(f"see https://me:{planted}@host/", "note.txt")
    (journal,) = journals(tmp_path / "spool")
    wait_until((journal / "git").exists, "git's answer, which is renamed when it is whole")
    files = [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]
    assert any(path.suffix == ".seg" for path in files)
    for path in files:
        assert planted.encode() not in path.read_bytes(), path


def test_nothing_heavy_is_imported(start: Any) -> None:
    """Neither the import nor a call of everything plain imports MLflow, NumPy, pandas or pydantic."""
    program = start(
        textwrap.dedent("""
        import sys
        import trackdsl
        @trackdsl.experiment("e")
        @trackdsl.track_returns("a", "b")
        def f(x, y={"a": 1}):
            for i in trackdsl.steps(range(2)):
                trackdsl.log_metric("m", i)
            with trackdsl.stage("s", n=1):
                trackdsl.log_text("t", "t.txt")
            return 1, {"c": 2}
        f(1)
        print([name for name in ("mlflow", "numpy", "pandas", "pydantic", "cloudpickle", "sqlalchemy", "requests")
               if name in sys.modules])
        """)
    )
    code, out, err = program.finish()
    assert (code, out.strip()) == (0, "[]"), err


def test_the_spool_is_private(tmp_path: pathlib.Path) -> None:
    """Nobody but its owner can look into the spool, whatever the umask."""
    before = os.umask(0)
    try:
        with stage("s") as run:
            run.log_text("x", "x.txt")
    finally:
        os.umask(before)
    assert (tmp_path / "spool").stat().st_mode & 0o077 == 0
    for path in (tmp_path / "spool" / "journals").rglob("*"):
        if path.suffix == ".seg" or path.name in ("origin", "lock", "progress"):
            assert path.stat().st_mode & 0o077 == 0, path
