"""Handlers of arrays, frames and tensors: values are read back equal, and are not changed or kept."""

from __future__ import annotations

import datetime
import json
import pathlib
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

import pytest
from hypothesis import given

from tests.handler_contract import QUICK, Bomb, HandlerContract, any_frame, back, frames
from trackdsl import Artifact, stage, track_returns
from trackdsl.handlers import handler_for, handler_of
from trackdsl.handlers._dataset import by
from trackdsl.handlers._registry import handler_named, name_of, writer_for
from trackdsl.testing import capture_runs


class TestNumpyArrays(HandlerContract):
    needs = ("numpy",)
    formats = (".npz", ".csv", ".tsv", ".txt", ".json")

    def values(self) -> list[Any]:
        import numpy as np

        base = np.arange(24.0)
        fields = np.array([(1, 2.5)], dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True))
        return [base.reshape(6, 4), np.asfortranarray(base.reshape(6, 4)), base[::-3], np.zeros((0, 3)), np.array(3),
                np.array(["ü", "x"]), np.array(["2020"], "M8[D]"), fields, np.zeros(2, ">i4"), np.zeros(2, bool),
                np.lib.stride_tricks.as_strided(base, (2, 2), (0, 8)), np.zeros((1,) * 60)]  # fmt: skip

    def same(self, one: Any, other: Any) -> bool:
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


class TestNumpyScalars(HandlerContract):
    needs = ("numpy",)

    def values(self) -> list[Any]:
        import numpy as np

        return [np.float32(0.125), np.int8(100), np.bool_(True), np.float64(0.1), np.float16(0.5)]

    def same(self, one: Any, other: Any) -> bool:
        return bool(one == other)


class TestPandasFrames(HandlerContract):
    needs = ("pandas", "pyarrow")
    formats = (".csv", ".tsv", ".txt", ".json", ".html")

    def values(self) -> list[Any]:
        return frames()

    def same(self, one: Any, other: Any) -> bool:
        import pandas as pd

        pd.testing.assert_frame_equal(one, other, check_freq=False, check_column_type=False)
        return True

    def holds(self, path: pathlib.Path, found: Any, value: Any) -> bool:
        if path.suffix == ".html":
            return re.findall("<td>(.*)</td>", found) == [str(number) for number in value.to_numpy().flat]
        return self.same(value, found)

    def content(self, value: Any) -> Any:
        return str(value.to_dict("split")), list(value.dtypes), value.columns.names, value.index.names, value.attrs


class TestPandasSeries(HandlerContract):
    needs = ("pandas", "pyarrow")
    formats = (".csv", ".json")

    def values(self) -> list[Any]:
        import pandas as pd

        return [pd.Series([1.5, None], name="x"), pd.Series([1, 2]), pd.Series([], dtype=float),
                pd.Series(["a"], ["k"]), pd.Series([1], name=3)]  # fmt: skip

    def same(self, one: Any, other: Any) -> bool:
        import pandas as pd

        pd.testing.assert_series_equal(one, other)
        return True


class TestPandasIndexes(HandlerContract):
    needs = ("pandas", "pyarrow")

    def values(self) -> list[Any]:
        import pandas as pd

        return [pd.Index(["a", "b"], name="k"), pd.RangeIndex(3), pd.date_range("2020", periods=2, unit="us"),
                pd.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=["n", None]),
                pd.CategoricalIndex(["x"])]  # fmt: skip

    def same(self, one: Any, other: Any) -> bool:
        import pandas as pd

        pd.testing.assert_index_equal(one, other, exact="equiv")
        return True

    def content(self, value: Any) -> Any:
        return value.copy(deep=True).tolist(), list(value.names)


