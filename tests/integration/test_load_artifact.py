"""`load_artifact`: objects come back through the handler that wrote them, and nothing runs code unasked."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import pickle
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trackdsl
from tests.conftest import client, deliver, last_run
from trackdsl import Artifact, ArtifactError, UntrustedArtifact, load_artifact, stage, track_returns
from trackdsl.handlers import Handler, register_handler
from trackdsl.testing import capture_runs


class Thing:
    """An object that only pickle can hold."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return pathlib.Path.touch, (self.mark,)


FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
KEPT: dict[str, Any] = {
    "frame": FRAME,
    "array": np.arange(6.0).reshape(2, 3),
    "settings": {"a": [1, None, "grün"], "b": {"c": "d"}},
    "note": "line\r\nline\n",
    "blob": b"\0\xff",
    "thing": Thing(3),
}


def returned(value: Any, uri: str, *names: str) -> Any:
    """The MLflow run of a function that returned `value`, delivered to a store."""
    trackdsl.configure(tracking_uri=uri)
    stage("f")(track_returns(*names)(lambda: value))()
    deliver()
    return last_run(uri)


def equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
        return True
    if isinstance(expected, np.ndarray):
        return type(found) is np.ndarray and bool(np.array_equal(found, expected))
    return bool(found == expected)


def test_every_kind_comes_back(store: str) -> None:
    """What a function returned loads from the store as it was: frames, arrays, JSON, text, bytes, pickles."""
    run = returned(tuple(KEPT.values()), store, *KEPT)
    files = ["frame.parquet", "array.npy", "settings.json", "note.txt", "blob.bin", "thing.pkl"]
    for path, expected in zip(files, KEPT.values(), strict=True):
        assert equal(load_artifact(run.info.run_id, path, trusted=path.endswith(".pkl")), expected), path


def test_a_run_may_be_named_in_four_ways(sqlite_store: str) -> None:
    """A handle, MLflow's id, trackdsl's id and MLflow's own object all lead to the same artifact."""
    run = returned({"a": "b"}, sqlite_store, "x")
    for name in (run.info.run_id, run.data.tags["trackdsl.id"], run):
        assert load_artifact(name, "x.json", tracking_uri=sqlite_store) == {"a": "b"}


def test_what_is_not_delivered_yet_is_read_from_the_journal() -> None:
    """Inside the program, an artifact can be read at once, whether or not there is a server."""
    with capture_runs(), stage("fit") as run:
        run.log_dict({"lr": 0.1}, "config.json")
        run.log_dict({"lr": 0.2}, "config.json")
        assert load_artifact(run, "config.json") == {"lr": 0.2}
        Path("folder").mkdir()
        Path("folder/a.csv").write_text("a\n1\n")
        run.log_artifact("folder")
        assert load_artifact(run, "folder/a.csv")["a"].tolist() == [1]
        with pytest.raises(ArtifactError, match="a folder"):
            load_artifact(run, "folder")


def test_files_that_no_handler_wrote_are_read_by_their_suffix(sqlite_store: str) -> None:
    """CSV, JSON and text load as such, other suffixes as bytes; a pickle of unknown origin never loads."""
    trackdsl.configure(tracking_uri=sqlite_store)
    with stage("files") as run:
        for name, content in (("t.csv", "a,b\n1,2\n"), ("t.yaml", "a: [1]\n"), ("t.md", "# x"), ("t.dat", "raw")):
            Path(name).write_text(content)
            run.log_artifact(name)
        Path("t.pkl").write_bytes(pickle.dumps(1))
        run.log_artifact("t.pkl")
    deliver()
    id_ = last_run().info.run_id
    assert load_artifact(id_, "t.csv").to_dict("list") == {"a": [1], "b": [2]}
    assert load_artifact(id_, "t.yaml") == {"a": [1]}
    assert load_artifact(id_, "t.md") == "# x"
    assert load_artifact(id_, "t.dat") == b"raw"
    with pytest.raises(UntrustedArtifact, match=r"t\.pkl.*without a recorded SHA-256"):
        load_artifact(id_, "t.pkl", trusted=True)


def test_a_pickle_needs_trust_and_its_hash(sqlite_store: str) -> None:
    """Without `trusted=True` nothing is unpickled; with it, only the very bytes that were written."""
    run = returned(Thing(1), sqlite_store, "thing")
    with pytest.raises(UntrustedArtifact, match="trusted=True"):
        load_artifact(run, "thing.pkl")
    assert load_artifact(run, "thing.pkl", trusted=True) == Thing(1)
    file = Path(run.info.artifact_uri.removeprefix("file://")) / "thing.pkl"
    file.write_bytes(pickle.dumps(Bomb(Path.cwd() / "mark")))
    with pytest.raises(ArtifactError, match=hashlib.sha256(file.read_bytes()).hexdigest()):
        load_artifact(run, "thing.pkl", trusted=True)
    assert not Path("mark").exists()


