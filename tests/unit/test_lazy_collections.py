"""Collections whose data is in files or computed on request: shapes are recorded without reading."""

from __future__ import annotations

import array
import collections
import json
import sys
import time
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trackdsl import load_artifact, log_dict, stage, track_returns
from trackdsl.handlers._dataset import by
from trackdsl.testing import RecordedRun, capture_runs


class Counted(Mapping[str, int]):
    """A mapping that counts how often an item is read; each read takes a while."""

    def __init__(self, size: int, seconds: float) -> None:
        self.size, self.seconds, self.reads = size, seconds, 0

    def __getitem__(self, key: str) -> int:
        self.reads += 1
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            pass
        return int(key)

    def __iter__(self) -> Iterator[str]:
        return map(str, range(self.size))

    def __len__(self) -> int:
        return self.size


def recorded(value: Any) -> RecordedRun:
    """The run of a function that takes a value and returns it."""

    @stage
    @track_returns
    def f(data: Any) -> Any:
        return data

    with capture_runs() as captured:
        assert f(value) is value
        run = captured.one("f")
        assert not [path for path in run.artifacts if path.endswith(".pkl")]
        contents = {path: json.loads(file.read_text()) for path, file in run.artifacts.items()}
    run.tags["files"] = json.dumps(contents)
    return run


def omitted(run: RecordedRun) -> str:
    return " ".join(f"{tag}: {why}" for tag, why in run.tags.items() if tag.startswith("trackdsl.omitted."))


def test_a_slow_mapping_is_not_read_whole() -> None:
    """Some items of a slow mapping of a thousand are read, then only their number is recorded, later none."""
    value = Counted(1000, 0.005)
    run = recorded(value)
    assert value.reads < 300
    assert run.params == {"data": "Counted of 1000"}
    assert json.loads(run.tags["files"]) == {"f.json": "Counted of 1000"}
    assert "takes longer than 100 ms" in omitted(run)
    recorded(value)
    value.reads = 0
    assert recorded(value).params == {"data": "Counted of 1000"}
    assert value.reads == 0


def test_a_quick_mapping_is_read() -> None:
    """A user's own mapping that answers at once is recorded by its items, as a dict is."""
    run = recorded(Counted(3, 0))
    assert run.params == {"data.0": 0, "data.1": 1, "data.2": 2}
    assert run.metrics.keys() == {"0", "1", "2"}
    assert omitted(run) == ""


def test_a_slow_mapping_inside_of_others() -> None:
    """Inside dicts, lists and files a slow mapping is not read whole either, and what is beside it is recorded."""
    value = {"lr": 0.1, "data": Counted(1000, 0.005), "list": [Counted(1000, 0.005)]}
    with capture_runs() as captured, stage("s") as run:
        run.log_params(value)
        log_dict(value, "x.json")
        assert load_artifact(run, "x.json") == {"lr": 0.1, "data": "Counted of 1000", "list": ["Counted of 1000"]}
    assert captured.one("s").params["lr"] == 0.1
    assert captured.one("s").params["data"] == "Counted of 1000"
    assert value["data"].reads + value["list"][0].reads < 500  # type: ignore[index, attr-defined]


def test_archives_of_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`numpy.load` of an `.npz` is described by types and shapes in its headers, compressed or not; none is read."""
    arrays = {"x": np.zeros((1000, 10)), "y": np.arange(5, dtype="f4"), "t": np.array(["ü"])}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        with np.load(tmp_path / "a.npz") as archive:
            monkeypatch.setattr(type(archive), "__getitem__", lambda *_: pytest.fail("an array was read"))
            run = recorded(archive)
            monkeypatch.undo()
        assert run.params == {
            "data.x": "ndarray float64 (1000, 10)", "data.y": "ndarray float32 (5,)", "data.t": "ndarray <U1 (1,)",
        }  # fmt: skip
        assert json.loads(run.tags["files"])["f.json"]["x"] == "ndarray float64 (1000, 10)"
        assert "was not read" in omitted(run)
    with capture_runs() as captured, stage("s") as closed:
        closed.log_param("data", archive)
    assert captured.one("s").params["data"].endswith("NpzFile")


def test_files_of_hdf5(tmp_path: Path) -> None:
    """Groups of h5py are mappings of groups and of datasets, which are described by type and shape."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.zeros((3, 4))
        file.create_group("g")["y"] = [1, 2]
        run = recorded(file)
        assert run.params == {"data.x": "Dataset float64 (3, 4)", "data.g.y": "Dataset int64 (2,)"}
        assert json.loads(run.tags["files"])["f.json"]["x"] == "Dataset float64 (3, 4)"
        assert "was not read" in omitted(run)
        assert recorded(file["x"]).params == {"data": "Dataset float64 (3, 4)"}


