"""The files of runs, as queries read them."""

from __future__ import annotations

import os
from pathlib import Path

from tests.conftest import client
from trackdsl.query._database import reader_for
from trackdsl.query._paged import PagedReader
from trackdsl.query._store import content_of


def test_files_of_runs(sqlite_store: str, tmp_path: Path) -> None:
    """Local files are read and listed as MLflow does, also those of a model of the run; none outside its folder."""
    mlflow = client(sqlite_store)
    run = mlflow.create_run("0", run_name="files")
    run_id, folder = run.info.run_id, Path(run.info.artifact_uri.removeprefix("file://"))
    mlflow.log_text(run_id, "notes", "notes.txt")
    mlflow.log_text(run_id, "deep", "folder/deep file.txt")
    mlflow.log_text(run_id, "of the run", "model/of-the-run.txt")
    model = mlflow.create_logged_model("0", name="model", source_run_id=run_id)
    of_model = Path(model.artifact_location.removeprefix("file://"))
    of_model.mkdir(parents=True)
    (of_model / "MLmodel").write_text("of the model")
    quick, slow = reader_for(sqlite_store), PagedReader(sqlite_store)
    assert content_of(quick, run_id, "notes.txt") == b"notes"
    assert content_of(quick, run_id, "model/MLmodel") == b"of the model"
    for path in ("notes.txt", "folder/deep file.txt", "model/of-the-run.txt", "model/MLmodel", "no", "folder", "../0"):
        assert content_of(quick, run_id, path) == content_of(slow, run_id, path), path
    for path in ("", "folder", "model", "no", "notes.txt"):
        assert quick.files(run_id, path) == slow.files(run_id, path), path

    (folder.parent / "theirs").mkdir()
    (folder.parent / "theirs" / "x.txt").write_text("theirs")
    (folder / "file").symlink_to(folder.parent / "theirs" / "x.txt")
    (folder / "link").symlink_to(folder.parent / "theirs")
    (folder / "inside").symlink_to("notes.txt")
    os.mkfifo(folder / "pipe")
    for path in ("file", "link/x.txt", "folder/../../theirs/x.txt", f"{folder.parent}/theirs/x.txt", "pipe"):
        assert content_of(quick, run_id, path) is None, path
    assert content_of(quick, run_id, "inside") == b"notes"
    assert [one.path for one in quick.files(run_id, "")] == ["folder", "inside", "model", "notes.txt"]
    assert quick.files(run_id, "link") == []
