"""Digests of datasets: equal content has one digest, whatever its layout, and any change makes another one."""

from __future__ import annotations

import datetime
import json
import pickle
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.handler_contract import QUICK, Color, Optimizer, any_frame, frames
from trackdsl.handlers import handler_for


def digest(value: Any) -> str:
    found = handler_for(type(value)).dataset(value)
    assert found is not None
    assert re.fullmatch("[0-9a-f]{32}", found.digest)
    return found.digest


def test_digests_of_arrays() -> None:
    """One value more, less or changed makes another digest; another layout of the same values does not."""
    np = pytest.importorskip("numpy")
    hnp = pytest.importorskip("hypothesis.extra.numpy")
    kinds = (
        hnp.integer_dtypes() | hnp.floating_dtypes() | hnp.unicode_string_dtypes(max_len=4) | hnp.datetime64_dtypes()
    )

    @given(hnp.arrays(kinds, hnp.array_shapes(max_dims=3, max_side=6)), st.data())
    @QUICK
    def check(array: Any, data: Any) -> None:
        original = digest(array)
        wide = np.repeat(array, 2, axis=0)
        layouts = [np.asfortranarray(array), wide[::2], array[..., ::-1].copy()[..., ::-1], array.T.copy().T]
        assert {digest(layout) for layout in layouts} == {original}
        changed = array.copy()
        raw = changed.reshape(-1).view("u1")
        assume(raw.size)
        raw[data.draw(st.integers(0, raw.size - 1))] ^= 1
        assert digest(changed) != original
        assert digest(array.reshape(-1, *[1] * array.ndim)) != original
        assert digest(array[:-1]) != original

    check()


def test_digests_of_odd_arrays() -> None:
    """What lies between fields, under a mask or beyond 80 bits does not change the digest; mask and type do."""
    np = pytest.importorskip("numpy")
    padded = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    one, other = (np.frombuffer(bytes([fill]) * 32, padded).copy() for fill in (0, 255))
    for array in (one, other):
        array["a"], array["b"] = 1, 2.5
    assert digest(one) == digest(other)
    assert digest(np.ma.array([1, 2], mask=[0, 1])) == digest(np.ma.array([1, 3], mask=[0, 1]))
    assert digest(np.ma.array([1, 2], mask=[0, 1])) != digest(np.ma.array([1, 2], mask=[1, 0]))
    assert digest(np.zeros(2, "i4")) != digest(np.zeros(2, "u4"))
    assert digest(np.array([1, "x"], object)) == digest(np.array([1, "x"], object)[::-1][::-1])
    assert digest(np.array([1, "x"], object)) != digest(np.array(["1", "x"], object))


def test_digests_of_frames() -> None:
    """Any change of a frame changes its digest; how it lies in memory does not."""
    np = pytest.importorskip("numpy")
    pd = pytest.importorskip("pandas")

    @given(any_frame(), st.data())
    @QUICK
    def check(frame: Any, data: Any) -> None:
        original = digest(frame)
        apart = pd.DataFrame({name: frame[name].copy() for name in frame})
        doubled = pd.concat([frame, frame], axis=1).iloc[:, : frame.shape[1]]
        assert {digest(other) for other in (frame.copy(), apart, doubled, pickle.loads(pickle.dumps(frame)))} == {
            original
        }
        assert digest(frame.rename(columns={"f": "g"})) != original
        assert digest(frame[["i", "f", "b", "s", "t"]]) != original
        assert digest(frame.astype({"i": "int64"})) != original
        assert digest(frame.rename_axis("name")) != original
        assume(len(frame))
        assert digest(frame.iloc[:-1]) != original
        assert digest(frame.set_index(frame.index + 1)) != original
        row, name = data.draw(st.integers(0, len(frame) - 1)), data.draw(st.sampled_from(list(frame)))
        changed = frame.copy()
        before = changed.iloc[row, changed.columns.get_loc(name)]
        others = {"f": (0.5, 1.5), "i": (0, 1), "b": (True, False), "s": ("x", "y")}
        one, other = others.get(name, (pd.Timestamp(4), pd.Timestamp(5)))
        after = other if before == one else one
        changed.isetitem(
            changed.columns.get_loc(name), [*changed[name].iloc[:row], after, *changed[name].iloc[row + 1 :]]
        )
        assert digest(changed.astype(frame.dtypes)) != original

    check()
    block = np.random.default_rng(0).random((70_000, 70))
    block[5, 3] = np.nan
    across = pd.DataFrame(block, copy=False)
    side = pd.DataFrame({index: block[:, index].copy() for index in range(70)})
    assert digest(across) == digest(side)
    required = [
        column["required"] for column in json.loads(handler_for(pd.DataFrame).dataset(across).schema)["mlflow_colspec"]
    ]
    assert required == [index != 3 for index in range(70)]
    some = [0, 1, 3, 2, 7]
    views = pd.DataFrame({index: block[:, index] for index in some}, copy=False)
    assert digest(views) == digest(side[some])
    block[69_999, 69] += 1e-9
    assert digest(pd.DataFrame(block, copy=False)) != digest(side)