def test_nothing_that_is_read_says_that_it_may_be_trusted(sqlite_store: str) -> None:
    """A pickle under the name of a safe format, with a tag that names a safe handler, executes nothing."""
    run = returned({"a": "b"}, sqlite_store, "x")
    file = Path(run.info.artifact_uri.removeprefix("file://")) / "x.json"
    file.write_bytes(pickle.dumps(Bomb(Path.cwd() / "mark")))
    for handler in ("builtins.dict", "builtins.str", "numpy.ndarray", "pandas.DataFrame", "os:system", "object"):
        client(sqlite_store).set_tag(run.info.run_id, "trackdsl.files", json.dumps({"x.json": {"handler": handler}}))
        for trusted in (False, True):
            try:
                load_artifact(run.info.run_id, "x.json", trusted=trusted)
            except ArtifactError:
                continue
            assert handler == "builtins.str"  # Any bytes may be text.
    assert not Path("mark").exists()


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("trackdsl.files", "]"),
        ("trackdsl.files", "[" * 7000),
        ("trackdsl.files", '{"x.json": 3}'),
        ("trackdsl.artifact.x.json", "]"),
    ],
)
def test_a_damaged_note_is_a_clear_error(sqlite_store: str, tag: str, text: str) -> None:
    """A tag that does not say how a file is read raises an error that names the file, in old stores too."""
    run = returned({"a": "b"}, sqlite_store, "x")
    client(sqlite_store).set_tag(run.info.run_id, tag, text)
    with pytest.raises(ArtifactError, match=r"x\.json.*damaged"):
        load_artifact(run.info.run_id, "x.json")


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a\0b",
        "..",
        "a\\..\\b",
        "C:x",
        "C:\\x",
        "con",
        "sub/NUL.txt",
        "aux.csv",
        "",
        ".",
    ],
)
def test_a_path_never_leaves_the_run(path: str) -> None:
    """Paths that climb, are absolute, or are names of devices are an error that names them, before anything is read."""
    with pytest.raises(ArtifactError) as caught:
        load_artifact("0" * 32, path)
    assert caught.value.path == path
    assert repr(path) in str(caught.value)


ODD = ["a#b.txt", "q?x=1.txt", "p%2fq.txt", "%2e%2e.txt", "x%41.txt", " lead.txt", "d / e.txt", "n\nl.txt", "end."]


def test_odd_names_are_kept_apart_and_come_back(store: str) -> None:
    """Names that MLflow's client would send to a server as other ones are rewritten, reported, and still found."""
    trackdsl.configure(tracking_uri=store)
    with stage("f") as run:
        for name in ODD:
            run.log_text(f"this is {name}", name)
    deliver()
    found = last_run(store)
    for name in ODD:
        assert load_artifact(found, name, tracking_uri=store) in (f"this is {name}", f"this is {name}".encode())
    assert found.data.tags["trackdsl.renamed.a_0x23_b.txt"] == "a#b.txt"


@pytest.mark.parametrize("path", ["%2e%2e/%2e%2e/%2e%2e/outside.txt", "..%2f..%2foutside.txt", "x.json#y", "x.json?y"])
def test_no_spelling_leads_elsewhere(store: str, path: str) -> None:
    """Quoted dots and slashes, fragments and queries are part of a name, and lead to no other file."""
    run = returned({"a": "b"}, store, "x")
    for level in Path(run.info.artifact_uri.removeprefix("file://")).parents:
        if level.is_dir() and "pytest" in str(level):
            (level / "outside.txt").write_text("outside")
    with pytest.raises(ArtifactError, match="no artifact"):
        load_artifact(run.info.run_id, path)


@given(path=st.text(alphabet="a./\\\0:", max_size=8))
def test_whatever_path_is_asked_for_stays_inside(path: str) -> None:
    """Any path is either refused, or stays below the folder it is joined to."""
    from trackdsl._core.artifact_paths import checked_path

    try:
        checked = checked_path(path)
    except ValueError:
        return
    assert os.path.normpath(os.path.join("/root/run", checked)).startswith("/root/run")