def test_stores_of_zarr(tmp_path: Path) -> None:
    """Zarr stores are described as HDF5 files are."""
    zarr = pytest.importorskip("zarr", "3")
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("x", shape=(3, 4), dtype="f8")
    run = recorded(group)
    assert run.params == {"data.x": "Array float64 (3, 4)"}
    assert json.loads(run.tags["files"])["f.json"] == {"x": "Array float64 (3, 4)"}
    assert recorded(group["x"]).params == {"data": "Array float64 (3, 4)"}


def test_datasets_of_xarray() -> None:
    """Variables are described by type and shape; those in memory are content of a file."""
    xarray = pytest.importorskip("xarray")
    data = xarray.Dataset({"t": (("x", "y"), np.ones((2, 3)))})
    with capture_runs() as captured, stage("s") as run:
        run.log_params({"data": data})
        log_dict({"data": data}, "x.json")
        assert load_artifact(run, "x.json") == {"data": {"t": [[1, 1, 1], [1, 1, 1]]}}
    assert captured.one("s").params["data.t"].startswith("DataArray float64 (2, 3), digest ")


def test_long_lists_by_other_names_are_not_copied() -> None:
    """A long `array` or `deque` is a parameter of one line; a short one is a list."""
    with capture_runs() as captured, stage("s") as run:
        run.log_params({"a": array.array("d", bytes(8 << 20)), "d": collections.deque([0] * 20_000)})
        run.log_params({"x": array.array("i", [1, 2]), "y": [1, 2], "z": collections.deque([1, 2])})
    params = captured.one("s").params
    assert params["a"].startswith(f"array of {1 << 20}, digest ")
    assert params["d"].startswith("deque of 20000, digest ")
    assert params["x"] == params["y"] == params["z"]


def test_memory_maps(tmp_path: Path) -> None:
    """A memory map is an array that is described by its shape."""
    np.save(tmp_path / "a.npy", np.zeros((1000, 10)))
    with capture_runs() as captured, stage("s") as run:
        run.log_param("data", np.load(tmp_path / "a.npy", mmap_mode="r"))
    assert captured.one("s").params == {"data": "memmap float64 (1000, 10)"}


def _named(module: str, name: str, **attributes: Any) -> Any:
    """An object whose class has the name of another library's class."""
    return type(name, (), {"__module__": module, "__qualname__": name, **attributes})()


LAZY: dict[str, tuple[Any, str]] = {
    "datasets": (
        _named("datasets.arrow_dataset", "Dataset", num_rows=1000, num_columns=2,
               features={"text": types.SimpleNamespace(dtype="string"), "label": object()}),
        f"Dataset {by(1000, 2)} [text string, label]",
    ),
    "dask": (
        _named("dask.dataframe.core", "_Frame", columns=["a"], dtypes={"a": "int64"}, npartitions=4),
        f"_Frame {by('?', 1)}, 4 partitions [a int64]",
    ),
    "unknown": (_named("other.arrays", "Grid", shape=(2, 3), dtype="f8", __array__=None), "Grid f8 (2, 3)"),
    "unknown size": (
        _named("other.arrays", "Grid", shape=(object(), 3), dtype="f8", __array__=None), "other.arrays.Grid"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAZY)
def test_collections_of_other_libraries(kind: str) -> None:
    """Rows, columns and types of other collections are recorded if the library knows them without work."""
    value, expected = LAZY[kind]
    with capture_runs() as captured, stage("s") as run:
        run.log_param("data", value)
    assert captured.one("s").params == {"data": expected}
    assert "datasets" not in sys.modules