def test_every_part_of_a_frame_counts() -> None:
    """For every kind of column, one changed value changes the digest; equal indexes give equal digests."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    turns = 0
    for frame in frames():
        original = digest(frame)
        assert digest(frame.copy()) == original
        for column in range(min(frame.shape[1], 20)):
            if len(frame) > 1 and frame.iloc[:, column].map(repr).nunique() > 1:
                turned = frame.copy()
                turned.isetitem(column, frame.iloc[::-1, column].array)
                if not turned.equals(frame):
                    turns += 1
                    assert digest(turned) != original, frame.columns[column]
    assert turns > 20
    texts = [pd.DataFrame({"a": pd.Series(["ab", "c", last], dtype=object)}) for last in ("d", None)]
    texts += [pd.DataFrame({"a": pd.Series(["a", "bc", last], dtype=object)}) for last in ("d", None)]
    assert len({digest(text) for text in texts}) == 4
    numbers = pd.DataFrame({"a": [1, 2, 3]})
    assert digest(numbers.set_axis(pd.Index([0, 1, 2]))) == digest(numbers)
    assert digest(numbers.set_axis(pd.Index([0, 1, 3]))) != digest(numbers)
    assert digest(pd.DataFrame({"a": pd.Series(["x", None], dtype=object)})) != digest(
        pd.DataFrame({"a": pd.Series(["x", float("nan")], dtype=object)})
    )


def test_digests_of_objects() -> None:
    """Equal objects have one digest, whatever their identity and the order of a set."""
    from trackdsl.handlers._digest import encode

    text = "".join(["long", " text"])
    assert encode([text, text]) == encode(["long text", "".join(["long", " text"])])
    assert list({0, 8}) != list({8, 0})
    assert encode({0, 8}) == encode({8, 0})
    assert encode({"a": 1, "b": 2}) == encode({"b": 2, "a": 1})
    assert encode(Optimizer()) == encode(Optimizer())
    different = [
        1, True, 1.0, "1", b"1", [1], (1,), {1}, {1: 1}, None, Decimal(1), Optimizer(), Optimizer(0.2), int, [[1]],
        [1, 1], [[], [1]], [[[]], 1], Color.RED, 1j, datetime.date(2020, 1, 1), "", b"", (), [],
    ]  # fmt: skip
    assert len({encode(value) for value in different}) == len(different)
    loop: list[Any] = [1]
    loop.append(loop)
    assert encode(loop) == encode(loop)
    with pytest.raises(TypeError):
        encode(lambda: 1)


@pytest.mark.parametrize("name", ["pyarrow", "polars"])
def test_digests_of_arrow_and_polars(name: str) -> None:
    """Chunks, offsets and values under nulls do not change the digest; any value, name or type does."""
    pa = pytest.importorskip("pyarrow")
    pl = pytest.importorskip("polars")
    columns = {
        "i": [1, None, 3, 4], "s": ["a", None, "bc", ""], "l": [[1], [], None, [2, None]],
        "b": [True, None, False, True], "r": [{"k": "x"}, None, {"k": None}, {"k": "y"}],
        "t": [datetime.datetime(2020, 1, day) for day in (1, 2, 3, 4)],
        "n": [None] * 4, "d": [Decimal("1.5"), None, Decimal("2.5"), Decimal(0)],
    }  # fmt: skip
    made = pa.table(columns)
    made = made.append_column("c", pa.array(["x", "y", "x", None]).dictionary_encode())
    chunks = pa.concat_tables([made.slice(0, 1), made.slice(1, 2), made.slice(3)])
    longer = pa.concat_tables([made, made]).combine_chunks().slice(4, 4)
    tables: list[Any] = [made, chunks, longer]
    if name == "polars":
        tables = [pl.from_arrow(table, rechunk=False) for table in tables]
    assert len({digest(table) for table in tables}) == 1
    original = digest(tables[0])
    for column in columns:
        if column != "n":
            other = made.set_column(made.column_names.index(column), column, [made[column].to_pylist()[::-1]])
            assert digest(other if name == "pyarrow" else pl.from_arrow(other)) != original, column
    renamed = made.rename_columns([f"{column}_" for column in made.column_names])
    assert digest(renamed if name == "pyarrow" else pl.from_arrow(renamed)) != original
    under = pa.Array.from_buffers(pa.int64(), 2, [pa.py_buffer(b"\x01"), pa.py_buffer(bytes(8) + b"\x07" * 8)])
    assert digest(under) == digest(pa.array([0, None]))


def test_digests_of_tensors_and_sparse_matrices() -> None:
    """Strides, gradients and formats do not change the digest; values, types and positions do."""
    torch = pytest.importorskip("torch")
    sparse = pytest.importorskip("scipy.sparse")
    tensor = torch.arange(6.0).reshape(2, 3)
    assert digest(tensor) == digest(tensor.T.contiguous().T) == digest(tensor.clone().requires_grad_())
    assert len({digest(tensor), digest(tensor + 1), digest(tensor.double()), digest(tensor.reshape(3, 2)),
                digest(tensor.bfloat16()), digest(tensor.to_sparse())}) == 6  # fmt: skip
    matrix = sparse.random_array((9, 7), density=0.4, rng=1)
    assert len({digest(matrix.asformat(name)) for name in ("csr", "csc", "coo", "lil", "dok", "dia", "bsr")}) == 1
    unsorted = sparse.csr_array(([1.0, 2.0], [3, 1], [0, 2, 2]), shape=(2, 4))
    assert digest(unsorted) == digest(unsorted.tocsc())
    assert digest(sparse.coo_array([1, 0, 2])) != digest(sparse.coo_array([1, 2, 0]))
    assert len({digest(matrix), digest(matrix * 2), digest(matrix.T), digest(matrix.astype("f4"))}) == 4


def test_data_in_lists() -> None:
    """Columns by name and lists of records have digest, schema and size; settings are not a dataset."""
    handler = handler_for(dict)
    found = handler.dataset({"a": [1, 2], "b": ["x", None]})
    assert found is not None
    assert json.loads(found.schema) == {
        "mlflow_colspec": [
            {"type": "long", "name": "a", "required": True},
            {"type": "string", "name": "b", "required": False},
        ]
    }
    assert json.loads(found.profile) == {"num_rows": 2, "num_elements": 4}
    assert digest([{"a": 1}, {"a": 2}]) != digest([{"a": 1}, {"a": 3}])
    assert digest([{"a": 1}]) != digest([{"a": 1, "b": None}])
    for value in ({}, {"lr": 0.1}, {"a": [1], "b": [1, 2]}, {"model": [object()]}):
        assert handler.dataset(value) is None


def test_schemas_are_those_of_mlflow() -> None:
    """MLflow reads the schemas, and infers the same ones where it can infer any."""
    np = pytest.importorskip("numpy")
    pd = pytest.importorskip("pandas")
    pl = pytest.importorskip("polars")
    import mlflow.data
    from mlflow.types import Schema

    frame = pd.DataFrame({"f": [1.5, None], "i": [1, 2], "s": ["x", "y"], "t": pd.to_datetime(["2020", "2021"]),
                          "u": [b"", None],
                          "b": [True, False], "f4": np.zeros(2, "f4"), "i1": np.zeros(2, "i1")})  # fmt: skip
    ours = handler_for(pd.DataFrame).dataset(frame)
    theirs = mlflow.data.from_pandas(frame).to_dict()
    assert (json.loads(ours.schema), json.loads(ours.profile)) == (
        json.loads(theirs["schema"]),
        json.loads(theirs["profile"]),
    )
    for value in (np.zeros((3, 2)), np.array(["x"]), {"a": np.zeros(2), "b": np.zeros((2, 2), "i4")}):
        ours = handler_for(type(value)).dataset(value)
        theirs = mlflow.data.from_numpy(value).to_dict()
        assert json.loads(ours.schema) == json.loads(theirs["schema"])
        assert json.loads(ours.profile).items() >= json.loads(theirs["profile"]).items()
    dataset = handler_for(pl.DataFrame).dataset(pl.DataFrame({"a": [1], "b": [[1]], "c": ["x"]}))
    odd = handler_for(pd.DataFrame).dataset(pd.DataFrame({"c": [1j], 5: [{}], "k": pd.Categorical(["x"])}))
    for one in (dataset, odd):
        assert len(Schema.from_json(json.dumps(json.loads(one.schema)["mlflow_colspec"])).inputs) == 3