def test_a_download_outside_of_its_folder_is_refused(
    sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that MLflow's client has put elsewhere than it was asked to is not read."""
    from mlflow import artifacts

    with stage("f"):
        pass
    deliver()
    (tmp_path / "x.txt").write_text("outside")
    monkeypatch.setattr(artifacts, "download_artifacts", lambda **options: str(tmp_path / "x.txt"))
    with pytest.raises(ArtifactError, match="is outside the run's folder"):
        load_artifact(last_run(sqlite_store), "x.txt", tracking_uri=sqlite_store)


@pytest.mark.parametrize("path", ["link.txt", "folder/link.txt", "linked/secret.txt"])
def test_links_in_a_store_of_files_are_refused(sqlite_store: str, tmp_path: Path, path: str) -> None:
    """A link in the artifact folder, or on the way to a file, is not followed."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    run = returned({"a": "b"}, sqlite_store, "x")
    root = Path(run.info.artifact_uri.removeprefix("file://"))
    (root / "folder").mkdir()
    (root / "linked").symlink_to(tmp_path / "outside")
    for name in ("link.txt", "folder/link.txt"):
        (root / name).symlink_to(tmp_path / "outside" / "secret.txt")
    with pytest.raises(ArtifactError, match="link"):
        load_artifact(run.info.run_id, path)


def test_what_is_not_there_is_a_clear_error(store: str) -> None:
    """A missing artifact, and a run that does not exist, are errors that name them."""
    run = returned({"a": "b"}, store, "x")
    with pytest.raises(ArtifactError, match=r"no artifact 'missing\.json'"):
        load_artifact(run.info.run_id, "missing.json")
    with pytest.raises(ArtifactError, match="0000"):
        load_artifact("0" * 32, "x.json")
    with pytest.raises(ArtifactError, match="is not a run"):
        load_artifact(7, "x.json")


def test_names_of_devices_are_kept_under_another_name() -> None:
    """`aux.csv`, which Windows cannot open, is kept as `aux_.csv`, and the run says so."""
    with capture_runs() as captured, stage("f") as run:
        run.log_text("a", "aux.csv")
        assert load_artifact(run, "aux_.csv")["a"].tolist() == []
    found = captured.one("f")
    assert list(found.artifacts) == ["aux_.csv"]
    assert found.tags["trackdsl.renamed.aux_.csv"] == "aux.csv"


def test_a_handler_of_ones_own_reads_back(sqlite_store: str) -> None:
    """A registered handler writes and reads; where it is not registered, the error names it."""

    class Customer:
        name = "ada"

    class AsText(Handler):
        suffix = ".txt"

        def write(self, value: Any, path: Path) -> None:
            path.write_text(value.name)

        def read(self, path: Path) -> Any:
            return ("customer", path.read_text())

    register_handler(Customer, AsText())
    run = returned(Customer(), sqlite_store, "c")
    assert load_artifact(run.info.run_id, "c.txt") == ("customer", "ada")
    client(sqlite_store).set_tag(run.info.run_id, "trackdsl.files", '{"c.txt": {"handler": "shop.Nobody"}}')
    with pytest.raises(ArtifactError, match=r"shop\.Nobody, which is not registered"):
        load_artifact(run.info.run_id, "c.txt")


@pytest.mark.parametrize(
    ("value", "path", "kept", "expected"),
    [
        (FRAME, "f/x.csv", "f/x.csv", FRAME),
        ({"a": [1, 2]}, "x.yaml", "x.yaml", {"a": [1, 2]}),
        ({"a": 1}, "x.pkl", "x.pkl", {"a": 1}),
        ([1], "x.txt", "x.txt", "[\n  1\n]"),
        ("<p>hi</p>", "x.html", "x.html", "<p>hi</p>"),
        (Thing(1), "x.json", "x.json.pkl", Thing(1)),
        (Thing(2), "plain", "plain", Thing(2)),
    ],
)
def test_the_suffix_of_an_artifact_chooses_the_format(value: Any, path: str, kept: str, expected: Any) -> None:
    """`Artifact("x.csv")` is a CSV file; a value that does not fit a format is reported and kept in another one."""

    def f() -> Any:
        return value

    f.__annotations__["return"] = Annotated[Any, Artifact(path)]
    with capture_runs() as captured, stage("outer") as run:
        track_returns(f)()
        assert equal(load_artifact(run, kept, trusted=True), expected)
    found = captured.one("outer")
    assert list(found.artifacts) == [kept]
    assert (f"trackdsl.omitted.{path}" in found.tags) == (path != kept)


@pytest.mark.parametrize("name", ["100%", "line\nbreak", "models/rf"])
def test_a_model_is_read_by_the_name_it_was_given(sqlite_store: str, name: str) -> None:
    """A model whose name MLflow rewrites comes back by its own name, from the journal and from the store."""
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    with stage("train") as run:
        run.log_model(model, name)
    assert load_artifact(run, name, trusted=True).coef_[0] == pytest.approx(2.0)
    deliver()
    assert load_artifact(last_run(), name, trusted=True).coef_[0] == pytest.approx(2.0)


@pytest.mark.slow
def test_the_class_of_an_estimator_comes_back() -> None:
    """A random forest of XGBoost's comes back as one, also where its format does not say so."""
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBRFRegressor(n_estimators=2, max_depth=2).fit(np.eye(8), np.arange(8.0))
    with stage("train") as run:
        run.log_model(model, "forest")
    found = load_artifact(run, "forest")
    assert type(found) is xgboost.XGBRFRegressor
    assert (found.predict(np.eye(8)) == model.predict(np.eye(8))).all()


def test_a_table_whose_columns_share_a_name_comes_back(sqlite_store: str) -> None:
    """An Arrow table that Parquet could not give back is kept in a way that can."""
    pa = pytest.importorskip("pyarrow")
    table = pa.table([[1, 2], [3, 4]], names=["a", "a"])
    run = returned(table, sqlite_store, "table")
    [name] = [file.path for file in client().list_artifacts(run.info.run_id)]
    assert load_artifact(run, name, trusted=True).equals(table)