class TestPolars(HandlerContract):
    needs = ("polars", "pyarrow")
    formats = (".csv", ".json", ".arrow", ".feather")

    def values(self) -> list[Any]:
        import polars as pl

        full = pl.DataFrame({"a": [1, None], "s": ["ü", None], "c": pl.Series(["x", "y"], dtype=pl.Categorical),
                             "l": [[1], []], "t": [datetime.datetime(2020, 1, 1)] * 2, "b": [True, None],
                             "d": [Decimal("1.5"), None], "e": pl.Series(["x", "y"], dtype=pl.Enum(["x", "y"])),
                             "r": [{"k": 1}, {"k": None}]})  # fmt: skip
        return [full.select("a", "s"), full, full.clear(), pl.DataFrame(), full["a"], pl.Series("z", [], dtype=pl.Int8)]

    def same(self, one: Any, other: Any) -> bool:
        return bool(one.equals(other)) and getattr(one, "schema", one.name if hasattr(one, "name") else 0) == getattr(
            other, "schema", other.name if hasattr(other, "name") else 0
        )


class TestPyarrow(HandlerContract):
    needs = ("pyarrow",)
    formats = (".arrow", ".feather", ".csv")

    def values(self) -> list[Any]:
        import pyarrow as pa

        table = pa.table({"a": [1, None], "s": ["x", None]})
        rich = table.append_column("l", [[[1], None]]).append_column("d", pa.array(["x", "y"]).dictionary_encode())
        return [table, rich, table.slice(1), table.schema.empty_table(), rich.to_batches()[0], pa.array([1, None]),
                pa.chunked_array([[1], [2]]), pa.array([], pa.int8())]  # fmt: skip

    def same(self, one: Any, other: Any) -> bool:
        return type(one) is type(other) and bool(one.equals(other))

    def content(self, value: Any) -> Any:
        return value.to_pylist()


class TestTorch(HandlerContract):
    needs = ("torch",)
    formats = (".npz", ".csv", ".json")

    def values(self) -> list[Any]:
        import torch

        grown = torch.ones(2, 3, requires_grad=True)
        return [grown, torch.zeros(0, 3), torch.tensor(3), torch.arange(6).reshape(2, 3).T, torch.tensor([1j]).conj(),
                torch.nn.Parameter(torch.ones(2))]  # fmt: skip

    def same(self, one: Any, other: Any) -> bool:
        import torch

        return one.dtype == other.dtype and torch.equal(one.detach(), other)

    def content(self, value: Any) -> Any:
        return value.detach().numpy(force=True).tobytes(), value.requires_grad, value.stride(), value.is_conj()


class TestScipy(HandlerContract):
    needs = ("scipy",)

    def values(self) -> list[Any]:
        from scipy import sparse

        matrix = sparse.random_array((5, 7), density=0.3, rng=0)
        unsorted = sparse.csr_matrix(([1.0, 2.0], [3, 1], [0, 2, 2]), shape=(2, 4))
        kinds = [matrix.asformat(name) for name in ("csr", "csc", "coo", "bsr", "dia")]
        return [*kinds, sparse.csr_matrix((0, 3)), unsorted]

    def same(self, one: Any, other: Any) -> bool:
        return type(one) is type(other) and one.shape == other.shape and abs(one - other).sum() == 0


def test_any_array_comes_back(tmp_path: pathlib.Path) -> None:
    """NumPy arrays of any shape and type are read bit by bit as they were written."""
    pytest.importorskip("numpy")
    hnp = pytest.importorskip("hypothesis.extra.numpy")
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)

    @given(hnp.arrays(hnp.scalar_dtypes() | hnp.array_dtypes(max_size=3), shapes))
    @QUICK
    def check(array: Any) -> None:
        found = back(array, tmp_path)
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())

    check()


