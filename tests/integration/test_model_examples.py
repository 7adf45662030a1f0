"""Input examples of models: which argument is one, how it is stored, and that no secret is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recorded_models import a_frame, example_of, labels, record
from trackdsl.handlers import _example_files, _examples
from trackdsl.handlers._flavor import Inputs

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

FRAME = a_frame(9)


@pytest.mark.parametrize(
    ("arguments", "wanted", "expected"),
    [
        ({"y": labels(FRAME), "X": FRAME}, Inputs(("a", "b", "c"), 3), FRAME[:5]),
        ({"df": FRAME.assign(y=1)}, Inputs(("c", "a"), 2), FRAME[["c", "a"]][:5]),
        ({"x": FRAME[["a"]], "parts": {"test": FRAME}}, Inputs(("b",), 1), FRAME[["b"]][:5]),
        ({"X": FRAME}, Inputs(None, 3), FRAME.to_numpy()[:5]),
        ({"X": FRAME, "api_key": FRAME[["a"]]}, Inputs(None, 1), None),
        ({"X": FRAME.assign(password="hunter2")}, Inputs(("password",), 1), None),
        ({"other": np.ones((9, 2)), "x_train": FRAME}, Inputs(), FRAME[:5]),
        ({"other": np.ones((9, 2))}, Inputs(), np.ones((5, 2))),
        ({"texts": ["a", "b"], "names": ["c"]}, Inputs(), np.array(["a", "b"])),
        ({"texts": pd.Series(["a", "b"])}, Inputs(), np.array(["a", "b"])),
        ({"empty": FRAME[:0], "n": 3, "rows": [1, 2]}, Inputs(), None),
    ],
    ids=str,
)
def test_the_example_is_chosen_among_the_arguments(arguments: dict[str, Any], wanted: Inputs, expected: Any) -> None:
    """The example is chosen by the columns that the model knows, their number, names, and shape; never a secret."""
    chosen = next((example for example, _ in _examples.candidates(arguments, wanted)), None)
    if expected is None:
        assert chosen is None
    else:
        assert type(chosen) is type(expected)
        np.testing.assert_array_equal(chosen, expected)


@pytest.mark.parametrize("library", ["polars", "pyarrow", "scipy"])
def test_examples_of_other_libraries(library: str) -> None:
    """Frames of polars and tables of pyarrow become pandas frames, sparse matrices stay sparse."""
    pytest.importorskip(library)
    data: Any
    if library == "polars":
        import polars

        data = polars.from_pandas(FRAME)
    elif library == "pyarrow":
        import pyarrow

        data = pyarrow.Table.from_pandas(FRAME)
    else:
        import scipy.sparse

        data = scipy.sparse.coo_matrix(FRAME.to_numpy())
    wanted = Inputs(None, 3) if library == "scipy" else Inputs(("c", "b"), 2)
    [(example, certain)] = _examples.candidates({"data": data}, wanted)
    assert certain
    if library == "scipy":
        np.testing.assert_array_equal(example.toarray(), FRAME[:5])
    else:
        pd.testing.assert_frame_equal(example, FRAME[["c", "b"]][:5])


def test_a_guess_that_the_model_cannot_answer_is_no_example() -> None:
    """Where a network does not know its input, an argument of the wrong shape is passed over."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Dropout(0.9))
    record(model, {"X": torch.rand(6, 2), "later": torch.rand(6, 3, dtype=torch.float64)})
    assert example_of().shape == (5, 3)
    assert example_of().dtype == np.float32
    with torch.no_grad():
        np.testing.assert_allclose(example_of(0, "answer"), model[0](torch.from_numpy(example_of())).numpy())
    record(model, {"X": torch.rand(6, 2)})
    assert example_of(1) is None


#: Without what NumPy drops from the end of text, and what would be masked.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0:"))


CELLS = st.one_of(
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=5),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
    st.lists(st.booleans(), min_size=1, max_size=5),
    st.lists(TEXTS, min_size=1, max_size=5),
)  # fmt: skip


@given(columns=st.lists(CELLS, min_size=1, max_size=4))
def test_examples_come_back(columns: list[list[Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Frames, arrays, arrays of objects, series and structures as examples are read as written, without pickling."""
    folder = tmp_path_factory.mktemp("examples")
    rows = min(map(len, columns))
    frame = pd.DataFrame({f"column {index}": cells[:rows] for index, cells in enumerate(columns)})
    pd.testing.assert_frame_equal(_example_files.read(_example_files.write(frame, folder, "frame"), folder), frame)
    first = frame.iloc[:, 0]
    pd.testing.assert_series_equal(_example_files.read(_example_files.write(first, folder, "series"), folder), first)
    for dtype in (None, object):
        array = np.array(columns[0], dtype=dtype)
        back = _example_files.read(_example_files.write(array, folder, f"array-{dtype}"), folder)
        np.testing.assert_array_equal(back, array)
        assert back.dtype == array.dtype
    named = _example_files.read(_example_files.write({"a": np.array([1, 2])}, folder, "named"), folder)
    np.testing.assert_array_equal(named["a"], [1, 2])
    assert _example_files.read(_example_files.write({"a": columns}, folder, "tree"), folder) == {"a": columns}


def test_secrets_in_examples_are_masked(tmp_path: Path) -> None:
    """Text in frames, arrays and lists is masked like any other."""
    secret = "postgresql://me:hunter2@db/x"
    for number, value in enumerate(
        [pd.DataFrame({"url": [secret]}), np.array([secret]), np.array([secret], dtype=object), [{"url": secret}]]
    ):
        _example_files.write(value, tmp_path, f"example{number}")
    kept = list(tmp_path.glob("example*"))
    assert len(kept) == 4
    for path in kept:
        content = path.read_bytes()
        assert b"hunter2" not in content.replace(b"\0", b"")