def test_any_frame_comes_back(tmp_path: pathlib.Path) -> None:
    """A pandas frame is read from Parquet as it was, also by pandas itself."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")

    @given(any_frame())
    @QUICK
    def check(frame: Any) -> None:
        handler = handler_of(frame)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet"
        handler.write(frame, path)
        for found in (handler.read(path), pd.read_parquet(path)):
            pd.testing.assert_frame_equal(found.astype({"s": object}).fillna({"s": ""}), frame.fillna({"s": ""}))

    check()


@pytest.mark.parametrize(
    "make",
    [
        lambda pd: pd.DataFrame({"a": [1, "x"]}),
        lambda pd: pd.DataFrame({"a": [{"k": 1}, {"l": 2}]}),
        lambda pd: pd.DataFrame({"a": [{1}, {2}]}),
        lambda pd: pd.DataFrame({"a": pd.Series([2**60 + 1, None], dtype=object)}),
        lambda pd: pd.DataFrame([[1, 2]], columns=["a", "a"]),
        lambda pd: pd.DataFrame([[1, 2]], columns=["1", 1]),
        lambda pd: pd.DataFrame({"a": [1j]}),
        lambda pd: pd.DataFrame(index=range(3)),
        lambda pd: pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}),
        lambda pd: pd.DataFrame({"a": [1]}, index=pd.Index([0], name=5)),
    ],
)
def test_frames_that_parquet_cannot_hold_are_pickled(make: Callable[[Any], Any], tmp_path: pathlib.Path) -> None:
    """A frame that would come back changed is kept as a pickle, and comes back equal."""
    pd = pytest.importorskip("pandas")
    frame = make(pd)
    assert handler_of(frame) is handler_for(object)
    pd.testing.assert_frame_equal(back(frame, tmp_path), frame)


def test_frames_are_written_by_the_slice(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large frame is written in slices, whose objects differ, as one file with equal content."""
    pd = pytest.importorskip("pandas")
    pq = pytest.importorskip("pyarrow.parquet")
    from trackdsl.handlers import _parquet

    monkeypatch.setattr(_parquet, "_SLICE", 1000)
    index = pd.MultiIndex.from_product([range(100), ["x", "y"]])
    halves = [None] * 100 + [b"x"] * 100
    frame = pd.DataFrame({"o": halves, "c": pd.Categorical(["u", "v"] * 100), "l": [[1.5]] * 200}, index=index)
    path = tmp_path / "x.parquet"
    handler_of(frame).write(frame, path)
    assert pq.ParquetFile(path).num_row_groups > 5
    found = handler_for(pd.DataFrame).read(path)
    pd.testing.assert_frame_equal(found[["o", "c"]], frame[["o", "c"]])
    assert [list(item) for item in found["l"]] == frame["l"].tolist()


def test_an_index_that_means_something_is_in_every_format(tmp_path: pathlib.Path) -> None:
    """Text formats have the index, unless it only counts the rows."""
    pd = pytest.importorskip("pandas")
    handler = handler_for(pd.DataFrame)
    for suffix in (".csv", ".json", ".html"):
        for name, frame in {"k": pd.DataFrame({"a": [1]}, index=["key"]), "p": pd.DataFrame({"a": [1]})}.items():
            handler.write(frame, tmp_path / f"{name}{suffix}")
        assert "key" in (tmp_path / f"k{suffix}").read_text()
    assert (tmp_path / "p.csv").read_text() == "a\n1\n"
    assert json.loads((tmp_path / "p.json").read_text()) == [{"a": 1}]


@pytest.mark.parametrize(
    ("make", "summary"),
    [
        (lambda: pytest.importorskip("numpy").zeros((3, 224), "f4"), "ndarray float32 (3, 224), digest 4b7e6506"),
        (lambda: pytest.importorskip("numpy").float32(0.5), 0.5),
        (lambda: pytest.importorskip("numpy").array(3), 3),
        (lambda: pytest.importorskip("numpy").datetime64("2020-01-02"), "2020-01-02"),
        (lambda: pytest.importorskip("numpy").str_("x"), "x"),
        (lambda: pytest.importorskip("numpy").ma.array([1]), "MaskedArray int64 (1,), digest "),
        (lambda: pytest.importorskip("torch").zeros(64, 10), "Tensor float32 (64, 10), digest 84a9f7cd"),
        (lambda: pytest.importorskip("torch").tensor(2.5), 2.5),
        (lambda: pytest.importorskip("torch").zeros(2, 2).to_sparse(), "Tensor float32 (2, 2) sparse_coo, digest "),
        (lambda: pytest.importorskip("pandas").DataFrame({"a": [1], "b": [0.5]}),
         f"DataFrame {by(1, 2)} [a int64, b float64], digest "),
        (lambda: pytest.importorskip("pandas").Series([1], name="a"), "Series 1 [a int64], digest "),
        (lambda: pytest.importorskip("pandas").Index([1]), "Index 1 [int64], digest "),
        (lambda: pytest.importorskip("polars").DataFrame({"a": [1]}), f"DataFrame {by(1, 1)} [a Int64], digest "),
        (lambda: pytest.importorskip("polars").LazyFrame({"a": [1]}), "polars.lazyframe.frame.LazyFrame"),
        (lambda: pytest.importorskip("pyarrow").table({"a": [1]}), f"Table {by(1, 1)} [a int64], digest "),
        (lambda: pytest.importorskip("pyarrow").array([1]), "Int64Array 1 [int64], digest "),
        (lambda: pytest.importorskip("scipy.sparse").eye_array(3, format="csr"),
         "csr_array float64 (3, 3), 3 stored, digest "),
        (lambda: pytest.importorskip("PIL.Image").new("L", (4, 3)), f"Image L {by(4, 3)}"),
    ],
)  # fmt: skip
def test_summaries(make: Callable[[], Any], summary: Any) -> None:
    """Data is described by its type, shape, types, first columns and a digest; a single number by itself."""
    value = make()
    found = handler_for(type(value)).summary(value)
    assert (re.sub("(, digest )[0-9a-f]{8}$", r"\1", found) if str(summary).endswith("digest ") else found) == summary


@pytest.mark.parametrize(
    ("module", "make"),
    [
        ("pandas", lambda pd, x: pd.DataFrame({"a": range(500), "b": [x] * 500})),
        ("pandas", lambda pd, x: pd.DataFrame({"a": [1.0] * 500, "b": [1.0 * x] * 500})),
        ("pandas", lambda pd, x: pd.DataFrame({"a": [1, 2], "b": ["x", str(x)]})),
        ("pandas", lambda pd, x: pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=[1, x])),
        ("pandas", lambda pd, x: pd.DataFrame({"a": pd.Categorical(["x", str(x)]), "b": [{"x": 1}, [x]]})),
        ("pandas", lambda pd, x: pd.DataFrame({"a": pd.array([x, None]), "b": pd.to_timedelta([1, x])})),
        ("pandas", lambda pd, x: pd.DataFrame({"a": [1, "b"]}, index=pd.MultiIndex.from_tuples([(1, x)] * 2))),
        ("pandas", lambda pd, x: pd.Series([x] * 500)),
        ("pandas", lambda pd, x: pd.Series([1, 2], pd.date_range("2020", periods=2, freq=f"{x}h", tz="CET"))),
        ("pandas", lambda pd, x: pd.Index(["x", str(x)])),
        ("pandas", lambda pd, x: pd.RangeIndex(x, x + 5)),
        ("pandas", lambda pd, x: pd.Categorical(["x", str(x)])),
        ("polars", lambda pl, x: pl.DataFrame({"a": range(500), "b": [str(x)] * 500, "c": [[x]] * 500})),
        ("polars", lambda pl, x: pl.Series([1, x])),
        ("pyarrow", lambda pa, x: pa.table({"a": range(500), "b": [str(x)] * 500})),
        ("pyarrow", lambda pa, x: pa.array([1, x])),
        ("scipy.sparse", lambda sparse, x: sparse.csr_array([[0, x]])),
        ("scipy.sparse", lambda sparse, x: sparse.coo_array(([1], ([0], [x])), shape=(3, 9))),
        ("numpy", lambda np, x: np.ma.array([1, 2, 3], mask=[x == 3, False, True])),
        ("numpy", lambda np, x: np.matrix([[1, x]])),
        ("numpy", lambda np, x: np.rec.array([(1, 1.0 * x)])),
        ("torch", lambda torch, x: torch.full((3,), x, dtype=torch.bfloat16)),
        ("torch", lambda torch, x: torch.tensor([[0, x]]).to_sparse()),
        ("torch", lambda torch, x: torch.tensor([[0, x]]).to_sparse_csr()),
        ("xarray", lambda xarray, x: xarray.DataArray([[1, x]])),
        ("array", lambda array, x: array.array("i", [x] * 20_000)),
        ("builtins", lambda _, x: bytes([1, x])),
        ("builtins", lambda _, x: memoryview(bytes([x]) * 1_000_000)[::2]),
        ("builtins", lambda _, x: ValueError(f"not {x}")),
        ("builtins", lambda _, x: list[int] if x == 2 else list[str]),
    ],
)  # fmt: skip
def test_data_of_one_size_reads_differently(module: str, make: Callable[[Any, int], Any]) -> None:
    """Data of one size has the same text if its values are equal, and another text if they differ."""
    library = pytest.importorskip(module)
    values = [make(library, x) for x in (2, 2, 3)]
    one, same, other = (handler_for(type(value)).summary(value) for value in values)
    assert one == same != other


@pytest.mark.parametrize("name", ["object", "masked", "matrix", "bfloat16"])
def test_arrays_that_npy_cannot_hold_are_not_accepted(name: str) -> None:
    """Object and masked arrays, subclasses and types that NumPy lacks are not written as `.npy`, which loses them."""
    np = pytest.importorskip("numpy")
    if name == "bfloat16":
        value = pytest.importorskip("torch").zeros(2, dtype=pytest.importorskip("torch").bfloat16)
    else:
        value = {"object": np.array([{}]), "masked": np.ma.array([1], mask=[1]), "matrix": np.asmatrix([1])}[name]
    assert handler_of(value) is handler_for(object)


def test_a_pickle_inside_an_array_is_not_loaded(tmp_path: pathlib.Path) -> None:
    """An `.npy`, `.npz` or sparse `.npz` file with a pickle in it is refused."""
    np = pytest.importorskip("numpy")
    sparse = pytest.importorskip("scipy.sparse")
    bombs = np.array([Bomb(tmp_path / "exploded")], dtype=object)
    np.save(tmp_path / "x.npy", bombs)
    np.savez(tmp_path / "x.npz", bombs)
    np.savez(tmp_path / "s.npz", format=bombs)
    for handler, file in ((np.ndarray, "x.npy"), (np.ndarray, "x.npz"), (sparse.csr_array, "s.npz")):
        with pytest.raises(ValueError, match="allow_pickle"):
            handler_for(handler).read(tmp_path / file)
    assert not (tmp_path / "exploded").exists()


def test_a_dict_of_arrays_is_one_npz() -> None:
    """`Artifact("x.npz")` on a dict of arrays is one file, which is read as that dict."""
    np = pytest.importorskip("numpy")

    arrays = {"train": np.arange(3), "file": np.zeros((2, 2))}
    handler = writer_for(arrays, handler_of(arrays), ".npz")
    assert handler is handler_for(np.ndarray)
    assert handler_named(name_of(handler, dict)) is handler

    @stage
    @track_returns
    def split() -> Annotated[Any, Artifact("split.npz")]:
        return arrays

    with capture_runs() as captured:
        split()
        found = handler.read(captured.one("split").artifacts["split.npz"])
    assert {name: array.tolist() for name, array in found.items()} == {"train": [0, 1, 2], "file": [[0, 0], [0, 0]]}
